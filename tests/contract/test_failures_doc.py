"""docs/failures.md says what the catalogue of failures says.

`python -m tests.contract.test_failures_doc` writes it anew (`make docs`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from soundhash_engine.decode import decode_error
from soundhash_server.fetching.failures import REASONS, JobError, Reason, failure_of
from soundhash_server.store.jobs import WORKER_LOST
from soundhash_server.store.videos import external_id_taken
from soundhash_server.url_guard import not_allowed

PAGE = Path(__file__).parents[2] / "docs/failures.md"
HEAD = """# Why ingestion fails, and what to do

A job that fails says a reason, a sentence and a remedy; `soundhash jobs --failed` groups jobs by
reason. **Again** says whether the job tries again by itself: up to SOUNDHASH_JOB_MAX_ATTEMPTS
times, after pauses that double, with jitter, up to SOUNDHASH_RETRY_CAP_S, and never before the
source's own Retry-After. What does not is final until somebody retries it (`soundhash jobs
--retry`, `--retry-reason`, `--retry-channel`). **Refusal** marks what a source says to everybody:
after SOUNDHASH_HOST_REFUSALS of them in a row its host is left alone as a whole for a while.

"""
TABLE = """| reason | again | refusal | what to do |
| --- | --- | --- | --- |
"""
GROUPS = (
    (
        "The source",
        (
            "HTTP_",
            "MEDIA_",
            "BOT_",
            "GEO_",
            "AGE_",
            "LIVE_",
            "NOT_YET",
            "MEMBERS_",
            "DRM_",
            "NO_MEDIA",
            "NOTHING_",
            "SEVERAL_",
            "CHANNEL_",
            "EXTRACTOR_",
            "EMPTY_",
            "QUOTA_",
            "NOT_A_LIST",
            "YOUTUBE_",
        ),
    ),
    (
        "The way to it",
        ("NETWORK_", "FETCH_", "HOST_", "TLS_", "TOO_MANY_", "PROXY_", "COOKIES_", "URL_"),
    ),
    (
        "Files and their sound",
        (
            "FILE_",
            "FOLDER_",
            "UPLOAD_",
            "NO_AUDIO",
            "NOT_MEDIA",
            "TRUNCATED_",
            "DECODE_",
            "SILENT_",
            "CLIP_",
        ),
    ),
    ("The platform", ("",)),
)
DECODING = ("NOT_MEDIA", "TRUNCATED_MEDIA", "DECODE_FAILED")


def reasons() -> dict[str, Reason]:
    """The catalogue, and the reasons that come into it from the engine and the platform."""
    from_others = [
        *(failure_of(decode_error(reason, ""))[0] for reason in DECODING),
        failure_of(not_allowed("host"))[0],
        failure_of(external_id_taken("id"))[0],
        WORKER_LOST,
    ]
    return REASONS | {one.reason: Reason(one.transient, one.remedy) for one in from_others}


def render() -> str:
    left = dict(reasons())
    parts = []
    for title, prefixes in GROUPS:
        names = [name for name in left if name.startswith(prefixes)]
        parts.append(f"## {title}\n\n{TABLE}{''.join(rows((n, left.pop(n)) for n in names))}")
    assert not left
    return HEAD + "\n".join(parts)


def rows(found: Iterable[tuple[str, Reason]]) -> Iterable[str]:
    for name, reason in found:
        again, refusal = ("yes" if flag else "" for flag in (reason.transient, reason.refusal))
        remedy = reason.remedy.replace("|", "\\|")
        yield f"| `{name}` | {again} | {refusal} | {remedy} |\n"


def test_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == render(), "run `make docs`"


def test_every_reason_can_be_told_and_acted_on() -> None:
    remedies: dict[str, list[str]] = {}
    for name, reason in REASONS.items():
        assert name == name.upper()
        assert reason.remedy.endswith(".")
        assert not reason.refusal or reason.transient, name
        assert JobError(name, "so").failure.remedy == reason.remedy
        remedies.setdefault(reason.remedy, []).append(name)
    assert [names for names in remedies.values() if len(names) > 1] == []


def test_what_the_issue_asks_for_is_there() -> None:
    wanted = {
        *("HTTP_FORBIDDEN", "HTTP_TOO_MANY_REQUESTS", "HTTP_GONE", "MEDIA_REMOVED"),
        *("MEDIA_PRIVATE", "BOT_CHECK", "GEO_BLOCKED", "AGE_RESTRICTED", "LIVE_NOT_SUPPORTED"),
        *("MEDIA_TOO_LONG", "MEDIA_TOO_LARGE", "NO_AUDIO_STREAM", "DECODE_FAILED", "DISK_FULL"),
        *("QUOTA_EXCEEDED", "NETWORK_ERROR", "CHANNEL_NOT_FOUND", "COOKIES_NOT_FOUND"),
        "PROXY_FAILED",
    }
    found = reasons()
    assert wanted <= found.keys()
    permanent = {"HTTP_GONE", "MEDIA_REMOVED", "MEDIA_PRIVATE", "LIVE_NOT_SUPPORTED"}
    assert not any(found[name].transient for name in permanent)
    for name in ("HTTP_FORBIDDEN", "HTTP_TOO_MANY_REQUESTS", "BOT_CHECK"):
        assert found[name].refusal
        assert "SOUNDHASH_COOKIES" in found[name].remedy
        assert "SOUNDHASH_MAX_HOST_JOBS" in found[name].remedy


if __name__ == "__main__":
    PAGE.write_text(render())
