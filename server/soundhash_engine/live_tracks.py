"""The lines through a stream: what of a recording plays, from when to when, as far as is known."""

import dataclasses
import math
from collections.abc import Iterable, Iterator

from soundhash_engine.index import Snapshot
from soundhash_engine.matcher import CONTEXT_S, EDGE_S, Match, Passage, thresholds, to_match
from soundhash_engine.window import MOST_ASIDE

GONE_S = 3.0
"""A passage that ended this long ago is over if its recording is, or if something else plays."""
REST_S = 12.0
"""One that ended this long ago is over in any case. Until then it may go on: a rest in the music,
noise over it."""
NEAR_S = EDGE_S + 0.5
"""A passage that ends no further before the end that one step earlier was reached shows the true
end."""
_SAME_S = 1e-6
SUPPORTED_STEPS = 2
"""An answer that fewer steps have seen, and that is not sure, was chance."""
MOST_TRACKS = 16
NEXT_STEPS = 4
"""Something else plays when so many steps have seen it."""
LONG_S = 120.0
"""The speed of a longer passage is measured between its ends: a player's clock may be off by less
than one window shows."""
DOUBLED = 0.5
"""Two lines of one recording that share this part of the shorter one's seconds are turns of a loop:
one is told."""


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """What a step looks at: windows of the stream that begin at ``begins_s`` and end now."""

    begins_s: tuple[float, ...]
    now_s: float


@dataclasses.dataclass(slots=True, eq=False)
class Track:
    """A line through the stream, in its seconds.

    best         the passage with the highest score: it gives the score
    first, last  the passages that reached its ends: a drifting player moves the line
    latest       the newest passage: where the line is tried next
    reached_s    the latest end of a window that it reached
    steps        of the matcher that have seen it; changed: the last one has
    """

    best: Passage
    first: Passage
    last: Passage
    latest: Passage
    start_s: float
    end_s: float
    reached_s: float
    steps: int = 1
    changed: bool = True

    @classmethod
    def begun(cls, passage: Passage, not_before_s: float) -> "Track":
        """A line that a first passage has shown."""
        start_s = min(max(passage.start_s, not_before_s), passage.end_s)
        return cls(passage, passage, passage, passage, start_s, passage.end_s, passage.end_s)

    def absorb(self, passage: Passage, view: "View") -> None:
        """Go on with a passage on the same line.

        A passage that ends near to its window's end reaches it (`EDGE_S`). A window that sees more
        tells where it really is.
        """
        if passage.hit.score > self.best.hit.score:
            self.best = passage
        at_edge = passage.start_s in view.begins_s
        if passage.start_s < self.start_s - (EDGE_S if at_edge else 0.0):
            self.first, self.start_s = passage, passage.start_s
        if passage.end_s >= self.end_s or self.reached_s - passage.end_s <= NEAR_S:
            self.last, self.end_s = passage, passage.end_s
        if passage.end_s > view.now_s - _SAME_S:
            self.reached_s = view.now_s
        self.latest = passage
        self.steps += 1
        self.changed = True

    def shared_s(self, start_s: float, end_s: float) -> float:
        """Seconds that it has of a range."""
        return max(0.0, min(self.end_s, end_s) - max(self.start_s, start_s))

    def match(self, snapshot: Snapshot) -> Match:
        """What it comes to: a range of the stream that lies inside the recording."""
        start_s, end_s = self.start_s, self.end_s
        video_start_s, video_end_s = self.first.at(start_s), self.last.at(end_s)
        # A window reaches beyond a recording's ends; what lies there is not of it.
        if video_start_s < 0.0:
            start_s = min(end_s, start_s - video_start_s / self.first.hit.tempo)
            video_start_s = 0.0
        duration_s = recording_s(snapshot, self.best.hit.recording_id)
        if video_end_s > duration_s:
            end_s = max(start_s, end_s - (video_end_s - duration_s) / self.last.hit.tempo)
            video_end_s = duration_s
        whole = dataclasses.replace(self.best, start_s=start_s, end_s=end_s)
        speed = self.best.hit.tempo
        if end_s - start_s >= LONG_S:
            speed = (video_end_s - video_start_s) / (end_s - start_s)
        return dataclasses.replace(
            to_match([whole], snapshot),
            video_start_s=video_start_s,
            video_end_s=max(video_start_s, video_end_s),
            speed=speed,
        )


def recording_s(snapshot: Snapshot, recording_id: int) -> float:
    """How long a recording is; endless when it is not in the index any more."""
    found = snapshot.find(recording_id)
    return math.inf if found is None else float(found[0].duration_s[found[1]])


