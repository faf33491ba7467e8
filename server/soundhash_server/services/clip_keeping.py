"""Keeps what later explains a match: features of the part of a clip that convinced most.

Nobody waits for it. A thread of low priority does the work after the answer is out, and while it
has too much to do, clips are not kept: explaining them then needs the clip again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import structlog

from soundhash_engine.clip_parts import choose_parts, encode_part
from soundhash_engine.matcher import Match
from soundhash_engine.params import PARAMS
from soundhash_engine.types import Pcm
from soundhash_server.errors import PlatformError
from soundhash_server.services.matching import Searchable
from soundhash_server.store.clip_parts import ClipParts, KeptPart

MOST_PARTS = 4
"""Of one question: each is up to 50 kB, a doubtful one three times that."""
MOST_WAITING = 16
MOST_WAITING_SAMPLES = 8 << 20
"""Of all clips that wait: 32 MiB, 17 minutes."""
SWEEP_S = 600.0
NICENESS = 10

log = structlog.get_logger(__name__)


class ClipKeeper:
    """Chooses, packs and stores parts of clips that had a match.

    keep_days: 0 keeps nothing.
    """

    def __init__(self, index: Searchable, parts: ClipParts, *, keep_days: float) -> None:
        self._index = index
        self._parts = parts
        self._on = keep_days > 0
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="keep-clips", initializer=_step_back
        )
        self._waiting: dict[asyncio.Task[None], UUID] = {}
        self._waiting_samples = 0
        self._failing = False

    def keep(
        self, query_id: UUID, pcm: Pcm, matches: Sequence[Match], *, begin_s: float = 0.0
    ) -> None:
        """Keeps what explains ``matches`` of a question, soon and if there is time for it.

        pcm: mono 8 kHz, from the second ``begin_s`` of the clip on; not changed by the caller
        any more.
        """
        full = (
            len(self._waiting) >= MOST_WAITING
            or self._waiting_samples + pcm.size > MOST_WAITING_SAMPLES
        )
        if not self._on or not matches or (full and self._waiting):
            return
        self._waiting_samples += pcm.size
        task = asyncio.create_task(self._keep(query_id, pcm, matches, begin_s), name="keep-clip")
        self._waiting[task] = query_id
        task.add_done_callback(lambda done: self._done(done, pcm.size))

    async def settled(self, query_id: UUID) -> None:
        """Waits for what is still being kept of a question by this server."""
        mine = [task for task, one in self._waiting.items() if one == query_id]
        if mine:
            await asyncio.wait(mine)

    async def run(self) -> None:
        """Deletes what has been kept long enough, for ever."""
        while True:
            try:
                await self._parts.sweep()
            except PlatformError as error:
                log.debug("kept clips are not swept", reason=error.reason)
            await asyncio.sleep(SWEEP_S)

    async def close(self) -> None:
        """Finishes what waits."""
        if self._waiting:
            await asyncio.wait(self._waiting)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _keep(
        self, query_id: UUID, pcm: Pcm, matches: Sequence[Match], begin_s: float
    ) -> None:
        def work() -> list[KeptPart]:
            parts = choose_parts(
                self._index.snapshot(), pcm, matches, most=MOST_PARTS, begin_s=begin_s
            )
            return [
                KeptPart(
                    part.begin_s,
                    part.begin_s + part.features.n_samples / PARAMS.sample_rate_hz,
                    encode_part(part),
                )
                for part in parts
            ]

        try:
            parts = await asyncio.get_running_loop().run_in_executor(self._thread, work)
            if parts:
                await self._parts.add(query_id, parts)
            self._failing = False
        except PlatformError as error:
            # The answer is out already; only its explanation will need the clip.
            if not self._failing:
                log.warning("clips are not kept", reason=error.reason)
            self._failing = True

    def _done(self, task: asyncio.Task[None], n_samples: int) -> None:
        del self._waiting[task]
        self._waiting_samples -= n_samples
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a clip could not be kept", exc_info=error)


def _step_back() -> None:
    """Leaves the processor to those who wait, where the system schedules threads one by one."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
