"""One connection to a source: its audio, paced, and when it was on the air."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from soundhash_engine import PARAMS
from soundhash_engine.types import Pcm
from soundhash_server.fetching.live import Audio, LiveEvent, Title
from soundhash_server.services.live.audio import level_db
from soundhash_workers.monitors.air_time import AirTime

SETTLE_S = 1.0
"""What comes first is held back for so long: a server's burst is known as one by then."""
BURST_S = 30.0
"""A source may be ahead of real time by so much; more is left unread for a while."""
_RATE_HZ = PARAMS.sample_rate_hz


@dataclass(frozen=True, slots=True)
class Heard:
    """A piece of audio, mono 8 kHz, its air time, and its power in dB of full scale."""

    pcm: Pcm
    start: datetime
    end: datetime
    level_db: float


class Ear:
    """Reads a source's events. on_audio, on_title: are told what comes, in order; on_audio is
    waited for, and what it raises ends the reading like an error of the source."""

    def __init__(
        self,
        events: AsyncIterator[LiveEvent],
        *,
        on_audio: Callable[[Heard], Awaitable[None]],
        on_title: Callable[[str], None],
    ) -> None:
        self._events = events
        self._on_audio = on_audio
        self._on_title = on_title
        self._begun_s = time.monotonic()
        self.air = AirTime(datetime.now(UTC))
        self.given_s = 0.0
        """Audio that was given on."""
        self.error: Exception | None = None
        """Why there is no more; None: the source has ended, or there is more."""
        self._arriving: asyncio.Future[LiveEvent | None] | None = None
        self._ended = False

    @property
    def age_s(self) -> float:
        """Time since the connection was made."""
        return time.monotonic() - self._begun_s

    async def pcm(self) -> AsyncGenerator[bytes, None]:
        """The audio as raw samples (mono, 8 kHz, float32) until the source ends or fails."""
        try:
            async with aclosing(self._pieces()) as pieces:
                async for pcm in pieces:
                    start_s, length_s = self.given_s, pcm.size / _RATE_HZ
                    self.given_s += length_s
                    start = self.air.settle(start_s)
                    end = start + timedelta(seconds=length_s)
                    await self._on_audio(Heard(pcm, start, end, level_db(pcm)))
                    yield pcm.tobytes()
                    await self._rest()
        except Exception as error:
            # Told later: what came before is searched all the same.
            self.error = error

    async def _pieces(self) -> AsyncGenerator[Pcm, None]:
        """Audio as it comes; the first of it together, once it is known how fast it comes."""
        held: list[Pcm] = []
        settle_s = math.inf
        error: Exception | None = None
        try:
            while True:
                event: LiveEvent | None = None
                try:
                    event = await self._event(settle_s)
                except Exception as raised:
                    error = raised
                if isinstance(event, Audio):
                    if settle_s == math.inf:
                        settle_s = time.monotonic() + SETTLE_S
                    self.air.arrived(event.pcm.size / _RATE_HZ, self.age_s)
                    held.append(event.pcm)
                elif isinstance(event, Title):
                    self._on_title(event.text)
                over = time.monotonic() >= settle_s or self.air.arrived_s >= BURST_S
                if self._ended or error or over:
                    settle_s = min(settle_s, time.monotonic())
                    for pcm in held:
                        yield pcm
                    held.clear()
                if error is not None:
                    raise error
                if self._ended:
                    return
        finally:
            if self._arriving is not None:
                self._arriving.cancel()
                await asyncio.gather(self._arriving, return_exceptions=True)

    async def _event(self, settle_s: float) -> LiveEvent | None:
        """The next one; None at the end, and when none has come by the time that is waited for."""
        if self._arriving is None:
            self._arriving = asyncio.ensure_future(anext(self._events, None))
        left_s = settle_s - time.monotonic()
        await asyncio.wait({self._arriving}, timeout=left_s if 0 < left_s < math.inf else None)
        if not self._arriving.done():
            return None
        arriving, self._arriving = self._arriving, None
        event = arriving.result()
        self._ended = event is None
        return event

    async def _rest(self) -> None:
        ahead_s = self.given_s - self.age_s - BURST_S
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)
