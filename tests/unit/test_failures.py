"""The catalogue of failures, and when a failed job runs again."""

from __future__ import annotations

import errno
import socket
from unittest.mock import patch

import aiohttp
import pytest

from soundhash_engine.errors import DecodeError
from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.fetching.failures import (
    REASONS,
    JobError,
    failure_of,
    from_network,
    from_status,
)
from soundhash_server.fetching.messages import MESSAGES, reason_of
from soundhash_workers.retry import RETRY_AFTER_CAP_S, retry_delay_s


def test_every_reason_says_what_to_do() -> None:
    for name, reason in REASONS.items():
        assert name == name.upper()
        assert reason.remedy.endswith(".")


@pytest.mark.parametrize(
    ("status", "reason", "transient"),
    [
        (401, "HTTP_UNAUTHORIZED", False),
        (403, "HTTP_FORBIDDEN", True),
        (404, "HTTP_NOT_FOUND", False),
        (410, "HTTP_GONE", False),
        (418, "HTTP_CLIENT_ERROR", False),
        (429, "HTTP_TOO_MANY_REQUESTS", True),
        (500, "HTTP_SERVER_ERROR", True),
        (503, "HTTP_SERVER_ERROR", True),
    ],
)
def test_statuses(status: int, reason: str, transient: bool) -> None:
    error = from_status(status, 7.0)
    assert (error.failure.reason, error.failure.transient) == (reason, transient)
    assert error.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("error", "reason", "transient"),
    [
        (JobError("UPLOAD_GONE", "gone"), "UPLOAD_GONE", False),
        (DecodeError("bad", reason="NOT_MEDIA"), "NOT_MEDIA", False),
        (OSError(errno.ENOSPC, "no space"), "DISK_FULL", True),
        (MemoryError(), "OUT_OF_MEMORY", True),
        (
            PlatformError(ErrorKind.ALREADY_EXISTS, "EXTERNAL_ID_TAKEN", "taken", "other"),
            "EXTERNAL_ID_TAKEN",
            False,
        ),
        (
            PlatformError(ErrorKind.UNAVAILABLE, "DATABASE_UNAVAILABLE", "away", "wait"),
            "DATABASE_UNAVAILABLE",
            True,
        ),
        (ZeroDivisionError("secret detail"), "INTERNAL", True),
    ],
)
def test_errors_become_failures(error: Exception, reason: str, transient: bool) -> None:
    failure, _ = failure_of(error)
    assert (failure.reason, failure.transient) == (reason, transient)
    assert "secret" not in failure.message
    assert failure.remedy


def test_network_errors() -> None:
    assert from_network(TimeoutError()).failure.reason == "FETCH_STALLED"
    assert from_network(ConnectionResetError()).failure.reason == "NETWORK_ERROR"
    key = aiohttp.client_reqrep.ConnectionKey("h", 80, False, True, None, None, None)
    unknown = aiohttp.ClientConnectorDNSError(key, socket.gaierror(socket.EAI_NONAME, "no"))
    assert from_network(unknown).failure.reason == "HOST_UNKNOWN"
    unsure = aiohttp.ClientConnectorDNSError(key, socket.gaierror(socket.EAI_AGAIN, "later"))
    assert from_network(unsure).failure.reason == "NETWORK_ERROR"
    assert from_network(unsure).failure.transient


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[youtube] x: Sign in to confirm you’re not a bot.", "BOT_CHECK"),
        ("[youtube] x: Sign in to confirm your age.", "AGE_RESTRICTED"),
        ("[youtube] x: Private video. Sign in if you've been granted access", "MEDIA_PRIVATE"),
        ("[youtube] x: Video unavailable. This video has been removed", "MEDIA_REMOVED"),
        ("The uploader has not made this video available in your country", "GEO_BLOCKED"),
        ("Unsupported URL: http://x", "NO_MEDIA_ON_PAGE"),
        ("Unable to download webpage: HTTP Error 404: Not Found", "HTTP_NOT_FOUND"),
        ("Unable to download webpage: HTTP Error 429: Too Many Requests", "HTTP_TOO_MANY_REQUESTS"),
        ("HTTP Error 503: Service Unavailable", "HTTP_SERVER_ERROR"),
        ("Unable to download webpage: timed out", "FETCH_STALLED"),
        ("Unable to download webpage: <urlopen error reset>", "NETWORK_ERROR"),
        ("something nobody has seen", "EXTRACTOR_FAILED"),
    ],
)
def test_what_yt_dlp_says(text: str, reason: str) -> None:
    assert reason_of(text) == reason


def test_all_that_yt_dlp_can_say_is_in_the_catalogue() -> None:
    elsewhere = {"URL_NOT_ALLOWED", ""}
    assert {reason for _, reason in MESSAGES} - elsewhere <= REASONS.keys()


def test_retry_delays_grow_up_to_the_cap_with_full_jitter() -> None:
    with patch("random.uniform", autospec=True, side_effect=lambda low, high: high):
        spans = [retry_delay_s(n, 2.0, 60.0) for n in (1, 2, 3, 4, 5, 6, 5000)]
    assert spans == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    some = [retry_delay_s(4, 2.0, 60.0) for _ in range(200)]
    assert min(some) < 4.0
    assert 12.0 < max(some) <= 16.0


def test_retry_after_is_honoured_within_reason() -> None:
    assert 30.0 <= retry_delay_s(1, 2.0, 60.0, retry_after_s=30.0) <= 32.0
    assert retry_delay_s(1, 2.0, 60.0, retry_after_s=1e9) <= RETRY_AFTER_CAP_S + 2.0
