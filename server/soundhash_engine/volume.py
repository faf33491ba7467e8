"""Volume: an immutable piece of the index, a handful of flat arrays that may be memory-mapped.

All recordings of a volume lie one after the other on one time line of 16 ms frames, a gap apart
that no clip spans, each beginning at a block border. The arrays:

- ``recording_id``, ``revision``, ``base_frame``, ``n_frames`` (int64), ``first_row`` (int64,
  one more than recordings), ``duration_s`` (float64): a row a recording, in rising id order;
- ``bucket`` (uint32, 2^bits + 1), ``post`` (uint32), ``check`` (uint8): the triples, as
  ``layout`` describes;
- ``peaks`` (uint8, landmarks x 3) and ``block`` (uint32): every stored landmark, packed, and
  where each block of 64 frames begins;
- ``descriptor`` (uint8, rows x packed bytes): the pooled contrast, read only where a candidate
  is verified.

About 0.85 MB of triples, 0.23 MB of landmarks and 1.6 MB of descriptor an hour of audio. The same
recordings give the same arrays, whatever the order and the parts in which they came.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.errors import CorruptFingerprint, ParamsMismatch
from soundhash_engine.landmarks import rank_landmarks
from soundhash_engine.layout import (
    BLOCK_FRAMES,
    BUCKET_FRAME_BITS,
    KEY_BITS,
    PEAK_BYTES,
    frame_bits,
    join_keys,
    layout,
    pack_peaks,
    rises_to,
    thin_out,
    unpack_peaks,
    write_postings,
)
from soundhash_engine.params import PARAMS, Params, SearchParams
from soundhash_engine.triples import reference_triples
from soundhash_engine.types import Fingerprint, Landmarks

VOLUME_FORMAT = 3
"""Version of the arrays' layout; a volume of another format is refused and must be rebuilt."""
PIECE_HOURS = 20.0
"""So much audio is sorted at once in memory; larger volumes are merged from pieces."""
SMALL_ARRAYS = ("recording_id", "revision", "base_frame", "n_frames", "first_row", "duration_s")
INDEX_ARRAYS = ("bucket", "block")
"""What points into the other arrays: damage here would lead a reader out of them."""
ARRAY_NAMES = (*SMALL_ARRAYS, *INDEX_ARRAYS, "post", "check", "peaks", "descriptor")


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """Immutable arrays for a set of recordings; see the module for their meaning.

    search      how the triples were made: a clip is looked up in this volume in the same way
    frame_bits  of a posting's word; the rest above them belongs to the key
    hours       of audio
    """

    params_digest: str
    search: SearchParams
    frame_bits: int
    hours: float
    recording_id: NDArray[np.int64]
    revision: NDArray[np.int64]
    base_frame: NDArray[np.int64]
    n_frames: NDArray[np.int64]
    first_row: NDArray[np.int64]
    duration_s: NDArray[np.float64]
    bucket: NDArray[np.uint32]
    block: NDArray[np.uint32]
    post: NDArray[np.uint32]
    check: NDArray[np.uint8]
    peaks: NDArray[np.uint8]
    descriptor: NDArray[np.uint8]

    @classmethod
    def build(
        cls, recordings: Iterable[tuple[int, int, Fingerprint]], params: Params = PARAMS
    ) -> "Volume":
        """Index recordings given as (id, revision, fingerprint), in memory.

        Of an id that comes twice the higher revision stays, of equal ones the last. The
        fingerprints must have been joined with the same parameters. Raises ValueError when the
        time line is full, CorruptFingerprint for a landmark after its recording's end.
        """
        pieces: list[Volume] = []
        part: dict[int, tuple[int, Fingerprint]] = {}
        hours = 0.0
        for recording_id, revision, fingerprint in recordings:
            known = part.get(recording_id)
            if known is not None and known[0] > revision:
                continue
            part[recording_id] = (revision, fingerprint)
            hours += fingerprint.duration_s / 3600.0
            if hours >= PIECE_HOURS:
                pieces.append(_piece(part, params))
                part, hours = {}, 0.0
        if part or not pieces:
            pieces.append(_piece(part, params))
        return pieces[0] if len(pieces) == 1 else cls.merge(pieces, params=params)

    @classmethod
    def merge(
        cls,
        volumes: Sequence["Volume"],
        alive: Callable[[int, int], bool] | None = None,
        params: Params = PARAMS,
    ) -> "Volume":
        """One volume, in memory, of all recordings for which ``alive(id, revision)`` holds.

        The same, byte for byte, as a volume that is built at once. See `merging.merge`.
        """
        from soundhash_engine.merging import Collected, merge, newest  # noqa: PLC0415 - a circle

        masks = newest(volumes)
        if alive is not None:
            masks = tuple(
                mask
                & np.array(
                    [
                        alive(i, r)
                        for i, r in zip(v.recording_id.tolist(), v.revision.tolist(), strict=True)
                    ],
                    np.bool_,
                )
                for v, mask in zip(volumes, masks, strict=True)
            )
        collected = Collected()
        meta = merge(volumes, masks, collected, params)
        return cls.from_arrays(meta, collected.arrays(), params)

    def landmarks(self, row: int) -> Landmarks:
        """The stored landmarks of the recording at ``row``; times from the recording's start.

        Their ranks are made again.
        """
        first = int(self.base_frame[row]) // BLOCK_FRAMES
        last = first + -(-int(self.n_frames[row]) // BLOCK_FRAMES) + 1
        most = int(self.block[last]) - int(self.block[first])
        time = np.empty(most, np.int32)
        bins = np.empty(most, np.int16)
        strength = np.empty(most, np.uint8)
        unpack_peaks(self.peaks, self.block, first, last, time, bins, strength)
        return rank_landmarks(time, bins, strength, int(self.n_frames[row]))

    def fingerprint(self, row: int) -> Fingerprint:
        """What the recording at ``row`` was indexed from."""
        return Fingerprint(
            duration_s=float(self.duration_s[row]),
            n_frames=int(self.n_frames[row]),
            landmarks=self.landmarks(row),
            descriptor=self.descriptor[self.first_row[row] : self.first_row[row + 1]],
        )

    @property
    def bits(self) -> int:
        """Bits of a key that are the number of its bucket."""
        return self.frame_bits - BUCKET_FRAME_BITS

    @property
    def recordings(self) -> NDArray[np.int64]:
        """Ids of the recordings, rising."""
        return self.recording_id

    @property
    def triples(self) -> int:
        """Number of postings."""
        return len(self.post)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(int(getattr(self, name).nbytes) for name in ARRAY_NAMES)

    def row_of(self, recording_id: int) -> int | None:
        """Row of a recording, or None."""
        row = int(np.searchsorted(self.recording_id, recording_id))
        if row < len(self.recording_id) and self.recording_id[row] == recording_id:
            return row
        return None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything to be persisted; with ``meta()`` it restores the volume."""
        return {name: getattr(self, name) for name in ARRAY_NAMES}

    def meta(self) -> dict[str, Any]:
        """JSON beside the arrays."""
        return make_meta(
            self.params_digest,
            self.search,
            self.frame_bits,
            len(self.recording_id),
            float(self.duration_s.sum()),
        )

    @classmethod
    def from_arrays(
        cls,
        meta: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        params: Params = PARAMS,
    ) -> Self:
        """Restore a volume; the arrays may be memory-mapped and are not copied.

        Reads the arrays of `INDEX_ARRAYS` once, so that no search can be led out of the others.
        Raises ParamsMismatch for another format or other parameters of the fingerprint,
        CorruptFingerprint when the arrays do not fit one another.
        """
        if meta.get("format") != VOLUME_FORMAT or meta.get("params_digest") != params.digest:
            raise ParamsMismatch(
                f"the volume has format {meta.get('format')} and parameters "
                f"{meta.get('params_digest')}, expected {VOLUME_FORMAT} and {params.digest}"
            )
        missing = [name for name in ARRAY_NAMES if name not in arrays]
        if missing:
            raise CorruptFingerprint(f"the volume lacks {', '.join(missing)}")
        # A plain view: numpy's memmap class costs microseconds at every slice.
        plain = {name: np.asarray(arrays[name]).view(np.ndarray) for name in ARRAY_NAMES}
        try:
            volume = cls(
                params_digest=params.digest,
                search=dataclasses.replace(params.search, **meta["triples"]),
                frame_bits=int(meta["frame_bits"]),
                hours=float(plain["duration_s"].sum()) / 3600.0,
                **plain,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFingerprint(f"the volume's description is damaged: {error!r}") from error
        if not volume._fits(params):
            raise CorruptFingerprint("the volume's arrays do not fit one another")
        return volume

    def _fits(self, params: Params) -> bool:
        n = len(self.recording_id)
        rows = (self.revision, self.base_frame, self.n_frames, self.duration_s)
        if len(self.first_row) != n + 1 or any(len(array) != n for array in rows):
            return False
        base, end = layout(self.n_frames)
        return (
            frame_bits(end) == self.frame_bits <= 32
            and np.array_equal(base, self.base_frame)
            and bool((self.n_frames >= 0).all())
            and bool((np.diff(self.recording_id) > 0).all())
            and int(self.first_row[0]) == 0
            and bool((np.diff(self.first_row) >= 0).all())
            and self.descriptor.shape == (int(self.first_row[-1]), params.descriptor_row_bytes)
            and self.peaks.shape[1:] == (PEAK_BYTES,)
            and len(self.bucket) == 2**self.bits + 1
            and len(self.block) == end // BLOCK_FRAMES + 2
            and len(self.check) == len(self.post)
            and rises_to(self.bucket, len(self.post))
            and rises_to(self.block, len(self.peaks))
        )


def make_meta(
    params_digest: str, search: SearchParams, bits: int, recordings: int, seconds: float
) -> dict[str, Any]:
    """JSON that describes a volume; ``bits``: of a frame."""
    return {
        "format": VOLUME_FORMAT,
        "params_digest": params_digest,
        "triples": triple_params(search),
        "frame_bits": bits,
        "recordings": recordings,
        "hours": seconds / 3600.0,
    }


def triple_params(search: SearchParams) -> dict[str, Any]:
    """The parameters that decide which triples a recording has."""
    return {k: v for k, v in dataclasses.asdict(search).items() if k.startswith("triple_")}


def _piece(parts: Mapping[int, tuple[int, Fingerprint]], params: Params) -> Volume:
    """A volume of recordings by their ids, all sorted in memory."""
    ids = sorted(parts)
    prints = [parts[i][1] for i in ids]
    n_frames = np.array([p.n_frames for p in prints], np.int64)
    duration_s = np.array([p.duration_s for p in prints], np.float64)
    base, end = layout(n_frames)
    bits = frame_bits(end)
    if bits + KEY_BITS > 64:
        raise ValueError(f"{end} frames do not fit one piece")
    first = np.concatenate([[0], np.cumsum([len(p.landmarks) for p in prints])]).astype(np.int64)
    first_row = np.concatenate([[0], np.cumsum([len(p.descriptor) for p in prints])])
    peaks = np.empty((int(first[-1]), PEAK_BYTES), np.uint8)
    block = np.zeros(end // BLOCK_FRAMES + 2, np.uint32)
    descriptor = np.empty((int(first_row[-1]), params.descriptor_row_bytes), np.uint8)
    keys: list[NDArray[np.uint64]] = []
    for i, fingerprint in enumerate(prints):
        marks = fingerprint.landmarks
        if len(marks) and marks.time[-1] >= 2 * (fingerprint.n_frames + BLOCK_FRAMES):
            raise CorruptFingerprint(f"recording {ids[i]} has landmarks after its end")
        pack_peaks(
            marks.time,
            marks.bin,
            marks.strength,
            int(base[i]) // BLOCK_FRAMES,
            int(first[i]),
            peaks,
            block,
        )
        descriptor[first_row[i] : first_row[i + 1]] = fingerprint.descriptor
        hashes, anchors = reference_triples(marks, params)
        joined = np.empty(len(hashes), np.uint64)
        join_keys(hashes, anchors, int(base[i]), bits, joined)
        keys.append(joined)
    np.cumsum(block, out=block)
    postings = np.concatenate([np.empty(0, np.uint64), *keys])
    postings.sort()
    postings = postings[: thin_out(postings, bits, params.latest_of_a_key)]
    bucket = np.empty(2 ** (bits - BUCKET_FRAME_BITS) + 1, np.uint32)
    post = np.empty(len(postings), np.uint32)
    check = np.empty(len(postings), np.uint8)
    write_postings(postings, KEY_BITS, bits, 0, bucket, post, check)
    return Volume(
        params_digest=params.digest,
        search=params.search,
        frame_bits=bits,
        hours=float(duration_s.sum()) / 3600.0,
        recording_id=np.array(ids, np.int64),
        revision=np.array([parts[i][0] for i in ids], np.int64),
        base_frame=base,
        n_frames=n_frames,
        first_row=first_row.astype(np.int64),
        duration_s=duration_s,
        bucket=bucket,
        block=block,
        post=post,
        check=check,
        peaks=peaks,
        descriptor=descriptor,
    )
