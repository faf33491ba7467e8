"""The kernels of retrieval: ask for a clip's triples, look them up, count votes.

A triple is asked for once for all changes that give it the same times, and for a range of anchor
cells at once: of the hundreds of changes of a round most share their look-ups.
"""

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel
from soundhash_engine.layout import BUCKET_FRAME_BITS, CHECK_BITS
from soundhash_engine.triples import (
    ANCHOR_SHIFT,
    FIELD_CELLS,
    HASH_BITS,
    Y_OFFSET,
    spread,
)

VOTE_BIN_FRAMES = 6
_BATCH = 1024
"""Look-ups go through each stage this many at a time, so that cache misses overlap."""
_FOUND = 1 << 15
_CHUNK = 256
_MOST_FILTERED = 1 << 17
_MOST_CHUNKS = 1 << 15
"""Votes of all changes: 8 million."""


@kernel
def _neighbours(value: float, margin: float, cells: NDArray[np.int64]) -> int:
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
def make_probes(
    time: NDArray[np.int32],
    bins: NDArray[np.int16],
    triples: NDArray[np.int32],
    tempo: NDArray[np.float64],
    lowest: NDArray[np.float64],
    highest: NDArray[np.float64],
    cell_bins: float,
    cell_frames: float,
    min_half: float,
    max_half: float,
    margin: float,
    anchor: NDArray[np.float64],
    hashes: NDArray[np.int64],
    cells: NDArray[np.uint8],
    first_cell: NDArray[np.int16],
    triple: NDArray[np.int32],
    first_tempo: NDArray[np.int16],
    last_tempo: NDArray[np.int16],
) -> int:
    """What to look up for all changes; returns the number of probes.

    ``tempo`` rises; ``lowest`` and ``highest`` are the pitches (bins) that go with each. A probe
    asks for ``cells`` anchor cells from that of its hash on, for the tempos first … last.
    ``anchor`` receives each triple's anchor, in cells. With a ``margin`` the neighbours of cells
    whose border is near are asked for too (of the times' cells where there is a single tempo).
    """
    n = 0
    most = hashes.shape[0] - 16
    scale_f = 0.25 / cell_bins
    shift_f = 0.125 / cell_bins
    scale_t = 0.5 / cell_frames
    shift_t = 0.25 / cell_frames
    n_tempos = tempo.shape[0]
    time_margin = margin if n_tempos == 1 else 0.0
    y1 = np.empty(2, np.int64)
    y2 = np.empty(2, np.int64)
    z1 = np.empty(2, np.int64)
    z2 = np.empty(2, np.int64)
    low_cell = np.empty(n_tempos, np.float64)
    high_cell = np.empty(n_tempos, np.float64)
    for t in range(n_tempos):
        low_cell[t] = -highest[t] / cell_bins - margin
        high_cell[t] = -lowest[t] / cell_bins + margin
    for i in range(triples.shape[0]):
        a = triples[i, 0]
        b = triples[i, 1]
        c = triples[i, 2]
        fa = np.float64(bins[a])
        x = fa * scale_f + shift_f
        anchor[i] = x
        n_y1 = _neighbours((bins[b] - fa) * scale_f + shift_f, margin, y1)
        n_y2 = _neighbours((bins[c] - fa) * scale_f + shift_f, margin, y2)
        to_b = np.float64(time[b] - time[a])
        to_c = np.float64(time[c] - time[a])
        begun = -1
        here_b = -1
        here_c = -1
        low = 0.0
        high = 0.0
        for t in range(n_tempos + 1):
            cell_b = -1
            cell_c = -1
            inside = False
            if t < n_tempos:
                dt_b = to_b * tempo[t]
                dt_c = to_c * tempo[t]
                inside = dt_b >= min_half - 0.5 and dt_c <= max_half + 0.5
                if inside:
                    cell_b = int(dt_b * scale_t + shift_t)
                    cell_c = int(dt_c * scale_t + shift_t)
            if inside and begun >= 0 and cell_b == here_b and cell_c == here_c:
                low = min(low, low_cell[t])
                high = max(high, high_cell[t])
                continue
            if begun >= 0:
                first = int(max(0.0, np.floor(x + low)))
                last = int(min(FIELD_CELLS - 1.0, np.floor(x + high)))
                n_z1 = 1
                n_z2 = 1
                z1[0] = here_b
                z2[0] = here_c
                if time_margin > 0.0:
                    n_z1 = _neighbours(to_b * tempo[begun] * scale_t + shift_t, time_margin, z1)
                    n_z2 = _neighbours(to_c * tempo[begun] * scale_t + shift_t, time_margin, z2)
                if first <= last and n < most:
                    for i1 in range(n_y1):
                        for i2 in range(n_y2):
                            for i3 in range(n_z1):
                                for i4 in range(n_z2):
                                    h = spread(y1[i1] + Y_OFFSET, y2[i2] + Y_OFFSET, z1[i3], z2[i4])
                                    hashes[n] = h + (first << ANCHOR_SHIFT)
                                    cells[n] = last - first + 1
                                    first_cell[n] = first
                                    triple[n] = i
                                    first_tempo[n] = begun
                                    last_tempo[n] = t - 1
                                    n += 1
            begun = t if inside else -1
            if inside:
                here_b = cell_b
                here_c = cell_c
                low = low_cell[t]
                high = high_cell[t]
    return n


