"""Pairs of landmarks that agree at a place: the vote that local evidence begins with."""

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel
from soundhash_engine.triples import strongest_targets

PAIR_BIN_FRAMES = 3.0
PAIR_SIDE_BINS = 200
"""Offsets this far to both sides of the place make its background …"""
PAIR_NEAR_BINS = 11
"""… but for those nearer than this."""


@kernel
def list_pairs(
    targets: NDArray[np.int32], counts: NDArray[np.int32], out: NDArray[np.int32]
) -> int:
    n = 0
    for a in range(counts.shape[0]):
        for i in range(counts[a]):
            out[n, 0] = a
            out[n, 1] = targets[a, i]
            n += 1
    return n


@kernel
def count_pairs(
    q_time: NDArray[np.int32],
    q_bin: NDArray[np.int16],
    pairs: NDArray[np.int32],
    centre_half: float,
    r_time: NDArray[np.float64],
    r_bin: NDArray[np.float64],
    n_reference: int,
    r_strength: NDArray[np.uint8],
    n_targets: int,
    min_half: float,
    max_half: float,
    max_quarters: int,
    time_cell_frames: float,
    margin: float,
    position_half: float,
    pitch: float,
    tempo: float,
    votes: NDArray[np.int32],
) -> None:
    """Histogram of offsets (bins of 3 frames, the place in the middle) of pairs that agree."""
    middle = votes.shape[0] // 2
    # The clip's pairs, hashed by cell.
    n_pairs = pairs.shape[0]
    size = 1024
    while size < n_pairs:
        size *= 2
    head = np.full(size, -1, np.int32)
    link = np.empty(n_pairs, np.int32)
    cell = np.empty(n_pairs, np.int64)
    start = np.empty(n_pairs, np.float32)
    n = 0
    for i in range(n_pairs):
        a = pairs[i, 0]
        b = pairs[i, 1]
        dt = (q_time[b] - q_time[a]) * tempo
        if dt < min_half - 0.5 or dt > max_half + 0.5:
            continue
        fa = q_bin[a] * 0.25 + 0.125 - pitch
        df = (q_bin[b] - q_bin[a]) * 0.25 + 0.125
        ca = np.int64(np.floor(fa))
        cd = np.int64(np.floor(df)) + 32
        ct = np.int64((dt + 0.5) * 0.5 / time_cell_frames)
        if ca < 0 or ca > 255:
            continue
        key = (ca << 14) | (cd << 7) | ct
        cell[n] = key
        start[n] = tempo * (q_time[a] - centre_half)
        slot = ((key * 2654435761) >> 12) & (size - 1)
        link[n] = head[slot]
        head[slot] = n
        n += 1
    # The recording's pairs, each in its cell and in those whose border is near.
    r_times = np.empty(n_reference, np.int32)
    r_bins = np.empty(n_reference, np.int16)
    for i in range(n_reference):
        r_times[i] = np.int32(r_time[i] - r_time[0])
        r_bins[i] = np.int16(r_bin[i])
    targets = np.empty((n_reference, n_targets), np.int32)
    counts = np.empty(n_reference, np.int32)
    strongest_targets(
        r_times, r_bins, r_strength, min_half, max_half, max_quarters, n_targets, targets, counts
    )
    cells_f = np.empty(2, np.int64)
    cells_d = np.empty(2, np.int64)
    cells_t = np.empty(2, np.int64)
    for a in range(n_reference):
        fa = r_bin[a] * 0.25 + 0.125
        n_f = _near(fa, margin, cells_f)
        at = r_time[a] - position_half
        for k in range(counts[a]):
            b = targets[a, k]
            n_d = _near((r_bin[b] - r_bin[a]) * 0.25 + 0.125, margin, cells_d)
            n_t = _near(
                (r_time[b] - r_time[a] + 0.5) * 0.5 / time_cell_frames,
                margin / time_cell_frames,
                cells_t,
            )
            for i in range(n_f):
                for j in range(n_d):
                    for m in range(n_t):
                        key = (cells_f[i] << 14) | ((cells_d[j] + 32) << 7) | cells_t[m]
                        entry = head[((key * 2654435761) >> 12) & (size - 1)]
                        while entry >= 0:
                            if cell[entry] == key:
                                offset = (at - start[entry]) / (2.0 * PAIR_BIN_FRAMES)
                                o = np.int64(np.floor(offset + 0.5)) + middle
                                if o >= 0 and o < votes.shape[0]:
                                    votes[o] += 1
                            entry = link[entry]


@kernel
def _near(value: float, margin: float, cells: NDArray[np.int64]) -> int:
    cell = np.int64(np.floor(value))
    cells[0] = cell
    if value - cell < margin:
        cells[1] = cell - 1
        return 2
    if value - cell > 1.0 - margin:
        cells[1] = cell + 1
        return 2
    return 1


@kernel
def pair_contrast(votes: NDArray[np.int32], first_bin: int, last_bin: int) -> tuple[float, int]:
    """lz and the votes at the place; only offsets in [first_bin, last_bin] make the mean."""
    middle = votes.shape[0] // 2
    best = 0
    for o in range(middle - 2, middle + 2):
        best = max(best, votes[o] + votes[o + 1])
    total = 0
    n = 0
    for o in range(max(0, first_bin), min(votes.shape[0] - 1, last_bin) + 1):
        if abs(o - middle) > PAIR_NEAR_BINS:
            total += votes[o]
            n += 1
    mean = 2.0 * total / max(n, 20)
    return np.log(max(0.3, (best - mean) / np.sqrt(mean + 1.0))), best
