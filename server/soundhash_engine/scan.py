"""Retrieval without keys: a clip laid over every place of a small catalogue.

The triples of a short clip reach beyond its end, and a hall smears all three landmarks of most of
them. What coincides of single landmarks still shows the place. It costs about half a millisecond
an hour of catalogue and needs nothing but the stored landmarks.
"""

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel
from soundhash_engine.search import Candidates, join_candidates
from soundhash_engine.types import Landmarks
from soundhash_engine.volume import BLOCK_FRAMES, BLOCK_HALF_FRAMES, Volume

SCAN_PEAKS = 200
"""Most landmarks of a clip that a scan uses, by rank."""
SCAN_QUARTER_BINS = 3
_SCAN_FRAMES = 1 << 18
"""A scan counts in tables that fit the cache."""
_SCAN_SIDE_FRAMES = 32


@kernel
def _scan_part(
    peaks: NDArray[np.uint32],
    block: NDArray[np.uint32],
    first_entry: NDArray[np.int32],
    entry_time: NDArray[np.int32],
    reach_half: int,
    first_frame: int,
    counts: NDArray[np.int32],
) -> None:
    """Count coincidences for the centre at frames first_frame … first_frame + len(counts)."""
    n = counts.shape[0]
    begin = max(0, (2 * first_frame - reach_half) // BLOCK_HALF_FRAMES)
    end = min(block.shape[0] - 1, (2 * (first_frame + n) + reach_half) // BLOCK_HALF_FRAMES + 1)
    for b in range(begin, end):
        for i in range(block[b], block[b + 1]):
            peak = peaks[i]
            quarter = np.int64((peak >> 11) & 0x3FF)
            at = b * BLOCK_HALF_FRAMES + np.int64(peak >> 21) - 2 * first_frame
            for e in range(first_entry[quarter], first_entry[quarter + 1]):
                cell = (at - entry_time[e]) >> 1
                if cell >= 0 and cell < n:
                    counts[cell] += 1


@kernel
def _scan_best(
    counts: NDArray[np.int32],
    first_frame: int,
    least: float,
    out_frame: NDArray[np.int64],
    out_z: NDArray[np.float64],
    n_out: int,
) -> int:
    """Cells whose three-cell sum stands at least ``least`` deviations above what lies around."""
    n = counts.shape[0]
    side = _SCAN_SIDE_FRAMES
    around = 0
    for i in range(min(n, side)):
        around += counts[i]
    for i in range(1, n - 1):
        if i + side < n:
            around += counts[i + side]
        if i - side - 1 >= 0:
            around -= counts[i - side - 1]
        total = counts[i - 1] + counts[i] + counts[i + 1]
        if total < 4 or counts[i] < counts[i - 1] or counts[i] < counts[i + 1]:
            continue
        width = min(n - 1, i + side) - max(0, i - side) + 1
        mean = 3.0 * around / width
        z = (total - mean) / np.sqrt(mean + 1.0)
        if z >= least and n_out < out_frame.shape[0]:
            out_frame[n_out] = first_frame + i
            out_z[n_out] = z
            n_out += 1
    return n_out


def scan(
    volumes: tuple[Volume, ...], landmarks: Landmarks, centre_half_frames: float, *, most: int
) -> Candidates:
    """The ``most`` places at which the unchanged clip's landmarks coincide best with stored ones.

    Reads every stored landmark: for small catalogues. Finds what has hardly a triple in common
    with its recording.
    """
    keep = np.arange(len(landmarks))
    if len(keep) > SCAN_PEAKS:
        keep = np.sort(np.argsort(landmarks.rank, kind="stable")[:SCAN_PEAKS])
    time = landmarks.time[keep] - np.int32(centre_half_frames)
    # Lists of the clip's landmarks by the quarter bin of a stored one that they agree with.
    quarters = np.arange(-SCAN_QUARTER_BINS, SCAN_QUARTER_BINS + 1)
    wanted = (landmarks.bin[keep].astype(np.int64)[:, None] + quarters).ravel()
    times = np.repeat(time, len(quarters))
    inside = (wanted >= 0) & (wanted < 1024)
    order = np.argsort(wanted[inside], kind="stable")
    entry_time = times[inside][order].astype(np.int32)
    first_entry = np.searchsorted(wanted[inside][order], np.arange(1025)).astype(np.int32)
    reach = int(np.abs(time).max(initial=0)) + 2
    parts: list[Candidates] = []
    for at, volume in enumerate(volumes):
        n_frames = (len(volume.block) - 1) * BLOCK_FRAMES
        frames = np.empty(1 << 18, np.int64)
        z = np.empty(1 << 18, np.float64)
        least, n = 3.0, 0
        for first in range(0, n_frames, _SCAN_FRAMES):
            counts = np.zeros(min(_SCAN_FRAMES, n_frames - first) + 2, np.int32)
            _scan_part(volume.peaks, volume.block, first_entry, entry_time, reach, first, counts)
            n = _scan_best(counts, first, least, frames, z, n)
            if n > 4 * most:
                # From here on only what can still be among the best.
                best = np.argsort(-z[:n], kind="stable")[:most]
                frames[: len(best)], z[: len(best)] = frames[best], z[best]
                n, least = len(best), float(z[len(best) - 1])
        best = np.argsort(-z[:n], kind="stable")[:most]
        parts.append(
            Candidates(
                volume=np.full(len(best), at, np.int32),
                position=frames[best].astype(np.float64),
                pitch=np.zeros(len(best)),
                tempo=np.ones(len(best)),
                votes=(z[best] * 100).astype(np.int32),
            )
        )
    return join_candidates(parts, most)