@kernel
def _skip_hot(
    post: NDArray[np.uint32],
    check: NDArray[np.uint8],
    j: int,
    stop: int,
    frame_bits: int,
    hot_limit: int,
) -> int:
    """The end of the run of one key that begins at ``j``, or ``j`` if it is not too long.

    A bucket's postings are in order of key: the one ``hot_limit`` further on tells.
    """
    if j + hot_limit >= stop or check[j + hot_limit] != check[j]:
        return j
    up = np.uint64(frame_bits)
    rest = np.uint64(post[j]) >> up
    if np.uint64(post[j + hot_limit]) >> up != rest:
        return j
    end = j + hot_limit + 1
    step = 64
    while step > 0:
        far = end + step - 1
        if far < stop and check[far] == check[j] and np.uint64(post[far]) >> up == rest:
            end += step
        else:
            step //= 4
    return end


@kernel
def look_up(
    hashes: NDArray[np.int64],
    cells: NDArray[np.uint8],
    begin: int,
    end: int,
    bits: int,
    rows: NDArray[np.int64],
    bucket: NDArray[np.uint32],
    post: NDArray[np.uint32],
    check: NDArray[np.uint8],
    hot_limit: int,
    found_probe: NDArray[np.int32],
    found_cell: NDArray[np.uint8],
    found_frame: NDArray[np.uint32],
) -> tuple[int, int, int]:
    """Postings of the probes begin … end; a key with more than ``hot_limit`` of them gives none.

    ``bucket`` holds where each bucket of the volume begins, or, when not all are at hand, of the
    wanted ones in rising order; ``rows`` are then the rows of each probe's first bucket.

    Writes for each the probe, the anchor cell from the probe's first on, and the anchor's frame.
    Stops early when there is no room for another probe's; returns the probe to go on from, the
    number found and the postings that were read.
    """
    frame_bits = bits + BUCKET_FRAME_BITS
    below = HASH_BITS - bits
    rest_bits = below - CHECK_BITS
    frame_mask = np.uint32((np.uint64(1) << np.uint64(frame_bits)) - np.uint64(1))
    own = (1 << ANCHOR_SHIFT) - 1
    # How much of what tells overlapping keys apart the check byte shows.
    check_mask = own >> rest_bits if rest_bits < ANCHOR_SHIFT else 0
    size = _BATCH
    first_bucket = np.empty(size, np.int64)
    last_bucket = np.empty(size, np.int64)
    row = np.empty(size, np.int64)
    low = np.empty(size, np.int64)
    high = np.empty(size, np.int64)
    room = found_probe.shape[0]
    maybe = np.empty(room, np.int64)
    maybe_probe = np.empty(room, np.int32)
    maybe_key = np.empty(room, np.int64)
    n = 0
    reads = 0
    at = begin
    while at < end:
        m = min(size, end - at)
        for i in range(m):
            h = hashes[at + i]
            top = h + ((np.int64(cells[at + i]) - 1) << ANCHOR_SHIFT)
            first_bucket[i] = h >> below
            last_bucket[i] = top >> below
            row[i] = rows[at + i] if rows.shape[0] else first_bucket[i]
            low[i] = bucket[row[i]]
            high[i] = bucket[row[i] + last_bucket[i] - first_bucket[i] + 1]
        k = 0
        done = m
        for i in range(m):
            if n + k + (high[i] - low[i]) > room:
                if n + k > 0:
                    done = i
                    break
                # So many in one place are steady tones: nothing of them would count.
                continue
            h = hashes[at + i]
            first_check = h >> rest_bits
            last_check = (h + ((np.int64(cells[at + i]) - 1) << ANCHOR_SHIFT)) >> rest_bits
            j = low[i]
            for b in range(first_bucket[i], last_bucket[i] + 1):
                stop = bucket[row[i] + b - first_bucket[i] + 1]
                base = b << CHECK_BITS
                while j < stop:
                    seen = base | np.int64(check[j])
                    if seen > last_check:
                        break
                    if seen >= first_check and (seen - first_check) & check_mask == 0:
                        beyond = _skip_hot(post, check, j, stop, frame_bits, hot_limit)
                        if beyond > j:
                            j = beyond
                            continue
                        maybe[k] = j
                        maybe_probe[k] = at + i
                        maybe_key[k] = seen << rest_bits
                        k += 1
                    j += 1
                j = stop
        reads += k
        for q in range(k):
            probe = maybe_probe[q]
            word = post[maybe[q]]
            rest = np.int64(np.uint64(word) >> np.uint64(frame_bits))
            off = (maybe_key[q] | rest) - hashes[probe]
            its = off >> ANCHOR_SHIFT
            if off & own != 0 or its < 0 or its >= cells[probe]:
                continue
            found_probe[n] = probe
            found_cell[n] = its
            found_frame[n] = word & frame_mask
            n += 1
        at += done
        if done < m:
            break
    return at, n, reads


