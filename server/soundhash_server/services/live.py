"""Where does the audio come from that is arriving right now."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias
from uuid import UUID

import numpy as np

from soundhash_engine import PARAMS, ClipTooShort, PcmFormat, PcmResampler, StreamDecoder
from soundhash_engine.live import Final, LiveEvent, LiveMatcher, Provisional
from soundhash_engine.matcher import MatchOptions
from soundhash_engine.postings import Missing
from soundhash_engine.types import Pcm
from soundhash_server.model import MatchRecord
from soundhash_server.services.cpu import CpuPool, busy
from soundhash_server.services.matching import Keeping, Searchable, name_matches, to_record
from soundhash_server.store.matches import Matches
from soundhash_server.store.videos import Videos

STEP_S = 0.5
"""Events come at most once for this much audio."""
MOST_WAITING_S = 20.0
"""No more is taken from the caller while this much audio waits."""
RECENT_S = 30.0
"""So much is at hand of a stream to keep what explains a match that has just ended."""
PUBLISH_SCORE = 4.0
"""From this score on a match is safe to publish (see soundhash.v1.ScoreParts)."""
PUBLISH_STABILITY = 0.5
SILENCE_DB = -120.0
POLL_S = 0.05
_RATE_HZ = PARAMS.sample_rate_hz
_STEP_SAMPLES = round(STEP_S * _RATE_HZ)


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """How to read and what to answer; ``pcm`` is None for media in a container."""

    pcm: PcmFormat | None
    options: MatchOptions
    stop_after_first: bool


@dataclass(frozen=True, slots=True)
class Heard:
    """Audio arrives, nothing is recognised. level_db: of the last step, -120 to 0."""

    heard_s: float
    level_db: float


@dataclass(frozen=True, slots=True)
class ProvisionalMatch:
    """What it seems to be; not stored. stability: 0 to 1."""

    heard_s: float
    match: MatchRecord
    stability: float


@dataclass(frozen=True, slots=True)
class FinalMatch:
    """A match that will not change; stored."""

    heard_s: float
    match: MatchRecord


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of the stream; ``missing``: what of the index did not answer at some time."""

    heard_s: float
    query_id: UUID
    match_count: int
    missing: tuple[Missing, ...]


StreamEvent: TypeAlias = Heard | ProvisionalMatch | FinalMatch | Summary


class AudioSource(Protocol):
    """Bytes in, mono 8 kHz out, without waiting."""

    def feed(self, data: bytes) -> bool:
        """Takes bytes; False when there is no room yet."""

    def end(self) -> None:
        """No more bytes will come."""

    def read(self) -> Pcm | None:
        """The next audio that is ready."""

    @property
    def ended(self) -> bool:
        """Everything has been read."""

    def close(self) -> None:
        """Frees what it holds; may block for a moment."""


class ContainerSource:
    """Media in a container, decoded by a thread of the engine."""

    def __init__(self) -> None:
        self._decoder = StreamDecoder()
        self.feed = self._decoder.try_feed
        self.end = self._decoder.end_of_input
        self.close = self._decoder.close

    def read(self) -> Pcm | None:
        return self._decoder.read(timeout_s=0)

    @property
    def ended(self) -> bool:
        return self._decoder.ended


class RawSource:
    """Raw interleaved samples."""

    def __init__(self, pcm_format: PcmFormat) -> None:
        self._resampler = PcmResampler(pcm_format)
        self._waiting: Pcm | None = None
        self._over = False

    def feed(self, data: bytes) -> bool:
        if self._waiting is not None:
            return False
        self._waiting = self._resampler.push(data)
        return True

    def end(self) -> None:
        rest = self._resampler.finish()
        self._waiting = rest if self._waiting is None else np.concatenate((self._waiting, rest))
        self._over = True

    def read(self) -> Pcm | None:
        pcm, self._waiting = self._waiting, None
        return pcm

    @property
    def ended(self) -> bool:
        return self._over and self._waiting is None

    def close(self) -> None:
        self._waiting = None


