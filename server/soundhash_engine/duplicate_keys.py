"""Keys by which a catalogue is compared with itself: what survives a change of speed.

The index asks a triple of landmarks under hundreds of changes, which is cheap for a clip and not
for a catalogue. Here every recording is given its keys once for each kind of change, and recordings
that share keys lie side by side once these are sorted. A key holds an anchor and its three
strongest targets, ten bits more than a triple: what unrelated recordings have in common by chance
grows with the square of the catalogue, and at 1,000 h stays below three pairs for each key.

All kinds hold the frequency differences of the targets; beside them

- SPEED (tempo and pitch together, unchanged included): the targets' times as parts of the last
  one's, and ``f + 36 log2 t`` of the anchor's frequency and that time, which a change of speed
  leaves as it is;
- TEMPO: the same parts, and the anchor's frequency;
- PITCH: the targets' times as they are.
"""

import enum

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.triples import stored_targets
from soundhash_engine.types import Landmarks


class Change(enum.Enum):
    """How one recording may play against another one."""

    SPEED = 1
    TEMPO = 2
    PITCH = 3


FEW_TARGETS = 3
MANY_TARGETS = 4
MANY_TARGETS_HOURS = 2000.0
"""In a larger catalogue a key has the other number of targets. Of 10 s windows of whole changed
recordings 100 / 100 % have three keys or more in common with the original where nothing but the
codec changed, 92 / 90 % under a voice 10 dB lower, 91 / 74 % at 1.25 times the speed; and at
1,000 h of music 119 / 16 million keys agree by chance."""
LEAST_SPAN_FRAMES = 30.0
"""Shorter keys say too little about tempo: a time is known to half a frame."""
BIN_CELL_BINS = 1.5
TIME_CELL_FRAMES = 2.0
PARTS = 24.0
"""Cells for a time as part of the last one."""
SPEED_CELL_BINS = 2.0
SCALE_STEP = 1.0125
"""Step of the lengths of keys, whose differences tell tempo."""
LEAST_SCALE_FRAMES = 8.0


@kernel
def _mix(word: np.uint64) -> np.uint64:
    # The finaliser of splitmix64.
    h = word + np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@kernel
def _write_keys(
    time: NDArray[np.int32],
    bins: NDArray[np.int16],
    targets: NDArray[np.int32],
    counts: NDArray[np.int32],
    change: int,
    keys: NDArray[np.uint64],
    frames: NDArray[np.int32],
    scales: NDArray[np.uint8],
) -> int:
    n_targets = targets.shape[1]
    step = np.log2(SCALE_STEP)
    n = 0
    for a in range(time.shape[0]):
        if counts[a] < n_targets:
            continue
        last = 0.5 * np.float64(time[targets[a, n_targets - 1]] - time[a])
        if change != 3 and last < LEAST_SPAN_FRAMES:
            continue
        anchor = 0.25 * np.float64(bins[a]) + 0.125
        octaves = np.log2(last / LEAST_SCALE_FRAMES)
        h = np.uint64(change)
        for i in range(n_targets):
            b = targets[a, i]
            up = 0.25 * np.float64(bins[b] - bins[a]) + 0.125
            bin_cell = np.int64(np.floor(up / BIN_CELL_BINS)) + 64
            span = 0.5 * np.float64(time[b] - time[a])
            if change == 3:
                time_cell = np.int64((span + 0.25) / TIME_CELL_FRAMES)
            elif i < n_targets - 1:
                time_cell = np.int64(span / last * PARTS)
            else:
                time_cell = np.int64(0)
            h = _mix(h + np.uint64((bin_cell << 8) | time_cell))
        if change == 1:
            own = np.int64((anchor + 36.0 * octaves) / SPEED_CELL_BINS)
            h = _mix(h + np.uint64(own))
        elif change == 2:
            h = _mix(h + np.uint64(np.int64(anchor / BIN_CELL_BINS)))
        keys[n] = h
        frames[n] = time[a] // 2
        scales[n] = np.uint8(anchor) if change == 3 else np.uint8(octaves / step)
        n += 1
    return n


def change_keys(
    landmarks: Landmarks, change: Change, n_targets: int = FEW_TARGETS, params: Params = PARAMS
) -> tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.uint8]]:
    """Keys (uint64, mixed) of a recording, the frames of their anchors, and their scales.

    Two equal keys whose scales differ by d play at tempo ``SCALE_STEP ** d``, or, of PITCH, d bins
    apart. About 14 keys a second.
    """
    time, bins, targets, counts = stored_targets(landmarks, n_targets, params)
    n = len(time)
    keys = np.empty(n, np.uint64)
    frames = np.empty(n, np.int32)
    scales = np.empty(n, np.uint8)
    written = _write_keys(time, bins, targets, counts, change.value, keys, frames, scales)
    return keys[:written], frames[:written], scales[:written]