@kernel
def cast_votes(
    found_probe: NDArray[np.int32],
    found_cell: NDArray[np.uint8],
    found_frame: NDArray[np.uint32],
    n_found: int,
    first_cell: NDArray[np.int16],
    triple: NDArray[np.int32],
    first_tempo: NDArray[np.int16],
    last_tempo: NDArray[np.int16],
    anchor: NDArray[np.float64],
    from_centre: NDArray[np.float64],
    tempo: NDArray[np.float64],
    pitch: NDArray[np.float64],
    above: NDArray[np.int32],
    cell_bins: float,
    margin: float,
    pool: NDArray[np.uint32],
    link: NDArray[np.int32],
    tail: NDArray[np.int32],
    used: NDArray[np.int64],
    n_chunks: int,
) -> int:
    """Add to each change's list the places at which postings put the clip's centre.

    Lists are chains of chunks of the ``pool``; returns how many chunks are in use. When the pool
    is full the rest is left out.
    """
    offset = above.shape[1] // 2
    for q in range(n_found):
        probe = found_probe[q]
        i = triple[probe]
        # The pitches under which the clip's anchor lies in that cell, or near its border.
        up = (anchor[i] - first_cell[probe] - found_cell[q] + margin) * cell_bins
        down = up - (1.0 + 2.0 * margin) * cell_bins
        row = np.int64(np.floor(down)) + offset
        frame = np.float64(found_frame[q])
        for t in range(first_tempo[probe], last_tempo[probe] + 1):
            place = np.uint32((frame - from_centre[i] * tempo[t]) / VOTE_BIN_FRAMES)
            for h in range(above[t, row], above[t, above.shape[1] - 1]):
                if pitch[h] > up:
                    break
                if pitch[h] <= down:
                    continue
                k = used[h]
                if k % _CHUNK == 0:
                    if n_chunks == link.shape[0]:
                        return n_chunks
                    link[n_chunks] = tail[h]
                    tail[h] = n_chunks
                    n_chunks += 1
                pool[np.int64(tail[h]) * _CHUNK + k % _CHUNK] = place
                used[h] = k + 1
    return n_chunks


@kernel
def _slot(keys: NDArray[np.uint32], mask: int, key: np.uint32) -> int:
    """Where ``key`` is, or the empty slot (value 0) where it would be."""
    at = int((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)) & mask
    while keys[at] != key and keys[at] != 0:
        at = (at + 1) & mask
    return at


@kernel
def _sift(
    pool: NDArray[np.uint32],
    link: NDArray[np.int32],
    chunk: int,
    n: int,
    least: int,
    seen: NDArray[np.uint8],
    votes: NDArray[np.uint32],
) -> int:
    """Copy the votes of a list that may be among ``least`` of two neighbouring bins.

    Most votes are alone. A table of small counters, by the lowest bits of the bin, finds that out
    without a look at the bins themselves.
    """
    size = 1024
    while size < 8 * n and size < _MOST_FILTERED:
        size *= 2
    mask = np.uint32(size - 1)
    for i in range(size):
        seen[i] = 0
    last = chunk
    length = (n - 1) % _CHUNK + 1
    while chunk >= 0:
        for k in range(chunk * _CHUNK, chunk * _CHUNK + length):
            at = pool[k] & mask
            if seen[at] < 255:
                seen[at] += np.uint8(1)
        length = _CHUNK
        chunk = link[chunk]
    chunk = last
    length = (n - 1) % _CHUNK + 1
    kept = 0
    while chunk >= 0:
        for k in range(chunk * _CHUNK, chunk * _CHUNK + length):
            place = pool[k]
            before = seen[(place - np.uint32(1)) & mask]
            after = seen[(place + np.uint32(1)) & mask]
            if np.int64(seen[place & mask]) + max(before, after) >= least:
                votes[kept] = place
                kept += 1
        length = _CHUNK
        chunk = link[chunk]
    return kept


