"""FOLDER jobs: the catalogue is made equal to a folder, once or for as long as it is watched."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from soundhash_server.errors import PlatformError
from soundhash_server.model import BatchProgress, BatchResult, FolderParameters, Lease
from soundhash_server.queue import JobQueue
from soundhash_server.settings import Settings
from soundhash_server.store.folders import FolderFiles
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.videos import Videos
from soundhash_workers import folder_pass
from soundhash_workers.folder_pass import FolderScan
from soundhash_workers.folder_watch import Changes
from soundhash_workers.pipeline import Report

SETTLE_TRIES = 15
"""So often a single scan waits for files that are still written."""
RESCAN_S = 300.0
"""How often a watched folder is looked through also when nothing was noticed."""
_CALM_S = 0.5
_LONGEST_CALM_S = 60.0
_CALM_SHARE = 5
_AWAY_S = 10.0
_PASSING = frozenset({"FOLDER_NOT_FOUND", "FOLDER_EMPTY", "DATABASE_UNAVAILABLE"})

log = structlog.get_logger(__name__)


class FolderScanner:
    """Does FOLDER jobs; any number at once."""

    def __init__(
        self, settings: Settings, jobs: Jobs, queue: JobQueue, files: FolderFiles, videos: Videos
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._queue = queue
        self._files = files
        self._videos = videos

    async def run(self, lease: Lease, report: Report) -> tuple[BatchProgress, BatchResult]:
        """Looks through the folder once, or again and again until cancelled.

        Raises PlatformError PERMISSION_DENIED (FOLDER_NOT_ALLOWED), NOT_FOUND
        (FOLDER_NOT_FOUND), FAILED_PRECONDITION (FOLDER_EMPTY), UNAVAILABLE; LeaseLost; OSError.
        """
        asked = lease.job.parameters
        if not isinstance(asked, FolderParameters):
            raise TypeError(f"job {lease.job.id} is no FOLDER job")
        with FolderScan(
            lease.job.id,
            asked,
            report,
            settings=self._settings,
            jobs=self._jobs,
            queue=self._queue,
            files=self._files,
            videos=self._videos,
        ) as scan:
            if asked.watch and not asked.dry_run:
                await _watch(scan, asked)
            tries = 1
            while await scan.make_pass() and tries < SETTLE_TRIES:
                tries += 1
                await asyncio.sleep(folder_pass.SETTLE_S)
            return scan.outcome()


async def _watch(scan: FolderScan, asked: FolderParameters) -> None:
    """Until cancelled. A folder that goes away later is waited for."""
    async with Changes(Path(asked.path)) as changes:
        first = True
        while True:
            changes.clear()
            wait_s = RESCAN_S
            try:
                if await scan.make_pass():
                    wait_s = folder_pass.SETTLE_S
                first = False
            except PlatformError as error:
                if first or error.reason not in _PASSING:
                    raise
                log.warning("a watched folder is away", reason=error.reason)
                wait_s = _AWAY_S
            # Large folders in which much happens must not be looked through all the time.
            await asyncio.sleep(max(_CALM_S, min(_LONGEST_CALM_S, _CALM_SHARE * scan.listing_s)))
            await changes.wait(wait_s)
