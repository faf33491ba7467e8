"""Retrieval: which places of the index share triples with a clip, under which pitch and tempo.

A place is a position of the clip's centre on a volume's time line. Votes are counted there, so
that a hypothesis that is a little off in tempo blurs the votes as little as it can.
"""

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.triples import (
    FIELD_CELLS,
    SHIFT_X,
    SHIFT_Y1,
    SHIFT_Y2,
    SHIFT_Z1,
    Y_OFFSET,
    mix64,
    query_triples,
)
from soundhash_engine.types import Landmarks
from soundhash_engine.volume import Volume

VOTE_BIN_FRAMES = 6
_BATCH = 1024
"""Look-ups go through each stage this many at a time, so that cache misses overlap."""
_MOST_CANDIDATES = 65536


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Hypotheses:
    """Pairs of a pitch and a tempo under which a clip is looked up.

    pitch  float64, bins (1/36 octave) that the clip lies above the recording
    tempo  float64, seconds of the recording that pass in a second of the clip
    """

    pitch: NDArray[np.float64]
    tempo: NDArray[np.float64]

    def __len__(self) -> int:
        return self.pitch.size


def _hypotheses(pairs: list[tuple[float, float]]) -> Hypotheses:
    return Hypotheses(
        pitch=np.array([p for p, _ in pairs], np.float64),
        tempo=np.array([v for _, v in pairs], np.float64),
    )


IDENTITY = _hypotheses([(0.0, 1.0)])


@functools.cache
def narrow_hypotheses() -> Hypotheses:
    """The 32 changes within about 11 %: speed ±1…6 bins, pitch ±1…6, tempo 1.025^±1…4."""
    steps = [k for n in range(1, 7) for k in (n, -n)]
    pairs = [(float(k), 2 ** (k / 36)) for k in steps]
    pairs += [(float(k), 1.0) for k in steps]
    pairs += [(0.0, 1.025**k) for n in range(1, 5) for k in (n, -n)]
    return _hypotheses(pairs)


