"""Landmark energy: how peaky a clip is where a recording's landmarks say it should be."""

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel

SHIFTS = 20
FIRST_SHIFT_FRAMES = 7
SHIFT_STEP_FRAMES = 5
"""Shifted offsets for comparison: ±(7 + 5 k) frames, k = 1 … 20."""
SHIFTED_HALF_FRAMES = 2.0 * (FIRST_SHIFT_FRAMES + SHIFT_STEP_FRAMES * (SHIFTS + 1))
"""Landmarks this far beyond a clip's ends take part."""


@kernel
def _standardise(values: NDArray[np.float32]) -> None:
    """Give every column mean 0 and deviation 1, in place."""
    n, m = values.shape
    total = np.zeros(m, np.float64)
    square = np.zeros(m, np.float64)
    for t in range(n):
        for b in range(m):
            value = np.float64(values[t, b])
            total[b] += value
            square[b] += value * value
    for b in range(m):
        total[b] /= n
        square[b] = 1.0 / np.sqrt(max(square[b] / n - total[b] * total[b], 1e-4))
    for t in range(n):
        for b in range(m):
            values[t, b] = np.float32((values[t, b] - total[b]) * square[b])


@kernel
def measure_peakiness(contrast: NDArray[np.float32]) -> NDArray[np.float32]:
    n, m = contrast.shape
    across = np.empty((n, m), np.float32)
    for t in range(n):
        for b in range(m):
            best = contrast[t, b]
            if b > 0:
                best = max(best, contrast[t, b - 1])
            if b < m - 1:
                best = max(best, contrast[t, b + 1])
            across[t, b] = best
    out = np.empty((n, m), np.float32)
    for t in range(n):
        for b in range(m):
            best = across[t, b]
            if t > 0:
                best = max(best, across[t - 1, b])
            if t < n - 1:
                best = max(best, across[t + 1, b])
            out[t, b] = best
    _standardise(out)
    for t in range(n):
        mean = 0.0
        for b in range(m):
            mean += out[t, b]
        mean /= m
        for b in range(m):
            out[t, b] -= np.float32(mean)
    _standardise(out)
    return out


@kernel
def shift_contrast(
    peakiness: NDArray[np.float32],
    r_time: NDArray[np.float64],
    r_bin: NDArray[np.float64],
    n_reference: int,
    position_half: float,
    pitch: float,
    tempo: float,
) -> float:
    """Uz: mean peakiness at the recording's landmarks, against the same at shifted offsets."""
    n_frames, n_bands = peakiness.shape
    centre = 0.5 * (n_frames - 1)
    n_shifts = 2 * SHIFTS + 1
    total = np.zeros(n_shifts, np.float64)
    count = np.zeros(n_shifts, np.int64)
    for i in range(n_reference):
        b = np.int64(np.floor(0.25 * r_bin[i] + pitch + 0.5))
        if b < 0 or b >= n_bands:
            continue
        at = 0.5 * (r_time[i] - position_half)
        for k in range(n_shifts):
            d = 0.0
            if k > SHIFTS:
                d = FIRST_SHIFT_FRAMES + SHIFT_STEP_FRAMES * (k - SHIFTS)
            elif k > 0:
                d = -FIRST_SHIFT_FRAMES - SHIFT_STEP_FRAMES * k
            t = np.int64(np.floor((at - d) / tempo + centre + 0.5))
            if t >= 0 and t < n_frames:
                total[k] += peakiness[t, b]
                count[k] += 1
    if count[0] < 3:
        return 0.0
    mean = 0.0
    square = 0.0
    n = 0
    for k in range(1, n_shifts):
        if count[k] >= 3:
            u = total[k] / count[k]
            mean += u
            square += u * u
            n += 1
    if n < SHIFTS // 2:
        return 0.0
    mean /= n
    deviation = np.sqrt(max(0.0, square / n - mean * mean))
    return float((total[0] / count[0] - mean) / max(deviation, 0.3 / np.sqrt(count[0])))
