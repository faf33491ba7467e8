"""A clip against a snapshot: which recordings it comes from, and where in them.

A clip of up to 12 s is one window. A longer one is cut in windows of 10 s, and what lies on one
line (recording, tempo, pitch, offset) is one match. A line that is known is only verified in the
next windows, not searched again.
"""

import dataclasses
import math
import time
from collections.abc import Iterable, Sequence

import numpy as np

from soundhash_engine.errors import ClipTooLong, ClipTooShort, SilentAudio
from soundhash_engine.index import Snapshot
from soundhash_engine.landmarks import query_features
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.postings import Missing
from soundhash_engine.score import (
    MATCH_CONFIDENCE,
    MATCH_SCORE,
    catalogue_term,
    confidence,
)
from soundhash_engine.types import Pcm, QueryFeatures
from soundhash_engine.window import MOST_ASIDE, ROUNDS, Hit, Round, WindowSearch

SINGLE_WINDOW_S = 12.0
WINDOW_S = 10.0
HOP_S = 5.0
LONG_S = 60.0
"""A clip longer than this is cut in windows that do not overlap."""
SURE_MARGIN = 4.5
"""A hit is sure this far above the threshold: recordings that share samples with the right one come
to four."""
SUPPORT_MARGIN = 2.0
"""A window this far below the threshold still widens a match that others found."""
EDGE_S = 0.7
"""A match that begins or ends this near to an end of its window reaches that end."""
LEAST_PART_S = 2.0
"""What a match leaves uncovered is searched again if it is at least this long."""
EQUAL_SCORE = 1.5
EQUAL_CORRELATION = 0.1
"""Places of one recording that differ by no more than this are the same sound."""
CONTEXT_S = 30.0
"""Doubtful lines are weighed on so much of a clip at once: what noise leaves of ten seconds may
be too little, of thirty enough."""
DOUBT_MARGIN = 7.0
"""Lines this far below the threshold are still weighed."""
MOST_DOUBTFUL = 12
ASIDE_TIMES = 4
"""Of what is beside the index so many times more matches are returned: the caller joins those that
are pieces of one."""
LINE_S = 0.4
LINE_TEMPO = 0.02
LINE_PITCH_BINS = 1.5
"""Hits of two windows lie on one line if they differ by no more than this."""


@dataclasses.dataclass(frozen=True, slots=True)
class MatchOptions:
    """What a caller wants of an answer.

    top             most matches that are returned; of what lies beside the index (see
                    `Snapshot.beside`) up to `ASIDE_TIMES` as many more
    min_confidence  0 … 1; matches below it are left out
    max_clip_s      longer clips are refused
    """

    top: int = 5
    min_confidence: float = MATCH_CONFIDENCE
    max_clip_s: float = 600.0


