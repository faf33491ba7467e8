"""How landmarks and postings lie in a volume's bytes: the one place that packs and unpacks them.

A landmark takes 3 bytes: strength (6 bits), bin (10 bits), half frame within its block (7 bits),
from the lowest bit on.

A posting takes 5 bytes. Of a triple's hash a volume keeps the upper `KEY_BITS` bits: the first
``bits`` of them are the number of the bucket, the next `CHECK_BITS` the check byte, and the rest
stands above the anchor's frame in the 32-bit word. A longer time line needs more bits for frames
and has just as many more for buckets, so every volume knows the same bits of every key: volumes
are merged without making their keys again. Within a bucket postings are in order of key, then of
frame, and no key has more than `MOST_OF_A_KEY`, or `Params.latest_of_a_key`.
"""

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel

BLOCK_FRAMES = 64
BLOCK_HALF_FRAMES = 2 * BLOCK_FRAMES
GAP_FRAMES = 1536
"""Empty time between two recordings: longer than a window, its votes and the shifts around it."""
PEAK_BYTES = 3
CHECK_BITS = 8
BUCKET_FRAME_BITS = 5
"""There is a bucket for every 32 frames of the time line at most, for every 16 at least: 10 … 20
postings."""
KEY_BITS = 32 + CHECK_BITS - BUCKET_FRAME_BITS
MOST_OF_A_KEY = 160
"""Of a key with more postings than this only the first are kept: it is a steady tone or a loop that
is everywhere, and asks more of a search than it tells. More than any volume lets vote."""
LEAST_FRAME_BITS = 13
STEP_BITS = 10
"""Rows are looked up by steps of 1,024 frames: in no step do two recordings begin."""
DEAD = -(1 << 62)
"""In place of how far a recording's frames move: it is left out."""


def frame_bits(n_frames: int) -> int:
    """Bits for a frame of a time line of this length."""
    return max(LEAST_FRAME_BITS, int(n_frames - 1).bit_length())


