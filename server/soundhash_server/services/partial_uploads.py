"""Uploads that can be cut and go on: what has arrived of a file is kept for a while.

Beside the bytes (``<sha256>``) lies a mark (``<sha256>.mark``): how many of them are on disk for
certain. It is written after each sync, so that it never says too much, whatever ends the
process or the machine; what lies behind it is thrown away.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.services.uploads import Receiver, Spool, too_large

if TYPE_CHECKING:
    from hashlib import _Hash

log = structlog.get_logger(__name__)

SYNC_BYTES = 16 << 20
"""So much is lost at most when the server or its machine dies."""
BUSY_WAIT_S = 5.0
"""How long a stream waits for another one of the same file, which may be about to end."""
_STATUS_WAIT_S = 2.0
_POLL_S = 0.02
_READ_BYTES = 1 << 20
_SWEEP_S = 60.0
_MARK_CHARS = 20
_NAME = re.compile(r"([0-9a-f]{64})(\.mark)?")


@dataclass(frozen=True, slots=True)
class PartialStatus:
    """How much of a file has arrived. ``expire_time``: when it is thrown away; None for none."""

    received_bytes: int
    expire_time: datetime | None


class PartialReceiver(Receiver):
    """Takes the rest of a file; the bytes before it lie there already."""

    def __init__(self, spool: Spool, held: _Held, digest: _Hash, max_bytes: int) -> None:
        super().__init__(spool, held.path, max_bytes, held.file, digest)
        self._held = held
        self.size_bytes = self._written_bytes = held.received_bytes
        self._synced_bytes = held.received_bytes

    async def keep(self) -> None:
        """Has all that arrived on disk."""
        with contextlib.suppress(PlatformError):  # the disk is full: what fitted is kept
            await self._flush()
        await self._spool.in_thread(self._sync)

    def _write(self, batch: bytearray) -> None:
        super()._write(batch)
        if self._written_bytes - self._synced_bytes >= SYNC_BYTES:
            self._sync()

    def _sync(self) -> None:
        if self._written_bytes > self._synced_bytes:
            os.fsync(self._file)
            self._synced_bytes = self._written_bytes
            self._held.mark(self._synced_bytes)


class PartialUploads:
    """The folder of beginnings. Its files are locked while they are written, also against other
    processes, so that two streams of one file never mix."""

    def __init__(self, spool: Spool, directory: Path, *, keep_s: float, max_bytes: int) -> None:
        self._spool = spool
        self._directory = directory
        self._keep_s = keep_s
        self._max_bytes = max_bytes

    def open(self) -> None:
        """Makes the folder and removes what is too old."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.sweep()

    async def run(self) -> None:
        """Removes what is too old, from time to time, for ever."""
        while True:
            await asyncio.sleep(min(_SWEEP_S, self._keep_s))
            try:
                await self._spool.in_thread(self.sweep)
            except OSError as error:
                log.warning("partial uploads not swept", why=type(error).__name__)

    async def status(self, content_sha256: str) -> PartialStatus:
        """How much has arrived. Waits a moment for a stream that is just being cut."""
        path = self._directory / content_sha256
        held = await self._lock(path, create=False, wait_s=_STATUS_WAIT_S)
        if held is not None:
            held.close()
        return await self._spool.in_thread(lambda: self._status(path))

    @contextlib.asynccontextmanager
    async def receive(
        self, content_sha256: str, size_bytes: int, offset: int
    ) -> AsyncIterator[Receiver]:
        """A receiver for the rest of one file from ``offset`` on; at 0 it begins anew.

        Unless the file has been moved away at the end of the block, what has arrived is kept;
        bytes that turned out to be wrong are not. A stream that begins while another one sends
        the same file is received apart and not kept. Raises PlatformError RESOURCE_EXHAUSTED:
        TOO_MANY_UPLOADS, UPLOAD_TOO_LARGE, DISK_FULL; FAILED_PRECONDITION:
        UPLOAD_OFFSET_MISMATCH; ABORTED: UPLOAD_IN_PROGRESS.
        """
        if size_bytes > self._max_bytes:
            raise too_large(self._max_bytes)
        path = self._directory / content_sha256
        held = await self._lock(path, create=offset == 0, wait_s=BUSY_WAIT_S if offset else 0.0)
        if held is None and offset:
            status = await self._spool.in_thread(lambda: self._status(path))
            if status.received_bytes == offset:
                raise _in_progress(content_sha256)
            raise offset_mismatch(content_sha256, offset, status.received_bytes)
        if held is None:
            async with self._spool.receive(self._max_bytes, size_bytes) as apart:
                yield apart
            return
        receiver = None
        wrong = False
        try:
            if offset and held.received_bytes != offset:
                raise offset_mismatch(content_sha256, offset, held.received_bytes)
            async with self._spool.place():
                begun = await self._spool.in_thread(lambda: held.begin(offset))
                await self._spool.in_thread(lambda: self._spool.check_space(size_bytes - offset))
                receiver = PartialReceiver(self._spool, held, begun, self._max_bytes)
                try:
                    yield receiver
                except PlatformError as error:
                    # Too few bytes are none that are wrong: a caller that vanishes may look like
                    # one that has sent all.
                    wrong = error.reason == "CHECKSUM_MISMATCH" or receiver.size_bytes > size_bytes
                    raise
        finally:
            # Nothing here may keep the lock from being given back.
            try:
                if receiver is not None and not wrong and held.is_there():
                    await receiver.keep()
            finally:
                held.end(wrong=wrong)

    def sweep(self) -> None:
        """Removes what is too old, and the oldest while the disk is too full for others."""
        files = []
        for entry in os.scandir(self._directory):
            found = _NAME.fullmatch(entry.name)
            if found is None:
                continue
            path = self._directory / found[1]
            with contextlib.suppress(FileNotFoundError):
                if found[2] and not path.exists():
                    # The mark of a file that was moved away when the process died.
                    Path(entry.path).unlink()
                elif not found[2]:
                    files.append((entry.stat().st_mtime, path))
        for changed_s, path in sorted(files):
            expired = time.time() - changed_s >= self._keep_s
            if not expired and not self._too_full():
                break
            held = _Held.try_lock(path, create=False)
            if held is not None:
                held.end(wrong=True)
                log.info("removed a partial upload", content_sha256=path.name, expired=expired)

    def _too_full(self) -> bool:
        try:
            self._spool.check_space(0)
        except PlatformError:
            return True
        return False

    def _status(self, path: Path) -> PartialStatus:
        received = _received_bytes(path)
        if received == 0:
            return PartialStatus(0, None)
        with contextlib.suppress(FileNotFoundError):
            expires_s = path.stat().st_mtime + self._keep_s
            return PartialStatus(received, datetime.fromtimestamp(expires_s, UTC))
        return PartialStatus(0, None)

    async def _lock(self, path: Path, *, create: bool, wait_s: float) -> _Held | None:
        """The file, locked; None when it is not there or others keep it."""
        give_up_s = time.monotonic() + wait_s
        while True:
            # Not in a thread: a caller that is cancelled meanwhile would leave it locked.
            held = _Held.try_lock(path, create=create)
            if held is not None:
                return held
            if time.monotonic() >= give_up_s or not _exists(path):
                return None
            await asyncio.sleep(_POLL_S)


