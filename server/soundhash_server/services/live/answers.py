"""What the steps of one stream come to: named, stored, in the order of the timeline."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from uuid import UUID

from soundhash_engine.live import Final, LiveEvent, Provisional
from soundhash_engine.matcher import Match
from soundhash_engine.score import PUBLISH_CONFIDENCE
from soundhash_server.errors import PlatformError
from soundhash_server.model import Video
from soundhash_server.services.live.audio import level_db, peak_db
from soundhash_server.services.live.events import (
    FinalMatch,
    Gap,
    Heard,
    ProvisionalMatch,
    StreamConfig,
    StreamEvent,
    Summary,
)
from soundhash_server.services.live.gaps import Gaps
from soundhash_server.services.live.stream import RATE_HZ, Step, Stream
from soundhash_server.services.live.warnings import Warnings
from soundhash_server.services.matching import Keeping, name_matches, to_record
from soundhash_server.store.matches import Matches
from soundhash_server.store.videos import Videos

PUBLISH_STABILITY = 0.5
"""A match that is safe to publish has been seen more than once."""
NAMES_S = 10.0
"""What the catalogue says about a video that plays is asked again after this."""
MOST_NAMES = 32
MOST_UNSTORED = 64
"""So many matches wait for a database that is away; then the stream ends."""


@dataclasses.dataclass(frozen=True, slots=True)
class Desk:
    """What naming and storing answers needs."""

    videos: Videos
    matches: Matches
    keeper: Keeping


class Answers:
    """The answers of one stream."""

    def __init__(self, stream: Stream, config: StreamConfig, desk: Desk, *, record: bool) -> None:
        self._stream = stream
        self._config = config
        self._desk = desk
        self._record = record
        self._begun = time.perf_counter()
        self._gaps = Gaps()
        self._warnings = Warnings()
        self._query_id: UUID | None = None
        self._count = 0
        self._unstored: list[Match] = []
        self._names: dict[int, tuple[float, Video | None]] = {}
        self.over = False
        """Nothing but the summary follows."""

    async def of(self, step: Step) -> list[StreamEvent]:
        """Everything that a step has to tell."""
        self.over = step.last
        finals = [event.match for event in step.events if isinstance(event, Final)]
        provisional = likeliest(step.events, self._config.options.min_confidence)
        settled_s = step.settled_s
        if self._config.stop_after_first and not step.last and (finals or _certain(provisional)):
            self.over = True
            settled_s = step.heard_s
            finals = _first(finals, provisional, await self._stream.finish())
        events: list[StreamEvent] = list(await self._tell(finals, step.heard_s))
        if self._unstored:
            settled_s = min(settled_s, *(match.clip_start_s for match in self._unstored))
        events += [Gap(step.heard_s, *gap) for gap in self._gaps.settle(settled_s, end=self.over)]
        if not self.over:
            if provisional is not None:
                events += await self._show(step.heard_s, provisional)
            events.append(
                Heard(
                    step.heard_s,
                    level_db(step.pcm),
                    peak_db(step.pcm),
                    self._warnings.of(step.pcm, step.late_s),
                )
            )
        return events

    async def end(self) -> Summary:
        """The stream is over."""
        heard_s = self._stream.heard_s
        if self._record:
            elapsed_s = time.perf_counter() - self._begun
            self._query_id, _ = await self._desk.matches.record(
                "STREAM", heard_s, elapsed_s, (), query_id=self._query_id
            )
        return Summary(heard_s, self._query_id, self._count, self._stream.missing)

    async def _tell(self, finals: list[Match], heard_s: float) -> list[FinalMatch]:
        finals = self._unstored + finals
        if not finals:
            return []
        try:
            told = await name_matches(self._desk.videos, finals)
            if self._record:
                elapsed_s = time.perf_counter() - self._begun
                self._query_id, told = await self._desk.matches.record(
                    "STREAM", heard_s, elapsed_s, told, query_id=self._query_id
                )
        except PlatformError as error:
            if error.reason != "DATABASE_UNAVAILABLE" or self.over or len(finals) > MOST_UNSTORED:
                raise
            # It may come back: the stream goes on.
            self._unstored = finals
            return []
        self._unstored = []
        if self._query_id is not None:
            recent = self._stream.recent()
            begin_s = self._stream.heard_s - recent.size / RATE_HZ
            self._desk.keeper.keep(self._query_id, recent, finals, begin_s=begin_s)
        self._count += len(told)
        for match in told:
            self._gaps.cover(match.clip_start_s, match.clip_end_s)
        return [FinalMatch(heard_s, match) for match in told]

    async def _show(self, heard_s: float, event: Provisional) -> list[StreamEvent]:
        video = await self._video(event.match.recording_id)
        if video is None:
            return []
        return [ProvisionalMatch(heard_s, to_record(event.match, video), event.stability)]

    async def _video(self, recording_id: int) -> Video | None:
        """What the catalogue says, or said a moment ago; None when it does not answer, either."""
        now = time.monotonic()
        known = self._names.get(recording_id)
        if known is None or now - known[0] > NAMES_S:
            try:
                found = await self._desk.videos.by_recording_ids([recording_id])
            except PlatformError:
                return None
            if len(self._names) >= MOST_NAMES:
                self._names.clear()
            known = self._names[recording_id] = (now, found.get(recording_id))
        return known[1]


def likeliest(events: Sequence[LiveEvent], min_confidence: float) -> Provisional | None:
    """The one provisional match that is shown: the likeliest to stay, of equal ones a video
    rather than what was on the air."""
    provisional = [
        event
        for event in events
        if isinstance(event, Provisional) and event.match.confidence >= min_confidence
    ]
    return max(
        provisional,
        key=lambda event: (event.stability, not event.match.aside, event.match.score),
        default=None,
    )


def _certain(event: Provisional | None) -> bool:
    return (
        event is not None
        and event.match.confidence >= PUBLISH_CONFIDENCE
        and event.stability >= PUBLISH_STABILITY
    )


def _first(
    finals: Sequence[Match], provisional: Provisional | None, ended: Sequence[LiveEvent]
) -> list[Match]:
    """The one match of a stream that stops at its first."""
    matches = [*finals, *(event.match for event in ended if isinstance(event, Final))]
    matches.sort(key=lambda match: match.aside)
    if finals or provisional is None:
        return matches[:1]
    wanted = provisional.match.recording_id
    return [next((m for m in matches if m.recording_id == wanted), provisional.match)]
