"""Volume: an immutable piece of the index, a handful of flat arrays that may be memory-mapped.

All recordings of a volume lie one after the other on one time line of 16 ms frames, a gap apart
that no clip spans, each beginning at a block border. The arrays:

- ``recording_id``, ``revision``, ``base_frame``, ``n_frames`` (int64), ``first_row`` (int64,
  one more than recordings), ``duration_s`` (float64): a row a recording, in rising id order;
- ``bucket`` (uint32, 2^m + 1), ``post`` (uint32 anchor frame), ``check`` (uint8): the triples, by
  the top m bits of their hash, in order of time within a bucket; ``check`` holds the next 8 bits;
- ``peaks`` (uint32) and ``block`` (uint32): every stored landmark, packed, and where each block of
  64 frames begins;
- ``descriptor`` (uint8, rows x packed bytes): the pooled contrast, read only where a candidate
  is verified.

About 0.9 MB of triples, 0.3 MB of landmarks and 1.6 MB of descriptor an hour of audio. The same
recordings give the same arrays, whatever the order in which they came.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.errors import CorruptFingerprint, ParamsMismatch
from soundhash_engine.jit import kernel
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.triples import reference_triples
from soundhash_engine.types import Fingerprint, Landmarks

VOLUME_FORMAT = 1
"""Version of the arrays' layout; a volume of another format is refused and must be rebuilt."""
BLOCK_FRAMES = 64
BLOCK_HALF_FRAMES = 2 * BLOCK_FRAMES
GAP_FRAMES = 1536
"""Empty time between two recordings: longer than a window, its votes and the shifts around it."""
MAX_FRAMES = 2**32 - 2 * GAP_FRAMES
"""Length of a volume's time line: 19,000 h."""
POSTINGS_A_BUCKET = 10
CHECK_BITS = 8

# peak = time in block << 21 | bin << 11 | strength << 5 | rank
_TIME_SHIFT = 21
_BIN_SHIFT = 11
_STRENGTH_SHIFT = 5
_BIN_MASK = 0x3FF
_STRENGTH_MASK = 0x3F
_RANK_MASK = 0x1F

ARRAY_NAMES = (
    "recording_id",
    "revision",
    "base_frame",
    "n_frames",
    "first_row",
    "duration_s",
    "bucket",
    "post",
    "check",
    "peaks",
    "block",
    "descriptor",
)


@kernel
def _pack(
    time: NDArray[np.int32],
    bins: NDArray[np.int16],
    strength: NDArray[np.uint8],
    rank: NDArray[np.uint8],
    base_block: int,
    at: int,
    peaks: NDArray[np.uint32],
    per_block: NDArray[np.uint32],
) -> None:
    for i in range(time.shape[0]):
        b = time[i] // BLOCK_HALF_FRAMES
        per_block[base_block + b + 1] += np.uint32(1)
        peaks[at + i] = np.uint32(
            (np.int64(time[i] - b * BLOCK_HALF_FRAMES) << _TIME_SHIFT)
            | (np.int64(bins[i]) << _BIN_SHIFT)
            | (np.int64(min(strength[i], _STRENGTH_MASK)) << _STRENGTH_SHIFT)
            | np.int64(min(rank[i], _RANK_MASK))
        )


@kernel
def _unpack(
    peaks: NDArray[np.uint32],
    block: NDArray[np.uint32],
    first_block: int,
    last_block: int,
    time: NDArray[np.int32],
    bins: NDArray[np.int16],
    strength: NDArray[np.uint8],
    rank: NDArray[np.uint8],
) -> int:
    n = 0
    for b in range(first_block, last_block):
        for i in range(block[b], block[b + 1]):
            peak = peaks[i]
            time[n] = (b - first_block) * BLOCK_HALF_FRAMES + np.int64(peak >> _TIME_SHIFT)
            bins[n] = (peak >> _BIN_SHIFT) & _BIN_MASK
            strength[n] = (peak >> _STRENGTH_SHIFT) & _STRENGTH_MASK
            rank[n] = peak & _RANK_MASK
            n += 1
    return n


@kernel
def _count(hashes: NDArray[np.uint64], bits: int, bucket: NDArray[np.uint32]) -> None:
    shift = np.uint64(64 - bits)
    for h in hashes:
        bucket[np.int64(h >> shift) + 1] += np.uint32(1)