class _Held:
    """The beginning of a file, locked."""

    def __init__(self, path: Path, file: int) -> None:
        self.path = path
        self.file = file
        self.received_bytes = _received_bytes(path)

    @classmethod
    def try_lock(cls, path: Path, *, create: bool) -> _Held | None:
        """None when another one has it, or it is not there and not to be made."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        while True:
            try:
                file = os.open(path, flags, 0o600)
            except FileNotFoundError:
                return None
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same_file(file, path):
                    return cls(path, file)
            except BlockingIOError:
                os.close(file)
                return None
            except BaseException:
                os.close(file)
                raise
            # It was moved away or removed before the lock was there.
            os.close(file)

    def begin(self, offset: int) -> _Hash:
        """Throws away what lies behind ``offset``; the hash of what lies before."""
        os.ftruncate(self.file, offset)
        if offset == 0:
            self.received_bytes = 0
            _mark_of(self.path).unlink(missing_ok=True)
        os.utime(self.file)
        digest = hashlib.sha256()
        left = offset
        os.lseek(self.file, 0, os.SEEK_SET)
        while left and (part := os.read(self.file, min(left, _READ_BYTES))):
            digest.update(part)
            left -= len(part)
        return digest

    def mark(self, received_bytes: int) -> None:
        # Written over, never cut: a process that is killed leaves the old or the new one.
        file = os.open(_mark_of(self.path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(file, f"{received_bytes:0{_MARK_CHARS}}".encode("ascii"), 0)
        finally:
            os.close(file)

    def is_there(self) -> bool:
        """Whether the file has not been moved away."""
        return _same_file(self.file, self.path)

    def end(self, *, wrong: bool) -> None:
        """Gives the lock back; removes what is wrong, empty, or the mark of what was moved."""
        try:
            there = self.is_there()
            if there and (wrong or _received_bytes(self.path) == 0):
                self.path.unlink()
                there = False
            if not there and not self.path.exists():
                _mark_of(self.path).unlink(missing_ok=True)
        finally:
            self.close()

    def close(self) -> None:
        os.close(self.file)


def _exists(path: Path) -> bool:
    return path.exists()


def _mark_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.mark")


def _received_bytes(path: Path) -> int:
    """Bytes from the file's start that are there for certain."""
    try:
        text = _mark_of(path).read_text(encoding="ascii")
        return min(int(text), path.stat().st_size) if len(text) == _MARK_CHARS else 0
    except (FileNotFoundError, ValueError):
        return 0


def _same_file(file: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(file)
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def offset_mismatch(content_sha256: str, offset: int, received_bytes: int) -> PlatformError:
    """FAILED_PRECONDITION: the upload has to go on somewhere else."""
    return PlatformError(
        ErrorKind.FAILED_PRECONDITION,
        "UPLOAD_OFFSET_MISMATCH",
        f"The upload was to go on at byte {offset}, but {received_bytes} have arrived.",
        "Go on at received_bytes of GetUpload.",
        metadata={
            "content_sha256": content_sha256,
            "offset": str(offset),
            "received_bytes": str(received_bytes),
        },
    )


def _in_progress(content_sha256: str) -> PlatformError:
    return PlatformError(
        ErrorKind.ABORTED,
        "UPLOAD_IN_PROGRESS",
        "Another stream is sending this file.",
        "Wait until it has ended, then go on at received_bytes of GetUpload.",
        retry_after_s=2.0,
        metadata={"content_sha256": content_sha256},
    )
