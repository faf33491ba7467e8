"""Log levels to contrast and landmarks (spectral peaks)."""

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel
from soundhash_engine.params import LEVEL_STEPS_PER_NEPER, PARAMS, Params
from soundhash_engine.spectrum import log_bands
from soundhash_engine.types import Contrast, Landmarks, Levels, Pcm, QueryFeatures


@kernel
def _contrast(
    levels: NDArray[np.int16],
    lo: int,
    hi: int,
    half_frames: int,
    half_bins: int,
    steps: np.float32,
) -> NDArray[np.float32]:
    """Contrast of rows [lo, hi): level less the mean of the box around it, clipped to `levels`.

    The box sums are integers: a running sum is exact wherever it began.
    """
    n, n_bands = levels.shape
    out = np.empty((hi - lo, n_bands), np.float32)
    base = max(0, lo - half_frames)
    top = min(n, hi + half_frames)
    rows = np.empty((max(0, top - base), n_bands), np.int32)
    prefix = np.zeros(n_bands + 1, np.int32)
    widths = np.empty(n_bands, np.int32)
    for b in range(n_bands):
        widths[b] = min(n_bands, b + half_bins + 1) - max(0, b - half_bins)
    for t in range(base, top):
        for b in range(n_bands):
            prefix[b + 1] = prefix[b] + levels[t, b]
        for b in range(n_bands):
            rows[t - base, b] = (
                prefix[min(n_bands, b + half_bins + 1)] - prefix[max(0, b - half_bins)]
            )
    sums = np.zeros(n_bands, np.int32)
    first = base
    last = base
    for t in range(lo, hi):
        while last < min(n, t + half_frames + 1):
            for b in range(n_bands):
                sums[b] += rows[last - base, b]
            last += 1
        while first < t - half_frames:
            for b in range(n_bands):
                sums[b] -= rows[first - base, b]
            first += 1
        height = last - first
        for b in range(n_bands):
            mean = np.float32(sums[b]) / np.float32(height * widths[b])
            out[t - lo, b] = (np.float32(levels[t, b]) - mean) / steps
    return out


@kernel
def _peaks(
    levels: NDArray[np.int16],
    contrast: NDArray[np.float32],
    lo: int,
    half_frames: int,
    half_bins: int,
    min_contrast: np.float32,
    mean_weight: np.float32,
    steps: np.float32,
    out_frame: NDArray[np.int32],
    out_time: NDArray[np.int32],
    out_bin: NDArray[np.int16],
    out_strength: NDArray[np.float32],
) -> int:
    """Peaks in rows [lo, lo + len(contrast)) of `levels`; frames and times relative to row 0.

    A peak is not smaller than any cell of its box, and greater than those before it (in time,
    then frequency). Rows and bins nearer to an edge of `levels` than the box have none.
    """
    n, n_bands = levels.shape
    count = 0
    candidate = np.zeros(n_bands, np.uint8)
    for t in range(max(lo, half_frames), min(lo + contrast.shape[0], n - half_frames)):
        # Most cells fail at one of the four nearest: without branches this vectorises.
        before_row, row, after_row = levels[t - 1], levels[t], levels[t + 1]
        for b in range(1, n_bands - 1):
            candidate[b] = (
                (row[b] > row[b - 1])
                & (row[b] >= row[b + 1])
                & (row[b] > before_row[b])
                & (row[b] >= after_row[b])
            )
        for b in range(half_bins, n_bands - half_bins):
            if not candidate[b] or contrast[t - lo, b] < min_contrast:
                continue
            value = row[b]
            is_peak = True
            for i in range(t - half_frames, t + half_frames + 1):
                for j in range(b - half_bins, b + half_bins + 1):
                    other = levels[i, j]
                    if other > value or (other == value and (i < t or (i == t and j < b))):
                        is_peak = False
                        break
                if not is_peak:
                    break
            if not is_peak:
                continue
            before, after = levels[t - 1, b], levels[t + 1, b]
            below, above = levels[t, b - 1], levels[t, b + 1]
            # A parabola through three levels has its top at (left − right) / (2 curvature).
            bend_t = before - 2 * value + after
            bend_f = below - 2 * value + above
            shift_t = 0.5 * (before - after) / bend_t if bend_t < 0 else 0.0
            shift_f = 0.5 * (below - above) / bend_f if bend_f < 0 else 0.0
            out_frame[count] = t
            out_time[count] = int(np.floor(2.0 * (t + shift_t) + 0.5))
            out_bin[count] = int(np.floor(4.0 * (b + shift_f) + 0.5))
            # level − w · mean, the mean being level − contrast
            out_strength[count] = (np.float32(1) - mean_weight) * (
                np.float32(value) / steps
            ) + mean_weight * contrast[t - lo, b]
            count += 1
    return count


