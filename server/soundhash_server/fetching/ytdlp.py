"""Media behind web pages, through yt-dlp in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from soundhash_server.errors import PlatformError
from soundhash_server.fetching.download import Limits, OnBytes
from soundhash_server.fetching.failures import REASONS, JobError
from soundhash_server.url_guard import not_allowed

_SILENCE_S = 180.0
_LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PageMedia:
    """What yt-dlp has found and stored; texts may be empty."""

    path: Path
    title: str
    channel: str
    url: str


async def fetch_page(
    url: str,
    folder: Path,
    limits: Limits,
    on_bytes: OnBytes,
    *,
    max_media_s: float,
    allow_private: bool,
) -> PageMedia:
    """Stores the best audio of a page's one recording in ``folder``.

    The child and all that it has started are gone when this returns, raises or is cancelled.
    Raises JobError, PlatformError (URL_NOT_ALLOWED).
    """
    request = {
        "parent_pid": os.getpid(),
        "url": url,
        "folder": str(folder),
        "max_bytes": limits.max_bytes,
        "min_free_disk_bytes": limits.min_free_disk_bytes,
        "max_media_s": max_media_s,
        "allow_private": allow_private,
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "soundhash_server.fetching.ytdlp_child",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        limit=_LINE_BYTES,
    )
    try:
        async with asyncio.timeout(limits.total_s):
            return await _converse(child, request, on_bytes)
    except TimeoutError:
        raise JobError("FETCH_STALLED", "The source takes too long.") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await asyncio.shield(child.wait())


async def _converse(
    child: asyncio.subprocess.Process, request: dict[str, object], on_bytes: OnBytes
) -> PageMedia:
    assert child.stdin is not None and child.stdout is not None  # noqa: S101 - both are pipes
    with contextlib.suppress(ConnectionError):
        child.stdin.write(json.dumps(request).encode())
        await child.stdin.drain()
    child.stdin.close()
    while True:
        async with asyncio.timeout(_SILENCE_S):
            line = await child.stdout.readline()
        if not line:
            raise JobError("EXTRACTOR_FAILED", "yt-dlp ended without an answer.")
        match json.loads(line):
            case {"event": "progress", "done": int(done), "total": int(total)}:
                on_bytes(done, total)
            case {"event": "done", "path": path, "title": title, "channel": channel, "url": page}:
                return PageMedia(Path(path), str(title), str(channel), str(page))
            case {"event": "failed", "reason": reason, "message": message}:
                raise _failure(str(reason), str(message), str(request["url"]))


def _failure(reason: str, message: str, url: str) -> JobError | PlatformError:
    if reason == "URL_NOT_ALLOWED":
        return not_allowed(url)
    return JobError(reason if reason in REASONS else "EXTRACTOR_FAILED", message)
