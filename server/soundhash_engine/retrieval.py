"""The kernels of retrieval: hash a clip's triples, look them up, count votes."""

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel
from soundhash_engine.layout import BUCKET_FRAME_BITS, CHECK_BITS, KEY_BITS
from soundhash_engine.triples import (
    FIELD_CELLS,
    SHIFT_X,
    SHIFT_Y1,
    SHIFT_Y2,
    SHIFT_Z1,
    Y_OFFSET,
    mix64,
)

VOTE_BIN_FRAMES = 6
_BATCH = 1024
"""Look-ups go through each stage this many at a time, so that cache misses overlap."""


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
def lay_out(
    time: NDArray[np.int32],
    bins: NDArray[np.int16],
    triples: NDArray[np.int32],
    centre_half: float,
    cell_bins: float,
    x: NDArray[np.float64],
    differences: NDArray[np.int64],
    first: NDArray[np.float64],
    last: NDArray[np.float64],
    from_centre: NDArray[np.float64],
) -> None:
    """What of the triples no hypothesis changes, in arrays that are read one after the other.

    The anchor's frequency (cells), the packed differences, the times to both targets and the
    anchor's time from the clip's centre (half frames).
    """
    scale = 0.25 / cell_bins
    shift = 0.125 / cell_bins
    for i in range(triples.shape[0]):
        a = triples[i, 0]
        b = triples[i, 1]
        c = triples[i, 2]
        fa = np.float64(bins[a])
        x[i] = fa * scale + shift
        y1 = np.int64(np.floor((bins[b] - fa) * scale + shift)) + Y_OFFSET
        y2 = np.int64(np.floor((bins[c] - fa) * scale + shift)) + Y_OFFSET
        differences[i] = (y1 << SHIFT_Y1) | (y2 << SHIFT_Y2)
        first[i] = time[b] - time[a]
        last[i] = time[c] - time[a]
        from_centre[i] = time[a] - centre_half


@kernel
def make_hashes(
    x: NDArray[np.float64],
    differences: NDArray[np.int64],
    first: NDArray[np.float64],
    last: NDArray[np.float64],
    from_centre: NDArray[np.float64],
    pitch_cells: float,
    tempo: float,
    cell_frames: float,
    min_half: float,
    max_half: float,
    hashes: NDArray[np.uint64],
    shifts: NDArray[np.float32],
) -> int:
    """Hashes of all triples under one hypothesis, with the frames from anchor to centre."""
    n = 0
    scale = 0.5 / cell_frames
    shift = 0.25 / cell_frames
    for i in range(x.shape[0]):
        dtb = first[i] * tempo
        dtc = last[i] * tempo
        cx = np.int64(np.floor(x[i] - pitch_cells))
        if dtb < min_half - 0.5 or dtc > max_half + 0.5 or cx < 0 or cx >= FIELD_CELLS:
            continue
        hashes[n] = mix64(
            (cx << SHIFT_X)
            | differences[i]
            | (np.int64(dtb * scale + shift) << SHIFT_Z1)
            | np.int64(dtc * scale + shift)
        )
        shifts[n] = np.float32(from_centre[i] * 0.5 * tempo)
        n += 1
    return n


@kernel
def make_soft_hashes(
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
    """Like ``make_hashes``, with the neighbour of every cell whose border is near."""
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
    found_rest = np.empty(_BATCH * 4, np.uint32)
    top = np.uint64(64 - bits)
    check_shift = np.uint64(64 - bits - CHECK_BITS)
    # Above the frame a posting's word holds what follows the check byte in the hash.
    frame_mask = np.uint32((np.uint64(1) << np.uint64(bits + BUCKET_FRAME_BITS)) - np.uint64(1))
    rest_shift = np.uint64(64 - KEY_BITS)
    rest_up = np.uint64(bits + BUCKET_FRAME_BITS)
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
                rest = np.uint32(
                    ((hashes[start + i] >> rest_shift) << rest_up) & np.uint64(0xFFFFFFFF)
                )
                first = k
                for j in range(low[i], high[i]):
                    if check[j] == wanted:
                        if k - first >= hot_limit:
                            k = first
                            break
                        found[k] = j
                        found_shift[k] = shifts[start + i]
                        found_rest[k] = rest
                        k += 1
                    elif check[j] > wanted:
                        break
                i += 1
            for j in range(k):
                word = post[found[j]]
                if word & ~frame_mask == found_rest[j] and n_votes < votes.shape[0]:
                    position = np.float64(word & frame_mask) - found_shift[j]
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
def count_votes(
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
def keep_best(
    hypothesis: int,
    found_bin: NDArray[np.uint32],
    found_votes: NDArray[np.int32],
    n_found: int,
    least: int,
    out_hypothesis: NDArray[np.int32],
    out_bin: NDArray[np.uint32],
    out_votes: NDArray[np.int32],
    n_out: int,
) -> tuple[int, int]:
    """Append a hypothesis' candidates; returns their new number and the least votes from here on.

    A full output drops those with the fewest votes.
    """
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
            out_hypothesis[n_out] = hypothesis
            out_bin[n_out] = found_bin[i]
            out_votes[n_out] = found_votes[i]
            n_out += 1
    return n_out, least


@kernel
def vote(
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
    n_triples = triples.shape[0]
    x = np.empty(n_triples, np.float64)
    differences = np.empty(n_triples, np.int64)
    first = np.empty(n_triples, np.float64)
    last = np.empty(n_triples, np.float64)
    from_centre = np.empty(n_triples, np.float64)
    lay_out(time, bins, triples, centre_half, cell_bins, x, differences, first, last, from_centre)
    for h in range(pitches.shape[0]):
        if margin > 0.0:
            n = make_soft_hashes(
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
        else:
            n = make_hashes(
                x,
                differences,
                first,
                last,
                from_centre,
                pitches[h] / cell_bins,
                tempos[h],
                cell_frames,
                min_half,
                max_half,
                hashes,
                shifts,
            )
        probes += n
        n_votes = _look_up(hashes, shifts, n, bits, bucket, post, check, hot_limit, votes)
        reads += n_votes
        n_found = count_votes(votes, n_votes, least, keys, counts, found_bin, found_votes)
        n_out, least = keep_best(
            h, found_bin, found_votes, n_found, least, out_hypothesis, out_bin, out_votes, n_out
        )
    return n_out, probes, reads