@kernel
def _strongest(
    frame: NDArray[np.int32],
    strength: NDArray[np.float32],
    lo: int,
    hi: int,
    half_frames: int,
    limit: int,
) -> NDArray[np.bool_]:
    """Which of the peaks [lo, hi) have fewer than `limit` stronger ones within ± half_frames.

    `frame` is sorted. Of equal ones the earlier counts as stronger.
    """
    keep = np.zeros(hi - lo, np.bool_)
    first = 0
    last = 0
    for i in range(lo, hi):
        while frame[first] < frame[i] - half_frames:
            first += 1
        while last < frame.size and frame[last] <= frame[i] + half_frames:
            last += 1
        stronger = 0
        for j in range(first, i):
            stronger += strength[j] >= strength[i]
        for j in range(i + 1, last):
            stronger += strength[j] > strength[i]
        keep[i - lo] = stronger < limit
    return keep


@kernel
def _ranks(
    time: NDArray[np.int32], strength: NDArray[np.uint8], half_window: int
) -> NDArray[np.uint8]:
    """How many landmarks within ± half_window (half frames) are stronger; at most 255."""
    out = np.empty(time.size, np.uint8)
    first = 0
    last = 0
    for i in range(time.size):
        while time[first] < time[i] - half_window:
            first += 1
        while last < time.size and time[last] <= time[i] + half_window:
            last += 1
        stronger = 0
        for j in range(first, i):
            stronger += strength[j] >= strength[i]
        for j in range(i + 1, last):
            stronger += strength[j] > strength[i]
        out[i] = min(stronger, 255)
    return out


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """Peaks in frame order; `frame`, `time` (half frames) and `bin` (quarter bins)."""

    frame: NDArray[np.int32]
    time: NDArray[np.int32]
    bin: NDArray[np.int16]
    strength: NDArray[np.float32]

    def take(self, which: NDArray[np.bool_] | slice) -> "Peaks":
        """Those that a mask or a slice selects."""
        return Peaks(self.frame[which], self.time[which], self.bin[which], self.strength[which])


def contrast_rows(levels: Levels, lo: int, hi: int, params: Params = PARAMS) -> Contrast:
    """Contrast in neper of rows [lo, hi) of `levels`: float32 (hi − lo, n_bands).

    The local mean is clipped to the rows that `levels` has: give 40 rows more on both sides,
    or the true ends of the audio.
    """
    return _contrast(
        levels,
        lo,
        hi,
        params.mean_half_frames,
        params.mean_half_bins,
        np.float32(LEVEL_STEPS_PER_NEPER),
    )


def find_peaks(levels: Levels, contrast: Contrast, lo: int, params: Params = PARAMS) -> Peaks:
    """All peaks of the rows that `contrast` covers, beginning at row `lo` of `levels`."""
    # No two peaks share a box of (half_frames + 1) × (half_bins + 1) cells.
    most = (contrast.shape[0] // (params.peak_half_frames + 1) + 1) * (
        params.n_bands // (params.peak_half_bins + 1) + 1
    )
    frame = np.empty(most, np.int32)
    time = np.empty(most, np.int32)
    bin_ = np.empty(most, np.int16)
    strength = np.empty(most, np.float32)
    count = _peaks(
        levels,
        contrast,
        lo,
        params.peak_half_frames,
        params.peak_half_bins,
        np.float32(params.min_peak_contrast_neper),
        np.float32(params.strength_mean_weight),
        np.float32(LEVEL_STEPS_PER_NEPER),
        frame,
        time,
        bin_,
        strength,
    )
    return Peaks(frame[:count], time[:count], bin_[:count], strength[:count])


def keep_strongest(peaks: Peaks, lo: int, hi: int, limit: int, params: Params = PARAMS) -> Peaks:
    """Those of peaks [lo, hi) with fewer than `limit` stronger ones within ±31 frames."""
    mask = _strongest(peaks.frame, peaks.strength, lo, hi, params.rank_half_frames, limit)
    return peaks.take(slice(lo, hi)).take(mask)


def to_landmarks(peaks: Peaks, n_frames: int, params: Params = PARAMS) -> Landmarks:
    """Peaks in their stored form: sorted, strengths in 6 bits."""
    steps = np.round(
        (peaks.strength - np.float32(params.strength_min_neper))
        / np.float32(params.strength_step_neper)
    )
    strength = np.clip(steps, 0, 63).astype(np.uint8)
    order = np.lexsort((peaks.bin, peaks.time))
    return rank_landmarks(peaks.time[order], peaks.bin[order], strength[order], n_frames, params)


def rank_landmarks(
    time: NDArray[np.int32],
    bin_: NDArray[np.int16],
    strength: NDArray[np.uint8],
    n_frames: int,
    params: Params = PARAMS,
) -> Landmarks:
    """Landmarks from their three stored fields, sorted by (time, bin); adds the ranks."""
    rank = _ranks(time, strength, 2 * params.rank_half_frames)
    return Landmarks(time=time, bin=bin_, strength=strength, rank=rank, n_frames=n_frames)


