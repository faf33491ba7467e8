"""Triples of landmarks and their keys: what the index stores and what a query asks.

A triple is an anchor ``a`` and two targets with ``t_a < t_b <= t_c``. Its key holds the
anchor's frequency cell, the two frequency differences and the two time differences. A change of
pitch moves only the anchor's cell, a change of tempo only the two times, so a query under a
hypothesis (pitch ``p`` bins, tempo ``v``) needs no other landmarks, only other keys.

A hash spreads the differences and times over all of its range and adds the anchor's cell to that:
keys that differ in pitch alone lie side by side, and so do their postings. A question for a range
of pitches is a question for a range of hashes.

Both sides work on landmarks rounded to half frames and quarter bins; half a rounding step is added
before flooring, so that the rounded values lie symmetrically in their cells (measured: soft
margins do what they say only with it).
"""

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.types import Landmarks

SHIFT_Y1 = 21
SHIFT_Y2 = 14
SHIFT_Z1 = 7
Y_OFFSET = 64
FIELD_CELLS = 128
"""Every field of a key has 7 bits: cells outside are not keys."""


HASH_BITS = 35
ANCHOR_SHIFT = 8
"""A hash is the spread of the other fields plus anchor cell << this; the bits below tell keys
apart whose ranges overlap."""
_LAST_SPREAD = (1 << HASH_BITS) - (FIELD_CELLS << ANCHOR_SHIFT)


@kernel
def spread(y1: np.int64, y2: np.int64, z1: np.int64, z2: np.int64) -> np.int64:
    """The hash (35 bits) of a key whose anchor lies in cell 0."""
    key = (y1 << SHIFT_Y1) | (y2 << SHIFT_Y2) | (z1 << SHIFT_Z1) | z2
    # The finaliser of splitmix64.
    h = np.uint64(key) + np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    spread = np.int64((h ^ (h >> np.uint64(31))) >> np.uint64(64 - HASH_BITS))
    # So that adding any anchor's cell stays within the range.
    return spread if spread < _LAST_SPREAD else spread - (FIELD_CELLS << ANCHOR_SHIFT)


@kernel
def strongest_targets(
    time: NDArray[np.int32],
    bins: NDArray[np.int16],
    strength: NDArray[np.uint8],
    min_half_frames: float,
    max_half_frames: float,
    max_quarter_bins: int,
    n_targets: int,
    targets: NDArray[np.int32],
    counts: NDArray[np.int32],
) -> None:
    """For each landmark the strongest landmarks after it, as indices in rising order.

    ``time``, ``bins``, ``strength``: n landmarks sorted by (time, bin). ``targets`` (n x n_targets)
    and ``counts`` (n) are filled. Equal strengths: the earlier landmark wins.
    """
    n = time.shape[0]
    chosen = np.empty(n_targets, np.int32)
    first = 0
    for a in range(n):
        first = max(first, a + 1)
        while first < n and time[first] - time[a] < min_half_frames:
            first += 1
        k = 0
        for b in range(first, n):
            if time[b] - time[a] > max_half_frames:
                break
            if abs(np.int32(bins[b]) - np.int32(bins[a])) > max_quarter_bins:
                continue
            s = np.int32(strength[b])
            if k == n_targets:
                # The list is in index order: drop the weakest, the latest of equals.
                weakest = 0
                for i in range(1, k):
                    if chosen[i] <= chosen[weakest]:
                        weakest = i
                if s <= chosen[weakest]:
                    continue
                for i in range(weakest, k - 1):
                    chosen[i] = chosen[i + 1]
                    targets[a, i] = targets[a, i + 1]
                k -= 1
            chosen[k] = s
            targets[a, k] = b
            k += 1
        counts[a] = k


@kernel
def reference_kernel(
    time: NDArray[np.int32],
    bins: NDArray[np.int16],
    targets: NDArray[np.int32],
    counts: NDArray[np.int32],
    cell_eighth_bins: int,
    cell_quarter_frames: int,
    hashes: NDArray[np.uint64],
    anchors: NDArray[np.int32],
) -> int:
    """Write the hash and the anchor's time of every reference triple; return their number.

    A hash stands in the upper HASH_BITS bits of its word.
    """
    out = 0
    for a in range(time.shape[0]):
        fa = np.int64(bins[a])
        x = (2 * fa + 1) // cell_eighth_bins
        for i in range(counts[a]):
            b = targets[a, i]
            y1 = (2 * (np.int64(bins[b]) - fa) + 1) // cell_eighth_bins + Y_OFFSET
            z1 = (2 * np.int64(time[b] - time[a]) + 1) // cell_quarter_frames
            for j in range(i + 1, counts[a]):
                c = targets[a, j]
                y2 = (2 * (np.int64(bins[c]) - fa) + 1) // cell_eighth_bins + Y_OFFSET
                z2 = (2 * np.int64(time[c] - time[a]) + 1) // cell_quarter_frames
                h = spread(y1, y2, z1, z2) + (x << ANCHOR_SHIFT)
                hashes[out] = np.uint64(h) << np.uint64(64 - HASH_BITS)
                anchors[out] = time[a]
                out += 1
    return out


