"""Merging volumes: a stream from sorted arrays to sorted arrays, in bounded memory.

Nothing is made again. Every volume has its postings in order of the same bits of the same keys, so
merging goes through all of them once from front to back; landmarks and descriptors are copied.
Memory: some arrays of a number a recording, and some 50 MB, whatever the size.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.errors import ParamsMismatch
from soundhash_engine.layout import (
    BLOCK_FRAMES,
    BUCKET_FRAME_BITS,
    DEAD,
    KEY_BITS,
    STEP_BITS,
    frame_bits,
    layout,
    read_postings,
    thin_out,
    write_postings,
)
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.volume import Volume, make_meta, triple_params

PART_POSTINGS = 1 << 20
"""About so many postings are sorted at a time."""
LEAST_PART_BITS = 3
COPY_BYTES = 4 << 20


class Sink(Protocol):
    """Takes a volume's arrays, each in parts from front to back; the parts are its own."""

    def append(self, name: str, part: NDArray[Any]) -> None:
        """The next part of an array: the parts' first dimensions add up."""


class Collected:
    """A sink in memory."""

    def __init__(self) -> None:
        self._parts: dict[str, list[NDArray[Any]]] = {}

    def append(self, name: str, part: NDArray[Any]) -> None:
        """The next part of an array."""
        self._parts.setdefault(name, []).append(part)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Whole arrays; gives them up."""
        return {name: np.concatenate(self._parts.pop(name)) for name in list(self._parts)}


def newest(volumes: Sequence[Volume]) -> tuple[NDArray[np.bool_], ...]:
    """Which rows of each volume hold the highest revision of their recording, of equal ones the
    last volume's."""
    ids = np.concatenate([np.empty(0, np.int64), *(v.recording_id for v in volumes)])
    revisions = np.concatenate([np.empty(0, np.int64), *(v.revision for v in volumes)])
    # Stable: of equal ids and revisions the later volume's stays later.
    order = np.lexsort((revisions, ids))
    last = np.ones(len(order), np.bool_)
    last[:-1] = ids[order[1:]] != ids[order[:-1]]
    mask = np.empty(len(order), np.bool_)
    mask[order] = last
    ends = np.cumsum([len(v.recording_id) for v in volumes]).tolist()
    return tuple(mask[a:b].copy() for a, b in itertools.pairwise([0, *ends]))


def merge(
    volumes: Sequence[Volume],
    alive: Sequence[NDArray[np.bool_]],
    sink: Sink,
    params: Params = PARAMS,
) -> dict[str, Any]:
    """Write one volume of all rows that are ``alive``; returns its meta.

    No recording may be alive twice. The result is the same, byte for byte, as a volume that is
    built at once of the same recordings. Raises ParamsMismatch for a volume of other parameters,
    ValueError when the time line is full.
    """
    for volume in volumes:
        if volume.params_digest != params.digest or triple_params(volume.search) != triple_params(
            params.search
        ):
            raise ParamsMismatch("a volume of other parameters cannot be merged")
    source = np.concatenate(
        [np.empty(0, np.int64)] + [np.full(int(a.sum()), i) for i, a in enumerate(alive)]
    )
    row = np.concatenate([np.empty(0, np.int64)] + [np.flatnonzero(a) for a in alive])
    ids = _gather("recording_id", volumes, alive, np.int64)
    order = np.argsort(ids, kind="stable")
    source, row, ids = source[order], row[order], ids[order]
    n_frames = _gather("n_frames", volumes, alive, np.int64)[order]
    duration_s = _gather("duration_s", volumes, alive, np.float64)[order]
    base, end = layout(n_frames)
    bits = frame_bits(end)
    if bits > 32:
        raise ValueError(f"{end} frames do not fit one volume")
    sink.append("recording_id", ids)
    sink.append("revision", _gather("revision", volumes, alive, np.int64)[order])
    sink.append("base_frame", base)
    sink.append("n_frames", n_frames)
    sink.append("duration_s", duration_s)
    _copy(volumes, list(_runs(source, row)), base, end, sink, params)
    moved = [np.full(len(v.recording_id), DEAD, np.int64) for v in volumes]
    for i, volume in enumerate(volumes):
        mine = source == i
        moved[i][row[mine]] = base[mine] - volume.base_frame[row[mine]]
    _merge_postings(volumes, moved, bits, sink, params.latest_of_a_key)
    return make_meta(params.digest, params.search, bits, len(ids), float(duration_s.sum()))


def _gather(
    name: str, volumes: Sequence[Volume], alive: Sequence[NDArray[np.bool_]], kind: Any
) -> NDArray[Any]:
    parts = [getattr(v, name)[a] for v, a in zip(volumes, alive, strict=True)]
    return np.concatenate([np.empty(0, kind), *parts])


