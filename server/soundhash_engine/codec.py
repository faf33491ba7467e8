"""Segments to bytes and back.

A blob is: magic byte, first 4 bytes of the parameters' digest, CRC-32 of all the rest (4 bytes,
big endian), zlib stream. Inside the landmark stream: version (u16), frames (u16), records (u32),
then three planes of one byte a record, little endian:

    plane 0   half frames since the record before (the first: since the segment's start)
    plane 1   low 8 bits of the bin
    plane 2   high 2 bits of the bin, strength << 2

A record with bin 1023 only moves the time on, for gaps of more than 255 half frames. Inside the
descriptor stream: version (u16), frames (u16), rows (u32), then the packed rows.
"""

import hashlib
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.errors import CorruptFingerprint, ParamsMismatch
from soundhash_engine.landmarks import rank_landmarks
from soundhash_engine.params import Params
from soundhash_engine.types import Landmarks, Segment
from soundhash_engine.vector import compact_vector

_LANDMARKS_MAGIC = 0xA1
_DESCRIPTOR_MAGIC = 0xA2
_BLOB_HEADER = struct.Struct(">B4sI")
_CONTENT_HEADER = struct.Struct("<HHI")
_SKIP_BIN = 1023
_MAX_GAP = 255
_MAX_CONTENT_BYTES = 1 << 20
"""A segment has some 5 kB of landmarks and 40 kB of descriptor; more is damage or an attack."""


def encode_segment(
    *,
    index: int,
    duration_s: float,
    landmarks: Landmarks,
    descriptor: NDArray[np.uint8],
    params: Params,
) -> Segment:
    """Pack one segment; landmark times are relative to its start."""
    landmark_bytes = pack_landmarks(landmarks, params)
    descriptor_bytes = (
        _CONTENT_HEADER.pack(params.version, landmarks.n_frames, descriptor.shape[0])
        + descriptor.tobytes()
    )
    return Segment(
        index=index,
        start_s=index * params.whole_segment_s,
        duration_s=duration_s,
        landmarks=pack_blob(_LANDMARKS_MAGIC, landmark_bytes, params),
        descriptor=pack_blob(_DESCRIPTOR_MAGIC, descriptor_bytes, params),
        vector=compact_vector(descriptor, params).astype("<f4").tobytes(),
        md5=_content_md5(landmark_bytes, descriptor_bytes),
        params_digest=params.digest,
        landmark_count=len(landmarks),
    )


def decode_segment(segment: Segment, params: Params) -> tuple[Landmarks, NDArray[np.uint8]]:
    """A segment's landmarks (times relative to its start) and packed descriptor rows.

    Raises ParamsMismatch if it was made with other parameters, CorruptFingerprint if its bytes
    are not what `encode_segment` wrote.
    """
    if segment.params_digest != params.digest:
        raise _mismatch(segment.params_digest, params)
    landmark_bytes = unpack_blob(_LANDMARKS_MAGIC, segment.landmarks, params)
    descriptor_bytes = unpack_blob(_DESCRIPTOR_MAGIC, segment.descriptor, params)
    if _content_md5(landmark_bytes, descriptor_bytes) != segment.md5:
        raise CorruptFingerprint(
            f"segment {segment.index}: landmarks and descriptor do not belong to its MD5"
        )
    landmarks = unpack_landmarks(landmark_bytes, params)
    n_frames, rows = _parse_descriptor(descriptor_bytes, params)
    if n_frames != landmarks.n_frames or len(landmarks) != segment.landmark_count:
        raise CorruptFingerprint(f"segment {segment.index}: its parts contradict each other")
    return landmarks, rows


def _content_md5(landmark_bytes: bytes, descriptor_bytes: bytes) -> str:
    return hashlib.md5(landmark_bytes + descriptor_bytes, usedforsecurity=False).hexdigest()