def layout(n_frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Where recordings of these lengths begin on one time line, and where it ends.

    A gap apart, each at a block border.
    """
    step = n_frames + GAP_FRAMES
    step += -step % BLOCK_FRAMES
    # The line itself begins with a gap, which is a whole number of blocks.
    ends = np.cumsum(step) + GAP_FRAMES
    end = int(ends[-1]) if len(ends) else GAP_FRAMES
    return ends - step, end


@kernel
def peak_time(peaks: NDArray[np.uint8], i: int) -> int:
    """Half frame of landmark ``i`` within its block."""
    return int(peaks[i, 2])


@kernel
def peak_bin(peaks: NDArray[np.uint8], i: int) -> int:
    """Quarter bin of landmark ``i``."""
    return int((np.int64(peaks[i, 1]) << 2) | (np.int64(peaks[i, 0]) >> 6))


@kernel
def peak_strength(peaks: NDArray[np.uint8], i: int) -> int:
    """Strength of landmark ``i``, 0 … 63."""
    return int(peaks[i, 0] & np.uint8(63))


@kernel
def pack_peaks(
    time: NDArray[np.int32],
    bins: NDArray[np.int16],
    strength: NDArray[np.uint8],
    base_block: int,
    at: int,
    peaks: NDArray[np.uint8],
    per_block: NDArray[np.uint32],
) -> None:
    """Write a recording's landmarks from index ``at`` on and count them into its blocks."""
    for i in range(time.shape[0]):
        b = time[i] // BLOCK_HALF_FRAMES
        per_block[base_block + b + 1] += np.uint32(1)
        quarter = np.int64(bins[i])
        peaks[at + i, 0] = np.uint8(((quarter & 3) << 6) | np.int64(min(strength[i], 63)))
        peaks[at + i, 1] = np.uint8(quarter >> 2)
        peaks[at + i, 2] = np.uint8(time[i] - b * BLOCK_HALF_FRAMES)


@kernel
def unpack_peaks(
    peaks: NDArray[np.uint8],
    block: NDArray[np.uint32],
    first_block: int,
    last_block: int,
    time: NDArray[np.int32],
    bins: NDArray[np.int16],
    strength: NDArray[np.uint8],
) -> int:
    """Landmarks of the blocks, times from the first block's start; returns their number."""
    n = 0
    for b in range(first_block, last_block):
        for i in range(block[b], block[b + 1]):
            time[n] = (b - first_block) * BLOCK_HALF_FRAMES + peak_time(peaks, i)
            bins[n] = peak_bin(peaks, i)
            strength[n] = peak_strength(peaks, i)
            n += 1
    return n


@kernel
def join_keys(
    hashes: NDArray[np.uint64],
    anchors: NDArray[np.int32],
    base_frame: int,
    frame_bits: int,
    joined: NDArray[np.uint64],
) -> None:
    """Key and frame of each triple as one number that sorts by key, then by frame.

    ``anchors``: half frames from the recording's start.
    """
    for i in range(hashes.shape[0]):
        frame = np.uint64(base_frame + anchors[i] // 2)
        joined[i] = ((hashes[i] >> np.uint64(64 - KEY_BITS)) << np.uint64(frame_bits)) | frame


@kernel
def read_postings(
    bucket: NDArray[np.uint32],
    post: NDArray[np.uint32],
    check: NDArray[np.uint8],
    first_bucket: int,
    last_bucket: int,
    frame_bits: int,
    row_at: NDArray[np.uint32],
    base_frame: NDArray[np.int64],
    moved: NDArray[np.int64],
    key_bits: int,
    to_frame_bits: int,
    joined: NDArray[np.uint64],
    at: int,
) -> int:
    """Append the postings of some buckets as `join_keys` writes them; returns their new number.

    ``row_at``: row at the start of each step of 2^STEP_BITS frames. ``moved``: for each row, what
    is added to its frames, or DEAD. Only the lowest ``key_bits`` of each key are kept.
    """
    n_rows = base_frame.shape[0]
    below = KEY_BITS - (frame_bits - BUCKET_FRAME_BITS)
    key_mask = (np.uint64(1) << np.uint64(key_bits)) - np.uint64(1)
    frame_mask = (np.uint64(1) << np.uint64(frame_bits)) - np.uint64(1)
    for b in range(first_bucket, last_bucket):
        high = np.uint64(b) << np.uint64(below)
        for j in range(bucket[b], bucket[b + 1]):
            word = np.uint64(post[j])
            frame = np.int64(word & frame_mask)
            row = np.int64(row_at[frame >> STEP_BITS])
            if row + 1 < n_rows and frame >= base_frame[row + 1]:
                row += 1
            if moved[row] == DEAD:
                continue
            key = high | (np.uint64(check[j]) << np.uint64(below - CHECK_BITS))
            key |= word >> np.uint64(frame_bits)
            joined[at] = ((key & key_mask) << np.uint64(to_frame_bits)) | np.uint64(
                frame + moved[row]
            )
            at += 1
    return at


@kernel
def thin_out(joined: NDArray[np.uint64], frame_bits: int, latest: int) -> int:
    """Keep the first MOST_OF_A_KEY of each key's sorted numbers, or the ``latest`` so many where
    that is not 0, in place; returns how many stay.

    The first of a whole are among the first of its parts, and the last among the last: parts may
    be thinned out first.
    """
    n = 0
    begin = 0
    total = joined.shape[0]
    most = latest if latest > 0 else MOST_OF_A_KEY
    while begin < total:
        key = joined[begin] >> np.uint64(frame_bits)
        end = begin + 1
        while end < total and joined[end] >> np.uint64(frame_bits) == key:
            end += 1
        first = max(begin, end - most) if latest > 0 else begin
        for i in range(first, min(end, first + most)):
            joined[n] = joined[i]
            n += 1
        begin = end
    return n


@kernel
def write_postings(
    joined: NDArray[np.uint64],
    key_bits: int,
    frame_bits: int,
    first: int,
    bucket: NDArray[np.uint32],
    post: NDArray[np.uint32],
    check: NDArray[np.uint8],
) -> None:
    """Sorted numbers of `join_keys` as postings, and where each bucket of theirs begins.

    ``joined`` holds all postings of the buckets; ``first`` is the number of postings before them.
    """
    below = KEY_BITS - (frame_bits - BUCKET_FRAME_BITS)
    rest_mask = (np.uint64(1) << np.uint64(below - CHECK_BITS)) - np.uint64(1)
    frame_mask = (np.uint64(1) << np.uint64(frame_bits)) - np.uint64(1)
    b = 0
    for i in range(joined.shape[0]):
        key = joined[i] >> np.uint64(frame_bits)
        own = np.int64(key >> np.uint64(below))
        while b <= own:
            bucket[b] = np.uint32(first + i)
            b += 1
        check[i] = np.uint8((key >> np.uint64(below - CHECK_BITS)) & np.uint64(255))
        post[i] = np.uint32(((key & rest_mask) << np.uint64(frame_bits)) | (joined[i] & frame_mask))
    while b < bucket.shape[0]:
        bucket[b] = np.uint32(first + joined.shape[0])
        b += 1


@kernel
def rises_to(starts: NDArray[np.uint32], total: int) -> bool:
    """Whether these are starts of consecutive parts of ``total`` elements."""
    before = np.int64(0)
    for start in starts:
        if start < before:
            return False
        before = np.int64(start)
    return bool(starts[0] == 0 and before == total)
