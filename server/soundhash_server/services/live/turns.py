"""Whose turn it is: streams share the threads, and the one that is due first goes first."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from soundhash_server.services.cpu import CpuPool
from soundhash_server.services.live.load import Load

T = TypeVar("T")

SPACING_S = 0.4
"""Steps of half a second of audio that arrive faster than this are due this far apart: who sends a
file as fast as it can waits for those who play. A live source that began with what it had buffered
is back at its own pace after a few times as long."""


class Pace:
    """When the steps of one stream are due, by `time.monotonic`."""

    def __init__(self) -> None:
        self._last = -float("inf")
        self._waiting: deque[float] = deque()

    def arrived(self) -> None:
        """The audio of one more step is complete."""
        self._last = max(time.monotonic(), self._last + SPACING_S)
        self._waiting.append(self._last)

    def next(self) -> float:
        """When the next step is due; what has not arrived as a whole is due now."""
        return self._waiting.popleft() if self._waiting else time.monotonic()


class Turns:
    """Runs the steps of all streams, as many at once as there are threads."""

    def __init__(self, cpu: CpuPool) -> None:
        self._cpu = cpu
        self._free = cpu.threads
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self.load = Load(cpu.threads)

    async def run(
        self, due: float, work: Callable[[Callable[[], None]], T], *, young: bool = False
    ) -> T:
        """Runs ``work(check)``, a step, when it is its turn; see `CpuPool`.

        young: its stream has just begun.
        """
        await self._take(due)
        try:
            begun = time.perf_counter()
            return await self._cpu.run_admitted(work)
        finally:
            self.load.ran(time.perf_counter() - begun, time.monotonic() - due, young=young)
            self._give_back()

    async def _take(self, due: float) -> None:
        if self._free:
            self._free -= 1
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (due, next(self._numbers), mine))
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                # It came together with the cancellation.
                self._give_back()
            raise

    def _give_back(self) -> None:
        while self._waiting:
            _, _, first = heapq.heappop(self._waiting)
            if not first.done():
                first.set_result(None)
                return
        self._free += 1
