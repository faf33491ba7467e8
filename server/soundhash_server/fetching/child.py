"""A process that runs yt-dlp, and what is said between it and this one: a JSON object a line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from soundhash_server.errors import PlatformError
from soundhash_server.fetching.failures import REASONS, JobError
from soundhash_server.url_guard import not_allowed

_SILENCE_S = 180.0
_LINE_BYTES = 4 << 20


class Child:
    """The running process."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self._process = process
        self._url = url

    async def say(self, line: str) -> None:
        """Sends a line; a child that is gone is noticed when it is heard."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(ConnectionError):
            self._process.stdin.write(line.encode() + b"\n")
            await self._process.stdin.drain()

    async def hear(self) -> dict[str, Any]:
        """The next event. Raises JobError when it says that it has failed, ends or is silent,
        PlatformError (URL_NOT_ALLOWED)."""
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            async with asyncio.timeout(_SILENCE_S):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise JobError("FETCH_STALLED", "The source takes too long.") from None
        except ValueError:
            raise JobError("EXTRACTOR_FAILED", "yt-dlp says too much at once.") from None
        if not line:
            raise JobError("EXTRACTOR_FAILED", "yt-dlp ended without an answer.")
        said: dict[str, Any] = json.loads(line)
        if said["event"] == "failed":
            raise _failure(said, self._url)
        return said


@asynccontextmanager
async def running(module: str, request: dict[str, Any]) -> AsyncIterator[Child]:
    """A child that is told ``request`` (see `ytdlp.base_request`). It and all that it has started
    are gone when the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        limit=_LINE_BYTES,
    )
    try:
        child = Child(process, str(request["url"]))
        await child.say(json.dumps(request))
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())


def _failure(said: dict[str, Any], url: str) -> JobError | PlatformError:
    reason = str(said["reason"])
    if reason == "URL_NOT_ALLOWED":
        return not_allowed(url)
    wait_s = said.get("retry_after_s")
    return JobError(
        reason if reason in REASONS else "EXTRACTOR_FAILED",
        str(said["message"]),
        retry_after_s=float(wait_s) if isinstance(wait_s, (int, float)) else None,
    )