@kernel
def _place(
    hashes: NDArray[np.uint64],
    anchors: NDArray[np.int32],
    base_frame: int,
    bits: int,
    cursor: NDArray[np.uint32],
    post: NDArray[np.uint32],
    check: NDArray[np.uint8],
) -> None:
    shift = np.uint64(64 - bits)
    check_shift = np.uint64(64 - bits - CHECK_BITS)
    for i in range(hashes.shape[0]):
        b = np.int64(hashes[i] >> shift)
        at = cursor[b]
        cursor[b] = at + np.uint32(1)
        post[at] = np.uint32(base_frame + anchors[i] // 2)
        check[at] = np.uint8((hashes[i] >> check_shift) & np.uint64(255))


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One recording on its way into a volume."""

    recording_id: int
    revision: int
    duration_s: float
    n_frames: int
    landmarks: Landmarks
    descriptor: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """Immutable arrays for a set of recordings; see the module for their meaning."""

    params_digest: str
    bits: int
    recording_id: NDArray[np.int64]
    revision: NDArray[np.int64]
    base_frame: NDArray[np.int64]
    n_frames: NDArray[np.int64]
    first_row: NDArray[np.int64]
    duration_s: NDArray[np.float64]
    bucket: NDArray[np.uint32]
    post: NDArray[np.uint32]
    check: NDArray[np.uint8]
    peaks: NDArray[np.uint32]
    block: NDArray[np.uint32]
    descriptor: NDArray[np.uint8]

    @classmethod
    def build(
        cls,
        recordings: Iterable[tuple[int, int, Fingerprint]],
        params: Params = PARAMS,
        *,
        base: "Volume | None" = None,
        without: Collection[int] = (),
    ) -> Self:
        """Index recordings given as (id, revision, fingerprint).

        ``base``: a volume whose recordings, except those ``without``, are taken over.
        Of an id that comes twice the higher revision stays. The fingerprints must have been
        joined with the same parameters. Raises ValueError when the time line is full.
        """
        parts: dict[int, _Part] = {}
        if base is not None:
            for row in range(len(base.recording_id)):
                if int(base.recording_id[row]) not in without:
                    part = base._part(row)
                    parts[part.recording_id] = part
        for recording_id, revision, fingerprint in recordings:
            known = parts.get(recording_id)
            if known is None or known.revision <= revision:
                parts[recording_id] = _Part(
                    recording_id,
                    revision,
                    fingerprint.duration_s,
                    fingerprint.n_frames,
                    fingerprint.landmarks,
                    fingerprint.descriptor,
                )
        return cls._assemble([parts[i] for i in sorted(parts)], params)

    @classmethod
    def merge(
        cls,
        volumes: Sequence["Volume"],
        alive: Callable[[int, int], bool] | None = None,
        params: Params = PARAMS,
    ) -> Self:
        """One volume of all recordings for which ``alive(recording_id, revision)`` holds.

        The triples are made again from the stored landmarks, so the result is the same, byte for
        byte, as a volume built at once.
        """
        parts: dict[int, _Part] = {}
        for volume in volumes:
            if volume.params_digest != params.digest:
                raise ParamsMismatch(
                    f"a volume has parameters {volume.params_digest}, expected {params.digest}"
                )
            for row in range(len(volume.recording_id)):
                part = volume._part(row)
                known = parts.get(part.recording_id)
                if (alive is None or alive(part.recording_id, part.revision)) and (
                    known is None or known.revision <= part.revision
                ):
                    parts[part.recording_id] = part
        return cls._assemble([parts[i] for i in sorted(parts)], params)

    @classmethod
    def _assemble(cls, parts: Sequence[_Part], params: Params) -> Self:
        n = len(parts)
        base = np.zeros(n, np.int64)
        frames = np.array([p.n_frames for p in parts], np.int64)
        rows = np.array([len(p.descriptor) for p in parts], np.int64)
        at = GAP_FRAMES
        for i, part in enumerate(parts):
            base[i] = at
            at += part.n_frames + GAP_FRAMES
            at += -at % BLOCK_FRAMES
        if at > MAX_FRAMES:
            raise ValueError(f"{at} frames do not fit one volume ({MAX_FRAMES})")
        counts = np.array([len(p.landmarks.time) for p in parts], np.int64)
        first = np.concatenate([[0], np.cumsum(counts)])
        peaks = np.empty(int(first[-1]), np.uint32)
        block = np.zeros(at // BLOCK_FRAMES + 2, np.uint32)
        first_row = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)
        width = params.descriptor_row_bytes
        descriptor = np.empty((int(first_row[-1]), width), np.uint8)
        eligible = 0
        for i, part in enumerate(parts):
            marks = part.landmarks
            if counts[i] and marks.time[-1] >= 2 * (part.n_frames + BLOCK_FRAMES):
                raise CorruptFingerprint(
                    f"recording {part.recording_id} has landmarks after its end"
                )
            _pack(
                marks.time,
                marks.bin,
                marks.strength,
                marks.rank,
                int(base[i]) // BLOCK_FRAMES,
                int(first[i]),
                peaks,
                block,
            )
            descriptor[first_row[i] : first_row[i + 1]] = part.descriptor
            eligible += int(np.count_nonzero(marks.rank < params.search.triple_rank_limit))
        np.cumsum(block, out=block)
        # From the landmarks, not from the triples: the size is known before any key is made.
        t = params.search.triple_targets
        postings = max(1, eligible * t * (t - 1) // 2)
        bits = int(np.clip(round(np.log2(postings / POSTINGS_A_BUCKET)), 8, 32))
        bucket = np.zeros(2**bits + 1, np.uint32)
        volume = cls(
            params_digest=params.digest,
            bits=bits,
            recording_id=np.array([p.recording_id for p in parts], np.int64),
            revision=np.array([p.revision for p in parts], np.int64),
            base_frame=base,
            n_frames=frames,
            first_row=first_row,
            duration_s=np.array([p.duration_s for p in parts], np.float64),
            bucket=bucket,
            post=np.empty(0, np.uint32),
            check=np.empty(0, np.uint8),
            peaks=peaks,
            block=block,
            descriptor=descriptor,
        )
        # Two passes over made-again keys need no memory for the keys of the whole volume.
        for row in range(n):
            _count(volume._triples(row, params)[0], bits, bucket)
        np.cumsum(bucket, out=bucket)
        cursor = bucket[:-1].copy()
        post = np.empty(int(bucket[-1]), np.uint32)
        check = np.empty(int(bucket[-1]), np.uint8)
        for row in range(n):
            hashes, anchors = volume._triples(row, params)
            _place(hashes, anchors, int(base[row]), bits, cursor, post, check)
        arrays = {name: getattr(volume, name) for name in ARRAY_NAMES}
        arrays.update(post=post, check=check)
        return cls(params_digest=params.digest, bits=bits, **arrays)

    def _part(self, row: int) -> _Part:
        return _Part(
            int(self.recording_id[row]),
            int(self.revision[row]),
            float(self.duration_s[row]),
            int(self.n_frames[row]),
            self.landmarks(row),
            self.descriptor[self.first_row[row] : self.first_row[row + 1]],
        )

    def _triples(self, row: int, params: Params) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
        return reference_triples(self.landmarks(row), params)

    def landmarks(self, row: int) -> Landmarks:
        """The stored landmarks of the recording at ``row``; times from the recording's start."""
        first = int(self.base_frame[row]) // BLOCK_FRAMES
        last = first + -(-int(self.n_frames[row]) // BLOCK_FRAMES) + 1
        most = int(self.block[last]) - int(self.block[first])
        time = np.empty(most, np.int32)
        bins = np.empty(most, np.int16)
        strength = np.empty(most, np.uint8)
        rank = np.empty(most, np.uint8)
        n = _unpack(self.peaks, self.block, first, last, time, bins, strength, rank)
        return Landmarks(
            time=time[:n],
            bin=bins[:n],
            strength=strength[:n],
            rank=rank[:n],
            n_frames=int(self.n_frames[row]),
        )

    @property
    def recordings(self) -> NDArray[np.int64]:
        """Ids of the recordings, rising."""
        return self.recording_id

    @property
    def hours(self) -> float:
        """Hours of audio in the volume."""
        return float(self.duration_s.sum()) / 3600.0

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
        return {
            "format": VOLUME_FORMAT,
            "params_digest": self.params_digest,
            "bits": self.bits,
            "recordings": len(self.recording_id),
            "hours": self.hours,
        }

    @classmethod
    def from_arrays(
        cls,
        meta: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        params: Params = PARAMS,
    ) -> Self:
        """Restore a volume; the arrays may be memory-mapped and are not copied.

        Raises ParamsMismatch for another format or other parameters, CorruptFingerprint when the
        arrays do not fit one another.
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
        bits = int(meta["bits"])
        n = len(plain["recording_id"])
        postings = len(plain["post"])
        sound = (
            len(plain["bucket"]) == 2**bits + 1
            and int(plain["bucket"][-1]) == postings == len(plain["check"])
            and all(len(plain[k]) == n for k in ("revision", "base_frame", "n_frames"))
            and len(plain["first_row"]) == n + 1
            and int(plain["block"][-1]) == len(plain["peaks"])
            and len(plain["descriptor"]) == int(plain["first_row"][-1])
        )
        if not sound:
            raise CorruptFingerprint("the volume's arrays do not fit one another")
        return cls(params_digest=params.digest, bits=bits, **plain)
