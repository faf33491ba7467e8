"""DUPLICATES jobs: the catalogue compared with itself; what is alike is stored as it is found.

The comparison runs in a thread at low priority. It is begun anew by whoever takes the job over:
it takes minutes for a catalogue of a thousand hours, and forgets what the earlier attempt stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from soundhash_engine.duplicates import Duplicate, DuplicateOptions, Told, find_duplicates
from soundhash_engine.index import Snapshot
from soundhash_server.fetching.scratch import Scratch
from soundhash_server.model import (
    DuplicateKind,
    DuplicatesParameters,
    DuplicatesResult,
    FoundPair,
    JobProgress,
    JobStep,
    Lease,
    SharedRange,
)
from soundhash_server.store.duplicates import Duplicates
from soundhash_workers.match_index import MatchIndex
from soundhash_workers.pipeline import Report

STORE_S = 1.0
"""What is found is stored at least so often …"""
STORE_PAIRS = 200
"""… and when there is so much of it."""
_NICENESS = 10


class _Cancelled(Exception):  # noqa: N818 - no error
    """Nobody wants the comparison any more."""


class DuplicateFinder:
    """Does DUPLICATES jobs."""

    def __init__(self, index: MatchIndex, duplicates: Duplicates, scratch: Scratch) -> None:
        self._index = index
        self._duplicates = duplicates
        self._scratch = scratch

    async def run(self, lease: Lease, report: Report) -> DuplicatesResult:
        """Compares all videos; the result has no counts of pairs, which the database knows.

        Raises PlatformError UNAVAILABLE; LeaseLost; OSError.
        """
        asked = lease.job.parameters
        if not isinstance(asked, DuplicatesParameters):
            raise TypeError(f"job {lease.job.id} is no DUPLICATES job")
        report.progress = JobProgress(step=JobStep.COMPARE)
        report.doing("index")
        async with self._index.use(), self._scratch.folder() as folder:
            await self._duplicates.begin(lease.token)
            snapshot = await self._index.current()
            only: list[int] | None = None
            if asked.video_ids:
                known = await self._duplicates.recordings(asked.video_ids)
                only = list(known.values())
            report.doing("compare")
            options = DuplicateOptions(min_shared_s=asked.min_shared_s, only=only)
            await self._compare(lease, report, snapshot, options, folder)
        return DuplicatesResult(videos=snapshot.recordings, audio_s=3600.0 * snapshot.hours)

    async def _compare(
        self,
        lease: Lease,
        report: Report,
        snapshot: Snapshot,
        options: DuplicateOptions,
        folder: Path,
    ) -> None:
        cancelled = threading.Event()

        def check() -> None:
            if cancelled.is_set():
                raise _Cancelled

        total_s = 3600.0 * snapshot.hours
        told = find_duplicates(snapshot, options, folder=folder, check=check)
        thread = ThreadPoolExecutor(1, thread_name_prefix="duplicates", initializer=_step_back)
        pairs: dict[tuple[int, int], FoundPair] = {}
        try:
            while True:
                step = asyncio.get_running_loop().run_in_executor(thread, _some, told)
                # When this is cancelled nobody asks any more how the step has ended.
                step.add_done_callback(lambda one: one.cancelled() or one.exception())
                found, fraction, ended = await asyncio.shield(step)
                pairs |= {(one.first_id, one.second_id): _to_pair(one) for one in found}
                if pairs:
                    await self._store(lease, pairs)
                report.progress = JobProgress(
                    step=JobStep.COMPARE,
                    fraction=fraction,
                    audio_done_s=fraction * total_s,
                    audio_total_s=total_s,
                )
                if ended:
                    return
        finally:
            cancelled.set()
            # The thread has files open below the folder, which goes next.
            await asyncio.shield(asyncio.to_thread(_end, thread, told))

    async def _store(self, lease: Lease, pairs: dict[tuple[int, int], FoundPair]) -> None:
        waiting = list(pairs.values())
        pairs.clear()
        for start in range(0, len(waiting), STORE_PAIRS):
            await self._duplicates.put(lease.token, waiting[start : start + STORE_PAIRS])


def _some(told: Iterator[Told]) -> tuple[list[Duplicate], float, bool]:
    """What the next second brings: what is found, how far it has come, whether that is all."""
    found: list[Duplicate] = []
    fraction = 1.0
    until_s = time.monotonic() + STORE_S
    for one in told:
        found += one.found
        fraction = one.fraction
        if time.monotonic() > until_s or len(found) >= STORE_PAIRS:
            return found, fraction, False
    return found, fraction, True


def _end(thread: ThreadPoolExecutor, told: Iterator[Told]) -> None:
    thread.shutdown(wait=True, cancel_futures=True)
    with contextlib.suppress(_Cancelled):
        # Its files go when nobody asks it for more.
        told.close()  # type: ignore[attr-defined]


def _to_pair(one: Duplicate) -> FoundPair:
    return FoundPair(
        kind=DuplicateKind(one.kind.value),
        first_recording=one.first_id,
        second_recording=one.second_id,
        ranges=tuple(
            SharedRange(
                first_start_s=r.first_start_s,
                first_end_s=r.first_end_s,
                second_start_s=r.second_start_s,
                second_end_s=r.second_end_s,
                speed=r.speed,
                pitch=r.pitch,
                confidence=r.confidence,
            )
            for r in one.ranges
        ),
        shared_s=one.shared_s,
        first_share=one.first_share,
        second_share=one.second_share,
    )


def _step_back() -> None:
    """Leaves the processor to what people wait for, where threads are scheduled one by one."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
