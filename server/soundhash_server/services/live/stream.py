"""One stream: bytes in, audio that waits, half a second after the other through the matcher."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from soundhash_engine import PARAMS, ClipTooShort, EngineError
from soundhash_engine.live import WINDOW_S, LiveEvent, LiveMatcher
from soundhash_engine.postings import Missing
from soundhash_engine.types import Pcm
from soundhash_server.services.live.audio import AudioSource, open_source
from soundhash_server.services.live.events import StreamConfig
from soundhash_server.services.live.load import YOUNG_S
from soundhash_server.services.live.turns import Pace, Turns
from soundhash_server.services.matching import Searchable

STEP_S = 0.5
MOST_WAITING_S = 20.0
"""No more is taken from the caller while this much audio waits."""
RECENT_S = 30.0
"""So much is at hand of a stream to keep what explains a match that has just ended."""
RATE_HZ = PARAMS.sample_rate_hz
_STEP_SAMPLES = round(STEP_S * RATE_HZ)
_PIECE_BYTES = 64 << 10
"""More is not resampled at once: other streams have their turn in between."""


@dataclass(frozen=True, slots=True)
class Step:
    """What half a second of audio came to.

    heard_s    of the stream that has been searched
    settled_s  nothing before this second changes any more
    late_s     since the audio was complete and due
    last       the stream is over
    error      why, when it did not end well
    """

    events: Sequence[LiveEvent]
    pcm: Pcm
    heard_s: float
    settled_s: float
    late_s: float
    last: bool = False
    error: EngineError | None = None


class Stream:
    """One stream's audio and matcher. One task feeds it, one takes the steps."""

    def __init__(self, config: StreamConfig, turns: Turns, index: Searchable) -> None:
        self._config = config
        self._turns = turns
        self._index = index
        self._matcher = LiveMatcher(
            PARAMS,
            config.options,
            window_s=WINDOW_S if config.window_s is None else config.window_s,
        )
        self._source: AudioSource
        self._pace = Pace()
        self._waiting: deque[Pcm] = deque()
        self._waiting_samples = 0
        self._told_steps = 0
        self._moved = asyncio.Event()
        self._room = asyncio.Event()
        self._heard_samples = 0
        self._recent: deque[Pcm] = deque()
        self._recent_samples = 0
        self._wound_up = False
        self._open = False
        self._input_over = False
        self._error: EngineError | None = None
        self.received_bytes = 0
        """Bytes that have been taken in."""

    @property
    def heard_s(self) -> float:
        """Audio that has been searched so far."""
        return self._heard_samples / RATE_HZ

    @property
    def missing(self) -> tuple[Missing, ...]:
        """Parts of the index that did not answer at some time."""
        return tuple(self._matcher.missing.values())

    def recent(self) -> Pcm:
        """The last RECENT_S that were searched, less at the beginning."""
        return np.concatenate([np.empty(0, np.float32), *self._recent])

    def open(self) -> None:
        """Gets ready for bytes; to be closed."""
        loop = asyncio.get_running_loop()

        def moved() -> None:
            # The decoder may outlive the loop by a moment.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._on_moved)

        self._source = open_source(self._config.pcm, moved)
        self._open = True

    async def close(self) -> None:
        """Frees the decoder's thread. May be called repeatedly."""
        if self._open:
            self._open = False
            self._waiting.clear()
            self._waiting_samples = 0
            self._recent.clear()
            self._recent_samples = 0
            # Another one, without half a minute of audio.
            self._matcher = LiveMatcher(PARAMS, self._config.options)
            await asyncio.get_running_loop().run_in_executor(None, self._source.close)

    async def feed(self, data: bytes) -> None:
        """Takes bytes in as soon as there is room. Raises EngineError for what cannot be read.

        Cancelled half-way, it has taken what ``received_bytes`` says. After `end` nothing is taken.
        """
        for at in range(0, 0 if self._input_over else len(data), _PIECE_BYTES):
            piece = data[at : at + _PIECE_BYTES]
            while not self._source.feed(piece):
                self._room.clear()
                self._collect()
                await self._room.wait()
            self.received_bytes += len(piece)
            self._on_moved()
            if len(data) > _PIECE_BYTES:
                await asyncio.sleep(0)

    def end(self) -> None:
        """No more bytes will come; may be said again."""
        if not self._input_over:
            self._input_over = True
            self._source.end()
            self._on_moved()

    def wind_up(self) -> None:
        """The next step is the last one, whatever still waits."""
        self._wound_up = True
        self._moved.set()

    async def next_step(self) -> Step:
        """Waits for the next half second of audio, or for the end, and searches."""
        while True:
            self._moved.clear()
            self._collect()
            if self._wound_up:
                return await self._finish(np.empty(0, np.float32))
            if self._waiting_samples >= _STEP_SAMPLES:
                return await self._search(self._cut(_STEP_SAMPLES))
            if self._error is not None or self._source.ended:
                pcm = self._cut(self._waiting_samples)
                total_s = (self._heard_samples + pcm.size) / RATE_HZ
                if self._error is not None and total_s < PARAMS.min_clip_s:
                    raise self._error
                if total_s < PARAMS.min_clip_s:
                    raise ClipTooShort(f"the stream has {total_s:.2f} s of audio")
                return await self._finish(pcm)
            await self._moved.wait()

    async def finish(self) -> Sequence[LiveEvent]:
        """What the matcher has to say when nothing more comes."""
        snapshot = self._index.snapshot()
        return await self._turns.run(
            time.monotonic(), lambda _: self._matcher.finish(snapshot), young=True
        )

    async def _search(self, pcm: Pcm) -> Step:
        due = self._pace.next()
        snapshot = self._index.snapshot()

        def work(check: Callable[[], None]) -> Sequence[LiveEvent]:
            check()
            self._matcher.push(pcm)
            return self._matcher.step(snapshot)

        events = await self._turns.run(due, work, young=self.heard_s < YOUNG_S)
        self._heard(pcm)
        late_s = max(0.0, time.monotonic() - due)
        return Step(events, pcm, self.heard_s, self._matcher.settled_s, late_s)

    async def _finish(self, pcm: Pcm) -> Step:
        self._matcher.push(pcm)
        events = await self.finish()
        self._heard(pcm)
        settled_s = self._matcher.settled_s
        return Step(events, pcm, self.heard_s, settled_s, 0.0, last=True, error=self._error)

    def _heard(self, pcm: Pcm) -> None:
        self._heard_samples += pcm.size
        self._recent.append(pcm)
        self._recent_samples += pcm.size
        while self._recent_samples - self._recent[0].size >= RECENT_S * RATE_HZ:
            self._recent_samples -= self._recent.popleft().size

    def _on_moved(self) -> None:
        if self._open:
            self._room.set()
            self._collect()
            self._moved.set()

    def _collect(self) -> None:
        """Moves what is decoded to the audio that waits; what makes a step whole is due now."""
        while self._open and self._waiting_samples < MOST_WAITING_S * RATE_HZ:
            try:
                pcm = self._source.read()
            except EngineError as error:
                # What came before it is searched first.
                self._error = error
                break
            if pcm is None:
                break
            self._room.set()
            if pcm.size:
                self._waiting.append(pcm)
                self._waiting_samples += pcm.size
        steps = (self._heard_samples + self._waiting_samples) // _STEP_SAMPLES
        while self._told_steps < steps:
            self._told_steps += 1
            self._pace.arrived()

    def _cut(self, n_samples: int) -> Pcm:
        """The first audio that waits, so many samples of it."""
        pieces: list[Pcm] = []
        left = n_samples
        while left > 0:
            piece = self._waiting.popleft()
            if piece.size > left:
                self._waiting.appendleft(piece[left:])
                piece = piece[:left]
            pieces.append(piece)
            left -= piece.size
        self._waiting_samples -= n_samples
        return np.concatenate([np.empty(0, np.float32), *pieces])
