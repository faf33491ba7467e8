"""Which addresses and URLs may be fetched."""

from __future__ import annotations

import asyncio
import socket

import pytest

from soundhash_server import url_guard
from soundhash_server.addresses import is_public_address
from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.url_guard import check_url, split_url

PRIVATE = [
    "127.0.0.1",
    "127.8.9.10",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fd00::1",
    "ff02::1",
    # IPv6 forms of 127.0.0.1 and 10.0.0.1.
    "::ffff:127.0.0.1",
    "::7f00:1",
    "64:ff9b::7f00:1",
    "2002:0a00:0001::",
    "",
    "localhost",
    "example.com",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public_address(address)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "URL_INVALID"),
        ("http://", "URL_INVALID"),
        ("http:///path", "URL_INVALID"),
        ("http://host:99999/", "URL_INVALID"),
        ("http://[::1/", "URL_INVALID"),
        ("http://a b/", "URL_INVALID"),
        ("http://a/\nb", "URL_INVALID"),
        ("http://1.1.1.1\\@evil/", "URL_INVALID"),
        ("http://a/" + "x" * 2048, "URL_INVALID"),
        ("file:///etc/passwd", "URL_NOT_ALLOWED"),
        ("ftp://host/file", "URL_NOT_ALLOWED"),
        ("javascript:alert(1)", "URL_NOT_ALLOWED"),
        ("no scheme".replace(" ", "-"), "URL_NOT_ALLOWED"),
        ("http://user:secret@host/", "URL_NOT_ALLOWED"),
    ],
)
def test_what_is_no_url_to_fetch(url: str, reason: str) -> None:
    with pytest.raises(PlatformError) as caught:
        split_url(url)
    assert caught.value.reason == reason
    assert caught.value.kind is ErrorKind.INVALID_ARGUMENT
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "http://127.0.0.1:8080/x.mp3",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
    ],
)
async def test_private_hosts_are_refused_unless_allowed(url: str) -> None:
    with pytest.raises(PlatformError) as caught:
        await check_url(url, False)
    assert caught.value.reason == "URL_NOT_ALLOWED"
    await check_url(url, True)


async def test_a_name_with_one_private_address_among_public_ones_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = ["8.8.8.8", "10.0.0.1"]

    async def resolve(host: str, port: int) -> list[str]:
        return answers

    monkeypatch.setattr(url_guard, "resolve", resolve)
    with pytest.raises(PlatformError, match="not on the public internet"):
        await check_url("http://two.test/", False)
    answers[1] = "1.1.1.1"
    await check_url("http://two.test/", False)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no such name"), "URL_HOST_UNKNOWN"),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), None),
        (TimeoutError(), None),
    ],
)
async def test_only_a_definite_no_of_the_name_service_counts(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str | None
) -> None:
    async def getaddrinfo(*_args: object, **_kwargs: object) -> list[object]:
        raise error

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    if reason is None:
        await check_url("http://name.test/", False)
        return
    with pytest.raises(PlatformError) as caught:
        await check_url("http://name.test/", False)
    assert caught.value.reason == reason
