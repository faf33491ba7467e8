"""A stream of audio against the index, in bounded state: answers while it plays.

Every half second looks at the latest ten again. Lines that are known cost one verification; what
is not known is searched for in the cheap round at every step, and in one of the deeper rounds at
every second one, in turn: the work of a step stays small, and nothing is missed for longer than
the turns take.
"""

import dataclasses
import math
from typing import TypeAlias

import numpy as np

from soundhash_engine.index import Snapshot
from soundhash_engine.live_tracks import Track, Tracks, View, stability
from soundhash_engine.matcher import (
    CONTEXT_S,
    DOUBT_MARGIN,
    MOST_DOUBTFUL,
    ClipSearch,
    Match,
    MatchOptions,
    Passage,
    best_of_each,
    thresholds,
)
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.postings import Missing
from soundhash_engine.types import Pcm
from soundhash_engine.window import ROUNDS, Round

WINDOW_S = 10.0
SHORTEST_WINDOW_S = 3.0
LONGEST_WINDOW_S = 12.0
STEP_S = 0.5
NEW_S = 12.0
"""So long after the stream's beginning, and after a passage has ended, the deeper rounds come twice
as often: something new plays."""
_CHEAP = ROUNDS[:1]
_DEEPER: tuple[Round | None, ...] = (*ROUNDS[1:], None)
"""The deeper rounds in turn; in the last turn doubtful lines are weighed instead."""


@dataclasses.dataclass(frozen=True, slots=True)
class Provisional:
    """What plays now, as far as it is known; ``stability`` 0 … 1 grows while it is confirmed."""

    match: Match
    stability: float


@dataclasses.dataclass(frozen=True, slots=True)
class Final:
    """A passage that is over; its range covers all of it."""

    match: Match


LiveEvent: TypeAlias = Provisional | Final