class Tracks:
    """All lines that are open, and those that have just ended. Bounded."""

    def __init__(self, top: int) -> None:
        """``top``: of lines that claim the same seconds so many are told."""
        self._top = top
        self._open: list[Track] = []
        # Passages that were told as final while audio that holds them is still looked at.
        self._ended: list[Track] = []

    def __iter__(self) -> Iterator[Track]:
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)

    @property
    def first_s(self) -> float:
        """Where the first open line begins; infinite without any."""
        return min((track.start_s for track in self._open), default=math.inf)

    def known(self, begin_s: float) -> tuple[Passage, ...]:
        """Where lines that reach beyond ``begin_s`` were seen last."""
        return tuple(track.latest for track in self._open if track.end_s > begin_s)

    def take(self, found: Iterable[Passage], view: View) -> None:
        """Passages of one step: they go on with lines or begin new ones."""
        for track in self._open:
            track.changed = False
        for passage in found:
            self._absorb(passage, view)

    def close(
        self, now_s: float, begin_s: float, snapshot: Snapshot
    ) -> tuple[list[Match], list[Track]]:
        """End what is over; returns what has become final, and the lines that have just changed.

        A first impression that the same audio, heard with more, does not confirm is forgotten
        without a word. ``begin_s``: of the window.
        """
        finals: list[Match] = []
        kept: list[Track] = []
        for track in sorted(self._open, key=lambda t: t.start_s):
            if self._over(track, now_s, snapshot):
                finals += self._final(track, snapshot)
            elif track.changed or track.start_s < begin_s or believed(track, snapshot):
                kept.append(track)
        self._open = _best_of_each(kept)
        self._ended = [t for t in self._ended if t.end_s > now_s - CONTEXT_S][-2 * MOST_TRACKS :]
        return finals, [track for track in self._open if track.changed]

    def finish(self, snapshot: Snapshot) -> list[Match]:
        """End everything."""
        finals: list[Match] = []
        for track in sorted(self._open, key=lambda t: t.start_s):
            finals += self._final(track, snapshot)
        self._open.clear()
        return finals

    def _absorb(self, passage: Passage, view: View) -> None:
        for track in self._open:
            if passage.start_s <= track.end_s + REST_S and track.latest.same_line(passage):
                track.absorb(passage, view)
                return
        not_before_s = -math.inf
        for track in self._ended:
            if track.latest.same_line(passage):
                if passage.end_s <= track.end_s + GONE_S:
                    return
                not_before_s = max(not_before_s, track.end_s)
        rival = next((t for t in self._open if _rivals(t, passage)), None)
        if rival is not None:
            # Two turns of a loop claim the same seconds: the better one stays.
            if rival.best.hit.score >= passage.hit.score:
                return
            if rival.start_s > passage.start_s - GONE_S:
                self._open.remove(rival)
        self._open.append(Track.begun(passage, not_before_s))

    def _over(self, track: Track, now_s: float, snapshot: Snapshot) -> bool:
        if track.end_s >= now_s - GONE_S:
            return False
        if track.end_s < now_s - REST_S:
            return True
        left_s = recording_s(snapshot, track.best.hit.recording_id) - track.last.at(track.end_s)
        return left_s < GONE_S or any(
            other.steps >= NEXT_STEPS
            and other.end_s > now_s - GONE_S
            and other.start_s > track.end_s - GONE_S
            and other.best.hit.aside == track.best.hit.aside
            for other in self._open
        )

    def _final(self, track: Track, snapshot: Snapshot) -> list[Match]:
        if not believed(track, snapshot):
            return []
        others = [
            t
            for t in (*self._open, *self._ended)
            if t is not track
            and t.best.hit.aside == track.best.hit.aside
            and t.shared_s(track.start_s, track.end_s) > DOUBLED * (track.end_s - track.start_s)
        ]
        self._ended.append(track)
        recording_id = track.best.hit.recording_id
        doubled = any(
            t.best.hit.recording_id == recording_id and t.steps > track.steps for t in others
        )
        better = sum(t.best.hit.score > track.best.hit.score for t in others)
        return [] if doubled or better >= self._top else [track.match(snapshot)]


def _best_of_each(tracks: list[Track]) -> list[Track]:
    """The best lines of the index, and some of what is beside it: see `Snapshot.beside`."""
    tracks = sorted(tracks, key=lambda t: -t.best.hit.score)
    own = [t for t in tracks if not t.best.hit.aside][:MOST_TRACKS]
    return own + [t for t in tracks if t.best.hit.aside][:MOST_ASIDE]


def _rivals(track: Track, passage: Passage) -> bool:
    """Whether both are of one recording and claim the same seconds."""
    return track.best.hit.recording_id == passage.hit.recording_id and track.shared_s(
        passage.start_s, passage.end_s
    ) > DOUBLED * (passage.end_s - passage.start_s)


def believed(track: Track, snapshot: Snapshot) -> bool:
    """Whether it is more than a first impression."""
    _, sure = thresholds(snapshot)
    return track.steps >= SUPPORTED_STEPS or track.best.hit.score >= sure


def stability(track: Track) -> float:
    """How likely it is to stay, 0 … 1; grows while it is confirmed."""
    return 1.0 - math.exp2(-track.steps / SUPPORTED_STEPS)
