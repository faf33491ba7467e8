"""A catalogue compared with itself: which recordings are the same, contain or share passages.

Places that share keys (`duplicate_keys`, `duplicate_join`) make lines (`duplicate_lines`), lines
are verified and followed (`duplicate_passages`), and passages say how two recordings are alike.
Work grows with the catalogue, and with how much of it is shared, not with the number of pairs: a
passage that very many recordings have is told between each and its next `MOST_PARTNERS` by id.
"""

import dataclasses
import enum
import itertools
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.duplicate_join import KeyFiles, PairFiles, TimeLine, wanted_keys
from soundhash_engine.duplicate_keys import Change
from soundhash_engine.duplicate_lines import LinePlace, Lines, find_lines
from soundhash_engine.duplicate_passages import (
    LEAST_WINDOW_FRAMES,
    WINDOW_FRAMES,
    PairFollower,
    Passage,
)
from soundhash_engine.index import Snapshot
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.score import catalogue_term, confidence
from soundhash_engine.types import Fingerprint

DUPLICATE_SCORE = 5.0
"""A passage is told from this score on, plus the catalogue term."""
LEAST_TRIES = 4
TRY_EVERY_S = 120.0
"""So many lines of a pair are tried in vain, and one more for each so many seconds of it."""
OVERLAP = 0.5
"""A passage of which more than this lies in others, in both recordings, says nothing new."""
WHOLE_REST_S = 2.0
WHOLE_SHARE = 0.98
"""A recording is wholly in another one when no more than this much of its sound is missing, or no
more than the rest of this share."""
PAUSE_SHARE = 0.4
"""A second whose strongest landmark is this much weaker than is usual is a pause."""
SAME_LENGTH_S = 0.5
_MADE, _JOINED = 0.4, 0.5
"""Shares of a change's work that are done when its keys are made, and joined."""


class DuplicateKind(enum.Enum):
    """How two recordings are alike."""

    FULL = "FULL"
    """The same from begin to end."""
    CONTAINS = "CONTAINS"
    """All of the second is in the first."""
    PARTIAL = "PARTIAL"
    """They share passages."""


