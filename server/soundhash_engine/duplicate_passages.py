"""Passages: a line verified on both recordings' sound and followed as far as they are the same.

A line is verified as a match is, on ten seconds of one recording's stored fingerprint. From there
it is followed in both directions: each ten seconds its place is refined on landmarks, and the
stored descriptors are compared by half seconds; it ends where they no longer are alike.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.align import refine
from soundhash_engine.comparison import features_of
from soundhash_engine.duplicate_join import TimeLine
from soundhash_engine.glance import is_unchanged
from soundhash_engine.jit import kernel
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.patch import (
    BLOCK_ROWS,
    block_correlations,
    centre_patch,
)
from soundhash_engine.score import score
from soundhash_engine.types import Fingerprint, Landmarks
from soundhash_engine.verify import prepare, verify

WINDOW_FRAMES = 624
"""10 s; a multiple of the descriptor's row."""
LEAST_WINDOW_FRAMES = 188
"""3 s."""
SMOOTHED_BLOCKS = 5
COVERED = 0.22
"""Mean correlation of 2.5 s from which on they are the same sound."""
EDGE_COVERED = 0.1
GAP_S = 5.0
"""A shorter gap, or one in which nothing is to be heard, parts no passage."""
END_S = 20.0
"""A line ends where so much of it is something else."""
EDGE_S = 1.5
"""A passage that begins or ends so near to a recording's end reaches it."""
LEAST_CORRELATION = 0.18
"""Places whose descriptors correlate less are not verified: of 361 true ones, also in noise and
under voices, the least had 0.19."""
LEAST_BANDS = 10
LEAST_INLIERS = 10
MOST_STEP_FRAMES = 6.0
TEMPO_WINDOWS = 6
SAME_DRIFT_S = 0.1
SAME_PITCH_BINS = 0.3
"""A passage that is off by less from its begin to its end, and no higher or lower, is unchanged."""


@dataclass(frozen=True, slots=True)
class Passage:
    """The same sound in two recordings; times in seconds of each.

    tempo   seconds of the first in a second of the second
    pitch   bins that the second lies above the first
    score   of the verified part
    """

    first_start_s: float
    first_end_s: float
    second_start_s: float
    second_end_s: float
    tempo: float
    pitch: float
    score: float


@dataclass(frozen=True, slots=True)
class Place:
    """A verified window: its centre (frames of the second recording) lies at ``first``.

    tempo, pitch  as in `Passage`
    identity      neither is changed
    """

    centre: float
    first: float
    pitch: float
    tempo: float
    identity: bool
    score: float


