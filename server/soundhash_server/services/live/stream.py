"""One stream: bytes in, audio that waits, half a second after the other through the matcher."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from soundhash_engine import PARAMS, ClipTooShort
from soundhash_engine.live import LiveEvent, LiveMatcher
from soundhash_engine.postings import Missing
from soundhash_engine.types import Pcm
from soundhash_server.services.cpu import CpuPool
from soundhash_server.services.live.audio import AudioSource, level_db, open_source, peak_db
from soundhash_server.services.live.events import StreamConfig
from soundhash_server.services.matching import Searchable

STEP_S = 0.5
"""Events come at most once for this much audio."""
MOST_WAITING_S = 20.0
"""No more is taken from the caller while this much audio waits."""
RECENT_S = 30.0
"""So much is at hand of a stream to keep what explains a match that has just ended."""
POLL_S = 0.05
RATE_HZ = PARAMS.sample_rate_hz
_STEP_SAMPLES = round(STEP_S * RATE_HZ)


@dataclass(frozen=True, slots=True)
class Step:
    events: Sequence[LiveEvent]
    heard_s: float
    level_db: float
    peak_db: float
    last: bool


class Stream:
    """One stream: a task that takes bytes in, audio that waits, the matcher."""

    def __init__(
        self, config: StreamConfig, audio: AsyncIterator[bytes], cpu: CpuPool, index: Searchable
    ) -> None:
        self._config = config
        self._audio = audio
        self._cpu = cpu
        self._index = index
        self._matcher = LiveMatcher(PARAMS, config.options)
        self._source: AudioSource
        self._waiting: list[Pcm] = []
        self._waiting_samples = 0
        self._moved = asyncio.Event()
        self._room = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._heard_samples = 0
        self._recent: deque[Pcm] = deque()
        self._recent_samples = 0

    def recent(self) -> Pcm:
        """The last RECENT_S that were searched, less at the beginning."""
        return np.concatenate([np.empty(0, np.float32), *self._recent])

    @property
    def heard_s(self) -> float:
        """Audio that has been searched so far."""
        return self._heard_samples / RATE_HZ

    @property
    def missing(self) -> tuple[Missing, ...]:
        """Parts of the index that did not answer at some time."""
        return tuple(self._matcher.missing.values())

    async def open(self) -> None:
        self._source = open_source(self._config.pcm)
        self._reader = asyncio.create_task(self._take_in(), name="stream-reader")

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._reader
            # Joins the decoder's thread.
            await asyncio.get_running_loop().run_in_executor(None, self._source.close)

    async def next_step(self) -> Step:
        """Waits for the next half second of audio, or for the end, and searches."""
        while True:
            self._collect()
            if self._waiting_samples >= _STEP_SAMPLES:
                pcm = self._cut(_STEP_SAMPLES)
                return Step(
                    await self._search(pcm), self.heard_s, level_db(pcm), peak_db(pcm), False
                )
            if self._source.ended:
                pcm = self._cut(self._waiting_samples)
                total_s = (self._heard_samples + pcm.size) / RATE_HZ
                if total_s < PARAMS.min_clip_s:
                    raise ClipTooShort(f"the stream has {total_s:.2f} s of audio")
                events = [*await self._search(pcm), *await self.finish()]
                return Step(events, self.heard_s, level_db(pcm), peak_db(pcm), True)
            await self._wait()

    async def finish(self) -> Sequence[LiveEvent]:
        """What the matcher has to say at the end."""
        snapshot = self._index.snapshot()
        return await self._cpu.run_admitted(lambda _: self._matcher.finish(snapshot))

    async def _search(self, pcm: Pcm) -> Sequence[LiveEvent]:
        snapshot = self._index.snapshot()

        def work(check: Callable[[], None]) -> Sequence[LiveEvent]:
            check()
            self._matcher.push(pcm)
            return self._matcher.step(snapshot)

        events = await self._cpu.run_admitted(work)
        self._heard_samples += pcm.size
        self._recent.append(pcm)
        self._recent_samples += pcm.size
        while self._recent_samples - self._recent[0].size >= RECENT_S * RATE_HZ:
            self._recent_samples -= self._recent.popleft().size
        return events

    def _collect(self) -> None:
        """Moves what is decoded to the audio that waits."""
        while self._waiting_samples < MOST_WAITING_S * RATE_HZ:
            pcm = self._source.read()
            if pcm is None:
                break
            self._room.set()
            if pcm.size:
                self._waiting.append(pcm)
                self._waiting_samples += pcm.size

    def _cut(self, n_samples: int) -> Pcm:
        pcm = np.concatenate(self._waiting) if self._waiting else np.empty(0, np.float32)
        head, rest = pcm[:n_samples], pcm[n_samples:]
        self._waiting = [rest] if rest.size else []
        self._waiting_samples = rest.size
        return head

    async def _wait(self) -> None:
        """Until bytes have come, or a moment, in which the decoder may have got on."""
        reader = self._reader
        assert reader is not None  # noqa: S101 - open() comes first
        if reader.done() and (error := reader.exception()) is not None:
            raise error
        self._moved.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._moved.wait()

    async def _take_in(self) -> None:
        """Feeds the source, no faster than it is read."""
        try:
            async for data in self._audio:
                while not self._source.feed(data):
                    self._room.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(POLL_S):
                            await self._room.wait()
                self._moved.set()
            self._source.end()
        finally:
            self._moved.set()