@kernel
def _count(
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
def count_votes(
    pool: NDArray[np.uint32],
    link: NDArray[np.int32],
    tail: NDArray[np.int32],
    used: NDArray[np.int64],
    least: int,
    out_change: NDArray[np.int32],
    out_bin: NDArray[np.uint32],
    out_votes: NDArray[np.int32],
) -> int:
    """Candidates: pairs of neighbouring bins with at least ``least`` votes for one change.

    When there are more than fit, ``least`` rises.
    """
    longest = 1
    for h in range(used.shape[0]):
        longest = max(longest, used[h])
    size = 64
    while size < 2 * longest:
        size *= 2
    seen = np.empty(_MOST_FILTERED, np.uint8)
    votes = np.empty(longest, np.uint32)
    keys = np.empty(size, np.uint32)
    counts = np.empty(size, np.int32)
    found_bin = np.empty(1 << 16, np.uint32)
    found_votes = np.empty(1 << 16, np.int32)
    n_out = 0
    for h in range(used.shape[0]):
        if used[h] < least:
            continue
        kept = _sift(pool, link, tail[h], used[h], least, seen, votes)
        n_found = _count(votes, kept, least, keys, counts, found_bin, found_votes)
        for i in range(n_found):
            if n_out == out_bin.shape[0]:
                least += 1
                left = 0
                for j in range(n_out):
                    if out_votes[j] >= least:
                        out_change[left] = out_change[j]
                        out_bin[left] = out_bin[j]
                        out_votes[left] = out_votes[j]
                        left += 1
                n_out = left
            if n_out < out_bin.shape[0] and found_votes[i] >= least:
                out_change[n_out] = h
                out_bin[n_out] = found_bin[i]
                out_votes[n_out] = found_votes[i]
                n_out += 1
    return n_out


@kernel
def vote(
    hashes: NDArray[np.int64],
    cells: NDArray[np.uint8],
    first_cell: NDArray[np.int16],
    triple: NDArray[np.int32],
    first_tempo: NDArray[np.int16],
    last_tempo: NDArray[np.int16],
    n_probes: int,
    anchor: NDArray[np.float64],
    from_centre: NDArray[np.float64],
    tempo: NDArray[np.float64],
    pitch: NDArray[np.float64],
    above: NDArray[np.int32],
    cell_bins: float,
    margin: float,
    bits: int,
    rows: NDArray[np.int64],
    bucket: NDArray[np.uint32],
    post: NDArray[np.uint32],
    check: NDArray[np.uint8],
    hot_limit: int,
    least: int,
    out_change: NDArray[np.int32],
    out_bin: NDArray[np.uint32],
    out_votes: NDArray[np.int32],
) -> tuple[int, int, int]:
    """Candidates of one volume; returns their number, the probes and the postings read."""
    found_probe = np.empty(_FOUND, np.int32)
    found_cell = np.empty(_FOUND, np.uint8)
    found_frame = np.empty(_FOUND, np.uint32)
    pool = np.empty(_MOST_CHUNKS * _CHUNK, np.uint32)
    link = np.empty(_MOST_CHUNKS, np.int32)
    tail = np.full(pitch.shape[0], -1, np.int32)
    used = np.zeros(pitch.shape[0], np.int64)
    n_chunks = 0
    reads = 0
    at = 0
    while at < n_probes:
        end = min(n_probes, at + _BATCH)
        at, n_found, read = look_up(
            hashes,
            cells,
            at,
            end,
            bits,
            rows,
            bucket,
            post,
            check,
            hot_limit,
            found_probe,
            found_cell,
            found_frame,
        )
        reads += read
        n_chunks = cast_votes(
            found_probe,
            found_cell,
            found_frame,
            n_found,
            first_cell,
            triple,
            first_tempo,
            last_tempo,
            anchor,
            from_centre,
            tempo,
            pitch,
            above,
            cell_bins,
            margin,
            pool,
            link,
            tail,
            used,
            n_chunks,
        )
    n = count_votes(pool, link, tail, used, least, out_change, out_bin, out_votes)
    return n, n_probes, reads
