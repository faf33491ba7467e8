"""Where does the audio come from that is arriving right now."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from uuid import UUID

from soundhash_engine.live import Final, LiveEvent, Provisional
from soundhash_server.services.cpu import CpuPool, busy
from soundhash_server.services.live.events import (
    FinalMatch,
    Heard,
    ProvisionalMatch,
    StreamConfig,
    StreamEvent,
    Summary,
)
from soundhash_server.services.live.stream import RATE_HZ, Stream
from soundhash_server.services.matching import Keeping, Searchable, name_matches, to_record
from soundhash_server.store.matches import Matches
from soundhash_server.store.videos import Videos

PUBLISH_SCORE = 4.0
"""From this score on a match is safe to publish (see soundhash.v1.ScoreParts)."""
PUBLISH_STABILITY = 0.5


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
        self, config: StreamConfig, audio: AsyncIterator[bytes], *, record: bool = True
    ) -> AsyncGenerator[StreamEvent, None]:
        """Events for the bytes that ``audio`` gives; ends with a Summary.

        record: whether matches are stored as answers to a question. Without, they have no ids,
        and nothing is kept to explain them.
        Nothing is read ahead of a slow reader beyond a fixed bound. Raises EngineError for audio
        that cannot be read, PlatformError RESOURCE_EXHAUSTED (SERVER_BUSY), and what ``audio``
        raises. Close the iterator (aclosing) to free its thread.
        """
        if self.streams >= self._max_streams:
            raise busy("streams", self._max_streams)
        self.streams += 1
        stream = Stream(config, audio, self._cpu, self._index)
        try:
            await stream.open()
            async for event in self._answer(stream, config, record):
                yield event
        finally:
            try:
                await stream.close()
            finally:
                self.streams -= 1

    async def _answer(
        self, stream: Stream, config: StreamConfig, record: bool
    ) -> AsyncIterator[StreamEvent]:
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
                told = await name_matches(self._videos, finals)
                if record:
                    elapsed_s = time.perf_counter() - begun
                    query_id, told = await self._matches.record(
                        "STREAM", step.heard_s, elapsed_s, told, query_id=query_id
                    )
                    recent = stream.recent()
                    begin_s = stream.heard_s - recent.size / RATE_HZ
                    self._keeper.keep(query_id, recent, finals, begin_s=begin_s)
                count += len(told)
                for match in told:
                    yield FinalMatch(step.heard_s, match)
            if step.last or stop:
                break
            if provisional is not None:
                shown = await self._show(step.heard_s, provisional)
                if shown is not None:
                    yield shown
            yield Heard(step.heard_s, step.level_db, step.peak_db)
        if record:
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
