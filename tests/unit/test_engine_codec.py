"""Stored bytes: what goes in comes out; what is damaged is refused by name."""

import dataclasses
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sounds import hiss, tune

from soundhash_engine.codec import decode_segment, encode_segment
from soundhash_engine.errors import CorruptFingerprint, EngineError, ParamsMismatch
from soundhash_engine.fingerprint import extract, join
from soundhash_engine.landmarks import rank_landmarks
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.types import Landmarks, Segment
from soundhash_engine.vector import VECTOR_DIMS, compact_vector

SHORT = dataclasses.replace(PARAMS, segment_s=6)
SEGMENTS = extract(tune(20, seed=7), SHORT)

REFUSED = (CorruptFingerprint, ParamsMismatch)


def landmarks_of(rows: list[tuple[int, int, int]], n_frames: int) -> Landmarks:
    rows = sorted({(t, b): (t, b, s) for t, b, s in rows}.values())
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    return rank_landmarks(
        columns[0].astype(np.int32),
        columns[1].astype(np.int16),
        columns[2].astype(np.uint8),
        n_frames,
    )


def segment_of(landmarks: Landmarks, params: Params = PARAMS) -> Segment:
    rows = landmarks.n_frames // 4
    descriptor = (hiss(rows * params.descriptor_row_bytes) & 0xFF).astype(np.uint8)
    return encode_segment(
        index=0,
        duration_s=1,
        landmarks=landmarks,
        descriptor=descriptor.reshape(rows, -1),
        params=params,
    )


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 11250), st.integers(0, 667), st.integers(0, 63)), max_size=60
    )
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_round_trip(rows: list[tuple[int, int, int]]) -> None:
    landmarks = landmarks_of(rows, 5625)
    segment = segment_of(landmarks)
    found, descriptor = decode_segment(segment, PARAMS)
    assert found == landmarks
    assert descriptor.shape == (1406, 28)
    assert segment.landmark_count == len(landmarks)


@pytest.mark.parametrize("gap", [0, 1, 254, 255, 256, 510, 511, 765, 766, 11_000])
def test_gaps(gap: int) -> None:
    landmarks = landmarks_of([(gap, 5, 1), (2 * gap, 6, 2), (2 * gap, 9, 3)], 12_000)
    assert decode_segment(segment_of(landmarks), PARAMS)[0] == landmarks


def test_size_of_what_is_stored() -> None:
    segments = extract(tune(180))
    # 3 bytes a landmark, 28 a row of 64 ms, before compression.
    assert all(len(segment.landmarks) < 3 * segment.landmark_count + 50 for segment in segments)
    assert all(len(segment.descriptor) < 28 * 1407 for segment in segments)
    assert all(len(segment.vector) == 4 * VECTOR_DIMS for segment in segments)


@pytest.mark.parametrize("field", ["landmarks", "descriptor"])
def test_every_truncation_is_refused(field: str) -> None:
    blob = getattr(SEGMENTS[0], field)
    for size in range(len(blob)):
        with pytest.raises(REFUSED):
            decode_segment(dataclasses.replace(SEGMENTS[0], **{field: blob[:size]}), SHORT)
    with pytest.raises(REFUSED):
        decode_segment(dataclasses.replace(SEGMENTS[0], **{field: blob + b"\0"}), SHORT)


@pytest.mark.parametrize("field", ["landmarks", "descriptor"])
def test_every_flipped_bit_is_refused(field: str) -> None:
    blob = getattr(SEGMENTS[0], field)
    for bit in range(8 * len(blob)):
        damaged = bytearray(blob)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(REFUSED):
            decode_segment(dataclasses.replace(SEGMENTS[0], **{field: bytes(damaged)}), SHORT)


def sealed(magic: int, body: bytes, params: Params = SHORT) -> bytes:
    """A blob with a right checksum around any body."""
    mark = bytes.fromhex(params.digest)[:4]
    checksum = zlib.crc32(body, zlib.crc32(bytes((magic,)) + mark))
    return bytes((magic,)) + mark + checksum.to_bytes(4, "big") + body


@given(content=st.binary(max_size=200), squeeze=st.booleans(), flip=st.integers(0, 20))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_invented_content_is_refused(content: bytes, squeeze: bool, flip: int) -> None:
    # A right checksum does not help: behind it everything is checked again.
    header = b"\x01\x00\x77\x01" + flip.to_bytes(4, "little")
    body = zlib.compress(header + content) if squeeze else content
    segment = dataclasses.replace(SEGMENTS[0], landmarks=sealed(0xA1, body))
    with pytest.raises(REFUSED):
        decode_segment(segment, SHORT)


