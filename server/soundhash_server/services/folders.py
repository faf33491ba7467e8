"""Folders of the workers' machine become FOLDER jobs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from soundhash_engine import PARAMS
from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.folder_roots import (
    is_below,
    not_allowed,
    resolve_folder,
    resolve_roots,
)
from soundhash_server.model import FolderParameters, Job, JobKind
from soundhash_server.queue import JobQueue
from soundhash_server.store.jobs import Jobs


class FolderScans:
    """Submits scans of folders."""

    def __init__(
        self, jobs: Jobs, queue: JobQueue, *, roots: Sequence[Path], max_attempts: int
    ) -> None:
        self._jobs = jobs
        self._queue = queue
        self._roots = roots
        self._max_attempts = max_attempts

    async def submit(self, asked: FolderParameters) -> Job:
        """The job for this folder. Scanning it once, watching it and a dry run are different
        jobs; the same one while it is not finished is the same job.

        Raises PlatformError INVALID_ARGUMENT (INVALID_REQUEST), PERMISSION_DENIED
        (FOLDER_NOT_ALLOWED), NOT_FOUND (FOLDER_NOT_FOUND).
        """
        if not Path(asked.path).is_absolute():
            raise PlatformError(
                ErrorKind.INVALID_ARGUMENT,
                "INVALID_REQUEST",
                "The folder's path is not absolute.",
                "Name the folder by its whole path, from / on.",
                violations={"path": "must be absolute"},
            )
        path = await asyncio.to_thread(self._resolve, asked.path)
        mode = "dry" if asked.dry_run else "watch" if asked.watch else "scan"
        job, needs_wake = await self._jobs.submit(
            JobKind.FOLDER,
            f"folder:{mode}:{path}",
            FolderParameters(path, asked.channel, asked.dry_run, asked.watch),
            max_attempts=self._max_attempts,
            params_digest=PARAMS.digest,
        )
        if needs_wake:
            await self._queue.wake(job.id)
        return job

    def _resolve(self, path: str) -> str:
        roots = resolve_roots(self._roots)
        if any(root.is_dir() for root in roots):
            return str(resolve_folder(path, roots))
        # They are on another machine: its workers look closer.
        folder = Path(os.path.normpath(path))
        if not is_below(folder, self._roots):
            raise not_allowed(path)
        return str(folder)
