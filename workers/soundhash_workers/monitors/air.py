"""Keeps what a monitor hears, so that a clip can be answered with when it was on the air."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import structlog

from soundhash_engine import PARAMS
from soundhash_engine.types import Pcm
from soundhash_server.errors import PlatformError
from soundhash_server.store.air import Air, PartGone
from soundhash_server.store.jobs import LeaseLost
from soundhash_workers.monitors.air_parts import Grown, PartCutter

WORK_S = 4.0
"""So much audio is worked through at once."""
MOST_WAITING_S = 120.0
"""More than this is not kept while nobody gets to it."""
MOST_UNSTORED = 3
"""So many whole parts wait for a database that is away."""
CLOSE_S = 10.0
_RATE_HZ = PARAMS.sample_rate_hz

log = structlog.get_logger(__name__)


class AirRecorder:
    """Fingerprints and stores the audio of one monitor while its lease lasts.

    `push` takes no time: the work is done beside, bounded in memory whatever the database does.
    What is stored can be found about half a minute after it was heard. While the monitor keeps
    nothing, nothing is stored. Close it before the lease is given back.
    """

    def __init__(self, air: Air, token: UUID) -> None:
        self._air = air
        self._token = token
        self._cutter = PartCutter()
        self._waiting: deque[tuple[Pcm, datetime] | None] = deque()
        """Audio and when its first sample was on the air; None: a break."""
        self._waiting_samples = 0
        self._working: asyncio.Task[None] | None = None
        self._unstored: deque[Grown] = deque(maxlen=MOST_UNSTORED)
        self._complaint = ""

    async def push(self, pcm: Pcm, heard_at: datetime) -> None:
        """Takes the next audio (mono, 8 kHz), and when its first sample was on the air."""
        if self._waiting_samples > MOST_WAITING_S * _RATE_HZ:
            self._waiting.clear()
            self._waiting.append(None)
            self._waiting_samples = 0
        self._waiting.append((pcm, heard_at))
        self._waiting_samples += pcm.size
        if self._waiting_samples >= WORK_S * _RATE_HZ:
            self._work()

    async def interrupt(self) -> None:
        """What comes next does not go on from what came last: the connection was another one."""
        self._waiting.append(None)
        self._work()

    async def close(self) -> None:
        """Stores what is there, if that takes no longer than some seconds."""
        self._waiting.append(None)
        try:
            async with asyncio.timeout(CLOSE_S):
                while self._waiting or self._working is not None:
                    self._work()
                    if self._working is not None:
                        await asyncio.wait({self._working})
        except TimeoutError:
            log.warning("what was on the air last is not stored", why="TIMED_OUT")
        finally:
            if self._working is not None:
                self._working.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._working

    def _work(self) -> None:
        if self._working is None:
            self._working = asyncio.create_task(self._work_through(), name="air-recorder")
            self._working.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._working = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("what is on the air is not kept", exc_info=error)

    async def _work_through(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting, deque()
            self._waiting_samples = 0
            for grown in await asyncio.to_thread(self._cut, some):
                await self._store(grown)

    def _cut(self, some: Iterable[tuple[Pcm, datetime] | None]) -> list[Grown]:
        out: list[Grown] = []
        for one in some:
            out += self._cutter.end() if one is None else self._cutter.push(*one)
        # Of what has grown twice meanwhile the latest is all of it.
        latest = {grown.part.id: grown for grown in out}
        return list(latest.values())

    async def _store(self, grown: Grown) -> None:
        """Stores a part, and those before it that could not be stored."""
        try:
            while self._unstored:
                await self._put(self._unstored[0])
                self._unstored.popleft()
            await self._put(grown)
        except PlatformError as error:
            self._complain(error.reason)
            if grown.part.ended:
                self._unstored.append(grown)
        except LeaseLost:
            # Perhaps nothing is kept any more; should that change, it begins anew.
            self._unstored.clear()
            self._cutter.drop(grown.part)
        else:
            self._complaint = ""

    async def _put(self, grown: Grown) -> None:
        part = grown.part
        # What was stored of it may have changed since it grew.
        content = dataclasses.replace(grown.content, kept=part.kept, stored=part.stored)
        try:
            await self._air.put(self._token, content)
        except PartGone:
            self._cutter.drop(part)
            return
        part.stored, part.kept = True, grown.whole

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            log.warning("what is on the air cannot be stored now", why=why)
        self._complaint = why
