"""Where downloads lie while they are worked on; nothing stays, however a worker ends.

Each worker process has a folder of its own under ``scratch_dir`` and holds a lock on the file
beside it. The kernel gives the lock back when the process dies, so whoever gets it may clean up.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

_LOCK_SUFFIX = ".lock"

log = structlog.get_logger(__name__)


class Scratch:
    """One worker process's part of the scratch folder."""

    def __init__(self, root: Path) -> None:
        """Makes it, after removing what dead workers have left. Raises OSError."""
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root = root
        self.sweep()
        self._lock: int | None = None
        # Another process that starts at this moment may sweep the file before it is locked.
        while self._lock is None:
            self._own = root / uuid.uuid4().hex
            self._lock = _try_lock(self._own.with_suffix(_LOCK_SUFFIX), create=True)
        self._own.mkdir(mode=0o700)

    @contextlib.asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """An empty folder that is gone at the end."""
        path = self._own / uuid.uuid4().hex
        path.mkdir(mode=0o700)
        try:
            yield path
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, path, ignore_errors=True))

    def sweep(self) -> None:
        """Removes the folders of workers that are dead."""
        for lock_path in self._root.glob(f"*{_LOCK_SUFFIX}"):
            lock = _try_lock(lock_path, create=False)
            if lock is None:
                continue
            shutil.rmtree(lock_path.with_suffix(""), ignore_errors=True)
            lock_path.unlink(missing_ok=True)
            os.close(lock)
            log.info("removed a dead worker's files", folder=lock_path.stem)

    def close(self) -> None:
        """Removes this worker's part."""
        shutil.rmtree(self._own, ignore_errors=True)
        self._own.with_suffix(_LOCK_SUFFIX).unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _try_lock(path: Path, *, create: bool) -> int | None:
    try:
        file = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    if create and not path.exists():
        # Swept between opening and locking: this lock would guard nothing.
        os.close(file)
        return None
    return file
