"""Finds what got stuck or left behind, so that no loss is final: lost jobs, stray files.

Every worker sweeps; that several do is harmless, since jobs end and files are removed once.
"""

from __future__ import annotations

import asyncio
import random
import time

import structlog

from soundhash_server.errors import PlatformError
from soundhash_server.fetching.scratch import Scratch
from soundhash_server.store.jobs import Jobs
from soundhash_workers.keeping import KeptSweeper
from soundhash_workers.schedule import ChannelSchedule
from soundhash_workers.uploads import UploadSweeper

_FILES_EVERY = 5
"""Files are looked through less often than jobs."""

log = structlog.get_logger(__name__)


class Sweeper:
    """sweep_s: how often, on average. grace_s: received files younger than this are left alone."""

    def __init__(
        self,
        jobs: Jobs,
        scratch: Scratch,
        uploads: UploadSweeper,
        kept: KeptSweeper,
        schedule: ChannelSchedule,
        *,
        sweep_s: float,
        grace_s: float,
    ) -> None:
        self._jobs = jobs
        self._scratch = scratch
        self._uploads = uploads
        self._kept = kept
        self._schedule = schedule
        self._sweep_s = sweep_s
        self._grace_s = grace_s

    async def run(self) -> None:
        """Sweeps for ever."""
        turn = 0
        failing = False
        while True:
            started_s = time.monotonic()
            try:
                await self._jobs.fail_lost()
                await self._jobs.settle_waiting()
                await self._schedule.run_due()
                if turn % _FILES_EVERY == 0:
                    await asyncio.to_thread(self._scratch.sweep)
                    await self._uploads.sweep(self._grace_s)
                    await self._kept.sweep()
                failing = False
            except (PlatformError, OSError) as error:
                if not failing:
                    why = getattr(error, "reason", type(error).__name__)
                    log.warning("sweep failed", why=why)
                failing = True
            except Exception:
                log.exception("sweep failed")
            turn += 1
            # Workers that started together must not sweep together.
            pause_s = self._sweep_s * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
            await asyncio.sleep(max(pause_s, time.monotonic() - started_s))