@dataclass(slots=True)
class _Point:
    """Where the line is at a window of the second recording."""

    second: float
    first: float


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Half a second: frames of both recordings, the correlation, and whether it is silent."""

    second: tuple[float, float]
    first: tuple[float, float]
    correlation: float
    silent: bool


class PairFollower:
    """Verifies and follows lines between two recordings of a time line."""

    def __init__(
        self,
        line: TimeLine,
        first: int,
        second: int,
        fingerprint: Fingerprint,
        params: Params = PARAMS,
    ) -> None:
        """``fingerprint``: of the second recording."""
        self._params = params
        self._volume = line.volumes[line.volume[first]]
        self._row = int(line.row[first])
        self._n_first = int(line.n_frames[first])
        self._second = fingerprint
        rows = self._volume.first_row
        self._descriptor = self._volume.descriptor[rows[self._row] : rows[self._row + 1]]

    def verify(
        self, first_frame: float, second_frame: float, tempo: float, pitch: float, n_frames: int
    ) -> Place | None:
        """A window of the second recording laid on the first by a line through a point of both."""
        start, length = self._window(second_frame, n_frames)
        if length < LEAST_WINDOW_FRAMES // 2:
            return None
        params, volume = self._params, self._volume
        marks = self._marks(start, length)
        if not len(marks):
            return None
        base = float(volume.base_frame[self._row])
        centre = start + 0.5 * (length - 1)
        position = first_frame + tempo * (centre - second_frame) + base
        if not base <= position <= base + self._n_first:
            return None
        position, pitch, tempo, _ = refine(
            volume.peaks,
            volume.block,
            marks.time,
            marks.bin,
            float(length - 1),
            position,
            pitch,
            tempo,
        )
        # Most of what keys bring together is not the same sound; this costs a tenth.
        if self._correlated(start, length, position - base, tempo, pitch)[0] < LEAST_CORRELATION:
            return None
        features = features_of(self._second, start, length, params)
        query = prepare(features.contrast, features.landmarks, params)
        best: Place | None = None
        unchanged = is_unchanged(pitch, tempo, length)
        for identity in (True, False) if unchanged else (False,):
            bins, factor = (0.0, 1.0) if identity else (pitch, tempo)
            evidence = verify(query, volume, self._row, position, bins, factor, params)
            value = score(evidence, identity=identity)
            if best is None or value > best.score:
                best = Place(centre, position - base, bins, factor, identity, value)
        return best

    def follow(self, hit: Place) -> list[Passage]:
        """All that lies on the line of a place.

        Parts that are some seconds apart are passages of their own; their score is the place's.
        """
        centre = hit.centre
        row = self._params.descriptor_frames
        begin = max(0, int(centre - WINDOW_FRAMES / 2)) // row * row
        blocks: list[_Block] = []
        for direction in (1, -1):
            points = [_Point(centre, hit.first)]
            away_s = 0.0
            start = begin if direction > 0 else begin - WINDOW_FRAMES
            own: list[_Block] = []
            while away_s < END_S:
                low = max(0, start)
                length = min(start + WINDOW_FRAMES, self._second.n_frames) - low
                if length < 2 * BLOCK_ROWS * row:
                    break
                part = self._compare(low, length, points, hit)
                if part is None:
                    break
                own += part
                heard = [block for block in part if not block.silent]
                same = sum(block.correlation > COVERED for block in heard)
                if heard:
                    seconds = len(heard) * BLOCK_ROWS * row / self._params.frames_per_s
                    away_s = 0.0 if same >= 0.25 * len(heard) else away_s + seconds
                start += direction * WINDOW_FRAMES
            blocks += own
        return self._passages(sorted(blocks, key=lambda b: b.second), hit)

    def checked(self, passage: Passage, hit: Place) -> Passage:
        """The passage with its own score: that of the place if it lies in it, else of its middle,
        and for one shorter than the place's window that of itself."""
        rate = self._params.frames_per_s
        begin, end = passage.second_start_s * rate, passage.second_end_s * rate
        if begin <= hit.centre <= end and end - begin >= 0.8 * WINDOW_FRAMES:
            return passage
        middle = 0.5 * (begin + end)
        there = 0.5 * rate * (passage.first_start_s + passage.first_end_s)
        size = max(LEAST_WINDOW_FRAMES, min(WINDOW_FRAMES, int(end - begin)))
        own = self.verify(there, middle, passage.tempo, hit.pitch, size)
        return dataclasses.replace(passage, score=-np.inf if own is None else own.score)

    def _window(self, second_frame: float, n_frames: int) -> tuple[int, int]:
        row = self._params.descriptor_frames
        length = min(n_frames, self._second.n_frames) // row * row
        start = int(second_frame - length / 2) // row * row
        last = (self._second.n_frames - length) // row * row
        return max(0, min(start, last)), length

    def _compare(
        self, start: int, length: int, points: list[_Point], hit: Place
    ) -> list[_Block] | None:
        """Half seconds of one window; None when the first recording has no such place."""
        centre = start + 0.5 * (length - 1)
        tempo = _tempo(points, hit)
        position = points[-1].first + tempo * (centre - points[-1].second)
        reach = 0.5 * length * tempo
        if position + reach < 0 or position - reach > self._n_first:
            return None
        marks = self._marks(start, length)
        position, told = self._refined(marks, position, hit, tempo)
        if told and abs(centre - points[-1].second) >= LEAST_WINDOW_FRAMES:
            points.append(_Point(centre, position))
        _, blocks = self._correlated(start, length, position, tempo, hit.pitch)
        half = 0.5 * self._params.descriptor_frames
        out = []
        for first_row, last_row, value in blocks:
            # A row's middle lies half its length after its first frame.
            ours = (start + 2 * half * first_row, start + 2 * half * last_row)
            theirs = tuple(position + tempo * (x - centre) for x in ours)
            near = np.searchsorted(marks.time, (2 * (ours[0] - start), 2 * (ours[1] - start)))
            silent = bool(near[1] - near[0] <= 1)
            out.append(_Block(ours, (theirs[0], theirs[1]), value, silent))
        return out

    def _marks(self, start: int, length: int) -> Landmarks:
        """Landmarks of a window of the second recording, times from its start."""
        marks = self._second.landmarks
        low, high = np.searchsorted(marks.time, (2 * start, 2 * (start + length)))
        return Landmarks(
            time=marks.time[low:high] - np.int32(2 * start),
            bin=marks.bin[low:high],
            strength=marks.strength[low:high],
            rank=marks.rank[low:high],
            n_frames=length,
        )

    def _refined(
        self, marks: Landmarks, position: float, hit: Place, tempo: float
    ) -> tuple[float, bool]:
        """The place after a look at the landmarks, and whether they said something."""
        if not len(marks):
            return position, False
        base = float(self._volume.base_frame[self._row])
        found, pitch, _, inliers = refine(
            self._volume.peaks,
            self._volume.block,
            marks.time,
            marks.bin,
            float(marks.n_frames - 1),
            position + base,
            hit.pitch,
            tempo,
        )
        near = abs(found - base - position) <= MOST_STEP_FRAMES and abs(pitch - hit.pitch) < 0.75
        if inliers < LEAST_INLIERS or not near:
            return position, False
        return float(found - base), True

    def _correlated(
        self, start: int, length: int, position: float, tempo: float, pitch: float
    ) -> tuple[float, list[tuple[int, int, float]]]:
        """How the stored descriptors of a window correlate: in all, and by half seconds.

        A half second is its first and last row (exclusive) of the window.
        """
        params = self._params
        step = params.descriptor_frames
        rows = length // step
        ours = np.zeros((rows, params.descriptor_bands), np.float32)
        theirs = np.zeros_like(ours)
        first, last, bands = lay_descriptors(
            self._second.descriptor[start // step : start // step + rows],
            self._descriptor,
            params.descriptor_bands,
            (position - tempo * 0.5 * (length - 1)) / step,
            tempo,
            pitch / params.descriptor_bins,
            ours,
            theirs,
        )
        if last - first < BLOCK_ROWS or bands < LEAST_BANDS:
            return 0.0, []
        ours, theirs = ours[first:last], theirs[first:last]
        centre_patch(ours, last - first, bands)
        centre_patch(theirs, last - first, bands)
        values = block_correlations(ours, theirs, last - first, bands)
        ends = [*range(BLOCK_ROWS, BLOCK_ROWS * len(values), BLOCK_ROWS), last - first]
        begins = [0, *ends[:-1]]
        return float(correlate(ours, theirs, bands)), [
            (first + begin, first + end, value)
            for begin, end, value in zip(begins, ends, values.tolist(), strict=True)
        ]

    def _passages(self, blocks: list[_Block], hit: Place) -> list[Passage]:
        """Runs of blocks that are the same sound."""
        if not blocks:
            return []
        values = np.array([block.correlation for block in blocks])
        silent = np.array([block.silent for block in blocks])
        covered = _smoothed(values, silent) >= COVERED
        runs: list[list[int]] = []
        quiet_s = 0.0
        before = -1
        for i in np.flatnonzero(covered & ~silent).tolist():
            if before >= 0:
                frames = [blocks[k] for k in range(before + 1, i) if not blocks[k].silent]
                quiet_s = sum(b.second[1] - b.second[0] for b in frames) / self._params.frames_per_s
            if before < 0 or quiet_s > GAP_S:
                runs.append([i, i])
            runs[-1][1] = i
            before = i
        return [self._passage(blocks, _trimmed(values, *run), hit) for run in runs]

    def _passage(self, blocks: list[_Block], run: tuple[int, int], hit: Place) -> Passage:
        frame_s = 1.0 / self._params.frames_per_s
        first, last = blocks[run[0]], blocks[run[1]]
        low, high = first.second[0] * frame_s, last.second[1] * frame_s
        there, until = first.first[0] * frame_s, last.first[1] * frame_s
        tempo = (until - there) / max(high - low, frame_s)
        drift_s = abs(tempo - 1.0) * (high - low)
        unchanged = abs(hit.pitch) < SAME_PITCH_BINS and drift_s < SAME_DRIFT_S
        if unchanged:
            tempo = 1.0
        # Silence at either end of a recording belongs to what lies beside it.
        before = min(low, there / tempo)
        after = min(self._second.duration_s - high, (self._n_first * frame_s - until) / tempo)
        quiet_before = all(block.silent for block in blocks[: run[0]])
        quiet_after = all(block.silent for block in blocks[run[1] + 1 :])
        if before < EDGE_S or (quiet_before and blocks[0].second[0] * frame_s < EDGE_S):
            low, there = low - before, there - tempo * before
        if after < EDGE_S + 0.2 or (
            quiet_after and self._second.duration_s - blocks[-1].second[1] * frame_s < EDGE_S
        ):
            high, until = high + after, until + tempo * after
        return Passage(
            first_start_s=float(max(0.0, there)),
            first_end_s=float(until),
            second_start_s=float(max(0.0, low)),
            second_end_s=float(high),
            tempo=float(tempo),
            pitch=0.0 if unchanged or hit.identity else hit.pitch,
            score=hit.score,
        )


@kernel
def lay_descriptors(
    ours: NDArray[np.uint8],
    theirs: NDArray[np.uint8],
    n_bands: int,
    row: float,
    tempo: float,
    pitch: float,
    out_ours: NDArray[np.float32],
    out_theirs: NDArray[np.float32],
) -> tuple[int, int, int]:
    """Packed rows beside those of another recording that lie on them, in steps of contrast.

    ``row``: of the other one at the first of ours; ``tempo``: rows of it in a row of ours;
    ``pitch``: bands that ours lie higher. Both are read between rows and bands. Returns the first
    and the last row (exclusive) that the other one has, and the bands that both have.
    """
    low = max(0, int(np.ceil(pitch)))
    high = min(n_bands, int(np.floor(n_bands - 1 + pitch)) + 1)
    bands = max(0, high - low)
    first = ours.shape[0]
    last = 0
    for t in range(ours.shape[0]):
        at = row + tempo * t
        r = int(np.floor(at))
        if r < 0 or r + 1 >= theirs.shape[0]:
            continue
        part = np.float32(at - r)
        first = min(first, t)
        last = t + 1
        for k in range(bands):
            b = low + k
            byte = ours[t, b // 2]
            out_ours[t, k] = np.float32(byte >> 4 if b % 2 else byte & 15)
            there = b - pitch
            c = int(np.floor(there))
            aside = np.float32(there - c)
            total = np.float32(0.0)
            for i in range(2):
                for j in range(2):
                    weight = (part if i else 1 - part) * (aside if j else 1 - aside)
                    if weight > 0.0:
                        byte = theirs[r + i, (c + j) // 2]
                        total += weight * np.float32(byte >> 4 if (c + j) % 2 else byte & 15)
            out_theirs[t, k] = total
    return first, last, bands


@kernel
def correlate(ours: NDArray[np.float32], theirs: NDArray[np.float32], bands: int) -> float:
    """Correlation of centred patches."""
    xx = 0.0
    yy = 0.0
    xy = 0.0
    for t in range(ours.shape[0]):
        for b in range(bands):
            xx += ours[t, b] * ours[t, b]
            yy += theirs[t, b] * theirs[t, b]
            xy += ours[t, b] * theirs[t, b]
    return float(xy / np.sqrt(xx * yy)) if xx > 0.0 and yy > 0.0 else 0.0


def _tempo(points: list[_Point], hit: Place) -> float:
    """Of the line's last windows."""
    if hit.identity:
        # An unchanged copy may still drift: what its landmarks say counts.
        if len(points) < 3:
            return 1.0
    elif len(points) < 2:
        return hit.tempo
    a, b = points[max(0, len(points) - 1 - TEMPO_WINDOWS)], points[-1]
    return (b.first - a.first) / (b.second - a.second)


def _smoothed(values: NDArray[np.float64], silent: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over the blocks around each that are not silent."""
    kernel = np.ones(SMOOTHED_BLOCKS)
    weight = np.where(silent, 0.0, 1.0)
    total = np.convolve(values * weight, kernel, mode="same")
    count = np.convolve(weight, kernel, mode="same")
    return np.asarray(total / np.maximum(count, 1.0))[: values.size]


def _trimmed(values: NDArray[np.float64], first: int, last: int) -> tuple[int, int]:
    """Without blocks at the ends that only their neighbours' mean has brought in."""
    while first < last and values[first] < EDGE_COVERED:
        first += 1
    while last > first and values[last] < EDGE_COVERED:
        last -= 1
    return first, last