def pack_landmarks(landmarks: Landmarks, params: Params) -> bytes:
    """The landmark stream, not compressed."""
    gaps = np.diff(landmarks.time, prepend=np.int32(0))
    # A gap of g needs (g − 1) // 255 skips before its landmark.
    n_skips = np.maximum(gaps - 1, 0) // _MAX_GAP
    at = np.cumsum(n_skips + 1) - 1
    n_records = int(at[-1]) + 1 if at.size else 0
    step = np.full(n_records, _MAX_GAP, np.uint8)
    step[at] = gaps - n_skips * _MAX_GAP
    low = np.full(n_records, _SKIP_BIN & 0xFF, np.uint8)
    low[at] = landmarks.bin & 0xFF
    high = np.full(n_records, _SKIP_BIN >> 8, np.uint8)
    high[at] = (landmarks.bin >> 8).astype(np.uint8) | (landmarks.strength << 2)
    header = _CONTENT_HEADER.pack(params.version, landmarks.n_frames, n_records)
    return header + step.tobytes() + low.tobytes() + high.tobytes()


def unpack_landmarks(content: bytes, params: Params) -> Landmarks:
    """Raises CorruptFingerprint, ParamsMismatch for another version."""
    n_frames, n_records = _parse_header(content, params)
    if len(content) != _CONTENT_HEADER.size + 3 * n_records:
        raise CorruptFingerprint("landmark planes have the wrong length")
    planes = np.frombuffer(content, np.uint8, offset=_CONTENT_HEADER.size).reshape(3, n_records)
    bins = planes[1].astype(np.int16) | ((planes[2] & 3).astype(np.int16) << 8)
    time = np.cumsum(planes[0], dtype=np.int32)
    real = bins != _SKIP_BIN
    time, bins = time[real], bins[real]
    if time.size and (time[-1] > 2 * n_frames or bins.max() > 4 * params.n_bands):
        raise CorruptFingerprint("landmarks outside of their segment")
    strength = (planes[2] >> 2)[real]
    return rank_landmarks(time, bins, strength, n_frames, params)


def _parse_descriptor(content: bytes, params: Params) -> tuple[int, NDArray[np.uint8]]:
    n_frames, n_rows = _parse_header(content, params)
    if len(content) != _CONTENT_HEADER.size + n_rows * params.descriptor_row_bytes:
        raise CorruptFingerprint("descriptor rows have the wrong length")
    rows = np.frombuffer(content, np.uint8, offset=_CONTENT_HEADER.size)
    return n_frames, rows.reshape(n_rows, params.descriptor_row_bytes)


def _parse_header(content: bytes, params: Params) -> tuple[int, int]:
    if len(content) < _CONTENT_HEADER.size:
        raise CorruptFingerprint("fingerprint content has no header")
    version, n_frames, count = _CONTENT_HEADER.unpack_from(content)
    if version != params.version:
        raise ParamsMismatch(f"fingerprint version {version}, not {params.version}")
    return n_frames, count


def pack_blob(magic: int, content: bytes, params: Params) -> bytes:
    """Compressed, with what it was made with and a checksum before it."""
    body = zlib.compress(content, 6)
    mark = bytes.fromhex(params.digest)[:4]
    return _BLOB_HEADER.pack(magic, mark, _checksum(magic, mark, body)) + body


def unpack_blob(magic: int, blob: bytes, params: Params) -> bytes:
    """What was packed. Raises CorruptFingerprint, ParamsMismatch."""
    if len(blob) < _BLOB_HEADER.size:
        raise CorruptFingerprint("fingerprint blob is too short")
    found_magic, mark, checksum = _BLOB_HEADER.unpack_from(blob)
    body = blob[_BLOB_HEADER.size :]
    if found_magic != magic or checksum != _checksum(magic, mark, body):
        raise CorruptFingerprint("fingerprint blob is damaged")
    if mark != bytes.fromhex(params.digest)[:4]:
        raise _mismatch(mark.hex(), params)
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(body, _MAX_CONTENT_BYTES)
    except zlib.error as error:
        raise CorruptFingerprint(f"fingerprint blob does not inflate: {error}") from error
    if not inflater.eof or inflater.unused_data:
        raise CorruptFingerprint("fingerprint blob has the wrong length")
    return content


def _checksum(magic: int, mark: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(bytes((magic,)) + mark))


def _mismatch(digest: str, params: Params) -> ParamsMismatch:
    return ParamsMismatch(f"fingerprint made with parameters {digest}, not {params.digest}")