@dataclass(frozen=True, slots=True)
class SharedRange:
    """A passage that is in two recordings.

    first_start_s … second_end_s  in each recording's own seconds
    speed, pitch  how the first plays against the second: 1.05 is 5 % faster, or higher
    confidence    0 … 1, that it is the same sound, for a catalogue of this size
    score         what the confidence comes from
    """

    first_start_s: float
    first_end_s: float
    second_start_s: float
    second_end_s: float
    speed: float
    pitch: float
    confidence: float
    score: float


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Two recordings that are alike.

    first_id, second_id      the longer one first; of equally long ones the one with the lower id
    ranges                   in the order of the first
    shared_s                 seconds of the second that they cover
    first_share, second_share  part of each recording that they cover, 0 … 1
    """

    kind: DuplicateKind
    first_id: int
    second_id: int
    ranges: tuple[SharedRange, ...]
    shared_s: float
    first_share: float
    second_share: float


@dataclass(frozen=True, slots=True)
class Told:
    """How far a comparison has come, 0 … 1, and what it has found since it said so last.

    A pair that came before comes again when more of it was found.
    """

    fraction: float
    found: tuple[Duplicate, ...] = ()


@dataclass(frozen=True, slots=True)
class DuplicateOptions:
    """What is compared.

    min_shared_s  shortest passage that is told, 3 … 600
    only          only pairs with one of these recordings; None: all pairs
    changes       how recordings may differ; each costs as much as the others
    """

    min_shared_s: float = 10.0
    only: Collection[int] | None = None
    changes: tuple[Change, ...] = tuple(Change)


def find_duplicates(
    snapshot: Snapshot,
    options: DuplicateOptions | None = None,
    *,
    folder: Path | None = None,
    check: Callable[[], None] = lambda: None,
    params: Params = PARAMS,
) -> Iterator[Told]:
    """Compares all recordings of a snapshot with one another.

    ``folder``: for files while it works, about 0.4 MB an hour of audio; None: the system's.
    ``check`` is called several times a second; what it raises ends the comparison and is raised
    here. Memory: some hundred bytes a recording and a found pair, and up to 0.5 GB. Raises OSError
    when the folder is full.
    """
    options = DuplicateOptions() if options is None else options
    line = TimeLine.of(snapshot)
    chosen: NDArray[np.bool_] | None = None
    if options.only is not None:
        chosen = np.isin(line.recording_id, np.array(sorted(options.only), np.int64))
    if len(line) >= 2 and (chosen is None or chosen.any()):
        with tempfile.TemporaryDirectory(prefix="duplicates-", dir=folder) as scratch:
            search = _Search(snapshot, line, options, params)
            for number, change in enumerate(options.changes):
                for told in search.run(Path(scratch), change, chosen, check):
                    done = (number + told.fraction) / len(options.changes)
                    yield Told(done, told.found)
    yield Told(1.0)


class _Search:
    """One comparison: what the changes share."""

    def __init__(
        self, snapshot: Snapshot, line: TimeLine, options: DuplicateOptions, params: Params
    ) -> None:
        self._snapshot = snapshot
        self._line = line
        self._options = options
        self._params = params
        self._found: dict[tuple[int, int], tuple[Passage, ...]] = {}
        self._least = DUPLICATE_SCORE + catalogue_term(snapshot.hours)
        self._prints: dict[int, Fingerprint] = {}

    def run(
        self,
        folder: Path,
        change: Change,
        chosen: NDArray[np.bool_] | None,
        check: Callable[[], None],
    ) -> Iterator[Told]:
        """Everything that plays with this change in another recording."""
        line, params = self._line, self._params
        check()
        with KeyFiles(folder, line, change) as keys, PairFiles(folder, keys) as pairs:
            wanted = None if chosen is None else wanted_keys(line, chosen, change, params)
            for number in keys.make(wanted, params):
                check()
                if number % 64 == 0:
                    yield Told(_MADE * number / len(line))
            pairs.make(chosen, check)
            yield Told(_JOINED)
            for part in range(pairs.parts):
                lines = find_lines(line, change, pairs.read(part))
                for done, found in self._follow(lines, check):
                    yield Told(_JOINED + (1.0 - _JOINED) * (part + done) / pairs.parts, found)

    def _follow(
        self, lines: Lines, check: Callable[[], None]
    ) -> Iterator[tuple[float, tuple[Duplicate, ...]]]:
        """Verifies lines, pair by pair."""
        if not len(lines):
            return
        border = np.flatnonzero(np.diff(lines.first) | np.diff(lines.second)) + 1
        starts = [0, *border.tolist(), len(lines)]
        for begin, end in itertools.pairwise(starts):
            check()
            pair = (int(lines.first[begin]), int(lines.second[begin]))
            found = self._pair(pair, lines, begin, end, check)
            yield end / len(lines), (() if found is None else (found,))

    def _pair(
        self,
        pair: tuple[int, int],
        lines: Lines,
        begin: int,
        end: int,
        check: Callable[[], None],
    ) -> Duplicate | None:
        """What two recordings share, if that is more than was known."""
        known = list(self._found.get(pair, ()))
        before = len(known)
        second = self._fingerprint(pair[1])
        follower: PairFollower | None = None
        tries = LEAST_TRIES + int(second.duration_s / TRY_EVERY_S)
        places = [lines.place(i) for i in range(begin, end)]
        for place in places:
            if tries == 0:
                break
            if self._is_known(known, place.first_frame, place.second_frame):
                continue
            if follower is None:
                follower = PairFollower(self._line, *pair, second, self._params)
            check()
            new = self._passages(follower, place)
            if new and not known:
                new = self._straight(pair, follower, place, new)
            fresh = [one for one in new if not _covered(one, known)]
            known += fresh
            tries -= not fresh
        if len(known) == before:
            return None
        self._found[pair] = tuple(known)
        return self._duplicate(pair, known)

    def _is_known(self, known: list[Passage], first_frame: float, second_frame: float) -> bool:
        rate = self._params.frames_per_s
        first, second = first_frame / rate, second_frame / rate
        return any(p.first_start_s <= first <= p.first_end_s for p in known) and any(
            p.second_start_s <= second <= p.second_end_s for p in known
        )

    def _straight(
        self,
        pair: tuple[int, int],
        follower: PairFollower,
        place: LinePlace,
        found: list[Passage],
    ) -> list[Passage]:
        """What lies on the line from begin to begin, if that is more than what was found.

        A loop lies on itself in many ways; of two copies of one this is the right one.
        """
        best = max(found, key=_seconds)
        first, second = (float(self._line.n_frames[number]) for number in pair)
        if abs(first - best.tempo * second) > (1.0 - WHOLE_SHARE) * first:
            return found
        if _seconds(best) * self._params.frames_per_s > WHOLE_SHARE * second:
            return found
        middle = 0.5 * second
        straight = dataclasses.replace(
            place, first_frame=best.tempo * middle, second_frame=middle, tempo=best.tempo
        )
        others = self._passages(follower, straight)
        return others if sum(map(_seconds, others)) > sum(map(_seconds, found)) else found

    def _passages(self, follower: PairFollower, place: LinePlace) -> list[Passage]:
        """The passages on a line that are long and sure enough."""
        at, there = place.second_frame, place.first_frame
        tempo, pitch = place.tempo, place.pitch
        least_s = self._options.min_shared_s
        extent = place.extent + LEAST_WINDOW_FRAMES // 2
        sizes = [WINDOW_FRAMES]
        if least_s * self._params.frames_per_s < WINDOW_FRAMES and extent < 0.8 * WINDOW_FRAMES:
            # A short passage is a part of the window only.
            sizes.append(max(LEAST_WINDOW_FRAMES, extent))
        for size in sizes:
            hit = follower.verify(there, at, tempo, pitch, size)
            if hit is None or hit.score < self._least:
                continue
            found = []
            for passage in follower.follow(hit):
                length_s = passage.second_end_s - passage.second_start_s
                there_s = passage.first_end_s - passage.first_start_s
                if max(length_s, there_s) < least_s:
                    continue
                checked = follower.checked(passage, hit)
                if checked.score >= self._least:
                    found.append(checked)
            if found:
                return found
        return []

    def _duplicate(self, pair: tuple[int, int], passages: list[Passage]) -> Duplicate:
        prints = (self._fingerprint(pair[0]), self._fingerprint(pair[1]))
        ids = [int(self._line.recording_id[number]) for number in pair]
        swap = prints[1].duration_s > prints[0].duration_s + SAME_LENGTH_S
        ranges = sorted(
            (self._range(passage, swap) for passage in passages),
            key=lambda r: (r.first_start_s, r.second_start_s),
        )
        first, second = prints[::-1] if swap else prints
        ours = [(r.first_start_s, r.first_end_s) for r in ranges]
        theirs = [(r.second_start_s, r.second_end_s) for r in ranges]
        kind = DuplicateKind.PARTIAL
        if self._is_whole(second, theirs):
            whole = self._is_whole(first, ours)
            kind = DuplicateKind.FULL if whole else DuplicateKind.CONTAINS
        shared_s = _length(theirs)
        return Duplicate(
            kind=kind,
            first_id=ids[1] if swap else ids[0],
            second_id=ids[0] if swap else ids[1],
            ranges=tuple(ranges),
            shared_s=shared_s,
            first_share=min(1.0, _length(ours) / first.duration_s),
            second_share=min(1.0, shared_s / second.duration_s),
        )

    def _range(self, passage: Passage, swap: bool) -> SharedRange:
        one = (passage.first_start_s, passage.first_end_s)
        other = (passage.second_start_s, passage.second_end_s)
        speed, pitch = 1.0 / passage.tempo, 2.0 ** (-passage.pitch / 36.0)
        if swap:
            one, other, speed, pitch = other, one, 1.0 / speed, 1.0 / pitch
        return SharedRange(
            *one,
            *other,
            speed=speed,
            pitch=pitch,
            confidence=confidence(passage.score, self._snapshot.hours),
            score=passage.score,
        )

    def _is_whole(self, fingerprint: Fingerprint, ranges: list[tuple[float, float]]) -> bool:
        """Whether ranges hold all that is to be heard of a recording."""
        sounding = _sounding(fingerprint)
        outside = np.ones(len(sounding), np.bool_)
        for start, end in ranges:
            outside &= (sounding + 1 <= start) | (sounding >= end)
        rest_s = float(np.count_nonzero(outside))
        return rest_s <= max(WHOLE_REST_S, (1.0 - WHOLE_SHARE) * len(sounding))

    def _fingerprint(self, number: int) -> Fingerprint:
        """Of a recording of the line; the last few are kept."""
        made = self._prints.pop(number, None)
        if made is None:
            volume = self._line.volumes[self._line.volume[number]]
            made = volume.fingerprint(int(self._line.row[number]))
            while len(self._prints) >= _KEPT_PRINTS:
                del self._prints[next(iter(self._prints))]
        self._prints[number] = made
        return made


_KEPT_PRINTS = 4


def _sounding(fingerprint: Fingerprint) -> NDArray[np.int64]:
    """Seconds in which there is more than the noise of a pause."""
    marks = fingerprint.landmarks
    second = marks.time // round(1.0 / PARAMS.half_frame_s)
    loudest = np.zeros(int(second.max(initial=0)) + 1, np.uint8)
    np.maximum.at(loudest, second, marks.strength)
    heard = loudest[loudest > 0]
    return np.flatnonzero(loudest > PAUSE_SHARE * (np.median(heard) if heard.size else 0.0))


def _seconds(passage: Passage) -> float:
    return passage.second_end_s - passage.second_start_s


def _covered(passage: Passage, known: list[Passage]) -> bool:
    """Whether others hold most of a passage in both recordings: it is another turn of a loop."""
    first = _common(
        (passage.first_start_s, passage.first_end_s),
        [(p.first_start_s, p.first_end_s) for p in known],
    )
    second = _common(
        (passage.second_start_s, passage.second_end_s),
        [(p.second_start_s, p.second_end_s) for p in known],
    )
    return first > OVERLAP and second > OVERLAP


def _common(one: tuple[float, float], others: list[tuple[float, float]]) -> float:
    """Part of a range that others cover."""
    cut = [(max(one[0], start), min(one[1], end)) for start, end in others]
    return _length([c for c in cut if c[1] > c[0]]) / max(one[1] - one[0], 1e-9)


def _length(ranges: list[tuple[float, float]]) -> float:
    """Seconds that ranges cover together."""
    total, reached = 0.0, -np.inf
    for start, end in sorted(ranges):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return float(total)