@dataclasses.dataclass(frozen=True, slots=True)
class ScoreParts:
    """Where a score comes from; see `verify.Evidence`.

    lz, uz, rp, overlap, correlation, distance, votes, coverage  of the best window
    identity  neither speed nor pitch changed
    """

    lz: float
    uz: float
    rp: float
    overlap: float
    correlation: float
    distance: float
    identity: bool
    votes: int
    coverage: float


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """A passage of a clip that comes from a recording.

    recording_id
    clip_start_s, clip_end_s    of the passage, in the clip's seconds
    video_start_s, video_end_s  where it lies, in the recording's own seconds
    speed       tempo factor: 1.05 means that the clip plays 5 % faster than the recording
    pitch       frequency factor
    confidence  0 … 1, probability that this is right, for a catalogue of this size
    score       what the confidence comes from
    parts       what the score comes from
    also_at_s   other starts of the same sound in the same recording (loops), seconds
    aside       the recording is not in the index but in what lies beside it (`Snapshot.beside`)
    """

    recording_id: int
    clip_start_s: float
    clip_end_s: float
    video_start_s: float
    video_end_s: float
    speed: float
    pitch: float
    confidence: float
    score: float
    parts: ScoreParts
    also_at_s: tuple[float, ...] = ()
    aside: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class MatchResult:
    """Answer for a clip.

    matches          best first; empty when the clip is not in the index
    clip_duration_s
    rounds           search rounds of all windows
    elapsed_s        engine time
    landmarks        in the clip
    missing          parts of the index that did not answer: what they hold was not found
    """

    matches: tuple[Match, ...]
    clip_duration_s: float
    rounds: int
    elapsed_s: float
    landmarks: int
    missing: tuple[Missing, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Passage:
    """A hit in the clip's seconds: ``start_s`` … ``end_s`` of the clip lie on a line.

    The recording's time at the clip's time c is ``at_zero_s + tempo · c``.
    """

    hit: Hit
    start_s: float
    end_s: float
    at_zero_s: float
    also_at_zero_s: tuple[float, ...] = ()

    def at(self, clip_s: float) -> float:
        """The recording's time at a time of the clip."""
        return self.at_zero_s + self.hit.tempo * clip_s

    def same_line(self, other: "Passage") -> bool:
        """Whether both are parts of one match."""
        middle = 0.25 * (self.start_s + self.end_s + other.start_s + other.end_s)
        return (
            self.hit.recording_id == other.hit.recording_id
            and abs(self.hit.tempo - other.hit.tempo) < LINE_TEMPO
            and abs(self.hit.pitch - other.hit.pitch) < LINE_PITCH_BINS
            and abs(self.at(middle) - other.at(middle)) < LINE_S
        )


def thresholds(snapshot: Snapshot) -> tuple[float, float]:
    """Scores in this catalogue from which on a hit is an answer, and a sure one."""
    least = MATCH_SCORE + catalogue_term(snapshot.hours)
    return least, least + SURE_MARGIN


def _to_passage(hit: Hit, features: QueryFeatures, begin_s: float, params: Params) -> Passage:
    """A hit of a window that begins at ``begin_s`` of a clip, in the clip's seconds."""
    end_s = begin_s + features.n_samples / params.sample_rate_hz
    frame_s = 1.0 / params.frames_per_s
    # A frame's level belongs to its middle: half the FFT's length after its first sample.
    lead_s = 0.5 * params.n_fft_samples / params.sample_rate_hz
    centre_s = begin_s + 0.5 * (features.landmarks.n_frames - 1) * frame_s + lead_s
    at_zero_s = hit.position * frame_s + lead_s - hit.tempo * centre_s
    start_s = begin_s + hit.evidence.first * frame_s + lead_s - 0.5 * frame_s
    stop_s = begin_s + hit.evidence.last * frame_s + lead_s - 0.5 * frame_s
    if start_s < begin_s + EDGE_S:
        start_s = begin_s
    if stop_s > end_s - EDGE_S:
        stop_s = end_s
    return Passage(hit=hit, start_s=start_s, end_s=max(stop_s, start_s), at_zero_s=at_zero_s)


def _distinct(passages: list[Passage]) -> list[Passage]:
    """The best passage of every recording, with the equal places in the same one."""
    out: dict[int, Passage] = {}
    for passage in passages:
        best = out.get(passage.hit.recording_id)
        if best is None:
            out[passage.hit.recording_id] = passage
            continue
        equal = (
            passage.hit.score > best.hit.score - EQUAL_SCORE
            and passage.hit.evidence.correlation > best.hit.evidence.correlation - EQUAL_CORRELATION
            and abs(passage.hit.tempo - best.hit.tempo) < LINE_TEMPO
            and abs(passage.hit.pitch - best.hit.pitch) < LINE_PITCH_BINS
        )
        far = all(
            abs(passage.at_zero_s - known) > LINE_S
            for known in (best.at_zero_s, *best.also_at_zero_s)
        )
        if equal and far:
            out[passage.hit.recording_id] = dataclasses.replace(
                best, also_at_zero_s=(*best.also_at_zero_s, passage.at_zero_s)
            )
    return list(out.values())


class ClipSearch:
    """Searches the windows of one clip; counts what it did."""

    def __init__(
        self, snapshot: Snapshot, params: Params = PARAMS, *, most_aside: int = MOST_ASIDE
    ) -> None:
        self._snapshot = snapshot
        self._most_aside = most_aside
        self._params = params
        self._least, _ = thresholds(snapshot)
        # The right place scores no higher in a large catalogue: there is nothing to wait for.
        self._sure = max(self._least, MATCH_SCORE + SURE_MARGIN)
        self.rounds = 0
        self.landmarks = 0
        self.missing: dict[str, Missing] = {}

    def window(
        self,
        pcm: Pcm,
        begin_s: float,
        known: tuple[Passage, ...] = (),
        *,
        rounds: Sequence[Round] = ROUNDS,
        split: bool = True,
    ) -> list[Passage]:
        """Passages of all recordings in one window of a clip; ``pcm`` begins at ``begin_s``.

        ``known``: lines of the windows before, which are tried before anything is searched.
        ``rounds``: those of the search. ``split``: what a match leaves uncovered is searched by
        itself.
        """
        features = query_features(pcm, self._params)
        passages = self.features(features, begin_s, known, rounds=rounds)
        if not split or not passages:
            return passages
        end_s = begin_s + pcm.size / self._params.sample_rate_hz
        # What is aside leaves something uncovered only where nothing else is found.
        likely = (p for p in passages if p.hit.score >= self._least - SUPPORT_MARGIN)
        best = next((p for p in likely if not p.hit.aside), passages[0])
        return passages + self._rest(pcm, begin_s, end_s, best, rounds)

    def features(
        self,
        features: QueryFeatures,
        begin_s: float,
        known: tuple[Passage, ...] = (),
        *,
        rounds: Sequence[Round] = ROUNDS,
    ) -> list[Passage]:
        """Like ``window``, for features that are at hand."""
        params = self._params
        self.landmarks += len(features.landmarks)
        if not len(features.landmarks):
            return []
        search = WindowSearch(self._snapshot, features, params, most_aside=self._most_aside)
        self._try_lines(search, features, begin_s, known)
        return self._result(search, features, begin_s, rounds)

    def weigh(
        self, pcm: Pcm, begin_s: float, found: Sequence[Passage], sure: Sequence[Passage] = ()
    ) -> list[Passage]:
        """What the doubtful lines of shorter windows come to in all of ``pcm``, at ``begin_s``.

        Lines near the threshold, the best first, are verified on the whole of it; nothing is
        searched. Lines of ``sure`` are left alone.
        """
        settled = [p for p in (*found, *sure) if p.hit.score >= self._sure]
        lines: list[Passage] = []
        for passage in sorted(found, key=lambda p: -p.hit.score):
            if passage.hit.score < self._least - DOUBT_MARGIN:
                break
            if not any(line.same_line(passage) for line in (*settled, *lines)):
                lines.append(passage)
        lines = best_of_each(lines, MOST_DOUBTFUL)
        if not lines:
            return []
        features = query_features(pcm, self._params)
        search = WindowSearch(self._snapshot, features, self._params, most_aside=self._most_aside)
        self._try_lines(search, features, begin_s, lines)
        return self._result(search, features, begin_s, rounds=())

    def _try_lines(
        self,
        search: WindowSearch,
        features: QueryFeatures,
        begin_s: float,
        lines: Sequence[Passage],
    ) -> None:
        params = self._params
        for passage in lines:
            middle_s = 0.5 * (features.landmarks.n_frames - 1) / params.frames_per_s
            lead_s = 0.5 * params.n_fft_samples / params.sample_rate_hz
            position_s = passage.at(begin_s + middle_s + lead_s) - lead_s
            search.try_line(
                passage.hit.recording_id,
                position_s * params.frames_per_s,
                passage.hit.pitch,
                passage.hit.tempo,
            )

    def _result(
        self,
        search: WindowSearch,
        features: QueryFeatures,
        begin_s: float,
        rounds: Sequence[Round],
    ) -> list[Passage]:
        result = search.run(self._sure, rounds)
        self.rounds += result.rounds
        self.missing.update(search.missing)
        return _distinct([_to_passage(hit, features, begin_s, self._params) for hit in result.hits])

    def _rest(
        self, pcm: Pcm, begin_s: float, end_s: float, best: Passage, rounds: Sequence[Round]
    ) -> list[Passage]:
        """What lies before and after a match that does not fill its window."""
        out: list[Passage] = []
        if best.hit.score < self._least - SUPPORT_MARGIN:
            return out
        rate = self._params.sample_rate_hz
        parts = [(begin_s, best.start_s), (best.end_s, end_s)]
        if best.hit.score < self._sure and best.end_s - best.start_s >= LEAST_PART_S:
            # On its own part alone it may score higher.
            parts.append((best.start_s, best.end_s))
        for first_s, last_s in parts:
            whole = first_s == begin_s and last_s == end_s
            if last_s - first_s >= LEAST_PART_S and not whole:
                piece = pcm[round((first_s - begin_s) * rate) : round((last_s - begin_s) * rate)]
                out += self.window(piece, first_s, rounds=rounds, split=False)
        return out


def _merge(passages: list[Passage]) -> list[list[Passage]]:
    """Groups of passages that lie on one line and touch, each with its best passage first."""
    groups: list[list[Passage]] = []
    for passage in sorted(passages, key=lambda p: (p.start_s, p.end_s, -p.hit.score)):
        mine = [passage]
        apart: list[list[Passage]] = []
        for group in groups:
            joins = any(passage.start_s <= p.end_s + HOP_S and p.same_line(passage) for p in group)
            if joins:
                mine += group
            else:
                apart.append(group)
        groups = [*apart, mine]
    for group in groups:
        group.sort(key=lambda p: (-p.hit.score, p.start_s))
    groups.sort(key=lambda g: (-g[0].hit.score, g[0].hit.recording_id, g[0].start_s))
    return groups


def to_match(group: list[Passage], snapshot: Snapshot) -> Match:
    """One match of all passages on a line, the best first."""
    best = group[0]
    start_s = min(passage.start_s for passage in group)
    end_s = max(passage.end_s for passage in group)
    evidence = best.hit.evidence
    return Match(
        recording_id=best.hit.recording_id,
        clip_start_s=start_s,
        clip_end_s=end_s,
        video_start_s=max(0.0, best.at(start_s)),
        video_end_s=max(0.0, best.at(end_s)),
        speed=best.hit.tempo,
        pitch=2.0 ** (best.hit.pitch / 36.0),
        confidence=confidence(best.hit.score, snapshot.hours),
        score=best.hit.score,
        parts=ScoreParts(
            lz=evidence.lz,
            uz=evidence.uz,
            rp=evidence.rp,
            overlap=evidence.overlap,
            correlation=evidence.correlation,
            distance=evidence.distance,
            identity=best.hit.identity,
            votes=evidence.votes,
            coverage=evidence.coverage,
        ),
        also_at_s=tuple(sorted(at + best.hit.tempo * start_s for at in best.also_at_zero_s)),
        aside=best.hit.aside,
    )


def best_of_each(passages: Iterable[Passage], most: int) -> list[Passage]:
    """The first ``most`` passages of the index, and as many of what is beside it, in their order:
    neither crowds the other out."""
    left = {False: most, True: most}
    out = []
    for passage in passages:
        if left[passage.hit.aside] > 0:
            left[passage.hit.aside] -= 1
            out.append(passage)
    return out


def collect(passages: list[Passage], snapshot: Snapshot, options: MatchOptions) -> list[Match]:
    """Matches of all windows' passages: merged, above the threshold, best first."""
    least, _ = thresholds(snapshot)
    matches: list[Match] = []
    left = {False: options.top, True: ASIDE_TIMES * options.top}
    supporting = [p for p in passages if p.hit.score >= least - SUPPORT_MARGIN]
    for group in _merge(supporting):
        match = to_match(group, snapshot)
        if match.confidence < options.min_confidence:
            continue
        # Two places of one recording for the same seconds of the clip: the better one stays.
        if any(
            m.recording_id == match.recording_id
            and min(m.clip_end_s, match.clip_end_s) - max(m.clip_start_s, match.clip_start_s)
            > 0.5 * min(m.clip_end_s - m.clip_start_s, match.clip_end_s - match.clip_start_s)
            for m in matches
        ):
            continue
        if left[group[0].hit.aside] > 0:
            left[group[0].hit.aside] -= 1
            matches.append(match)
    return matches


def window_starts(n_samples: int, params: Params = PARAMS) -> list[int]:
    """First samples of the windows of a long clip; the last window ends with the clip."""
    rate = params.sample_rate_hz
    if n_samples <= SINGLE_WINDOW_S * rate:
        return [0]
    last = n_samples - round(WINDOW_S * rate)
    hop = round((HOP_S if n_samples <= LONG_S * rate else WINDOW_S) * rate)
    starts = [i * hop for i in range(math.ceil(last / hop))]
    return [*starts, last]


def context_bounds(n_samples: int, params: Params = PARAMS) -> list[tuple[int, int]]:
    """First and last sample (exclusive) of the stretches on which doubtful lines are weighed."""
    length = round(CONTEXT_S * params.sample_rate_hz)
    last = max(0, n_samples - length)
    starts = sorted({*range(0, last, length // 2), last})
    return [(start, min(n_samples, start + length)) for start in starts]


def match(
    snapshot: Snapshot,
    pcm: Pcm,
    options: MatchOptions | None = None,
    params: Params = PARAMS,
) -> MatchResult:
    """Find a clip (mono float32 at 8 kHz) in the index.

    Raises ClipTooShort below ``params.min_clip_s``, ClipTooLong above ``options.max_clip_s``,
    SilentAudio when the clip has no landmark.
    """
    begun = time.perf_counter()
    options = MatchOptions() if options is None else options
    duration_s = pcm.size / params.sample_rate_hz
    if duration_s < params.min_clip_s:
        raise ClipTooShort(f"the clip has {duration_s:.2f} s of {params.min_clip_s:.0f} s")
    if duration_s > options.max_clip_s:
        raise ClipTooLong(f"the clip has {duration_s:.0f} s, at most {options.max_clip_s:.0f}")
    pcm = np.ascontiguousarray(pcm, np.float32)
    # A place may lie in two recordings that overlap.
    search = ClipSearch(snapshot, params, most_aside=2 * options.top)
    least, _ = thresholds(snapshot)
    passages: list[Passage] = []
    known: tuple[Passage, ...] = ()
    starts = window_starts(pcm.size, params)
    length = pcm.size if len(starts) == 1 else round(WINDOW_S * params.sample_rate_hz)
    for start in starts:
        found = search.window(pcm[start : start + length], start / params.sample_rate_hz, known)
        passages += found
        known = tuple(best_of_each((p for p in found if p.hit.score >= least), options.top))
    if not search.landmarks:
        raise SilentAudio("nothing stands out in the clip")
    if len(starts) > 1:
        for begin, end in context_bounds(pcm.size, params):
            begin_s, end_s = begin / params.sample_rate_hz, end / params.sample_rate_hz
            mine = [p for p in passages if p.start_s < end_s and p.end_s > begin_s]
            passages += search.weigh(pcm[begin:end], begin_s, mine)
    return MatchResult(
        matches=tuple(collect(passages, snapshot, options)),
        clip_duration_s=duration_s,
        rounds=search.rounds,
        elapsed_s=time.perf_counter() - begun,
        landmarks=search.landmarks,
        missing=tuple(search.missing[part] for part in sorted(search.missing)),
    )