class LiveMatching:
    """Matches streams while they arrive and keeps what they were found to be."""

    def __init__(
        self,
        cpu: CpuPool,
        index: Searchable,
        videos: Videos,
        matches: Matches,
        keeper: Keeping,
        *,
        max_streams: int,
    ) -> None:
        self._cpu = cpu
        self._index = index
        self._videos = videos
        self._matches = matches
        self._keeper = keeper
        self._max_streams = max_streams
        self.streams = 0
        """Streams that run now."""

    async def run(
        self, config: StreamConfig, audio: AsyncIterator[bytes]
    ) -> AsyncGenerator[StreamEvent, None]:
        """Events for the bytes that ``audio`` gives; ends with a Summary.

        Nothing is read ahead of a slow reader beyond a fixed bound. Raises EngineError for audio
        that cannot be read, PlatformError RESOURCE_EXHAUSTED (SERVER_BUSY), and what ``audio``
        raises. Close the iterator (aclosing) to free its thread.
        """
        if self.streams >= self._max_streams:
            raise busy("streams", self._max_streams)
        self.streams += 1
        stream = _Stream(config, audio, self._cpu, self._index)
        try:
            await stream.open()
            async for event in self._answer(stream, config):
                yield event
        finally:
            try:
                await stream.close()
            finally:
                self.streams -= 1

    async def _answer(self, stream: _Stream, config: StreamConfig) -> AsyncIterator[StreamEvent]:
        begun = time.perf_counter()
        query_id: UUID | None = None
        count = 0
        stop = False
        while not stop:
            step = await stream.next_step()
            finals = [event.match for event in step.events if isinstance(event, Final)]
            provisional = _best(step.events, config.options.min_confidence)
            if config.stop_after_first and not step.last:
                stop = bool(finals) or _certain(provisional)
                if stop:
                    ended = await stream.finish()
                    finals += [event.match for event in ended if isinstance(event, Final)]
                    if not finals and provisional is not None:
                        finals = [provisional.match]
                    finals = finals[:1]
            if finals:
                named = await name_matches(self._videos, finals)
                query_id, stored = await self._matches.record(
                    "STREAM", step.heard_s, time.perf_counter() - begun, named, query_id=query_id
                )
                recent = stream.recent()
                begin_s = stream.heard_s - recent.size / _RATE_HZ
                self._keeper.keep(query_id, recent, finals, begin_s=begin_s)
                count += len(stored)
                for record in stored:
                    yield FinalMatch(step.heard_s, record)
            if step.last or stop:
                break
            if provisional is not None:
                shown = await self._show(step.heard_s, provisional)
                if shown is not None:
                    yield shown
                    continue
            yield Heard(step.heard_s, step.level_db)
        query_id, _ = await self._matches.record(
            "STREAM", stream.heard_s, time.perf_counter() - begun, (), query_id=query_id
        )
        yield Summary(stream.heard_s, query_id, count, stream.missing)

    async def _show(self, heard_s: float, event: Provisional) -> ProvisionalMatch | None:
        match = event.match
        by_id = await self._videos.by_recording_ids([match.recording_id])
        if match.recording_id not in by_id:
            return None
        record = to_record(match, by_id[match.recording_id])
        return ProvisionalMatch(heard_s, record, event.stability)


@dataclass(frozen=True, slots=True)
class _Step:
    events: Sequence[LiveEvent]
    heard_s: float
    level_db: float
    last: bool


class _Stream:
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
        return self._heard_samples / _RATE_HZ

    @property
    def missing(self) -> tuple[Missing, ...]:
        """Parts of the index that did not answer at some time."""
        return tuple(self._matcher.missing.values())

    async def open(self) -> None:
        pcm = self._config.pcm
        self._source = ContainerSource() if pcm is None else RawSource(pcm)
        self._reader = asyncio.create_task(self._take_in(), name="stream-reader")

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._reader
            # Joins the decoder's thread.
            await asyncio.get_running_loop().run_in_executor(None, self._source.close)

    async def next_step(self) -> _Step:
        """Waits for the next half second of audio, or for the end, and searches."""
        while True:
            self._collect()
            if self._waiting_samples >= _STEP_SAMPLES:
                pcm = self._cut(_STEP_SAMPLES)
                return _Step(await self._search(pcm), self.heard_s, _level_db(pcm), False)
            if self._source.ended:
                pcm = self._cut(self._waiting_samples)
                total_s = (self._heard_samples + pcm.size) / _RATE_HZ
                if total_s < PARAMS.min_clip_s:
                    raise ClipTooShort(f"the stream has {total_s:.2f} s of audio")
                events = [*await self._search(pcm), *await self.finish()]
                return _Step(events, self.heard_s, _level_db(pcm), True)
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
        while self._recent_samples - self._recent[0].size >= RECENT_S * _RATE_HZ:
            self._recent_samples -= self._recent.popleft().size
        return events

    def _collect(self) -> None:
        """Moves what is decoded to the audio that waits."""
        while self._waiting_samples < MOST_WAITING_S * _RATE_HZ:
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


def _best(events: Sequence[LiveEvent], min_confidence: float) -> Provisional | None:
    """The one provisional match that is shown: the likeliest to stay."""
    provisional = [
        event
        for event in events
        if isinstance(event, Provisional) and event.match.confidence >= min_confidence
    ]
    return max(provisional, key=lambda event: (event.stability, event.match.score), default=None)


def _certain(event: Provisional | None) -> bool:
    return (
        event is not None
        and event.match.score >= PUBLISH_SCORE
        and event.stability >= PUBLISH_STABILITY
    )


def _level_db(pcm: Pcm) -> float:
    """Power of the audio, dB of full scale, -120 to 0."""
    power = float(np.mean(np.square(pcm, dtype=np.float64))) if pcm.size else 0.0
    return min(0.0, max(SILENCE_DB, 10.0 * math.log10(max(power, 1e-12))))
