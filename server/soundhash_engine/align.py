"""Alignment: do the landmarks of a clip and of a place lie on one another, and how exactly?

The histogram of time differences between a clip's landmarks, put where a hypothesis says, and the
recording's landmarks near them has a sharp peak at the right place and none elsewhere. It is the
decisive filter between cheap votes and the costly verification; the same coincidences then refine
pitch, tempo and offset beyond the grid of hypotheses.
"""

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel
from soundhash_engine.layout import BLOCK_HALF_FRAMES, peak_bin, peak_time

_WINDOW_HALF = 24.0
"""Time differences within ±12 frames count."""
_CELLS = 25
_TOLERANCE_QUARTERS = 3.6
"""0.9 bin."""
_REFINE_QUARTERS = 7.6
"""Refinement looks ±1 bin further."""
_MOST_PAIRS = 8192
_QUARTERS = 1024
_ALIGN_SLOPE = 0.006


@kernel
def gather_reference(
    peaks: NDArray[np.uint8],
    block: NDArray[np.uint32],
    first_half: float,
    last_half: float,
    time: NDArray[np.float64],
    bins: NDArray[np.float64],
) -> int:
    """Stored landmarks with times (half frames on the time line) between the two, in order."""
    first = max(0, int(first_half) // BLOCK_HALF_FRAMES)
    last = min(block.shape[0] - 2, int(last_half) // BLOCK_HALF_FRAMES)
    n = 0
    for b in range(first, last + 1):
        for i in range(block[b], block[b + 1]):
            t = np.float64(b * BLOCK_HALF_FRAMES + peak_time(peaks, i))
            if t < first_half or t > last_half or n >= time.shape[0]:
                continue
            time[n] = t
            bins[n] = np.float64(peak_bin(peaks, i))
            n += 1
    return n


@kernel
def _coincidences(
    q_time: NDArray[np.int32],
    q_bin: NDArray[np.int16],
    centre_half: float,
    r_time: NDArray[np.float64],
    r_bin: NDArray[np.float64],
    n_reference: int,
    position_half: float,
    pitch: float,
    tempo: float,
    tolerance: float,
    out: NDArray[np.float32],
) -> int:
    """Pairs of landmarks near one another: clip time from the centre, time and bin difference.

    ``out``: columns x (half frames of the clip from its centre), dt (half frames, recording less
    prediction) and df (quarter bins).
    """
    n = 0
    first = 0
    shift = 4.0 * pitch
    for i in range(q_time.shape[0]):
        x = q_time[i] - centre_half
        at = position_half + tempo * x
        f = q_bin[i] - shift
        while first < n_reference and r_time[first] < at - _WINDOW_HALF:
            first += 1
        for j in range(first, n_reference):
            dt = r_time[j] - at
            if dt > _WINDOW_HALF:
                break
            df = r_bin[j] - f
            if df <= tolerance and df >= -tolerance and n < out.shape[0]:
                out[n, 0] = x
                out[n, 1] = dt
                out[n, 2] = df
                n += 1
    return n


@kernel
def _sharpest(cells: NDArray[np.int32]) -> float:
    """Contrast of the three fullest neighbouring cells of the time differences."""
    total = 0
    best = 0
    for k in range(_CELLS):
        total += cells[k]
        if 0 < k < _CELLS - 1:
            best = max(best, cells[k - 1] + cells[k] + cells[k + 1])
    expected = total * 3.0 / _CELLS
    return float((best - expected) / np.sqrt(expected + 1.0))


@kernel
def _list_by_bin(
    q_time: NDArray[np.int32],
    q_bin: NDArray[np.int16],
    centre_half: float,
    first: NDArray[np.int32],
    x: NDArray[np.float64],
) -> None:
    """The clip's landmarks by quarter bin: where each bin's begin, and times from the centre."""
    first[:] = 0
    for b in q_bin:
        first[b + 1] += 1
    for b in range(first.shape[0] - 1):
        first[b + 1] += first[b]
    at = first.copy()
    for i in range(q_bin.shape[0]):
        x[at[q_bin[i]]] = q_time[i] - centre_half
        at[q_bin[i]] += 1


@kernel
def align(
    peaks: NDArray[np.uint8],
    block: NDArray[np.uint32],
    q_time: NDArray[np.int32],
    q_bin: NDArray[np.int16],
    centre_half: float,
    position: NDArray[np.float64],
    pitch: NDArray[np.float64],
    tempo: NDArray[np.float64],
    z: NDArray[np.float64],
) -> None:
    """Write how sharply each candidate's landmarks coincide (about 0 … 3 by chance)."""
    first = np.empty(_QUARTERS + 1, np.int32)
    x = np.empty(q_time.shape[0], np.float64)
    _list_by_bin(q_time, q_bin, centre_half, first, x)
    cells = np.empty((3, _CELLS), np.int32)
    for c in range(position.shape[0]):
        cells[:] = 0
        half = 2.0 * position[c]
        v = tempo[c]
        slope = _ALIGN_SLOPE * v
        begin = half - centre_half * v - _WINDOW_HALF
        end = half + centre_half * v + _WINDOW_HALF
        shift = 4.0 * pitch[c]
        first_block = max(0, int(begin) // BLOCK_HALF_FRAMES)
        last_block = min(block.shape[0] - 2, int(end) // BLOCK_HALF_FRAMES)
        for b in range(first_block, last_block + 1):
            start = b * BLOCK_HALF_FRAMES - half
            for i in range(block[b], block[b + 1]):
                t = start + peak_time(peaks, i)
                f = peak_bin(peaks, i) + shift
                low = max(0, int(np.ceil(f - _TOLERANCE_QUARTERS)))
                high = min(_QUARTERS - 1, int(np.floor(f + _TOLERANCE_QUARTERS)))
                if low > high:
                    continue
                for e in range(first[low], first[high + 1]):
                    dt = t - v * x[e]
                    if dt > _WINDOW_HALF or dt < -_WINDOW_HALF:
                        continue
                    # Also a little faster and slower than the hypothesis.
                    for k in range(3):
                        at = 0.5 * (dt - (k - 1) * slope * x[e]) + 0.5 * _CELLS
                        if at >= 0.0 and at < _CELLS:
                            cells[k, int(at)] += 1
        z[c] = max(_sharpest(cells[0]), _sharpest(cells[1]), _sharpest(cells[2]))


@kernel
def refine(
    peaks: NDArray[np.uint8],
    block: NDArray[np.uint32],
    q_time: NDArray[np.int32],
    q_bin: NDArray[np.int16],
    centre_half: float,
    position: float,
    pitch: float,
    tempo: float,
) -> tuple[float, float, float, int]:
    """Position (frames), pitch (bins) and tempo after a local Hough vote and a least-squares fit.

    The vote goes over tempo ±1.5 %, offset ±12 frames and pitch ±1 bin; the fit over what lies on
    the winner's line. Also returns how many coincidences that are.
    """
    r_time = np.empty(_MOST_PAIRS, np.float64)
    r_bin = np.empty(_MOST_PAIRS, np.float64)
    pairs = np.empty((_MOST_PAIRS, 3), np.float32)
    half = 2.0 * position
    reach = (centre_half * tempo + _WINDOW_HALF) * 1.02
    n_reference = gather_reference(peaks, block, half - reach, half + reach, r_time, r_bin)
    n = _coincidences(
        q_time,
        q_bin,
        centre_half,
        r_time,
        r_bin,
        n_reference,
        half,
        pitch,
        tempo,
        _REFINE_QUARTERS,
        pairs,
    )
    if n == 0:
        return position, pitch, tempo, 0
    # Cells: one frame of time, a quarter bin of pitch; a box of 3 frames x 1.25 bins is summed.
    grid = np.zeros((_CELLS, 17), np.int32)
    best = -1
    best_slope = 0.0
    best_dt = 0.0
    best_df = 0.0
    for k in range(13):
        # From the middle outwards: of equal counts the smallest correction wins.
        slope = tempo * 0.0025 * ((k + 1) // 2) * (1.0 if k % 2 else -1.0)
        grid[:] = 0
        for i in range(n):
            dt = (pairs[i, 1] - slope * pairs[i, 0]) * 0.5 + 12.5
            if dt >= 0.0 and dt < _CELLS:
                df = np.int64(np.floor(pairs[i, 2] + 8.5))
                if df >= 0 and df < 17:
                    grid[np.int64(dt), df] += 1
        for f in range(4, 13):
            before = 0
            here = 0
            for g in range(f - 2, f + 3):
                here += grid[0, g]
            after = 0
            for g in range(f - 2, f + 3):
                after += grid[1, g]
            for t in range(1, _CELLS - 1):
                before = here
                here = after
                after = 0
                for g in range(f - 2, f + 3):
                    after += grid[t + 1, g]
                # Twice the middle: the sharper of two equal boxes.
                total = 2 * here + before + after
                if total > best:
                    best = total
                    best_slope = slope
                    best_dt = (t - 12.0) * 2.0
                    best_df = f - 8.0
    slope = best_slope
    offset = best_dt
    df_mean = best_df
    inliers = 0
    for step in range(3):
        t_tolerance = 4.0 - step
        f_tolerance = 3.0 - 0.5 * step
        s1 = 0.0
        sx = 0.0
        sxx = 0.0
        sy = 0.0
        sxy = 0.0
        sf = 0.0
        for i in range(n):
            error = pairs[i, 1] - offset - slope * pairs[i, 0]
            if abs(error) <= t_tolerance and abs(pairs[i, 2] - df_mean) <= f_tolerance:
                x = np.float64(pairs[i, 0])
                s1 += 1.0
                sx += x
                sxx += x * x
                sy += pairs[i, 1]
                sxy += x * pairs[i, 1]
                sf += pairs[i, 2]
        if s1 < 1.0:
            break
        inliers = int(s1)
        df_mean = sf / s1
        spread = sxx - sx * sx / s1
        if s1 >= 4.0 and spread > s1 * 100.0:
            slope = (sxy - sx * sy / s1) / spread
        offset = (sy - slope * sx) / s1
    return position + 0.5 * offset, pitch - 0.25 * df_mean, tempo + slope, inliers
