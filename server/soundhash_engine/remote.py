"""The kernels behind postings that lie elsewhere: keys out, postings in, votes counted here.

They follow `retrieval.vote` step by step, in the same order, so that the answers are the same.
"""

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel
from soundhash_engine.layout import BUCKET_FRAME_BITS, CHECK_BITS, KEY_BITS
from soundhash_engine.retrieval import (
    VOTE_BIN_FRAMES,
    count_votes,
    keep_best,
    lay_out,
    make_hashes,
    make_soft_hashes,
)

_MOST_VOTES = 1 << 20
_INDEX_BITS = 64 - KEY_BITS
"""A key and the number of its probe fit one word: half a billion probes."""


@kernel
def hash_question(
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
) -> tuple[NDArray[np.uint64], NDArray[np.float32], NDArray[np.int64]]:
    """Hashes and shifts of all hypotheses, and where each hypothesis' begin (one more)."""
    n_triples = triples.shape[0]
    n_keys = n_triples
    if margin > 0:
        n_keys = min(n_keys * 32, 2_000_000)
    x = np.empty(n_triples, np.float64)
    differences = np.empty(n_triples, np.int64)
    first = np.empty(n_triples, np.float64)
    last = np.empty(n_triples, np.float64)
    from_centre = np.empty(n_triples, np.float64)
    lay_out(time, bins, triples, centre_half, cell_bins, x, differences, first, last, from_centre)
    n_hypotheses = pitches.shape[0]
    begin = np.zeros(n_hypotheses + 1, np.int64)
    part_hashes = np.empty(n_keys + 32, np.uint64)
    part_shifts = np.empty(n_keys + 32, np.float32)
    hashes = np.empty(n_keys * n_hypotheses + 32, np.uint64)
    shifts = np.empty(n_keys * n_hypotheses + 32, np.float32)
    total = 0
    for h in range(n_hypotheses):
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
                part_hashes,
                part_shifts,
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
                part_hashes,
                part_shifts,
            )
        hashes[total : total + n] = part_hashes[:n]
        shifts[total : total + n] = part_shifts[:n]
        total += n
        begin[h + 1] = total
    return hashes[:total], shifts[:total], begin


@kernel
def _distinct(joined: NDArray[np.uint64], which: NDArray[np.int32]) -> NDArray[np.uint64]:
    mask = (np.uint64(1) << np.uint64(_INDEX_BITS)) - np.uint64(1)
    keys = np.empty(joined.shape[0], np.uint64)
    n = 0
    for word in joined:
        key = word >> np.uint64(_INDEX_BITS)
        if n == 0 or keys[n - 1] != key:
            keys[n] = key
            n += 1
        which[np.int64(word & mask)] = n - 1
    return keys[:n]


def distinct_keys(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """The `KEY_BITS` upper bits of the hashes, rising, each once, and which of them each has."""
    joined = (hashes >> np.uint64(_INDEX_BITS) << np.uint64(_INDEX_BITS)) | np.arange(
        len(hashes), dtype=np.uint64
    )
    joined.sort()
    which = np.empty(len(hashes), np.int32)
    return _distinct(joined, which), which


@kernel
def match_keys(
    keys: NDArray[np.uint64],
    bits: int,
    prefix: NDArray[np.int64],
    given: NDArray[np.int64],
    count: NDArray[np.int64],
    check: NDArray[np.uint8],
    post: NDArray[np.uint32],
) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Frames of each key's postings: where each key's begin (one more), and the frames.

    ``keys``: rising. ``prefix``: their first ``bits`` + CHECK_BITS bits, each once. ``given``: for
    which of the prefixes there are buckets, of ``count`` postings each, in ``check`` and ``post``.
    """
    below = np.uint64(KEY_BITS - bits - CHECK_BITS)
    rest_mask = (np.uint64(1) << below) - np.uint64(1)
    up = np.uint64(bits + BUCKET_FRAME_BITS)
    frame_mask = (np.uint64(1) << up) - np.uint64(1)
    begin = np.full(prefix.shape[0], -1, np.int64)
    end = np.zeros(prefix.shape[0], np.int64)
    at = 0
    for i in range(given.shape[0]):
        begin[given[i]] = at
        at += count[i]
        end[given[i]] = at
    low = np.zeros(keys.shape[0] + 1, np.int64)
    room = max(16, 2 * post.shape[0])
    frames = np.empty(room, np.uint32)
    n = 0
    p = 0
    for k in range(keys.shape[0]):
        own = np.int64(keys[k] >> below)
        while prefix[p] < own:
            p += 1
        if begin[p] >= 0:
            wanted = np.uint8(own & 255)
            rest = keys[k] & rest_mask
            for j in range(begin[p], end[p]):
                word = np.uint64(post[j])
                if check[j] == wanted and word >> up == rest:
                    if n == room:
                        room *= 2
                        more = np.empty(room, np.uint32)
                        more[:n] = frames
                        frames = more
                    frames[n] = np.uint32(word & frame_mask)
                    n += 1
        low[k + 1] = n
    return low, frames[:n]


@kernel
def count_rounds(
    which: NDArray[np.int32],
    shifts: NDArray[np.float32],
    first: NDArray[np.int64],
    low: NDArray[np.int64],
    frames: NDArray[np.uint32],
    least: int,
    out_hypothesis: NDArray[np.int32],
    out_bin: NDArray[np.uint32],
    out_votes: NDArray[np.int32],
) -> int:
    """Candidates of all hypotheses; returns their number. As the end of `retrieval.vote`."""
    votes = np.empty(_MOST_VOTES, np.uint32)
    keys = np.empty(2 * _MOST_VOTES, np.uint32)
    counts = np.empty(2 * _MOST_VOTES, np.int32)
    found_bin = np.empty(1 << 16, np.uint32)
    found_votes = np.empty(1 << 16, np.int32)
    n_out = 0
    for h in range(first.shape[0] - 1):
        n = 0
        for i in range(first[h], first[h + 1]):
            for j in range(low[which[i]], low[which[i] + 1]):
                if n < _MOST_VOTES:
                    position = np.float64(frames[j]) - shifts[i]
                    votes[n] = np.uint32(position / VOTE_BIN_FRAMES)
                    n += 1
        n_found = count_votes(votes, n, least, keys, counts, found_bin, found_votes)
        n_out, least = keep_best(
            h, found_bin, found_votes, n_found, least, out_hypothesis, out_bin, out_votes, n_out
        )
    return n_out


@kernel
def cold_postings(
    bucket: NDArray[np.uint32],
    post: NDArray[np.uint32],
    check: NDArray[np.uint8],
    first_bucket: int,
    last_bucket: int,
    limit: int,
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint32]]:
    """Copy the postings of some buckets without check bytes that a bucket has too often."""
    total = np.int64(bucket[last_bucket]) - np.int64(bucket[first_bucket])
    starts = np.zeros(last_bucket - first_bucket + 1, np.int64)
    checks = np.empty(total, np.uint8)
    posts = np.empty(total, np.uint32)
    n = 0
    for b in range(first_bucket, last_bucket):
        end = np.int64(bucket[b + 1])
        i = np.int64(bucket[b])
        while i < end:
            # A bucket's postings are in order of key: equal check bytes stand together.
            j = i
            while j < end and check[j] == check[i]:
                j += 1
            if j - i <= limit:
                for k in range(i, j):
                    checks[n] = check[k]
                    posts[n] = post[k]
                    n += 1
            i = j
        starts[b - first_bucket + 1] = n
    return starts, checks[:n], posts[:n]
