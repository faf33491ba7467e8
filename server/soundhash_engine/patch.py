"""The patch: a clip's contrast beside a recording's stored descriptor."""

import math

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel

BLOCK_ROWS = 8
"""Coverage is counted in blocks of 8 descriptor rows (0.51 s)."""
BLOCK_CORRELATION = 0.25
PATCH_SHIFTS = 20
LEAST_SHIFT_ROWS = 3
SHIFT_STEP_ROWS = 2
MOST_SHIFT_ROWS = LEAST_SHIFT_ROWS + SHIFT_STEP_ROWS * (PATCH_SHIFTS - 1)
"""Shifted places for comparison: ±(3 + 2 k) descriptor rows, k = 0 … 19 (0.2 to 2.6 s)."""
NEIGHBOUR_SHARE = 0.7
"""How much of a band's contrast its lower neighbour foretells."""


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
    between = np.empty(n_bins + 2, np.float64)
    rows = 0
    while row < descriptor.shape[0] and rows < clip.shape[0]:
        t0 = (row * row_frames - lowest) / tempo
        t1 = ((row + 1) * row_frames - lowest) / tempo
        if t1 > n_frames:
            break
        # Running sums over the row's time; a band is the difference of two of them.
        i0 = min(int(t0), n_frames - 1)
        i1 = min(int(t1), n_frames - 1)
        part0 = t0 - i0
        part1 = t1 - i1
        for b in range(n_bins + 2):
            between[b] = (
                (1.0 - part1) * integral[i1, b]
                + part1 * integral[i1 + 1, b]
                - (1.0 - part0) * integral[i0, b]
                - part0 * integral[i0 + 1, b]
            )
        size = band_bins * (t1 - t0)
        for k in range(bands):
            band = first_band + k
            low = band * band_bins + pitch
            b0 = math.floor(low)
            part = low - b0
            b1 = b0 + band_bins
            area = (1.0 - part) * (between[b1] - between[b0]) + part * (
                between[b1 + 1] - between[b0 + 1]
            )
            clip[rows, k] = area / size
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
def _whitened(patch: NDArray[np.float32], rows: int, bands: int, out: NDArray[np.float32]) -> None:
    """What a band has beyond its lower neighbour, centred: neighbours say much the same."""
    for t in range(rows):
        for b in range(bands - 1):
            out[t, b] = patch[t, b + 1] - np.float32(NEIGHBOUR_SHARE) * patch[t, b]
    centre_patch(out, rows, bands - 1)


