"""A glance at a place: evidence so cheap that every well-aligned candidate can have it.

Three measures, a tenth of what full verification costs: the landmark energy (`peakiness`), the
share of landmarks that coincide, and what the clip's strongest landmarks meet in the recording's
descriptor. Noise and a hall hide most of a recording's landmarks from the clip, but the clip's own
strongest peaks are still the music's: they lie where the recording's stored contrast is high.
Their sum turns away 95 of 100 of the best wrong places and one in a thousand right ones.
"""

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.align import gather_reference, refine
from soundhash_engine.jit import kernel
from soundhash_engine.peakiness import SHIFTED_HALF_FRAMES, shift_contrast

STRONGEST = 10
"""Rank below which a clip's landmarks count here."""
UNCHANGED_PITCH_BINS = 0.3
UNCHANGED_TEMPO = 0.004
UNCHANGED_TEMPO_SHORT = 0.012
UNCHANGED_DRIFT_FRAMES = 2.5
"""A refined candidate this near to no change is verified as unchanged; the tempo of a short clip
may be off by what makes this drift from its start to its end, but by 1.2 % at most."""
GLANCE_UZ = 2.25
GLANCE_MET = 3.31
GLANCE_COINCIDING = 10.9
GLANCE_UNCHANGED = 0.7
GLANCE_BIAS = -7.35
"""Weights of a glance: a logistic regression on 2,520 clips' verified places, its bias where one in
a thousand right places that are believed is turned away. ``tests/eval/fit_score.py`` fits them."""
GLANCE_MOST_LOG_UZ = 2.0
"""Landmark energy adds at most about so much (uz 7)."""
NEAR_HALF_FRAMES = 4.0
NEAR_QUARTER_BINS = 3.6
"""Two landmarks coincide within ±2 frames and ±0.9 bin."""


@kernel
def meet_contrast(
    time: NDArray[np.int32],
    bins: NDArray[np.int16],
    rank: NDArray[np.uint8],
    n_frames: int,
    descriptor: NDArray[np.uint8],
    n_bands: int,
    row_frames: int,
    band_bins: int,
    clip_steps: int,
    step: float,
    position_frames: float,
    pitch: float,
    tempo: float,
) -> float:
    """Mean contrast (neper, each row centred) of the recording at the clip's strongest landmarks.

    0 when fewer than three of them lie within the recording.
    """
    centre = 0.5 * (n_frames - 1)
    total = 0.0
    n = 0
    known = -1
    mean = 0.0
    for i in range(time.shape[0]):
        if rank[i] >= STRONGEST:
            continue
        at = tempo * (0.5 * time[i] - centre) + position_frames + 0.5
        row = int(np.floor(at / row_frames))
        band = int(np.floor((0.25 * bins[i] - pitch + 0.5) / band_bins))
        if row < 0 or row >= descriptor.shape[0] or band < 0 or band >= n_bands:
            continue
        if row != known:
            known = row
            mean = 0.0
            for b in range(n_bands):
                byte = descriptor[row, b // 2]
                mean += np.float64(byte >> 4 if b % 2 else byte & 15)
            mean /= n_bands
        byte = descriptor[row, band // 2]
        total += np.float64(byte >> 4 if band % 2 else byte & 15) - mean
        n += 1
    if n < 3:
        return 0.0
    return float(step * total / n)


@kernel
def coincide(
    time: NDArray[np.int32],
    bins: NDArray[np.int16],
    n_frames: int,
    r_time: NDArray[np.float64],
    r_bin: NDArray[np.float64],
    position_half: float,
    pitch: float,
    tempo: float,
) -> float:
    """Clip landmarks that coincide with a recording's, a landmark of the recording there."""
    centre = np.float64(n_frames - 1)
    reach = tempo * (0.5 * n_frames) * 2.0
    first = 0
    pairs = 0
    landmarks = 0
    for i in range(r_time.shape[0]):
        at = r_time[i] - position_half
        if abs(at) > reach:
            continue
        landmarks += 1
        wanted = r_bin[i] + 4.0 * pitch
        while first < time.shape[0] and tempo * (time[first] - centre) < at - NEAR_HALF_FRAMES:
            first += 1
        for j in range(first, time.shape[0]):
            if tempo * (time[j] - centre) > at + NEAR_HALF_FRAMES:
                break
            if abs(bins[j] - wanted) <= NEAR_QUARTER_BINS:
                pairs += 1
    return pairs / max(1, landmarks)


@kernel
def is_unchanged(pitch: float, tempo: float, n_frames: int) -> bool:
    """Whether a refined change is none: the few landmarks of a short clip refine loosely."""
    tolerance = max(UNCHANGED_TEMPO, min(UNCHANGED_TEMPO_SHORT, UNCHANGED_DRIFT_FRAMES / n_frames))
    return abs(pitch) < UNCHANGED_PITCH_BINS and abs(tempo - 1.0) < tolerance


@kernel
def glance(
    peaks: NDArray[np.uint8],
    block: NDArray[np.uint32],
    descriptor: NDArray[np.uint8],
    first_row: NDArray[np.int64],
    base_frame: NDArray[np.int64],
    n_bands: int,
    row_frames: int,
    band_bins: int,
    clip_steps: int,
    step: float,
    time: NDArray[np.int32],
    bins: NDArray[np.int16],
    rank: NDArray[np.uint8],
    n_frames: int,
    peakiness: NDArray[np.float32],
    row: NDArray[np.int64],
    position: NDArray[np.float64],
    pitch: NDArray[np.float64],
    tempo: NDArray[np.float64],
    score: NDArray[np.float64],
) -> None:
    """Write the ``score`` of each candidate, refined; a match has more than 0 of it.

    ``row``: of the recording at each candidate; ``position``: frame on the volume's time line.
    """
    most = 8192
    r_time = np.empty(most, np.float64)
    r_bin = np.empty(most, np.float64)
    for c in range(position.shape[0]):
        at, p, v, _ = refine(
            peaks, block, time, bins, n_frames - 1.0, position[c], pitch[c], tempo[c]
        )
        unchanged = (pitch[c] == 0.0 and tempo[c] == 1.0) or is_unchanged(p, v, n_frames)
        if unchanged:
            p = 0.0
            v = 1.0
        reach = n_frames * v + SHIFTED_HALF_FRAMES
        n = gather_reference(peaks, block, 2.0 * at - reach, 2.0 * at + reach, r_time, r_bin)
        met = meet_contrast(
            time,
            bins,
            rank,
            n_frames,
            descriptor[first_row[row[c]] : first_row[row[c] + 1]],
            n_bands,
            row_frames,
            band_bins,
            clip_steps,
            step,
            at - base_frame[row[c]],
            p,
            v,
        )
        coinciding = coincide(time, bins, n_frames, r_time[:n], r_bin[:n], 2.0 * at, p, v)
        total = (
            GLANCE_MET * met
            + GLANCE_COINCIDING * coinciding
            + (GLANCE_UNCHANGED if unchanged else 0.0)
            + GLANCE_BIAS
        )
        if total > -GLANCE_UZ * GLANCE_MOST_LOG_UZ:
            # Half the cost of a glance: only where it can still decide.
            uz = shift_contrast(peakiness, r_time, r_bin, n, 2.0 * at, p, v)
            total += GLANCE_UZ * np.log(max(1.0, uz))
        score[c] = total
