"""Receives media files: each is whole, checked and on disk, or leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import structlog

from soundhash_server.errors import ErrorKind, PlatformError

if TYPE_CHECKING:
    from hashlib import _Hash

log = structlog.get_logger(__name__)

T = TypeVar("T")

BATCH_BYTES = 1 << 20
"""Small chunks are gathered up to this before they are written."""
WRITE_THREADS = 4


@dataclass(frozen=True, slots=True)
class Received:
    """A whole file: where it lies, its SHA-256 (lower-case hexadecimal) and its size."""

    path: Path
    content_sha256: str
    size_bytes: int


class Receiver:
    """Takes the bytes of one file, in order."""

    def __init__(self, spool: Spool, path: Path, max_bytes: int, file: int, digest: _Hash) -> None:
        """file: descriptor to write to, closed by `discard`. digest: of what it has already."""
        self._spool = spool
        self._path = path
        self._max_bytes = max_bytes
        self._hash = digest
        self._batch = bytearray()
        self._file = file
        self._written_bytes = 0
        self.size_bytes = 0
        """What has come, also what is not written yet."""

    async def write(self, chunk: bytes) -> None:
        """Takes the next bytes.

        Raises PlatformError RESOURCE_EXHAUSTED: UPLOAD_TOO_LARGE, DISK_FULL.
        """
        self.size_bytes += len(chunk)
        if self.size_bytes > self._max_bytes:
            raise too_large(self._max_bytes)
        self._batch += chunk
        if len(self._batch) >= BATCH_BYTES:
            await self._flush()

    async def finish(self) -> Received:
        """Writes what is left; the file is on disk when this returns."""
        await self._flush()
        await self._spool.in_thread(lambda: os.fsync(self._file))
        return Received(self._path, self._hash.hexdigest(), self.size_bytes)

    async def _flush(self) -> None:
        batch, self._batch = self._batch, bytearray()
        if batch:
            await self._spool.in_thread(lambda: self._write(batch))

    def _write(self, batch: bytearray) -> None:
        self._spool.check_space(len(batch))
        self._hash.update(batch)
        rest = memoryview(batch)
        while rest:
            written_bytes = os.write(self._file, rest)
            self._written_bytes += written_bytes
            rest = rest[written_bytes:]

    def discard(self) -> None:
        """Removes the file unless it has been moved away."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


class Spool:
    """The folder that files arrive in, and the bounds on what arrives."""

    def __init__(
        self, directory: Path, *, max_concurrent: int, wait_s: float, min_free_bytes: int
    ) -> None:
        self._directory = directory
        self._places = asyncio.Semaphore(max_concurrent)
        self._max_concurrent = max_concurrent
        self._wait_s = wait_s
        self._min_free_bytes = min_free_bytes
        self._threads = ThreadPoolExecutor(WRITE_THREADS, thread_name_prefix="spool")
        self.receiving = 0
        """Files that are being received now."""

    def open(self) -> None:
        """Makes the folder and removes what dead processes have left in it."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._directory.iterdir():
            with contextlib.suppress(OSError):
                file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    log.info("removed an unfinished upload", file=path.name)
                finally:
                    os.close(file)

    def close(self) -> None:
        """Waits for writes under way."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    @contextlib.asynccontextmanager
    async def receive(self, max_bytes: int, expected_bytes: int = 0) -> AsyncIterator[Receiver]:
        """A receiver for one file of at most ``max_bytes``; the file is gone at the end of the
        block unless it has been moved away.

        Waits for its turn. Raises PlatformError RESOURCE_EXHAUSTED: TOO_MANY_UPLOADS,
        UPLOAD_TOO_LARGE, DISK_FULL.
        """
        if expected_bytes > max_bytes:
            raise too_large(max_bytes)
        async with self.place():
            await self.in_thread(lambda: self.check_space(expected_bytes))
            path = self._directory / uuid.uuid4().hex
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            # Says to other processes that somebody still writes this file.
            fcntl.flock(file, fcntl.LOCK_EX)
            receiver = Receiver(self, path, max_bytes, file, hashlib.sha256())
            try:
                yield receiver
            finally:
                receiver.discard()

    def check_space(self, incoming_bytes: int) -> None:
        """Raises PlatformError RESOURCE_EXHAUSTED (DISK_FULL)."""
        free = shutil.disk_usage(self._directory).free
        if free - incoming_bytes < self._min_free_bytes:
            raise disk_full(free)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Runs blocking file work; also a cancelled caller goes on only when it has ended, so
        that nobody closes a file under a write."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise disk_full(0) from error
            raise

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """One of the places for uploads; waits for its turn.

        Raises PlatformError RESOURCE_EXHAUSTED (TOO_MANY_UPLOADS).
        """
        try:
            async with asyncio.timeout(self._wait_s):
                await self._places.acquire()
        except TimeoutError:
            raise PlatformError(
                ErrorKind.RESOURCE_EXHAUSTED,
                "TOO_MANY_UPLOADS",
                f"{self._max_concurrent} uploads are under way already.",
                "Try again after the given delay, or upload fewer files at once.",
                retry_after_s=5.0,
                metadata={"limit": str(self._max_concurrent)},
            ) from None
        self.receiving += 1
        try:
            yield
        finally:
            self.receiving -= 1
            self._places.release()


def too_large(max_bytes: int) -> PlatformError:
    """RESOURCE_EXHAUSTED: the file is over the limit."""
    return PlatformError(
        ErrorKind.RESOURCE_EXHAUSTED,
        "UPLOAD_TOO_LARGE",
        f"The file is larger than {max_bytes} bytes.",
        "Split the recording or send its audio track alone; an operator can raise "
        "SOUNDHASH_MAX_UPLOAD_BYTES.",
        metadata={"max_bytes": str(max_bytes)},
    )


def disk_full(free_bytes: int) -> PlatformError:
    """RESOURCE_EXHAUSTED: no room for the file."""
    return PlatformError(
        ErrorKind.RESOURCE_EXHAUSTED,
        "DISK_FULL",
        "The server has no room for this file.",
        "Free space on the server's data directory, then try again.",
        metadata={"free_bytes": str(free_bytes)},
    )
