"""Retrieval without keys: a clip laid over every place of a small catalogue, or of a recording.

The triples of a very short clip reach beyond its end; what coincides of single landmarks still
shows the place. It costs about half a millisecond an hour of catalogue and needs nothing but the
stored landmarks.
"""

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel
from soundhash_engine.layout import BLOCK_FRAMES, BLOCK_HALF_FRAMES, peak_bin, peak_time
from soundhash_engine.search import Candidates, join_candidates
from soundhash_engine.types import Landmarks
from soundhash_engine.volume import Volume

SCAN_PEAKS = 200
"""Most landmarks of a clip that a scan uses, by rank."""
SCAN_QUARTER_BINS = 3
_SCAN_FRAMES = 1 << 14
"""A scan counts in tables that fit the cache."""
_SCAN_SIDE_FRAMES = 32


@kernel
def _scan_part(
    peaks: NDArray[np.uint8],
    block: NDArray[np.uint32],
    first_entry: NDArray[np.int32],
    entry_time: NDArray[np.int32],
    reach_half: int,
    first_frame: int,
    counts: NDArray[np.uint16],
) -> None:
    """Count coincidences for the centre at frames first_frame … first_frame + len(counts)."""
    n = counts.shape[0]
    begin = max(0, (2 * first_frame - reach_half) // BLOCK_HALF_FRAMES)
    end = min(block.shape[0] - 1, (2 * (first_frame + n) + reach_half) // BLOCK_HALF_FRAMES + 1)
    for b in range(begin, end):
        for i in range(block[b], block[b + 1]):
            quarter = peak_bin(peaks, i)
            at = b * BLOCK_HALF_FRAMES + peak_time(peaks, i) - 2 * first_frame
            for e in range(first_entry[quarter], first_entry[quarter + 1]):
                cell = (at - entry_time[e]) >> 1
                if cell >= 0 and cell < n:
                    counts[cell] += np.uint16(1)


@kernel
def _scan_best(
    counts: NDArray[np.uint16],
    first_frame: int,
    least: float,
    out_frame: NDArray[np.int64],
    out_z: NDArray[np.float64],
    n_out: int,
) -> int:
    """Cells whose three-cell sum stands at least ``least`` deviations above what lies around."""
    n = counts.shape[0]
    side = _SCAN_SIDE_FRAMES
    below = np.empty(n + 1, np.int32)
    below[0] = 0
    for i in range(n):
        below[i + 1] = below[i] + np.int32(counts[i])
    for i in range(1, n - 1):
        total = below[i + 2] - below[i - 1]
        # Around a fuller cell the mean is higher still: most cells are done with here.
        if total < 4 or total < least:
            continue
        if counts[i] < counts[i - 1] or counts[i] < counts[i + 1]:
            continue
        first = max(0, i - side)
        last = min(n - 1, i + side)
        mean = 3.0 * (below[last + 1] - below[first]) / (last - first + 1)
        over = total - mean
        # Squared: a root for every cell would be most of the work.
        if over <= 0.0 or over * over < least * least * (mean + 1.0):
            continue
        if n_out < out_frame.shape[0]:
            out_frame[n_out] = first_frame + i
            out_z[n_out] = over / np.sqrt(mean + 1.0)
            n_out += 1
    return n_out


def _entries(
    landmarks: Landmarks, centre_half_frames: float, pitch: float, tempo: float
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The clip's landmarks by the quarter bin of a stored one that they agree with.

    Returns where each quarter bin's list begins, and the times from the centre (half frames).
    """
    keep = np.arange(len(landmarks))
    if len(keep) > SCAN_PEAKS:
        keep = np.sort(np.argsort(landmarks.rank, kind="stable")[:SCAN_PEAKS])
    time = np.round(tempo * (landmarks.time[keep] - centre_half_frames)).astype(np.int32)
    quarters = np.arange(-SCAN_QUARTER_BINS, SCAN_QUARTER_BINS + 1) - round(4.0 * pitch)
    wanted = (landmarks.bin[keep].astype(np.int64)[:, None] + quarters).ravel()
    times = np.repeat(time, len(quarters))
    inside = (wanted >= 0) & (wanted < 1024)
    order = np.argsort(wanted[inside], kind="stable")
    first = np.searchsorted(wanted[inside][order], np.arange(1025)).astype(np.int32)
    return first, times[inside][order]


def scan_volume(
    volume: Volume,
    at: int,
    landmarks: Landmarks,
    centre_half_frames: float,
    *,
    most: int,
    pitch: float = 0.0,
    tempo: float = 1.0,
    frames: tuple[int, int] | None = None,
) -> Candidates:
    """The ``most`` places at which the clip's landmarks coincide best with stored ones.

    Reads every stored landmark of the volume, or of the ``frames`` [first, last) of its time line:
    for small catalogues, and for all the turns of a loop in one recording. ``at``: the volume's
    number in the candidates.
    """
    first_entry, entry_time = _entries(landmarks, centre_half_frames, pitch, tempo)
    reach = int(np.abs(entry_time).max(initial=0)) + 2
    begin, end = (0, (len(volume.block) - 1) * BLOCK_FRAMES) if frames is None else frames
    room = 1 << 18
    places = np.empty(room, np.int64)
    z = np.empty(room, np.float64)
    least, n = 3.0, 0
    for first in range(begin, end, _SCAN_FRAMES):
        counts = np.zeros(min(_SCAN_FRAMES, end - first) + 2, np.uint16)
        _scan_part(volume.peaks, volume.block, first_entry, entry_time, reach, first, counts)
        n = _scan_best(counts, first, least, places, z, n)
        if n > 4 * most:
            # From here on only what can still be among the best.
            best = np.argsort(-z[:n], kind="stable")[:most]
            places[: len(best)], z[: len(best)] = places[best], z[best]
            n, least = len(best), float(z[len(best) - 1])
    best = np.argsort(-z[:n], kind="stable")[:most]
    return Candidates(
        volume=np.full(len(best), at, np.int32),
        position=places[best].astype(np.float64),
        pitch=np.full(len(best), pitch),
        tempo=np.full(len(best), tempo),
        votes=z[best],
    )


def scan(
    volumes: tuple[Volume, ...], landmarks: Landmarks, centre_half_frames: float, *, most: int
) -> Candidates:
    """The ``most`` best places of the unchanged clip in all volumes.

    Finds what has hardly a triple in common with its recording.
    """
    parts = [
        scan_volume(volume, at, landmarks, centre_half_frames, most=most)
        for at, volume in enumerate(volumes)
    ]
    return join_candidates(parts, most)
