"""Lines: places that two recordings share, one after the other at one speed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.duplicate_join import LEAST_VOTES, TimeLine
from soundhash_engine.duplicate_keys import SCALE_STEP, Change
from soundhash_engine.jit import kernel

LINE_FRAMES = 1500
"""Votes of a line lie within 24 s."""
LEAST_SLOPE_FRAMES = 62
TOLERANCE_FRAMES = 4.0
TEMPO_TOLERANCE = 0.05
"""A key's scale tells the tempo so exactly."""
UNCHANGED = 0.006
OFFSET_FRAMES = 16.0
"""Lines of unchanged speed whose offsets are so near go on one another."""
_MOST_NEIGHBOURS = 40


@dataclass(frozen=True, slots=True)
class LinePlace:
    """One line: a point of it in both recordings, and how it goes on; see `Lines`.

    extent  frames of the second between which its votes lie
    """

    first_frame: float
    second_frame: float
    tempo: float
    pitch: float
    extent: int


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Candidates, by the pairs of their recordings; within a pair those with the most votes first.

    first, second    numbers of recordings on the time line
    first_frame, second_frame  a point of the line
    begin, end       frames of the second between which the votes lie
    tempo            frames of the first in a frame of the second
    pitch            bins that the second lies above the first
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    first_frame: NDArray[np.float64]
    second_frame: NDArray[np.float64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    tempo: NDArray[np.float64]
    pitch: NDArray[np.float64]
    votes: NDArray[np.int32]

    def __len__(self) -> int:
        return self.first.size

    def place(self, i: int) -> LinePlace:
        """A line."""
        return LinePlace(
            first_frame=float(self.first_frame[i]),
            second_frame=float(self.second_frame[i]),
            tempo=float(self.tempo[i]),
            pitch=float(self.pitch[i]),
            extent=int(self.end[i] - self.begin[i]),
        )


@kernel
def _lines(
    first_row: NDArray[np.int64],
    second_row: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    scale: NDArray[np.int64],
    tempo_step: float,
    out_at: NDArray[np.int64],
    out_values: NDArray[np.float64],
) -> int:
    """Write the lines of pairs; returns their number.

    ``tempo_step``: tempo of a step of scale; 1 where the scale is of pitch. ``out_at``: index of a
    pair on the line, first and last frame of the second, votes; ``out_values``: the point,
    tempo.
    """
    n = first.shape[0]
    used = np.zeros(n, np.bool_)
    neighbours = np.empty(_MOST_NEIGHBOURS, np.int64)
    written = 0
    group = 0
    while group < n:
        group_end = group
        while (
            group_end < n
            and first_row[group_end] == first_row[group]
            and second_row[group_end] == second_row[group]
        ):
            group_end += 1
        for i in range(group, group_end):
            if used[i] or group_end - i < LEAST_VOTES or written == out_at.shape[0]:
                continue
            m = 0
            j = i + 1
            # Many pairs in 24 s: every so many, so that the last ones are among them.
            while j < group_end and second[j] - second[i] <= LINE_FRAMES:
                j += 1
            step = max(1, (j - i - 1 + _MOST_NEIGHBOURS - 1) // _MOST_NEIGHBOURS)
            for k in range(i + 1, j, step):
                if not used[k] and m < _MOST_NEIGHBOURS:
                    neighbours[m] = k
                    m += 1
            if m < LEAST_VOTES - 1:
                continue
            told = tempo_step ** scale[i]
            best = 0
            best_slope = 0.0
            for q in range(m):
                j = neighbours[q]
                away = second[j] - second[i]
                if tempo_step == 1.0:
                    if abs(scale[j] - scale[i]) > 1:
                        continue
                    slope = 1.0
                elif away >= LEAST_SLOPE_FRAMES:
                    slope = (first[j] - first[i]) / away
                else:
                    slope = told
                other = tempo_step ** scale[j]
                if abs(slope / told - 1.0) > TEMPO_TOLERANCE:
                    continue
                if abs(slope / other - 1.0) > TEMPO_TOLERANCE:
                    continue
                votes = 1
                before = second[i]
                for r in range(m):
                    k = neighbours[r]
                    error = first[k] - first[i] - slope * (second[k] - second[i])
                    if abs(error) <= TOLERANCE_FRAMES and second[k] - before >= 3:
                        votes += 1
                        before = second[k]
                if votes > best:
                    best = votes
                    best_slope = slope
            if best < LEAST_VOTES:
                continue
            last = i
            used[i] = True
            for k in range(i + 1, group_end):
                if second[k] - second[i] > LINE_FRAMES:
                    break
                error = first[k] - first[i] - best_slope * (second[k] - second[i])
                if abs(error) <= 2.0 * TOLERANCE_FRAMES:
                    used[k] = True
                    last = k
            out_at[written, 0] = i
            out_at[written, 1] = second[i]
            out_at[written, 2] = second[last]
            out_at[written, 3] = best
            middle = 0.5 * (second[i] + second[last])
            out_values[written, 0] = first[i] + best_slope * (middle - second[i])
            out_values[written, 1] = middle
            out_values[written, 2] = best_slope
            written += 1
        group = group_end
    return written


def _in_all(
    at: NDArray[np.int64],
    values: NDArray[np.float64],
    first_row: NDArray[np.int64],
    second_row: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Votes of all lines of a pair that go on one another at the same speed.

    Only of unchanged speed: of another one a line's votes do not tell far from it where it goes.
    """
    total = at[:, 3].copy()
    same = np.flatnonzero(np.abs(values[:, 2] - 1.0) < UNCHANGED)
    if not len(same):
        return total
    offset = np.round((values[same, 0] - values[same, 1]) / OFFSET_FRAMES).astype(np.int64)
    table = np.stack([first_row[same], second_row[same], offset], axis=1)
    _, group = np.unique(table, axis=0, return_inverse=True)
    total[same] = np.bincount(group.ravel(), at[same, 3])[group.ravel()].astype(np.int64)
    return total


def find_lines(line: TimeLine, change: Change, pairs: NDArray[np.void]) -> Lines:
    """Lines of at least `LEAST_VOTES` pairs; ``pairs`` in order as `PairFiles.read` gives them."""
    first, second = pairs["first"].astype(np.int64), pairs["second"].astype(np.int64)
    scale = pairs["scale"].astype(np.int64)
    first_row, second_row = line.rows_of(first), line.rows_of(second)
    room = max(1, len(pairs) // LEAST_VOTES)
    at = np.empty((room, 4), np.int64)
    values = np.empty((room, 3), np.float64)
    n = _lines(
        first_row,
        second_row,
        first,
        second,
        scale,
        1.0 if change is Change.PITCH else SCALE_STEP,
        at,
        values,
    )
    at, values = at[:n], values[:n]
    # Of a loop's turns that lie on one another the longest line has the most votes in all.
    total = _in_all(at, values, first_row[at[:, 0]], second_row[at[:, 0]])
    order = np.lexsort((-at[:, 3], -total, first_row[at[:, 0]], second_row[at[:, 0]]))
    at, values = at[order], values[order]
    ones, others = first_row[at[:, 0]], second_row[at[:, 0]]
    if change is Change.SPEED:
        pitch = 36.0 * np.log2(values[:, 2])
    elif change is Change.PITCH:
        pitch = -scale[at[:, 0]].astype(np.float64)
    else:
        pitch = np.zeros(n)
    return Lines(
        first=ones,
        second=others,
        first_frame=values[:, 0] - line.base[ones],
        second_frame=values[:, 1] - line.base[others],
        begin=at[:, 1] - line.base[others],
        end=at[:, 2] - line.base[others],
        tempo=values[:, 2],
        pitch=pitch,
        votes=at[:, 3].astype(np.int32),
    )