def stored_targets(
    landmarks: Landmarks, n_targets: int, params: Params
) -> tuple[NDArray[np.int32], NDArray[np.int16], NDArray[np.int32], NDArray[np.int32]]:
    """Of a recording's landmarks of rank below ``triple_rank_limit``: times, bins, the rows of the
    up to ``n_targets`` strongest targets of each ((n, n_targets)), and how many it has."""
    search = params.search
    keep = landmarks.rank < search.triple_rank_limit
    time = landmarks.time[keep]
    bins = landmarks.bin[keep]
    targets = np.empty((len(time), n_targets), np.int32)
    counts = np.empty(len(time), np.int32)
    strongest_targets(
        time,
        bins,
        landmarks.strength[keep],
        2.0 * search.triple_min_dt_frames,
        2.0 * search.triple_max_dt_frames,
        4 * search.triple_max_df_bins,
        n_targets,
        targets,
        counts,
    )
    return time, bins, targets, counts


def reference_triples(
    landmarks: Landmarks, params: Params = PARAMS
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Hashes (uint64) and anchor times (half frames) of a recording's triples, in order of time.

    Only landmarks of rank below ``triple_rank_limit`` take part: about 41 triples a second.
    """
    n_targets = params.search.triple_targets
    time, bins, targets, counts = stored_targets(landmarks, n_targets, params)
    n = len(time)
    most = n * n_targets * (n_targets - 1) // 2
    hashes = np.empty(most, np.uint64)
    anchors = np.empty(most, np.int32)
    written = reference_kernel(
        time,
        bins,
        targets,
        counts,
        round(8 * params.search.triple_bin_cell_bins),
        round(4 * params.search.triple_time_cell_frames),
        hashes,
        anchors,
    )
    return hashes[:written], anchors[:written]


DOUBT_STEPS = 16
"""Doubts are integers: so many make a unit of the logarithm of the odds."""
RANK_WEIGHT = 0.1
FIRST_WEIGHT = 1.2
SECOND_WEIGHT = 2.0
"""How much less likely a triple is stored: for each rank of its anchor, and for the logarithm of
the places of its targets among its anchor's, of the better and of the worse one. Fitted on the
triples of degraded clips that were found among the recording's."""


@kernel
def combine_targets(
    strength: NDArray[np.uint8],
    rank: NDArray[np.uint8],
    targets: NDArray[np.int32],
    counts: NDArray[np.int32],
    triples: NDArray[np.int32],
    doubts: NDArray[np.int32],
) -> int:
    """Write every (a, b, c) of the chosen targets, and how unlikely it is to be stored.

    A recording keeps the triples of each anchor's three strongest targets alone.
    """
    out = 0
    n_targets = targets.shape[1]
    place = np.empty(n_targets, np.int64)
    better = np.empty(n_targets + 1, np.int32)
    worse = np.empty(n_targets + 1, np.int32)
    for i in range(1, n_targets + 1):
        better[i] = np.int32(DOUBT_STEPS * FIRST_WEIGHT * np.log(i))
        worse[i] = np.int32(DOUBT_STEPS * SECOND_WEIGHT * np.log(i))
    for a in range(counts.shape[0]):
        by_rank = np.int32(DOUBT_STEPS * RANK_WEIGHT * rank[a])
        n = counts[a]
        for i in range(n):
            own = strength[targets[a, i]]
            place[i] = 1
            for j in range(n):
                other = strength[targets[a, j]]
                if other > own or (other == own and j < i):
                    place[i] += 1
        for i in range(n):
            for j in range(i + 1, n):
                triples[out, 0] = a
                triples[out, 1] = targets[a, i]
                triples[out, 2] = targets[a, j]
                low = min(place[i], place[j])
                high = max(place[i], place[j])
                doubts[out] = by_rank + better[low] + worse[high]
                out += 1
    return out


def query_triples(
    landmarks: Landmarks,
    *,
    n_targets: int,
    stretch: float = 1.0,
    limit: int | None = None,
    params: Params = PARAMS,
) -> NDArray[np.int32]:
    """The ``limit`` triples (or all) of a clip that its recording most likely has as well.

    n x 3 indices (anchor, target, target) into the landmarks, in order; of up to ``n_targets``
    targets an anchor. ``stretch``: the times of targets may be this much shorter or longer than the
    reference's, for hypotheses of another tempo.
    """
    search = params.search
    n = len(landmarks)
    targets = np.empty((n, n_targets), np.int32)
    counts = np.empty(n, np.int32)
    strongest_targets(
        landmarks.time,
        landmarks.bin,
        landmarks.strength,
        2.0 * search.triple_min_dt_frames / stretch,
        2.0 * search.triple_max_dt_frames * stretch,
        4 * search.triple_max_df_bins,
        n_targets,
        targets,
        counts,
    )
    total = int((counts * (counts - 1) // 2).sum())
    triples = np.empty((total, 3), np.int32)
    doubts = np.empty(total, np.int32)
    combine_targets(landmarks.strength, landmarks.rank, targets, counts, triples, doubts)
    if limit is not None and total > limit:
        # Doubts are small integers: count them instead of sorting. Of equal ones the first stay.
        most = int(np.argmax(np.cumsum(np.bincount(doubts)) > limit))
        keep = doubts < most
        level = np.flatnonzero(doubts == most)
        keep[level[: limit - int(np.count_nonzero(keep))]] = True
        triples = np.ascontiguousarray(triples[keep])
    return triples