class LiveMatcher:
    """Matches a stream; push audio of any length, then call ``step``.

    The same audio gives the same answers however it is cut into pushes: it is looked at half second
    by half second. State: the last 30 s of audio, at most 16 open lines and as many that have
    ended. Not thread-safe.

    window_s  how much of the latest audio is looked at together, 3 … 12: less finds the borders of
              short passages more exactly, more hears through noise
    """

    def __init__(
        self,
        params: Params = PARAMS,
        options: MatchOptions | None = None,
        *,
        window_s: float = WINDOW_S,
    ) -> None:
        if not SHORTEST_WINDOW_S <= window_s <= LONGEST_WINDOW_S:
            raise ValueError(
                f"window_s {window_s:g} is not in {SHORTEST_WINDOW_S:g} … {LONGEST_WINDOW_S:g}"
            )
        self._params = params
        self._options = MatchOptions() if options is None else options
        self._hop = round(STEP_S * params.sample_rate_hz)
        self._keep = round(window_s * params.sample_rate_hz)
        self._keep_context = round(CONTEXT_S * params.sample_rate_hz)
        self._context: Pcm = np.empty(0, np.float32)
        # Lines that no window alone makes believable.
        self._suspects: list[Passage] = []
        self._pending: list[Pcm] = []
        self._pending_samples = 0
        self._seen = 0
        self._steps = 0
        self._turn = 0
        self._new_until_s = NEW_S
        self._tracks = Tracks(self._options.top)
        self._settled_s = 0.0
        self.missing: dict[str, Missing] = {}
        """Parts of the index that did not answer at some time of the stream, by name."""

    @property
    def duration_s(self) -> float:
        """Seconds of audio pushed so far."""
        return (self._seen + self._pending_samples) / self._params.sample_rate_hz

    @property
    def settled_s(self) -> float:
        """Nothing that begins before this second of the stream will become final any more."""
        return self._settled_s

    @property
    def ready(self) -> bool:
        """Whether ``step`` would look at something new."""
        return self._pending_samples >= self._hop

    def push(self, pcm: Pcm) -> None:
        """Take mono 8 kHz audio. Only kept here: a caller steps at least every few seconds."""
        self._pending.append(np.array(pcm, np.float32))
        self._pending_samples += pcm.size

    def step(self, snapshot: Snapshot) -> list[LiveEvent]:
        """Look at what is new, half second by half second; returns what changed."""
        return self._drain(snapshot, end=False)

    def finish(self, snapshot: Snapshot) -> list[LiveEvent]:
        """The stream is over: look at the rest and end every passage."""
        events = self._drain(snapshot, end=True)
        events += self._finals(self._tracks.finish(snapshot))
        self._settled_s = self._now_s
        return events

    @property
    def _now_s(self) -> float:
        return self._seen / self._params.sample_rate_hz

    def _drain(self, snapshot: Snapshot, *, end: bool) -> list[LiveEvent]:
        waiting = np.concatenate([np.empty(0, np.float32), *self._pending])
        events: list[LiveEvent] = []
        used = 0
        while waiting.size - used >= self._hop or (end and used < waiting.size):
            fresh = waiting[used : used + self._hop]
            used += fresh.size
            self._seen += fresh.size
            self._context = np.concatenate([self._context, fresh])[-self._keep_context :]
            events += self._look(snapshot)
        rest = waiting[used:].copy()
        self._pending = [rest]
        self._pending_samples = rest.size
        return events

    def _look(self, snapshot: Snapshot) -> list[LiveEvent]:
        rate = self._params.sample_rate_hz
        window = self._context[-self._keep :]
        if window.size < self._params.min_clip_s * rate:
            return []
        now_s = self._now_s
        begin_s = now_s - window.size / rate
        least, _ = thresholds(snapshot)
        search = ClipSearch(snapshot, self._params)
        deeper, weighs = self._next_turn(now_s)
        rounds = _CHEAP if deeper is None else (*_CHEAP, deeper)
        # A stream that is muted for hours costs nothing.
        known = self._tracks.known(begin_s)
        found = search.window(window, begin_s, known, rounds=rounds) if window.any() else []
        self._suspect(found, least)
        if weighs:
            found = found + self._weigh(search, now_s)
        self.missing.update(search.missing)
        open_before = len(self._tracks)
        context_s = now_s - self._context.size / rate
        view = View((begin_s, context_s), now_s)
        self._tracks.take((p for p in found if p.hit.score >= least), view)
        finals, changed = self._tracks.close(now_s, begin_s, snapshot)
        if finals or len(self._tracks) < open_before:
            self._new_until_s = now_s + NEW_S
        self._settled_s = max(self._settled_s, min(now_s - CONTEXT_S, self._tracks.first_s))
        return [*self._finals(finals), *(_provisional(track, snapshot) for track in changed)]

    def _next_turn(self, now_s: float) -> tuple[Round | None, bool]:
        """The deeper round of this step, if it has one, and whether doubtful lines are weighed."""
        self._steps += 1
        if now_s > self._new_until_s and self._steps % 2:
            return None, False
        deeper = _DEEPER[self._turn % len(_DEEPER)]
        self._turn += 1
        return deeper, deeper is None

    def _suspect(self, found: list[Passage], least: float) -> None:
        """Keep the best of the lines that are near to believable."""
        lines: list[Passage] = []
        for passage in sorted([*found, *self._suspects], key=lambda p: -p.hit.score):
            if passage.hit.score < least - DOUBT_MARGIN:
                break
            if not any(line.same_line(passage) for line in lines):
                lines.append(passage)
        self._suspects = best_of_each(lines, MOST_DOUBTFUL)

    def _weigh(self, search: ClipSearch, now_s: float) -> list[Passage]:
        """Evidence gathers over time: doubtful lines are weighed on the last half minute."""
        if self._context.size <= self._keep:
            return []
        context_s = now_s - self._context.size / self._params.sample_rate_hz
        known = self._tracks.known(-math.inf)
        self._suspects = search.weigh(self._context, context_s, self._suspects, known)
        return self._suspects

    def _finals(self, matches: list[Match]) -> list[LiveEvent]:
        return [Final(m) for m in matches if m.confidence >= self._options.min_confidence]


def _provisional(track: Track, snapshot: Snapshot) -> Provisional:
    return Provisional(track.match(snapshot), stability(track))
