"""The patch: a clip's contrast beside a recording's stored descriptor."""

import math

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel

BLOCK_ROWS = 8
"""Coverage is counted in blocks of 8 descriptor rows (0.51 s)."""
BLOCK_CORRELATION = 0.25


@kernel
def integrate(contrast: NDArray[np.float32]) -> NDArray[np.float64]:
    n, m = contrast.shape
    # One column more than needed: a band that ends at the last bin reads the next one, times 0.
    out = np.zeros((n + 1, m + 2), np.float64)
    for t in range(n):
        row = 0.0
        for b in range(m):
            row += contrast[t, b]
            out[t + 1, b + 1] = out[t, b + 1] + row
        out[t + 1, m + 1] = out[t + 1, m]
    return out


@kernel
def _area(integral: NDArray[np.float64], t: float, b: int) -> float:
    """Running sum up to the continuous frame ``t`` and the whole bin ``b``."""
    i = min(int(t), integral.shape[0] - 2)
    part = t - i
    return float((1.0 - part) * integral[i, b] + part * integral[i + 1, b])


@kernel
def read_patch(
    integral: NDArray[np.float64],
    descriptor: NDArray[np.uint8],
    first_row: int,
    n_bands: int,
    row_frames: int,
    band_bins: int,
    clip_steps: int,
    step: float,
    position_frames: float,
    pitch: float,
    tempo: float,
    clip: NDArray[np.float32],
    reference: NDArray[np.float32],
    row_time: NDArray[np.float64],
) -> tuple[int, int]:
    """The clip's contrast pooled like the recording's descriptor, and that descriptor.

    ``position_frames``: the clip's centre from the recording's first frame. Returns the rows and
    bands written; ``row_time`` is each row's middle in frames of the clip.
    """
    n_frames = integral.shape[0] - 1
    n_bins = integral.shape[1] - 2
    centre = 0.5 * n_frames
    # The frame i of the recording covers [i, i + 1) here, the clip's the same.
    lowest = position_frames + 0.5 - tempo * centre
    row = max(0, math.ceil(lowest / row_frames))
    first_band = max(0, math.ceil(-pitch / band_bins))
    last_band = min(n_bands, math.floor((n_bins - pitch) / band_bins))
    bands = last_band - first_band
    rows = 0
    while row < descriptor.shape[0] and rows < clip.shape[0]:
        t0 = (row * row_frames - lowest) / tempo
        t1 = ((row + 1) * row_frames - lowest) / tempo
        if t1 > n_frames:
            break
        for k in range(bands):
            band = first_band + k
            low = band * band_bins + pitch
            b0 = math.floor(low)
            part = low - b0
            b1 = b0 + band_bins
            area = (1.0 - part) * (
                _area(integral, t1, b1)
                - _area(integral, t0, b1)
                - _area(integral, t1, b0)
                + _area(integral, t0, b0)
            ) + part * (
                _area(integral, t1, b1 + 1)
                - _area(integral, t0, b1 + 1)
                - _area(integral, t1, b0 + 1)
                + _area(integral, t0, b0 + 1)
            )
            clip[rows, k] = area / (band_bins * (t1 - t0))
            byte = descriptor[row, band // 2]
            nibble = byte >> 4 if band % 2 else byte & 15
            reference[rows, k] = (np.float32(nibble) - clip_steps - 1) * step
        row_time[rows] = 0.5 * (t0 + t1)
        rows += 1
        row += 1
    return rows, bands


@kernel
def centre_patch(patch: NDArray[np.float32], rows: int, bands: int) -> None:
    """Remove each row's and each band's mean, in place."""
    for t in range(rows):
        mean = 0.0
        for b in range(bands):
            mean += patch[t, b]
        mean /= bands
        for b in range(bands):
            patch[t, b] -= np.float32(mean)
    for b in range(bands):
        mean = 0.0
        for t in range(rows):
            mean += patch[t, b]
        mean /= rows
        for t in range(rows):
            patch[t, b] -= np.float32(mean)


@kernel
def block_correlations(
    clip: NDArray[np.float32], reference: NDArray[np.float32], rows: int, bands: int
) -> NDArray[np.float64]:
    """Correlation of each block of the centred patches; the last block takes the odd rows."""
    blocks = max(1, rows // BLOCK_ROWS)
    value = np.zeros(blocks, np.float64)
    for k in range(blocks):
        end = rows if k == blocks - 1 else (k + 1) * BLOCK_ROWS
        value[k] = _correlation(clip, reference, k * BLOCK_ROWS, end, bands)
    return value


@kernel
def _covered(
    clip: NDArray[np.float32], reference: NDArray[np.float32], rows: int, bands: int
) -> tuple[int, int, float]:
    """First and last row (exclusive) of the passage, and the share of blocks that correlate.

    Both patches are centred. The passage is the run of blocks with the largest sum of correlation
    above half of what the better blocks have: a single block that correlates by chance beyond a
    gap does not stretch it.
    """
    value = block_correlations(clip, reference, rows, bands)
    blocks = value.size
    covered = np.count_nonzero(value > BLOCK_CORRELATION)
    ordered = np.sort(value)
    better = ordered[blocks // 2 :].mean()
    level = min(0.4, max(0.1, 0.5 * better))
    best = 0.0
    total = 0.0
    start = 0
    first = 0
    last = blocks
    for k in range(blocks):
        if total <= 0.0:
            total = 0.0
            start = k
        total += value[k] - level
        if total > best:
            best = total
            first = start
            last = k + 1
    return first * BLOCK_ROWS, rows if last == blocks else last * BLOCK_ROWS, covered / blocks


@kernel
def _correlation(
    clip: NDArray[np.float32], reference: NDArray[np.float32], first: int, last: int, bands: int
) -> float:
    """Correlation of rows [first, last) of the raw patches."""
    sx = 0.0
    sy = 0.0
    sxx = 0.0
    syy = 0.0
    sxy = 0.0
    n = (last - first) * bands
    for t in range(first, last):
        for b in range(bands):
            x = np.float64(clip[t, b])
            y = np.float64(reference[t, b])
            sx += x
            sy += y
            sxx += x * x
            syy += y * y
            sxy += x * y
    if n < 2:
        return 0.0
    xx = sxx - sx * sx / n
    yy = syy - sy * sy / n
    if xx < 1e-6 or yy < 1e-6:
        return 0.0
    return float((sxy - sx * sy / n) / np.sqrt(xx * yy))


@kernel
def compare_patches(
    integral: NDArray[np.float64],
    descriptor: NDArray[np.uint8],
    n_bands: int,
    row_frames: int,
    band_bins: int,
    clip_steps: int,
    step: float,
    position_frames: float,
    pitch: float,
    tempo: float,
) -> tuple[float, float, float, float, float, float, float]:
    """rp, overlap, correlation, first and last frame, coverage, best shift of the place."""
    n_frames = integral.shape[0] - 1
    expected = n_frames * tempo / row_frames
    most = np.int64(expected) + 3
    clip = np.zeros((most, n_bands), np.float32)
    reference = np.zeros((most, n_bands), np.float32)
    row_time = np.zeros(most, np.float64)
    best = -2.0
    shift = 0.0
    correlation = 0.0
    for k in range(3):
        d = (1.5, -1.5, 0.0)[k]
        rows, bands = read_patch(
            integral,
            descriptor,
            0,
            n_bands,
            row_frames,
            band_bins,
            clip_steps,
            step,
            position_frames + d,
            pitch,
            tempo,
            clip,
            reference,
            row_time,
        )
        if rows < 4 or bands < 10:
            continue
        raw = _correlation(clip, reference, 0, rows, bands)
        centre_patch(clip, rows, bands)
        centre_patch(reference, rows, bands)
        value = _correlation(clip, reference, 0, rows, bands)
        if value > best:
            best = value
            shift = d
        if k == 2:
            correlation = raw
    # The last turn read the patch at the place itself.
    if best < -1.0 or rows < 4:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    overlap = min(1.0, rows / (0.95 * expected))
    first_row, last_row, coverage = _covered(clip, reference, rows, bands)
    half = 0.5 * row_frames / tempo
    first = row_time[first_row] - half
    last = row_time[last_row - 1] + half
    return best, overlap, correlation, first, last, coverage * min(1.0, overlap), shift
