"""Media files behind http(s) URLs to a local file: capped, resumed where it was cut."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import aiohttp

from soundhash_server.fetching.failures import JobError, from_network, from_status
from soundhash_server.fetching.http import refusal
from soundhash_server.fetching.retry_after import retry_after_s

_BATCH_BYTES = 1 << 20
_SNIFF_BYTES = 1024
_DISK_CHECK_BYTES = 16 << 20
_MAX_CUTS_IN_A_ROW = 3
_MAX_CUTS = 50
_CUT_PAUSE_S = 0.5
_SPEED_WINDOW_S = 60.0
_MIN_WINDOW_BYTES = 64 << 10
_PAGE_TYPES = ("text/html", "application/xhtml")
_PAGE_STARTS = (b"<!doctype html", b"<html", b"#extm3u", b"<mpd")

OnBytes = Callable[[int, int], None]
"""Called with the bytes that are there and their total, 0 if unknown."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one download. max_bytes_per_s: 0 for none."""

    max_bytes: int
    min_free_disk_bytes: int
    total_s: float = 6 * 3600.0
    max_bytes_per_s: int = 0


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file that was received as a whole."""

    content_sha256: str
    size_bytes: int
    final_url: str


class NotAFileError(Exception):
    """The URL answers with a page or a playlist: something has to look for media in it."""


class _CutError(Exception):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


async def download(
    session: aiohttp.ClientSession,
    url: str,
    path: Path,
    limits: Limits,
    on_bytes: OnBytes,
    *,
    user_agent: str = "",
) -> Downloaded:
    """Fetches ``url`` to ``path``. A connection that breaks is continued by a range request.

    user_agent: empty for the session's own.
    Raises NotAFileError, JobError, PlatformError (URL_NOT_ALLOWED), OSError (disk).
    """
    try:
        async with asyncio.timeout(limits.total_s):
            with path.open("wb") as file:
                running = _Download(session, url, file, path, limits, on_bytes)
                if user_agent:
                    running.headers["User-Agent"] = user_agent
                return await running.run()
    except TimeoutError:
        raise JobError("FETCH_STALLED", "The source takes too long.") from None


class _Download:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        file: BinaryIO,
        path: Path,
        limits: Limits,
        on_bytes: OnBytes,
    ) -> None:
        self.headers: dict[str, str] = {}
        self._session = session
        self._url = url
        self._file = file
        self._path = path
        self._limits = limits
        self._on_bytes = on_bytes
        self._hash = hashlib.sha256()
        self._done_bytes = 0
        self._total_bytes = 0
        self._checked_bytes = 0
        self._received_bytes = 0
        self._start_s = time.monotonic()
        self._validator = ""
        self._final_url = url

    async def run(self) -> Downloaded:
        cuts = 0
        for _ in range(_MAX_CUTS):
            before = self._done_bytes
            try:
                await self._attempt()
                break
            except _CutError as cut:
                cuts = 1 if self._done_bytes > before else cuts + 1
                if cuts >= _MAX_CUTS_IN_A_ROW:
                    raise from_network(cut.cause) from cut.cause
                await asyncio.sleep(_CUT_PAUSE_S * cuts)
        else:
            raise JobError("NETWORK_ERROR", "The connection breaks again and again.")
        if self._done_bytes == 0:
            raise JobError("EMPTY_MEDIA", "The source sends no bytes.")
        return Downloaded(self._hash.hexdigest(), self._done_bytes, self._final_url)

    async def _attempt(self) -> None:
        headers = dict(self.headers)
        if self._done_bytes and self._validator:
            headers["Range"] = f"bytes={self._done_bytes}-"
            headers["If-Range"] = self._validator
        try:
            async with self._session.get(self._url, headers=headers) as response:
                self._begin(response)
                async for batch in self._batches(response):
                    await asyncio.to_thread(self._write, batch)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            refused = refusal(error)
            if refused is not None:
                raise refused from None
            if isinstance(error, OSError) and not isinstance(
                error, (aiohttp.ClientError, ConnectionError, TimeoutError)
            ):
                raise
            failure = from_network(error)
            if failure.failure.transient and failure.failure.reason != "PROXY_FAILED":
                raise _CutError(error) from error
            raise failure from None
        if self._done_bytes < self._total_bytes:
            raise _CutError(ConnectionError("the body is shorter than announced"))

    def _begin(self, response: aiohttp.ClientResponse) -> None:
        self._final_url = str(response.url)
        resumed = response.status == 206 and _range_start(response) == self._done_bytes
        if not resumed:
            if response.status != 200:
                raise from_status(
                    response.status, retry_after_s(response.headers.get("Retry-After", ""))
                )
            self._restart()
        length = response.content_length
        self._total_bytes = 0 if length is None else length + self._done_bytes
        if "Content-Encoding" in response.headers:
            # The length is that of the encoded bytes, and so would a range be.
            self._total_bytes = 0
        self._check_size(self._total_bytes)
        if length is None and any(name.lower().startswith("icy-") for name in response.headers):
            raise JobError("LIVE_NOT_SUPPORTED", "This is a radio station's stream.")
        if self._done_bytes == 0 and response.content_type.startswith(_PAGE_TYPES):
            raise NotAFileError
        # Only what is provably the same file may be continued.
        validator = response.headers.get("ETag", "")
        if validator.startswith("W/"):
            validator = ""
        ranges = response.headers.get("Accept-Ranges", "") == "bytes" or resumed
        self._validator = (
            validator or response.headers.get("Last-Modified", "")
            if ranges and "Content-Encoding" not in response.headers
            else ""
        )

    def _restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self._done_bytes = self._checked_bytes = 0

    async def _batches(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        held = bytearray()
        sniffed = self._done_bytes > 0
        window_start_s, window_bytes = time.monotonic(), 0
        try:
            async for chunk in response.content.iter_any():
                held += chunk
                window_bytes += len(chunk)
                self._received_bytes += len(chunk)
                self._on_bytes(self._done_bytes + len(held), self._total_bytes)
                if not sniffed and len(held) >= _SNIFF_BYTES:
                    sniffed = True
                    _sniff(held)
                if len(held) >= _BATCH_BYTES:
                    yield bytes(held)
                    held.clear()
                await self._hold_back()
                now_s = time.monotonic()
                if now_s - window_start_s > _SPEED_WINDOW_S:
                    if window_bytes < self._least_window_bytes:
                        raise JobError("FETCH_STALLED", "The source sends too slowly.")
                    window_start_s, window_bytes = now_s, 0
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            # What came before the cut need not be fetched again.
            if sniffed and held and self._validator:
                await asyncio.to_thread(self._write, bytes(held))
            raise
        if not sniffed:
            _sniff(held)
        if held:
            yield bytes(held)

    @property
    def _least_window_bytes(self) -> float:
        bound = self._limits.max_bytes_per_s
        return min(_MIN_WINDOW_BYTES, bound * _SPEED_WINDOW_S / 4) if bound else _MIN_WINDOW_BYTES

    async def _hold_back(self) -> None:
        """Reads no more before so many bytes may have come. What is not read fills the sockets'
        buffers, and the sender waits."""
        if bound := self._limits.max_bytes_per_s:
            early_s = self._received_bytes / bound - (time.monotonic() - self._start_s)
            if early_s > 0:
                await asyncio.sleep(early_s)

    def _write(self, batch: bytes) -> None:
        self._check_size(self._done_bytes + len(batch))
        if self._done_bytes + len(batch) - self._checked_bytes >= _DISK_CHECK_BYTES:
            check_free_disk(self._path.parent, self._limits.min_free_disk_bytes)
            self._checked_bytes = self._done_bytes
        self._file.write(batch)
        self._hash.update(batch)
        self._done_bytes += len(batch)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._limits.max_bytes:
            raise JobError(
                "MEDIA_TOO_LARGE", f"The file is larger than {self._limits.max_bytes} bytes."
            )


def check_free_disk(folder: Path, min_free_disk_bytes: int) -> None:
    """Raises JobError DISK_FULL when the volume of ``folder`` has less than the floor free."""
    if shutil.disk_usage(folder).free < min_free_disk_bytes:
        raise JobError("DISK_FULL", "Too little disk space is free.")


def _sniff(start: bytes | bytearray) -> None:
    head = bytes(start[:_SNIFF_BYTES]).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(_PAGE_STARTS) or (head.startswith(b"<?xml") and b"<mpd" in head):
        raise NotAFileError


def _range_start(response: aiohttp.ClientResponse) -> int:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1
