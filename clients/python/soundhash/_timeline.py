"""What a stream held, put in order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from soundhash._types import FinalMatch, Gap, Match, StreamEvent

_TOUCHING_S = 0.001
"""Gaps that lie no further apart are one; the parts of a gap meet at rounded times."""


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """A part of a stream, from start_s to end_s. match: what it is; None: nothing known."""

    start_s: float
    end_s: float
    match: Match | None


class Timeline:
    """The final matches and the gaps of a stream, in the order of their starts.

    Give it every event of a stream; it keeps what is certain. Matches may overlap (a voice over
    music). At the end of the stream the entries cover all of it; before, what is missing is not
    decided yet, and after a loss of the server's memory (see `stream`) it is not known.

        timeline = soundhash.Timeline()
        for event in client.stream(chunks):
            timeline.add(event)
        for entry in timeline:
            print(entry.start_s, entry.end_s, entry.match.title if entry.match else "-")
    """

    def __init__(self) -> None:
        self._entries: list[TimelineEntry] = []

    def add(self, event: StreamEvent) -> bool:
        """Takes an event in; tells whether that changed the timeline."""
        if isinstance(event, FinalMatch):
            found = event.match
            self._insert(TimelineEntry(found.clip_start_s, found.clip_end_s, found))
            return True
        if isinstance(event, Gap):
            self._insert_gap(event.start_s, event.end_s)
            return True
        return False

    def _insert(self, entry: TimelineEntry) -> None:
        at = bisect_right(self._entries, entry.start_s, key=lambda other: other.start_s)
        self._entries.insert(at, entry)

    def _insert_gap(self, start_s: float, end_s: float) -> None:
        # Gaps come in order, so only the last ones can touch this one.
        for at in range(len(self._entries) - 1, -1, -1):
            other = self._entries[at]
            if other.match is not None:
                continue
            if other.end_s < start_s - _TOUCHING_S:
                break
            if other.start_s <= end_s + _TOUCHING_S:
                start_s, end_s = min(start_s, other.start_s), max(end_s, other.end_s)
                del self._entries[at]
        self._insert(TimelineEntry(start_s, end_s, None))

    @property
    def entries(self) -> tuple[TimelineEntry, ...]:
        """All that is known so far, by start."""
        return tuple(self._entries)

    @property
    def matches(self) -> tuple[Match, ...]:
        """The matches alone, by start."""
        return tuple(entry.match for entry in self._entries if entry.match is not None)

    @property
    def recognised_s(self) -> float:
        """Seconds of the stream that lie in a match; what lies in several counts once."""
        total_s, reached_s = 0.0, 0.0
        for entry in self._entries:
            if entry.match is not None:
                total_s += max(0.0, entry.end_s - max(entry.start_s, reached_s))
                reached_s = max(reached_s, entry.end_s)
        return total_s

    def __iter__(self) -> Iterator[TimelineEntry]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
