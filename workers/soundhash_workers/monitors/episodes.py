"""What was on the air, from what was heard of it: sightings of videos become episodes.

An episode is one playing of one video. It goes on over interruptions (somebody talks, an
advertisement, a connection that broke, a worker that died) as long as the video goes on where it
has to be by then, or about where it was left. A video that begins anew is another episode.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

from soundhash_server.model import Detection
from soundhash_workers.monitors.intervals import Covered

HOLD_S = 30.0
"""An episode ends when so much audio has come without its video."""
LOST_S = 120.0
"""And when so much time has passed since it was heard, whether audio came or not."""
LINE_S = 1.5
LINE_DRIFT = 0.01
"""A video that goes on is where its speed says, within LINE_S and this part of the time since."""
REJOIN_S = 60.0
"""A player that stood still or skipped goes on within this much of where it has to be by then."""
BACK_S = 45.0
"""Servers repeat so much of what they have sent before when a listener comes back."""
EXCLUSIVE_S = 2.0
"""A place that disagrees with an episode counts from this much beyond the episode's end on."""
PROGRESS_S = 5.0
"""How an episode goes on is told no more often than this."""
MOST_OPEN = 64


@dataclass(frozen=True, slots=True)
class Sighting:
    """A video that was heard, or is being heard, in air time.

    start, end: when. video_start_s, video_end_s: what of it. also_at_s: other starts of the same
    sound in the video. Later sightings of one playing have about the same start and a later end.
    """

    video_id: UUID
    title: str
    source_url: str
    external_id: str
    start: datetime
    end: datetime
    video_start_s: float
    video_end_s: float
    speed: float
    pitch: float
    confidence: float
    also_at_s: tuple[float, ...] = ()

    def at(self, video_start_s: float) -> Sighting:
        """The same sound at another of its places in the video."""
        length_s = self.video_end_s - self.video_start_s
        return dataclasses.replace(
            self, video_start_s=video_start_s, video_end_s=video_start_s + length_s
        )


class _Episode:
    """One playing. Times are seconds since 1970."""

    def __init__(self, first: Sighting) -> None:
        self.id = uuid4()
        self.first = first
        self.latest = first
        self.start_s = self.run_start_s = self.end_s = first.start.timestamp()
        self.video_start_s = first.video_start_s
        self.runs = 1
        self.best = first
        self.heard = Covered()
        self.broken = False
        self.told = False
        self.told_s = 0.0
        self.changed = True
        self.follow(first)

    @classmethod
    def of(cls, detection: Detection) -> _Episode:
        """Goes on with what another worker, or an earlier life of this one, has begun."""
        sighting = Sighting(
            detection.video_id,
            detection.title,
            detection.source_url,
            detection.external_id,
            detection.start_time,
            detection.end_time,
            detection.video_start_s,
            detection.video_end_s,
            detection.speed,
            detection.pitch,
            detection.confidence,
        )
        one = cls(sighting)
        one.id = detection.id
        one.heard = Covered(detection.covered_s)
        # What comes now is another stretch of it.
        one.run_start_s = one.end_s
        one.runs = 2
        one.broken = one.told = True
        one.changed = False
        return one

    def follow(self, sighting: Sighting) -> None:
        """The playing goes on as the sighting says."""
        start_s, end_s = sighting.start.timestamp(), sighting.end.timestamp()
        if start_s > self.end_s + LINE_S or self.broken:
            self.run_start_s = start_s
            self.runs += 1
        self.run_start_s = min(self.run_start_s, start_s) if self.runs == 1 else self.run_start_s
        if self.runs == 1 and not self.told:
            # Once it is told where it began, that stays.
            self.start_s = min(self.start_s, start_s)
            self.video_start_s = sighting.video_start_s
        self.latest = sighting
        self.end_s = max(self.end_s, end_s)
        if sighting.confidence > self.best.confidence:
            self.best = sighting
        self.heard.add(max(start_s, self.start_s), end_s)
        self.broken = False
        self.changed = True

    def on_line(self, sighting: Sighting) -> Sighting | None:
        """The sighting at the place where this playing has to be by then, if it can be there."""
        latest = self.latest
        since_s = (sighting.end - latest.end).total_seconds()
        expected_s = latest.video_end_s + since_s * latest.speed
        length_s = sighting.video_end_s - sighting.video_start_s
        places = (sighting.video_start_s, *sighting.also_at_s)
        place = min(places, key=lambda start_s: abs(start_s + length_s - expected_s))
        if abs(place + length_s - expected_s) > LINE_S + LINE_DRIFT * abs(since_s):
            return None
        return sighting if place == sighting.video_start_s else sighting.at(place)

    def rejoins(self, sighting: Sighting) -> bool:
        """Whether a player that was interrupted could have gone on like this."""
        begin_s = max(sighting.start.timestamp(), self.end_s)
        into_s = (begin_s - sighting.start.timestamp()) * sighting.speed
        step_s = sighting.video_start_s + into_s - self.latest.video_end_s
        gap_s = begin_s - self.end_s
        back_s = min(LINE_S, 0.5 * (self.latest.video_end_s - self.video_start_s))
        if self.broken and sighting.video_start_s > LINE_S:
            # Not from its start: what has been sent before, once more.
            back_s = BACK_S
        return -back_s <= step_s <= gap_s * self.latest.speed + REJOIN_S

    def detection(self, monitor_id: UUID, *, ongoing: bool) -> Detection:
        return Detection(
            id=self.id,
            monitor_id=monitor_id,
            video_id=self.first.video_id,
            title=self.first.title,
            source_url=self.first.source_url,
            external_id=self.first.external_id,
            start_time=datetime.fromtimestamp(self.start_s, UTC),
            end_time=datetime.fromtimestamp(max(self.start_s, self.end_s), UTC),
            ongoing=ongoing,
            video_start_s=max(0.0, self.video_start_s),
            video_end_s=max(0.0, self.latest.video_end_s),
            covered_s=self.heard.total_s,
            confidence=self.best.confidence,
            speed=self.best.speed,
            pitch=self.best.pitch,
        )