def test_a_bomb_is_refused() -> None:
    bomb = sealed(0xA1, zlib.compress(bytes(100_000_000), 9))
    with pytest.raises(CorruptFingerprint):
        decode_segment(dataclasses.replace(SEGMENTS[0], landmarks=bomb), SHORT)


def test_parts_of_different_segments_are_refused() -> None:
    mixed = dataclasses.replace(SEGMENTS[0], landmarks=SEGMENTS[1].landmarks)
    with pytest.raises(CorruptFingerprint):
        decode_segment(mixed, SHORT)
    swapped = dataclasses.replace(SEGMENTS[0], landmarks=SEGMENTS[0].descriptor)
    with pytest.raises(CorruptFingerprint):
        decode_segment(swapped, SHORT)
    miscounted = dataclasses.replace(SEGMENTS[0], landmark_count=1)
    with pytest.raises(CorruptFingerprint):
        decode_segment(miscounted, SHORT)


def test_other_parameters_are_refused() -> None:
    other = dataclasses.replace(SHORT, rank_limit=21)
    with pytest.raises(ParamsMismatch) as caught:
        join(SEGMENTS, other)
    assert caught.value.reason == "PARAMS_MISMATCH"
    assert SHORT.digest in caught.value.message
    assert caught.value.remedy
    # The blob says it too, if the column beside it does not.
    relabelled = [dataclasses.replace(s, params_digest=other.digest) for s in SEGMENTS]
    with pytest.raises(ParamsMismatch):
        join(relabelled, other)


def test_missing_doubled_and_no_segments_are_refused() -> None:
    for wrong in (SEGMENTS[1:], [SEGMENTS[0], *SEGMENTS], SEGMENTS[::2], []):
        with pytest.raises(CorruptFingerprint):
            join(wrong, SHORT)
    renumbered = [dataclasses.replace(s, index=3 - s.index) for s in SEGMENTS]
    with pytest.raises(CorruptFingerprint):
        join(renumbered, SHORT)


def test_join_takes_any_order() -> None:
    assert join(SEGMENTS[::-1], SHORT).landmarks == join(SEGMENTS, SHORT).landmarks


def test_md5_says_whether_the_content_is_equal() -> None:
    pcm = tune(12, seed=7)
    assert extract(pcm)[0].md5 == extract(pcm)[0].md5
    quieter = pcm.copy()
    quieter[40_000:44_000] *= np.float32(0.2)
    assert extract(quieter)[0].md5 != extract(pcm)[0].md5
    # The number of the segment is no content.
    twice = extract(np.concatenate((tune(6, seed=1)[:48_000],) * 3), SHORT)
    assert twice[1].index != twice[0].index


def test_digest_covers_what_is_stored_and_nothing_else() -> None:
    assert len(PARAMS.digest) == 12
    for change in ({"version": 2}, {"rank_limit": 21}, {"power_floor": 1e-5}):
        assert dataclasses.replace(PARAMS, **change).digest != PARAMS.digest
    looser = dataclasses.replace(PARAMS.query, rank_limit=80)
    assert dataclasses.replace(PARAMS, query=looser).digest == PARAMS.digest
    assert dataclasses.replace(PARAMS, min_clip_s=2.0).digest == PARAMS.digest
    assert dataclasses.replace(PARAMS, segment_s=60).digest == PARAMS.digest
    # Of everything that has been stored so far.
    assert PARAMS.digest == "640501df8f49"


def test_vector() -> None:
    def vector(segment: Segment) -> np.ndarray:
        return np.frombuffer(segment.vector, "<f4")

    pcm = tune(90, seed=3)
    own = vector(extract(pcm)[0])
    assert own.shape == (VECTOR_DIMS,)
    assert np.linalg.norm(own) == pytest.approx(1, abs=1e-6)
    noisy = pcm + (hiss(pcm.size, 5) / 32768 * 0.02).astype(np.float32)
    assert own @ vector(extract(noisy)[0]) > 0.9
    assert own @ vector(extract(pcm[600:])[0]) > 0.9
    assert abs(own @ vector(extract(tune(90, seed=4))[0])) < 0.5
    silent = vector(extract(np.zeros(90 * 8000, np.float32))[0])
    assert not silent.any()
    assert compact_vector(np.empty((0, 28), np.uint8)).shape == (VECTOR_DIMS,)


@pytest.mark.parametrize("error", EngineError.__subclasses__())
def test_errors_carry_reason_message_and_remedy(error: type[EngineError]) -> None:
    import pickle

    plain = error("what happened")
    assert plain.reason.isupper()
    assert plain.remedy.endswith(".")
    assert str(plain) == plain.message == "what happened"
    special = error("x", reason="OTHER", remedy="do this")
    again = pickle.loads(pickle.dumps(special))
    assert (type(again), again.reason, again.remedy) == (error, "OTHER", "do this")