def _runs(source: NDArray[np.int64], row: NDArray[np.int64]) -> Iterator[tuple[int, int, int, int]]:
    """(source, first row, last row + 1, place in the result) of rows that stay neighbours."""
    if not len(row):
        return
    breaks = np.flatnonzero((np.diff(source) != 0) | (np.diff(row) != 1)) + 1
    starts = np.concatenate([[0], breaks, [len(row)]]).tolist()
    for first, last in itertools.pairwise(starts):
        yield int(source[first]), int(row[first]), int(row[last - 1]) + 1, first


def _copy(
    volumes: Sequence[Volume],
    runs: Sequence[tuple[int, int, int, int]],
    base: NDArray[np.int64],
    end: int,
    sink: Sink,
    params: Params,
) -> None:
    """Landmarks and descriptors, with where each recording's begin."""
    first_row = np.zeros(len(base) + 1, np.int64)
    sink.append("descriptor", np.empty((0, params.descriptor_row_bytes), np.uint8))
    sink.append("peaks", np.empty((0, 3), np.uint8))
    blocks = 0
    landmarks = 0
    for which, first, last, at in runs:
        volume = volumes[which]
        lengths = np.diff(volume.first_row[first : last + 1])
        first_row[at + 1 : at + 1 + last - first] = lengths
        _pass_on(
            sink, "descriptor", volume.descriptor, volume.first_row[first], volume.first_row[last]
        )
        # Blocks up to the next recording, so that neighbours are copied as they lie.
        begin = int(volume.base_frame[first]) // BLOCK_FRAMES
        stop = (
            int(volume.base_frame[last]) // BLOCK_FRAMES
            if last < len(volume.base_frame)
            else len(volume.block) - 2
        )
        own = int(base[at]) // BLOCK_FRAMES
        # Only the gap before the first recording lies between what is written and the run.
        sink.append("block", np.full(own - blocks, landmarks, np.uint32))
        offset = landmarks - int(volume.block[begin])
        sink.append("block", (volume.block[begin:stop].astype(np.int64) + offset).astype(np.uint32))
        _pass_on(sink, "peaks", volume.peaks, volume.block[begin], volume.block[stop])
        blocks = own + stop - begin
        landmarks += int(volume.block[stop]) - int(volume.block[begin])
    sink.append("block", np.full(end // BLOCK_FRAMES + 2 - blocks, landmarks, np.uint32))
    sink.append("first_row", np.cumsum(first_row))


def _pass_on(
    sink: Sink,
    name: str,
    array: NDArray[np.uint8],
    first: np.integer[Any],
    last: np.integer[Any],
) -> None:
    step = max(1, COPY_BYTES // max(1, array.shape[1]))
    for start in range(int(first), int(last), step):
        sink.append(name, array[start : min(int(last), start + step)])


def _merge_postings(
    volumes: Sequence[Volume],
    moved: Sequence[NDArray[np.int64]],
    bits: int,
    sink: Sink,
    latest: int,
) -> None:
    to_bits = bits - BUCKET_FRAME_BITS
    total = sum(v.triples for v in volumes)
    wanted = max(LEAST_PART_BITS, (total // PART_POSTINGS).bit_length())
    part_bits = min([to_bits, wanted, *(v.bits for v in volumes)])
    key_bits = KEY_BITS - part_bits
    steps = [_rows_at_steps(v) for v in volumes]
    sink.append("post", np.empty(0, np.uint32))
    sink.append("check", np.empty(0, np.uint8))
    written = 0
    for part in range(2**part_bits):
        spans = [
            (part << (v.bits - part_bits), (part + 1) << (v.bits - part_bits)) for v in volumes
        ]
        room = sum(
            int(v.bucket[last]) - int(v.bucket[first])
            for v, (first, last) in zip(volumes, spans, strict=True)
        )
        joined = np.empty(room, np.uint64)
        n = 0
        for volume, (first, last), step, shift in zip(volumes, spans, steps, moved, strict=True):
            n = read_postings(
                volume.bucket,
                volume.post,
                volume.check,
                first,
                last,
                volume.frame_bits,
                step,
                volume.base_frame,
                shift,
                key_bits,
                bits,
                joined,
                n,
            )
        joined = joined[:n]
        if len(volumes) > 1:
            # Each volume's are sorted: runs that a merging sort only joins.
            joined.sort(kind="stable")
            joined = joined[: thin_out(joined, bits, latest)]
            n = len(joined)
        bucket = np.empty(2 ** (to_bits - part_bits), np.uint32)
        post = np.empty(n, np.uint32)
        check = np.empty(n, np.uint8)
        write_postings(joined, key_bits, bits, written, bucket, post, check)
        sink.append("bucket", bucket)
        sink.append("post", post)
        sink.append("check", check)
        written += n
    sink.append("bucket", np.array([written], np.uint32))


def _rows_at_steps(volume: Volume) -> NDArray[np.uint32]:
    """Row at the start of each step of 2^STEP_BITS frames."""
    steps = np.arange(((1 << volume.frame_bits) >> STEP_BITS) + 1, dtype=np.int64) << STEP_BITS
    rows = np.searchsorted(volume.base_frame, steps, side="right") - 1
    return np.maximum(rows, 0).astype(np.uint32)