class Episodes:
    """Makes the episodes of one monitor. Pure: no clock, no database.

    ongoing: detections of the monitor that had not ended when this was made. min_duration_s,
    min_confidence: what is shorter, or less likely, is never told; may be changed at any time.
    """

    def __init__(
        self,
        monitor_id: UUID,
        ongoing: Sequence[Detection] = (),
        *,
        min_duration_s: float,
        min_confidence: float,
    ) -> None:
        self._monitor_id = monitor_id
        self.min_duration_s = min_duration_s
        self.min_confidence = min_confidence
        self._open: dict[UUID, _Episode] = {}
        self._ended: list[Detection] = []
        for detection in sorted(ongoing, key=lambda one: one.end_time):
            if detection.video_id in self._open:
                self._end(self._open.pop(detection.video_id))
            self._open[detection.video_id] = _Episode.of(detection)

    def saw(self, sighting: Sighting) -> None:
        """Takes what was heard. Sightings come about in the order of their ends."""
        one = self._open.get(sighting.video_id)
        if one is None:
            self._begin(sighting)
            return
        on_line = one.on_line(sighting)
        if on_line is not None:
            one.follow(on_line)
            return
        start_s, end_s = sighting.start.timestamp(), sighting.end.timestamp()
        if start_s <= one.run_start_s + EXCLUSIVE_S and end_s > one.start_s and not one.broken:
            # The same seconds, now taken for another place of the video.
            one.follow(sighting)
        elif end_s < one.end_s + EXCLUSIVE_S:
            # An earlier playing's last word, or too little yet to be another one.
            return
        elif one.rejoins(sighting):
            one.follow(sighting)
        else:
            self._end(self._open.pop(sighting.video_id))
            self._begin(sighting)

    def interrupted(self) -> None:
        """The connection broke: what comes next may repeat a part of what came before."""
        for one in self._open.values():
            one.broken = True

    def advance(self, searched: datetime | None, now: datetime) -> None:
        """Ends what has not been heard for long enough.

        searched: air time up to which everything was searched; None: nothing yet.
        """
        searched_s = None if searched is None else searched.timestamp()
        for video_id, one in list(self._open.items()):
            if (searched_s is not None and searched_s - one.end_s > HOLD_S) or (
                now.timestamp() - one.end_s > LOST_S
            ):
                self._end(self._open.pop(video_id))

    def changes(self, now: datetime, *, all_progress: bool = False) -> list[Detection]:
        """What has to be told: episodes that began or ended, and how the others go on.

        all_progress: also of those that were told a moment ago.
        """
        told, self._ended = self._ended, []
        now_s = now.timestamp()
        for one in self._open.values():
            due = all_progress or not one.told or abs(now_s - one.told_s) >= PROGRESS_S
            if one.changed and due and self._counts(one):
                one.told, one.told_s, one.changed = True, now_s, False
                told.append(one.detection(self._monitor_id, ongoing=True))
        return told

    def _begin(self, sighting: Sighting) -> None:
        if len(self._open) >= MOST_OPEN:
            oldest = min(self._open.values(), key=lambda one: one.end_s)
            self._end(self._open.pop(oldest.first.video_id))
        self._open[sighting.video_id] = _Episode(sighting)

    def _end(self, one: _Episode) -> None:
        if one.told or self._counts(one):
            self._ended.append(one.detection(self._monitor_id, ongoing=False))

    def _counts(self, one: _Episode) -> bool:
        return (
            one.heard.total_s >= self.min_duration_s - 0.01
            and one.best.confidence >= self.min_confidence
        )