@functools.cache
def wide_hypotheses() -> Hypotheses:
    """Everything that people do to clips: 344 changes of speed, tempo, pitch, or two of them.

    Speed 1.0125^k for k = −24 … 25 (0.742 … 1.364), tempo 1.0125^±1…13 (0.851 … 1.175), pitch
    ±1 … 8 bins, and tempo 1.025^±1…7 with pitch ±1 … 9.
    """
    pairs = [(36 * np.log2(1.0125) * k, 1.0125**k) for k in range(-24, 26) if k]
    pairs += [(0.0, 1.0125**k) for k in range(-13, 14) if k]
    pairs += [(float(k), 1.0) for k in range(-8, 9) if k]
    pairs += [(float(p), 1.025**k) for k in range(-7, 8) if k for p in range(-9, 10) if p]
    return _hypotheses(pairs)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Places worth a closer look, most votes first; all arrays have the same length.

    volume    int32, which of the searched volumes
    position  float64, frame on its time line where the clip's centre lies
    pitch     float64, bins
    tempo     float64
    votes     int32
    """

    volume: NDArray[np.int32]
    position: NDArray[np.float64]
    pitch: NDArray[np.float64]
    tempo: NDArray[np.float64]
    votes: NDArray[np.int32]

    def __len__(self) -> int:
        return self.position.size

    def take(self, rows: NDArray[np.intp]) -> "Candidates":
        """The candidates at ``rows``."""
        return Candidates(
            self.volume[rows],
            self.position[rows],
            self.pitch[rows],
            self.tempo[rows],
            self.votes[rows],
        )


@kernel
def _cell_neighbours(value: float, margin: float, cells: NDArray[np.int64]) -> int:
    """The cell of ``value`` and the neighbour whose border is nearer than ``margin`` (in cells)."""
    cell = np.int64(np.floor(value))
    cells[0] = cell
    inside = value - cell
    if inside < margin:
        cells[1] = cell - 1
        return 2
    if inside > 1.0 - margin:
        cells[1] = cell + 1
        return 2
    return 1


@kernel
def _make_hashes(
    time: NDArray[np.int32],
    bins: NDArray[np.int16],
    triples: NDArray[np.int32],
    pitch: float,
    tempo: float,
    centre_half: float,
    cell_bins: float,
    cell_frames: float,
    min_half: float,
    max_half: float,
    margin: float,
    hashes: NDArray[np.uint64],
    shifts: NDArray[np.float32],
) -> int:
    """Hashes of all triples under one hypothesis, with the frames from anchor to centre."""
    n = 0
    most = hashes.shape[0] - 32
    scale_f = 0.25 / cell_bins
    shift_f = 0.125 / cell_bins
    scale_t = 0.5 / cell_frames
    shift_t = 0.25 / cell_frames
    pitch_cells = pitch / cell_bins
    cells = np.empty((5, 2), np.int64)
    count = np.ones(5, np.int64)
    for i in range(triples.shape[0]):
        a = triples[i, 0]
        b = triples[i, 1]
        c = triples[i, 2]
        dtb = (time[b] - time[a]) * tempo
        dtc = (time[c] - time[a]) * tempo
        if dtb < min_half - 0.5 or dtc > max_half + 0.5 or n > most:
            continue
        shift = np.float32((time[a] - centre_half) * 0.5 * tempo)
        fa = np.float64(bins[a])
        x = fa * scale_f + shift_f - pitch_cells
        y1 = (bins[b] - fa) * scale_f + shift_f
        y2 = (bins[c] - fa) * scale_f + shift_f
        z1 = dtb * scale_t + shift_t
        z2 = dtc * scale_t + shift_t
        if margin <= 0.0:
            cx = np.int64(np.floor(x))
            if cx < 0 or cx >= FIELD_CELLS:
                continue
            hashes[n] = mix64(
                (cx << SHIFT_X)
                | ((np.int64(np.floor(y1)) + Y_OFFSET) << SHIFT_Y1)
                | ((np.int64(np.floor(y2)) + Y_OFFSET) << SHIFT_Y2)
                | (np.int64(z1) << SHIFT_Z1)
                | np.int64(z2)
            )
            shifts[n] = shift
            n += 1
            continue
        count[0] = _cell_neighbours(x, margin, cells[0])
        count[1] = _cell_neighbours(y1, margin, cells[1])
        count[2] = _cell_neighbours(y2, margin, cells[2])
        count[3] = _cell_neighbours(z1, margin, cells[3])
        count[4] = _cell_neighbours(z2, margin, cells[4])
        for i0 in range(count[0]):
            if cells[0, i0] < 0 or cells[0, i0] >= FIELD_CELLS:
                continue
            for i1 in range(count[1]):
                for i2 in range(count[2]):
                    for i3 in range(count[3]):
                        for i4 in range(count[4]):
                            hashes[n] = mix64(
                                (cells[0, i0] << SHIFT_X)
                                | ((cells[1, i1] + Y_OFFSET) << SHIFT_Y1)
                                | ((cells[2, i2] + Y_OFFSET) << SHIFT_Y2)
                                | (cells[3, i3] << SHIFT_Z1)
                                | cells[4, i4]
                            )
                            shifts[n] = shift
                            n += 1
    return n


@kernel
def _look_up(
    hashes: NDArray[np.uint64],
    shifts: NDArray[np.float32],
    n: int,
    bits: int,
    bucket: NDArray[np.uint32],
    post: NDArray[np.uint32],
    check: NDArray[np.uint8],
    hot_limit: int,
    votes: NDArray[np.uint32],
) -> int:
    """Vote bins of all postings that match; a key with more than ``hot_limit`` gives none."""
    low = np.empty(_BATCH, np.int64)
    high = np.empty(_BATCH, np.int64)
    found = np.empty(_BATCH * 4, np.int64)
    found_shift = np.empty(_BATCH * 4, np.float32)
    top = np.uint64(64 - bits)
    check_shift = np.uint64(56 - bits)
    n_votes = 0
    for start in range(0, n, _BATCH):
        m = min(_BATCH, n - start)
        for i in range(m):
            b = np.int64(hashes[start + i] >> top)
            low[i] = bucket[b]
            high[i] = bucket[b + 1]
        k = 0
        i = 0
        while i < m:
            # Filled list: read what it holds, then go on.
            while i < m and k + hot_limit + 1 < found.shape[0]:
                wanted = np.uint8((hashes[start + i] >> check_shift) & np.uint64(255))
                first = k
                for j in range(low[i], high[i]):
                    if check[j] == wanted:
                        if k - first >= hot_limit:
                            k = first
                            break
                        found[k] = j
                        found_shift[k] = shifts[start + i]
                        k += 1
                i += 1
            for j in range(k):
                if n_votes < votes.shape[0]:
                    position = np.float64(post[found[j]]) - found_shift[j]
                    votes[n_votes] = np.uint32(position / VOTE_BIN_FRAMES)
                    n_votes += 1
            k = 0
    return n_votes


@kernel
def _slot(keys: NDArray[np.uint32], mask: int, key: np.uint32) -> int:
    """Where ``key`` is, or the empty slot (value 0) where it would be."""
    at = int((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)) & mask
    while keys[at] != key and keys[at] != 0:
        at = (at + 1) & mask
    return at


@kernel
def _count_votes(
    votes: NDArray[np.uint32],
    n: int,
    least: int,
    keys: NDArray[np.uint32],
    counts: NDArray[np.int32],
    out_bin: NDArray[np.uint32],
    out_votes: NDArray[np.int32],
) -> int:
    """Bins o with count[o] + count[o + 1] >= least that beat their neighbours."""
    size = 64
    while size < 2 * n:
        size *= 2
    mask = size - 1
    for i in range(size):
        keys[i] = 0
        counts[i] = 0
    for i in range(n):
        at = _slot(keys, mask, votes[i])
        keys[at] = votes[i]
        counts[at] += 1
    out = 0
    for at in range(size):
        key = keys[at]
        if key == 0:
            continue
        here = counts[at]
        after = counts[_slot(keys, mask, np.uint32(key + 1))]
        total = here + after
        if total < least:
            continue
        before = counts[_slot(keys, mask, np.uint32(key - 1))]
        second = counts[_slot(keys, mask, np.uint32(key + 2))]
        # Of overlapping pairs the fuller stays, of equals the first.
        if before > after or second > here or (before == after and before > 0):
            continue
        if out < out_bin.shape[0]:
            out_bin[out] = key
            out_votes[out] = total
            out += 1
    return out


@kernel
def _vote(
    time: NDArray[np.int32],
    bins: NDArray[np.int16],
    triples: NDArray[np.int32],
    pitches: NDArray[np.float64],
    tempos: NDArray[np.float64],
    centre_half: float,
    cell_bins: float,
    cell_frames: float,
    min_half: float,
    max_half: float,
    margin: float,
    bits: int,
    bucket: NDArray[np.uint32],
    post: NDArray[np.uint32],
    check: NDArray[np.uint8],
    hot_limit: int,
    least: int,
    out_hypothesis: NDArray[np.int32],
    out_bin: NDArray[np.uint32],
    out_votes: NDArray[np.int32],
) -> tuple[int, int, int]:
    """Candidates of all hypotheses; returns their number, the probes and the postings read."""
    n_keys = triples.shape[0]
    if margin > 0:
        # Two cells in each of five dimensions at the worst.
        n_keys = min(n_keys * 32, 2_000_000)
    hashes = np.empty(n_keys + 32, np.uint64)
    shifts = np.empty(n_keys + 32, np.float32)
    votes = np.empty(1 << 20, np.uint32)
    table = 1 << 21
    keys = np.empty(table, np.uint32)
    counts = np.empty(table, np.int32)
    found_bin = np.empty(1 << 16, np.uint32)
    found_votes = np.empty(1 << 16, np.int32)
    n_out = 0
    probes = 0
    reads = 0
    for h in range(pitches.shape[0]):
        n = _make_hashes(
            time,
            bins,
            triples,
            pitches[h],
            tempos[h],
            centre_half,
            cell_bins,
            cell_frames,
            min_half,
            max_half,
            margin,
            hashes,
            shifts,
        )
        probes += n
        n_votes = _look_up(hashes, shifts, n, bits, bucket, post, check, hot_limit, votes)
        reads += n_votes
        n_found = _count_votes(votes, n_votes, least, keys, counts, found_bin, found_votes)
        for i in range(n_found):
            if n_out == out_bin.shape[0]:
                # Full: from here on only what has more votes.
                least += 1
                kept = 0
                for j in range(n_out):
                    if out_votes[j] >= least:
                        out_hypothesis[kept] = out_hypothesis[j]
                        out_bin[kept] = out_bin[j]
                        out_votes[kept] = out_votes[j]
                        kept += 1
                n_out = kept
            if n_out < out_bin.shape[0] and found_votes[i] >= least:
                out_hypothesis[n_out] = h
                out_bin[n_out] = found_bin[i]
                out_votes[n_out] = found_votes[i]
                n_out += 1
    return n_out, probes, reads


def hash_triples(
    landmarks: Landmarks,
    triples: NDArray[np.int32],
    hypotheses: Hypotheses,
    which: int,
    *,
    margin: float,
    params: Params = PARAMS,
) -> NDArray[np.uint64]:
    """The hashes that ``retrieve`` looks up under one of the hypotheses."""
    search = params.search
    most = len(triples) * (32 if margin > 0 else 1) + 32
    hashes = np.empty(most, np.uint64)
    n = _make_hashes(
        landmarks.time,
        landmarks.bin,
        triples,
        float(hypotheses.pitch[which]),
        float(hypotheses.tempo[which]),
        0.0,
        search.triple_bin_cell_bins,
        search.triple_time_cell_frames,
        2.0 * search.triple_min_dt_frames,
        2.0 * search.triple_max_dt_frames,
        margin,
        hashes,
        np.empty(most, np.float32),
    )
    return hashes[:n]


def retrieve(
    volumes: tuple[Volume, ...],
    landmarks: Landmarks,
    hypotheses: Hypotheses,
    *,
    centre_half_frames: float,
    n_targets: int,
    limit: int | None,
    about: int | None,
    margin: float,
    least_votes: int,
    most: int,
    params: Params = PARAMS,
) -> Candidates:
    """The ``most`` places with the most votes in all volumes.

    ``landmarks``: of the clip, already cut to the round's rank. ``margin``: share of a cell within
    which the neighbour is probed too.
    """
    search = params.search
    stretch = 1.0 if len(hypotheses) == 1 else 1.3
    triples = query_triples(
        landmarks, n_targets=n_targets, stretch=stretch, limit=limit, about=about, params=params
    )
    parts: list[Candidates] = []
    hypothesis = np.empty(_MOST_CANDIDATES, np.int32)
    bins = np.empty(_MOST_CANDIDATES, np.uint32)
    votes = np.empty(_MOST_CANDIDATES, np.int32)
    for i, volume in enumerate(volumes):
        n, _, _ = _vote(
            landmarks.time,
            landmarks.bin,
            triples,
            hypotheses.pitch,
            hypotheses.tempo,
            centre_half_frames,
            search.triple_bin_cell_bins,
            search.triple_time_cell_frames,
            2.0 * search.triple_min_dt_frames,
            2.0 * search.triple_max_dt_frames,
            margin,
            volume.bits,
            volume.bucket,
            volume.post,
            volume.check,
            16 + int(volume.hours / 100),
            least_votes,
            hypothesis,
            bins,
            votes,
        )
        best = np.argsort(-votes[:n], kind="stable")[:most]
        parts.append(
            Candidates(
                volume=np.full(len(best), i, np.int32),
                position=(bins[best].astype(np.float64) + 1.0) * VOTE_BIN_FRAMES,
                pitch=hypotheses.pitch[hypothesis[best]],
                tempo=hypotheses.tempo[hypothesis[best]],
                votes=votes[best].copy(),
            )
        )
    if len(parts) == 1:
        return parts[0]
    return join_candidates(parts, most)


def join_candidates(parts: list[Candidates], most: int) -> Candidates:
    """Candidates of several volumes, the ``most`` with the most votes."""
    together = Candidates(
        *(
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in dataclasses.fields(Candidates)
        )
    )
    return together.take(np.argsort(-together.votes, kind="stable")[:most])
