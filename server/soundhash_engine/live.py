"""A stream of audio against the index, in bounded state: answers while it plays.

Every step looks at the last 10 s again. Lines that are known cost one verification; the rest of
the search runs in its cheap rounds at every step and in full every two seconds.
"""

import dataclasses
import math
from typing import TypeAlias

import numpy as np

from soundhash_engine.index import Snapshot
from soundhash_engine.matcher import (
    CONTEXT_S,
    ClipSearch,
    Match,
    MatchOptions,
    Passage,
    thresholds,
    to_match,
)
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.postings import Missing
from soundhash_engine.types import Pcm

WINDOW_S = 10.0
STEP_S = 0.5
FULL_SEARCH_S = 2.0
"""All rounds run this often while nothing is known."""
GONE_S = 3.0
"""A passage that ended this long ago is final."""
SUPPORTED_STEPS = 2
"""An answer that fewer steps have seen, and that is not sure, was chance."""
MOST_TRACKS = 16


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


@dataclasses.dataclass(slots=True)
class _Track:
    """A line through the stream: the best passage on it and what it has reached."""

    best: Passage
    latest: Passage
    start_s: float
    end_s: float
    steps: int
    changed: bool

    def absorb(self, passage: Passage) -> None:
        if passage.hit.score > self.best.hit.score:
            self.best = passage
        # The newest line follows a drifting player; the best one gives the score.
        self.latest = passage
        self.start_s = min(self.start_s, passage.start_s)
        self.end_s = max(self.end_s, passage.end_s)
        self.steps += 1
        self.changed = True


class LiveMatcher:
    """Matches a stream; push audio of any length, then call ``step``.

    The same audio gives the same answers however it is cut into pushes, as long as the steps come
    at the same places: ``step`` looks only when half a second of new audio is there, and works
    through it half second by half second. State: the last 30 s of audio and at most 16 lines.
    Not thread-safe.
    """

    def __init__(self, params: Params = PARAMS, options: MatchOptions | None = None) -> None:
        self._params = params
        self._options = MatchOptions() if options is None else options
        self._hop = round(STEP_S * params.sample_rate_hz)
        self._keep = round(WINDOW_S * params.sample_rate_hz)
        self._keep_context = round(CONTEXT_S * params.sample_rate_hz)
        self._window: Pcm = np.empty(0, np.float32)
        self._context: Pcm = np.empty(0, np.float32)
        # Lines that no window alone makes believable.
        self._suspects: list[Passage] = []
        self._pending: list[Pcm] = []
        self._pending_samples = 0
        self._seen = 0
        self._tracks: list[_Track] = []
        # Passages that were told as final while the window still holds them.
        self._ended: list[_Track] = []
        self._searched_at = 0
        self.missing: dict[str, Missing] = {}
        """Parts of the index that did not answer at some time of the stream, by name."""

    @property
    def duration_s(self) -> float:
        """Seconds of audio pushed so far."""
        return (self._seen + self._pending_samples) / self._params.sample_rate_hz

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
        for track in self._tracks:
            events += self._final(track, snapshot)
        self._tracks.clear()
        return events

    def _drain(self, snapshot: Snapshot, *, end: bool) -> list[LiveEvent]:
        waiting = np.concatenate([np.empty(0, np.float32), *self._pending])
        events: list[LiveEvent] = []
        used = 0
        while waiting.size - used >= self._hop or (end and used < waiting.size):
            fresh = waiting[used : used + self._hop]
            used += fresh.size
            self._seen += fresh.size
            self._context = np.concatenate([self._context, fresh])[-self._keep_context :]
            self._window = self._context[-self._keep :]
            events += self._look(snapshot)
        rest = waiting[used:].copy()
        self._pending = [rest]
        self._pending_samples = rest.size
        return events

    def _look(self, snapshot: Snapshot) -> list[LiveEvent]:
        params = self._params
        rate = params.sample_rate_hz
        if self._window.size < params.min_clip_s * rate:
            return []
        now_s = self._seen / rate
        begin_s = now_s - self._window.size / rate
        least, _ = thresholds(snapshot)
        search = ClipSearch(snapshot, params)
        full = self._seen - self._searched_at >= FULL_SEARCH_S * rate
        known = tuple(t.latest for t in self._tracks if t.end_s > begin_s)
        found = search.window(self._window, begin_s, known, cheap=not full)
        self.missing.update(search.missing)
        if full:
            self._searched_at = self._seen
            found += self._weigh(search, found, now_s)
        for track in self._tracks:
            track.changed = False
        for passage in found:
            if passage.hit.score >= least:
                self._absorb(passage)
        events: list[LiveEvent] = []
        kept: list[_Track] = []
        for track in self._tracks:
            if track.end_s < now_s - GONE_S:
                events += self._final(track, snapshot)
                self._ended.append(track)
            elif track.changed or track.start_s < begin_s or self._believed(track, snapshot):
                kept.append(track)
                if track.changed:
                    events.append(Provisional(self._match(track, snapshot), self._stability(track)))
            # Else: a first impression that the same audio, heard with more, does not confirm.
        self._tracks = sorted(kept, key=lambda t: -t.best.hit.score)[:MOST_TRACKS]
        self._ended = [t for t in self._ended if t.end_s > begin_s][-MOST_TRACKS:]
        return events

    def _weigh(self, search: ClipSearch, found: list[Passage], now_s: float) -> list[Passage]:
        """Evidence gathers over time: doubtful lines are weighed on the last half minute."""
        if self._context.size <= self._keep:
            self._suspects = found
            return []
        context_s = now_s - self._context.size / self._params.sample_rate_hz
        self._suspects = search.weigh(
            self._context, context_s, [*found, *self._suspects], [t.latest for t in self._tracks]
        )
        return self._suspects

    def _absorb(self, passage: Passage) -> None:
        for track in self._tracks:
            if passage.start_s <= track.end_s + GONE_S and track.latest.same_line(passage):
                track.absorb(passage)
                return
        for track in self._ended:
            if passage.end_s <= track.end_s + GONE_S and track.latest.same_line(passage):
                return
        rival = next(
            (
                t
                for t in self._tracks
                if t.best.hit.recording_id == passage.hit.recording_id
                and min(t.end_s, passage.end_s) - max(t.start_s, passage.start_s)
                > 0.5 * (passage.end_s - passage.start_s)
            ),
            None,
        )
        if rival is not None:
            # Two turns of a loop claim the same seconds: the better one stays.
            if rival.best.hit.score >= passage.hit.score:
                return
            self._tracks.remove(rival)
        self._tracks.append(
            _Track(passage, passage, passage.start_s, passage.end_s, steps=1, changed=True)
        )

    def _believed(self, track: _Track, snapshot: Snapshot) -> bool:
        _, sure = thresholds(snapshot)
        return track.steps >= SUPPORTED_STEPS or track.best.hit.score >= sure

    def _stability(self, track: _Track) -> float:
        return 1.0 - math.exp2(-track.steps / SUPPORTED_STEPS)

    def _match(self, track: _Track, snapshot: Snapshot) -> Match:
        whole = dataclasses.replace(track.best, start_s=track.start_s, end_s=track.end_s)
        return to_match([whole], snapshot)

    def _final(self, track: _Track, snapshot: Snapshot) -> list[LiveEvent]:
        match = self._match(track, snapshot)
        if match.confidence < self._options.min_confidence or not self._believed(track, snapshot):
            return []
        return [Final(match)]
