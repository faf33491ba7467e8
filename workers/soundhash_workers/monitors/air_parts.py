"""What a monitor hears, cut in parts that overlap and are fingerprinted as they grow."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

from soundhash_engine import PARAMS, Extractor, Segment
from soundhash_engine.types import Pcm
from soundhash_server.store.air import AirPart

PART_S = 300.0
OVERLAP_S = 12.0
"""A clip of up to this length lies in one part, wherever it begins."""
GROW_S = 30.0
"""A part is given out whenever so much has been added: until then nobody can find it."""
BREAK_S = 3.0
"""Where the time of what arrives jumps by more, a new part begins: one has one time line."""
SETTLED_S = 45.0
"""A part's line is known by then; while it is not, it may move."""
LEAST_S = 2.0
_RATE_HZ = PARAMS.sample_rate_hz
_PART_SAMPLES = round(PART_S * _RATE_HZ)
_STEP_SAMPLES = round((PART_S - OVERLAP_S) * _RATE_HZ)
_GROW_SAMPLES = round(GROW_S * _RATE_HZ)


@dataclass(slots=True, eq=False)
class Part:
    """A part that grows.

    continues: it begins in the overlap with the one before. stored, kept: as in `AirPart`; who
    stores it keeps them up to date. ended: nothing will be added.
    """

    continues: bool
    id: UUID = field(default_factory=uuid4)
    stored: bool = False
    kept: int = 0
    ended: bool = False
    samples: int = 0
    given_samples: int = 0
    whole: list[Segment] = field(default_factory=list)
    line_s: float = math.inf
    """When its first sample was on the air, at the latest: seconds since 1970."""
    recent_line_s: float = math.inf
    """The same by what came since it was last given out alone."""
    extractor: Extractor = field(default_factory=Extractor)

    @property
    def length_s(self) -> float:
        return self.samples / _RATE_HZ

    def add(self, pcm: Pcm, heard_s: float) -> None:
        """heard_s: when its first sample was on the air."""
        line_s = heard_s - self.length_s
        self.line_s = min(self.line_s, line_s)
        self.recent_line_s = min(self.recent_line_s, line_s)
        self.whole += self.extractor.push(pcm)
        self.samples += pcm.size


@dataclass(frozen=True, slots=True)
class Grown:
    """A part to be stored as it is now."""

    part: Part
    content: AirPart
    whole: int
    """So many of its segments will not change."""


class PartCutter:
    """Cuts one monitor's audio. Not thread-safe; pushing takes some milliseconds every 8 s."""

    def __init__(self) -> None:
        self._open: list[Part] = []
        """The one that grows, and while they overlap the one before it."""

    def push(self, pcm: Pcm, heard_at: datetime) -> list[Grown]:
        """Takes the next audio and when its first sample was on the air; what is to be stored."""
        out: list[Grown] = []
        heard_s = heard_at.timestamp()
        newest = self._open[-1] if self._open else None
        if newest is not None and newest.length_s >= SETTLED_S:
            # More has come than time has passed, or much later than what came before.
            ahead_s = newest.line_s - (heard_s - newest.length_s)
            if ahead_s > BREAK_S:
                out += self.end()
        used = 0
        while used < pcm.size:
            newest = self._begin_if_due()
            room = min(
                _STEP_SAMPLES - newest.samples if newest.samples < _STEP_SAMPLES else pcm.size,
                *(_PART_SAMPLES - part.samples for part in self._open),
            )
            piece = pcm[used : used + room]
            for part in self._open:
                part.add(piece, heard_s + used / _RATE_HZ)
            used += piece.size
            out += self._full()
        return out + self._grown()

    def end(self) -> list[Grown]:
        """What comes next does not go on from here: ends the parts; those worth storing."""
        ended, self._open = self._open, []
        return [self._end(part) for part in ended if _worth_storing(part)]

    def drop(self, part: Part) -> None:
        """Does without a part."""
        self._open = [one for one in self._open if one is not part]

    def _begin_if_due(self) -> Part:
        if not self._open:
            self._open.append(Part(continues=False))
        elif len(self._open) == 1 and self._open[0].samples == _STEP_SAMPLES:
            self._open.append(Part(continues=True))
        return self._open[-1]

    def _full(self) -> list[Grown]:
        full = [part for part in self._open if part.samples == _PART_SAMPLES]
        self._open = [part for part in self._open if part.samples < _PART_SAMPLES]
        return [self._end(part) for part in full]

    def _grown(self) -> list[Grown]:
        out = []
        for part in self._open:
            if part.samples - part.given_samples < _GROW_SAMPLES:
                continue
            late_s, part.recent_line_s = part.recent_line_s - part.line_s, math.inf
            if late_s > BREAK_S and part.length_s >= SETTLED_S:
                return self.end()
            part.given_samples = part.samples
            segments = part.extractor.so_far()
            out.append(_grown(part, [*part.whole, *segments]))
        return out

    def _end(self, part: Part) -> Grown:
        part.ended = True
        part.whole += part.extractor.finish()
        return _grown(part, part.whole)


def _worth_storing(part: Part) -> bool:
    """Whether a part that ends early holds something that no other does."""
    return part.length_s >= LEAST_S + (OVERLAP_S if part.continues else 0.0)


def _grown(part: Part, segments: list[Segment]) -> Grown:
    content = AirPart(
        id=part.id,
        air_time=datetime.fromtimestamp(part.line_s, UTC),
        duration_s=part.length_s,
        segments=tuple(segments),
        kept=part.kept,
        stored=part.stored,
    )
    return Grown(part, content, len(part.whole))
