"""Finds what got stuck or left behind, so that no loss is final: lost jobs, stray files.

Every worker sweeps; that several do is harmless, since jobs end and files are removed once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import structlog

from soundhash_server.errors import PlatformError
from soundhash_server.fetching.scratch import Scratch
from soundhash_server.store.jobs import Jobs
from soundhash_workers.air_sweep import AirSweeper
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
        air: AirSweeper,
        *,
        sweep_s: float,
        grace_s: float,
    ) -> None:
        self._jobs = jobs
        self._scratch = scratch
        self._uploads = uploads
        self._kept = kept
        self._schedule = schedule
        self._air = air
        self._sweep_s = sweep_s
        self._grace_s = grace_s
        self._failing: set[str] = set()

    async def run(self) -> None:
        """Sweeps for ever."""
        turn = 0
        while True:
            started_s = time.monotonic()
            await self._sweep("lost jobs", self._jobs.fail_lost)
            await self._sweep("waiting jobs", self._jobs.settle_waiting)
            await self._sweep("schedules", self._schedule.run_due)
            await self._sweep("what was on the air", self._air.sweep)
            if turn % _FILES_EVERY == 0:
                await self._sweep("scratch", lambda: asyncio.to_thread(self._scratch.sweep))
                await self._sweep("uploads", lambda: self._uploads.sweep(self._grace_s))
                await self._sweep("kept files", self._kept.sweep)
            turn += 1
            # Workers that started together must not sweep together.
            pause_s = self._sweep_s * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
            await asyncio.sleep(max(pause_s, time.monotonic() - started_s))

    async def _sweep(self, what: str, sweep: Callable[[], Awaitable[object]]) -> None:
        """One kind of leftovers; that it fails is told once and keeps the others from nothing."""
        try:
            await sweep()
            self._failing.discard(what)
        except (PlatformError, OSError) as error:
            if what not in self._failing:
                why = getattr(error, "reason", type(error).__name__)
                log.warning("sweep failed", what=what, why=why)
            self._failing.add(what)
        except Exception:
            log.exception("sweep failed", what=what)
