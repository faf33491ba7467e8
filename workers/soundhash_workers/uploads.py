"""Received files that wait for their job in ``uploads_dir``, named by their SHA-256."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from pathlib import Path

import structlog

from soundhash_server.store.jobs import Jobs
from soundhash_server.store.videos import Videos

KEEP_S = 24 * 3600.0
"""How long the bytes of a job that was cancelled or has run out of attempts are kept, so that
it can be retried without sending them again."""
_NAME = re.compile(r"[0-9a-f]{64}")

log = structlog.get_logger(__name__)


class Upload:
    """The bytes as they were when the job began: the same file sent again meanwhile is another
    one, which belongs to another job."""

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError."""
        self.path = path
        self._found = path.stat()

    def remove(self) -> None:
        """Removes the file unless another one has taken its place."""
        with contextlib.suppress(FileNotFoundError):
            now = self.path.stat()
            if (now.st_dev, now.st_ino) == (self._found.st_dev, self._found.st_ino):
                self.path.unlink()

    def keep(self) -> None:
        """Lets the time for which it is kept begin now."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path)


class UploadSweeper:
    """Removes received files that no job needs any more."""

    def __init__(self, folder: Path, jobs: Jobs, videos: Videos, params_digest: str) -> None:
        self._folder = folder
        self._jobs = jobs
        self._videos = videos
        self._params_digest = params_digest

    async def sweep(self, grace_s: float) -> None:
        """Removes what is indexed at once and what else no unfinished job needs after a day.

        grace_s: files younger than this are left alone; their job may be about to be submitted.
        Raises PlatformError (database).
        """
        old = await asyncio.to_thread(self._older_than, grace_s)
        if not old:
            return
        needed = await self._jobs.unfinished_uploads()
        for upload, age_s in old:
            digest = upload.path.name
            if digest in needed:
                continue
            if age_s < KEEP_S:
                video = await self._videos.by_sha256(digest)
                if video is None or video.params_digest != self._params_digest:
                    continue
            upload.remove()
            log.info("removed an upload nobody needs", content_sha256=digest)

    def _older_than(self, age_s: float) -> list[tuple[Upload, float]]:
        found = []
        now_s = time.time()
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._folder):
                if not _NAME.fullmatch(entry.name):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    # A rename changes ctime, a touch mtime.
                    age = now_s - max(status.st_mtime, status.st_ctime)
                    if age >= age_s:
                        found.append((Upload(Path(entry.path)), age))
        return found