@kernel
def shifted_correlations(
    clip: NDArray[np.float32],
    rows: int,
    bands: int,
    descriptor: NDArray[np.uint8],
    row: int,
    band: int,
    out: NDArray[np.float64],
) -> int:
    """Correlations of a centred clip's patch with the recording at shifted rows.

    ``row``, ``band``: of the descriptor, where the patch begins. The shifts are those of
    ``PATCH_SHIFTS`` that lie within the recording. Sums are of integers: the clip's cells in
    1/32 of their deviation.
    """
    size = rows * bands
    square = 0.0
    for t in range(rows):
        for b in range(bands):
            square += np.float64(clip[t, b]) * np.float64(clip[t, b])
    if square <= 0.0:
        return 0
    scale = 32.0 / math.sqrt(square / size)
    fine = np.empty((rows, bands), np.int16)
    square = 0.0
    for t in range(rows):
        for b in range(bands):
            fine[t, b] = np.int16(max(-8000.0, min(8000.0, clip[t, b] * scale)))
            square += np.float64(fine[t, b]) * np.float64(fine[t, b])
    first = max(0, row - MOST_SHIFT_ROWS)
    last = min(descriptor.shape[0], row + rows + MOST_SHIFT_ROWS)
    cells = np.empty((last - first, bands), np.int16)
    for t in range(last - first):
        for b in range(bands):
            byte = descriptor[first + t, (band + b) // 2]
            cells[t, b] = np.int16(byte >> 4 if (band + b) % 2 else byte & 15) - 8
    n = 0
    columns = np.empty(bands, np.int32)
    for k in range(2 * PATCH_SHIFTS):
        step = LEAST_SHIFT_ROWS + SHIFT_STEP_ROWS * (k // 2)
        begin = row - first + (step if k % 2 else -step)
        if begin < 0 or begin + rows > last - first:
            continue
        dot = 0
        squares = 0
        row_squares = 0
        total = 0
        columns[:] = 0
        for t in range(rows):
            row_sum = 0
            for b in range(bands):
                value = int(cells[begin + t, b])
                dot += int(fine[t, b]) * value
                squares += value * value
                row_sum += value
                columns[b] += value
            total += row_sum
            row_squares += row_sum * row_sum
        column_squares = 0
        for b in range(bands):
            column_squares += int(columns[b]) * int(columns[b])
        # The recording's patch need not be centred for the product: the clip's is. Its norm is
        # that of the centred one.
        norm = squares - row_squares / bands - column_squares / rows + total * (total / size)
        out[n] = dot / math.sqrt(square * norm) if norm > 1e-6 else 0.0
        n += 1
    return n


@kernel
def _contrast_of_shifts(value: float, others: NDArray[np.float64], n: int, size: int) -> float:
    """How far a correlation stands above those at shifted places, in their deviations."""
    if n < PATCH_SHIFTS // 2:
        # Too short a recording to measure it: about one cell in eight is independent.
        return float(value * math.sqrt(size / 8.0))
    mean = others[:n].mean()
    square = 0.0
    for k in range(n):
        square += (others[k] - mean) * (others[k] - mean)
    return float((value - mean) / max(math.sqrt(square / n), 1e-3))


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
) -> tuple[float, float, float, float, float, float, float, float, float]:
    """rp, overlap, correlation, first and last frame, coverage, best shift of the place, and of
    that shift: the contrast with shifted places (rz) and the whitened correlation times the root
    of its cells."""
    n_frames = integral.shape[0] - 1
    expected = n_frames * tempo / row_frames
    most = np.int64(expected) + 3
    clip = np.zeros((most, n_bands), np.float32)
    reference = np.zeros((most, n_bands), np.float32)
    clip_part = np.zeros((most, n_bands), np.float32)
    reference_part = np.zeros((most, n_bands), np.float32)
    row_time = np.zeros(most, np.float64)
    others = np.empty(2 * PATCH_SHIFTS, np.float64)
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
        if k == 2:
            correlation = _correlation(clip, reference, 0, rows, bands)
        centre_patch(clip, rows, bands)
        centre_patch(reference, rows, bands)
        value = _correlation(clip, reference, 0, rows, bands)
        if value > best:
            best = value
            shift = d
    # The last turn read the patch at the place itself.
    if best < -1.0 or rows < 4:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    overlap = min(1.0, rows / (0.95 * expected))
    first_row, last_row, coverage = _covered(clip, reference, rows, bands)
    half = 0.5 * row_frames / tempo
    first = row_time[first_row] - half
    last = row_time[last_row - 1] + half
    rows, bands = read_patch(
        integral,
        descriptor,
        0,
        n_bands,
        row_frames,
        band_bins,
        clip_steps,
        step,
        position_frames + shift,
        pitch,
        tempo,
        clip,
        reference,
        row_time,
    )
    centre_patch(clip, rows, bands)
    centre_patch(reference, rows, bands)
    lowest = position_frames + shift + 0.5 - tempo * 0.5 * n_frames
    n = shifted_correlations(
        clip,
        rows,
        bands,
        descriptor,
        max(0, math.ceil(lowest / row_frames)),
        max(0, math.ceil(-pitch / band_bins)),
        others,
    )
    contrast = _contrast_of_shifts(best, others, n, rows * bands)
    _whitened(clip, rows, bands, clip_part)
    _whitened(reference, rows, bands, reference_part)
    whitened = _correlation(clip_part, reference_part, 0, rows, bands - 1)
    whitened *= math.sqrt(rows * bands)
    return (
        best,
        overlap,
        correlation,
        first,
        last,
        coverage * min(1.0, overlap),
        shift,
        contrast,
        whitened,
    )
