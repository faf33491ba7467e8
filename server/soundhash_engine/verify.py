"""Verification: is the clip the same sound as a place of a recording? Evidence of three kinds.

- pair votes: pairs of landmarks that agree at the place, against the places around it (``lz``);
- landmark energy: what the clip's contrast holds where the recording's landmarks should be,
  against the same landmarks shifted (``uz``): repeated notes and drum patterns coincide by chance
  far more often than Poisson says, and the shifts measure it;
- the patch: correlation of the recording's stored descriptor with the clip's contrast (``rp``),
  the mean of every time and of every band removed. A drum loop that two recordings share raises
  whole rows, a common instrument whole bands: without both, what is left is the music itself
  (recall at 1 % leave-one-out answers 93.3 %, against 90.3 % for rectified patches with the
  bands' means removed alone, and 92.1 % for raw ones).
"""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.align import gather_reference
from soundhash_engine.jit import kernel
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.triples import strongest_targets
from soundhash_engine.types import Contrast, Landmarks
from soundhash_engine.volume import Volume

PAIR_BIN_FRAMES = 3.0
PAIR_SIDE_BINS = 200
PAIR_NEAR_BINS = 11
SHIFTS = 20
FIRST_SHIFT_FRAMES = 7
SHIFT_STEP_FRAMES = 5
BLOCK_ROWS = 8
"""Coverage is counted in blocks of 8 descriptor rows (0.51 s)."""
BLOCK_CORRELATION = 0.25


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A clip (at most a window long) prepared for verification.

    landmarks  of rank limit 60
    pairs      int32 (n, 2), indices (anchor, target) into the landmarks
    peakiness  float32 (n_frames, n_bands): contrast, maximum over ±1 frame and ±1 bin,
               standardised per bin, each frame's mean removed
    integral   float64 (n_frames + 1, n_bands + 2): running sums of the contrast
    """

    landmarks: Landmarks
    pairs: NDArray[np.int32]
    peakiness: NDArray[np.float32]
    integral: NDArray[np.float64]

    @property
    def n_frames(self) -> int:
        """Frames of the clip."""
        return self.landmarks.n_frames

    @property
    def centre_half(self) -> float:
        """The clip's centre, half frames."""
        return float(self.landmarks.n_frames - 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """What verification measured at one place.

    lz           log of the contrast of pair votes
    uz           contrast of the landmark energy, in standard deviations of its shifts
    rp           correlation of the patches, each row's and each band's mean removed
    overlap      share of the clip that lies within the recording, 0 … 1
    correlation  of the raw patches, −1 … 1
    distance     normalised Euclidean distance √(2 − 2 correlation), 0 … 2
    votes        pairs that agree
    first, last  frames of the clip between which the sounds are the same, from its start
    coverage     share of 0.5 s blocks that correlate, 0 … 1
    shift        frames by which the descriptor fits better than the place says
    """

    lz: float
    uz: float
    rp: float
    overlap: float
    correlation: float
    distance: float
    votes: int
    first: float
    last: float
    coverage: float
    shift: float


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
def _peakiness(contrast: NDArray[np.float32]) -> NDArray[np.float32]:
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
def _integral(contrast: NDArray[np.float32]) -> NDArray[np.float64]:
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
def _list_pairs(
    targets: NDArray[np.int32], counts: NDArray[np.int32], out: NDArray[np.int32]
) -> int:
    n = 0
    for a in range(counts.shape[0]):
        for i in range(counts[a]):
            out[n, 0] = a
            out[n, 1] = targets[a, i]
            n += 1
    return n


def prepare(contrast: Contrast, landmarks: Landmarks, params: Params = PARAMS) -> Query:
    """A clip's features in the form that verification reads."""
    search = params.search
    n = len(landmarks)
    targets = np.empty((n, search.pair_query_targets), np.int32)
    counts = np.empty(n, np.int32)
    # A third more time than a pair may have: for hypotheses of another tempo.
    strongest_targets(
        landmarks.time,
        landmarks.bin,
        landmarks.strength,
        2.0 * search.pair_min_dt_frames / 1.3,
        2.0 * search.pair_max_dt_frames * 1.3,
        4 * search.pair_max_df_bins,
        search.pair_query_targets,
        targets,
        counts,
    )
    pairs = np.empty((int(counts.sum()), 2), np.int32)
    _list_pairs(targets, counts, pairs)
    return Query(
        landmarks=landmarks,
        pairs=pairs,
        peakiness=_peakiness(contrast),
        integral=_integral(contrast),
    )


@kernel
def _pair_votes(
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
def _vote_contrast(votes: NDArray[np.int32], first_bin: int, last_bin: int) -> tuple[float, int]:
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


@kernel
def _shift_contrast(
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


@kernel
def _area(integral: NDArray[np.float64], t: float, b: int) -> float:
    """Running sum up to the continuous frame ``t`` and the whole bin ``b``."""
    i = min(int(t), integral.shape[0] - 2)
    part = t - i
    return float((1.0 - part) * integral[i, b] + part * integral[i + 1, b])


@kernel
def _read_patch(
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
def _centre(patch: NDArray[np.float32], rows: int, bands: int) -> None:
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
def _covered(
    clip: NDArray[np.float32], reference: NDArray[np.float32], rows: int, bands: int
) -> tuple[int, int, float]:
    """First and last row (exclusive) of the passage, and the share of blocks that correlate.

    Both patches are centred. The passage is the run of blocks with the largest sum of correlation
    above half of what the better blocks have: a single block that correlates by chance beyond a
    gap does not stretch it.
    """
    blocks = max(1, rows // BLOCK_ROWS)
    value = np.zeros(blocks, np.float64)
    covered = 0
    for k in range(blocks):
        end = rows if k == blocks - 1 else (k + 1) * BLOCK_ROWS
        value[k] = _correlation(clip, reference, k * BLOCK_ROWS, end, bands)
        if value[k] > BLOCK_CORRELATION:
            covered += 1
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
def _patch(
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
        rows, bands = _read_patch(
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
        _centre(clip, rows, bands)
        _centre(reference, rows, bands)
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


def verify(
    query: Query,
    volume: Volume,
    row: int,
    position: float,
    pitch: float,
    tempo: float,
    params: Params = PARAMS,
) -> Evidence:
    """All evidence for the clip's centre lying at ``position`` of the volume's time line.

    ``row``: of the recording there; ``pitch`` in bins, ``tempo`` as recording per clip time.
    """
    search = params.search
    base = float(volume.base_frame[row])
    n_frames = float(volume.n_frames[row])
    half = 2.0 * position
    side = PAIR_SIDE_BINS * PAIR_BIN_FRAMES
    reach = 2.0 * (side + 0.5 * query.n_frames * tempo + search.pair_max_dt_frames)
    first = max(half - reach, 2.0 * base)
    last = min(half + reach, 2.0 * (base + n_frames))
    r_time, r_bin, r_strength = read_landmarks(volume, first, last)
    votes = np.zeros(2 * PAIR_SIDE_BINS + 1, np.int32)
    if len(r_time) and len(query.pairs):
        _pair_votes(
            query.landmarks.time,
            query.landmarks.bin,
            query.pairs,
            query.centre_half,
            r_time,
            r_bin,
            len(r_time),
            r_strength,
            search.pair_reference_targets,
            2.0 * search.pair_min_dt_frames,
            2.0 * search.pair_max_dt_frames,
            4 * search.pair_max_df_bins,
            search.pair_time_cell_frames,
            search.soft_margin,
            half,
            pitch,
            tempo,
            votes,
        )
    # Offsets at which the clip's centre leaves the recording hold no votes by their nature.
    first_bin = int((base - position) / PAIR_BIN_FRAMES) + PAIR_SIDE_BINS
    last_bin = int((base + n_frames - position) / PAIR_BIN_FRAMES) + PAIR_SIDE_BINS
    lz, agreeing = _vote_contrast(votes, first_bin, last_bin)
    reach = query.n_frames * tempo + 2.0 * (FIRST_SHIFT_FRAMES + SHIFT_STEP_FRAMES * (SHIFTS + 1))
    near = slice(*np.searchsorted(r_time, (half - reach, half + reach)))
    uz = _shift_contrast(
        query.peakiness,
        r_time[near],
        r_bin[near],
        near.stop - near.start,
        half,
        pitch,
        tempo,
    )
    rows = volume.descriptor[volume.first_row[row] : volume.first_row[row + 1]]
    rp, overlap, correlation, first, last, coverage, shift = _patch(
        query.integral,
        rows,
        params.descriptor_bands,
        params.descriptor_frames,
        params.descriptor_bins,
        params.descriptor_clip_steps,
        params.descriptor_step_neper,
        position - base,
        pitch,
        tempo,
    )
    return Evidence(
        lz=float(lz),
        uz=float(uz),
        rp=float(rp),
        overlap=float(overlap),
        correlation=float(correlation),
        distance=float(np.sqrt(max(0.0, 2.0 - 2.0 * correlation))),
        votes=int(agreeing),
        first=float(first),
        last=float(last),
        coverage=float(coverage),
        shift=float(shift),
    )


@kernel
def _strengths(
    peaks: NDArray[np.uint32],
    block: NDArray[np.uint32],
    first_half: float,
    last_half: float,
    strength: NDArray[np.uint8],
) -> int:
    n = 0
    for b in range(np.int64(first_half) // 128, np.int64(last_half) // 128 + 1):
        for i in range(block[b], block[b + 1]):
            t = np.float64(b * 128 + np.int64(peaks[i] >> 21))
            if t >= first_half and t <= last_half:
                strength[n] = (peaks[i] >> 5) & 0x3F
                n += 1
    return n


def read_landmarks(
    volume: Volume, first_half: float, last_half: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8]]:
    """Times, bins and strengths of the volume's landmarks between two times of its line."""
    if last_half < first_half:
        empty = np.empty(0, np.float64)
        return empty, empty, np.empty(0, np.uint8)
    first = int(first_half) // 128
    last = int(last_half) // 128
    most = int(volume.block[last + 1]) - int(volume.block[first])
    time = np.empty(most, np.float64)
    bins = np.empty(most, np.float64)
    strength = np.empty(most, np.uint8)
    n = gather_reference(volume.peaks, volume.block, first_half, last_half, time, bins)
    _strengths(volume.peaks, volume.block, first_half, last_half, strength)
    return time[:n], bins[:n], strength[:n]