@kernel
def _fill_dropouts(
    levels: NDArray[np.int16], depth: int, median_frames: int, dilate: int
) -> NDArray[np.bool_]:
    """Fill frames far below the running median of the mean level, in place; returns which.

    A filled frame is the mean of the good frames of the median's window around it; one without
    any stays as it is.
    """
    n, n_bands = levels.shape
    half = median_frames // 2
    total = np.empty(n, np.int64)
    for t in range(n):
        level_sum = 0
        for b in range(n_bands):
            level_sum += levels[t, b]
        total[t] = level_sum
    low = np.zeros(n, np.bool_)
    any_low = False
    # The window's values in order; one goes out and one comes in at each step.
    window = np.empty(median_frames + 1, np.int64)
    size = 0
    for t in range(-half, n):
        if t + half < n:
            at = size
            while at > 0 and window[at - 1] > total[t + half]:
                window[at] = window[at - 1]
                at -= 1
            window[at] = total[t + half]
            size += 1
        if t - half > 0:
            at = 0
            while window[at] != total[t - half - 1]:
                at += 1
            size -= 1
            for i in range(at, size):
                window[i] = window[i + 1]
        if t >= 0 and total[t] < window[size // 2] - depth * n_bands:
            any_low = True
            low[max(0, t - dilate) : t + dilate + 1] = True
    if not any_low:
        return low
    filled = np.zeros(n, np.bool_)
    sums = np.empty(n_bands, np.int64)
    for t in range(n):
        if not low[t]:
            continue
        sums[:] = 0
        good = 0
        for u in range(max(0, t - half), min(n, t + half + 1)):
            if not low[u]:
                good += 1
                for b in range(n_bands):
                    sums[b] += levels[u, b]
        if good > 0:
            filled[t] = True
            for b in range(n_bands):
                levels[t, b] = int(np.floor(sums[b] / good + 0.5))
    return filled


@kernel
def _subtract(
    levels: NDArray[np.int16],
    noise: NDArray[np.int16],
    table: NDArray[np.int16],
    table_start: int,
) -> None:
    """Add table[level − noise − table_start] to every level, clipped to the table's ends."""
    last = table.size - 1
    for t in range(levels.shape[0]):
        for b in range(levels.shape[1]):
            i = levels[t, b] - noise[b] - table_start
            levels[t, b] += table[min(max(i, 0), last)]


@functools.lru_cache(maxsize=4)
def _subtraction_table(params: Params) -> tuple[NDArray[np.int16], int]:
    """ln max(1 − 0.8 e^−d, 0.1) in level steps, for integer d from the returned start on."""
    query = params.query
    start = -LEVEL_STEPS_PER_NEPER
    d = np.arange(start, 8 * LEVEL_STEPS_PER_NEPER) / LEVEL_STEPS_PER_NEPER
    left = np.maximum(1 - query.noise_fraction * np.exp(-d), query.noise_floor_fraction)
    return np.round(np.log(left) * LEVEL_STEPS_PER_NEPER).astype(np.int16), start


def clean_query_levels(levels: Levels, params: Params = PARAMS) -> NDArray[np.bool_]:
    """Fill drop-outs and take off stationary noise, in place; returns the filled frames.

    Both work on the whole clip. The noise of a band is its median power; a cell keeps
    max(power − 0.8 noise, 0.1 power), which in log levels is a function of their difference.
    """
    query = params.query
    filled = _fill_dropouts(
        levels,
        round(query.dropout_depth_neper * LEVEL_STEPS_PER_NEPER),
        query.dropout_median_frames,
        query.dropout_dilate_frames,
    )
    if levels.shape[0] > 0:
        middle = levels.shape[0] // 2
        noise = np.partition(np.ascontiguousarray(levels.T), middle, axis=1)[:, middle]
        table, start = _subtraction_table(params)
        _subtract(levels, np.ascontiguousarray(noise), table, start)
    return filled


def query_features(pcm: Pcm, params: Params = PARAMS) -> QueryFeatures:
    """Contrast and landmarks (rank limit 60) of a clip of up to about 15 s.

    Works on all of `pcm` at once: median filters and noise levels belong to the whole clip.
    A longer clip should be cut in windows first.
    """
    levels = log_bands(pcm, params)
    filled = clean_query_levels(levels, params)
    n_frames = levels.shape[0]
    contrast = contrast_rows(levels, 0, n_frames, params)
    peaks = find_peaks(levels, contrast, 0, params)
    if filled.any():
        # What was filled in is a guess; nothing may be matched on it.
        peaks = peaks.take(~filled[peaks.frame])
    peaks = keep_strongest(peaks, 0, peaks.frame.size, params.query.rank_limit, params)
    return QueryFeatures(
        contrast=contrast,
        landmarks=to_landmarks(peaks, n_frames, params),
        n_samples=pcm.size,
    )


def find_landmarks(pcm: Pcm, params: Params = PARAMS, *, query: bool = False) -> Landmarks:
    """Landmarks of audio that is in memory at once.

    As a reference (rank limit 20, the same as `extract` stores) or as a query (rank limit 60,
    after drop-out fill and noise subtraction).
    """
    if query:
        return query_features(pcm, params).landmarks
    levels = log_bands(pcm, params)
    n_frames = levels.shape[0]
    contrast = contrast_rows(levels, 0, n_frames, params)
    peaks = find_peaks(levels, contrast, 0, params)
    peaks = keep_strongest(peaks, 0, peaks.frame.size, params.rank_limit, params)
    return to_landmarks(peaks, n_frames, params)
