"""Streaming extraction: the same segments to the bit, however the audio is cut."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sounds import tune

from soundhash_engine.descriptor import pool_contrast, unpack_descriptor
from soundhash_engine.fingerprint import extract, join
from soundhash_engine.landmarks import contrast_rows, find_landmarks
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.spectrum import log_bands
from soundhash_engine.stream import Extractor
from soundhash_engine.types import Pcm, Segment

# Six seconds are 375 frames: not a whole number of descriptor rows, as 90 s are not.
SHORT = dataclasses.replace(PARAMS, segment_s=6)
TUNE = tune(41.3, seed=11)
# Rests, so that landmarks are far apart and segments empty.
TUNE[100_000:190_000] = 0
SEGMENTS = extract(TUNE, SHORT)


def stream(pcm: Pcm, sizes: list[int], params: Params) -> list[Segment]:
    """Push chunks of these sizes in turn, round and round."""
    extractor = Extractor(params)
    segments = []
    at = turn = 0
    while at < pcm.size:
        size = sizes[turn % len(sizes)]
        segments += extractor.push(pcm[at : at + size])
        at += size
        turn += 1
    segments += extractor.finish()
    assert extractor.duration_s == pcm.size / 8000
    assert extractor.landmarks_count == sum(segment.landmark_count for segment in segments)
    return segments


@given(
    sizes=st.lists(
        st.one_of(st.integers(0, 300), st.integers(1000, 9000), st.integers(50_000, 200_000)),
        min_size=1,
        max_size=12,
    ).filter(lambda sizes: sum(sizes) > 40)
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_chunk_sizes_do_not_matter(sizes: list[int]) -> None:
    assert stream(TUNE, sizes, SHORT) == SEGMENTS


@pytest.mark.parametrize("size", [1, 127, 128, 1024, 65_536, 65_535, 66_432])
def test_chunks_of_one_size(size: int) -> None:
    pcm = TUNE[:80_000]
    assert stream(pcm, [size], SHORT) == extract(pcm, SHORT)


@given(n_samples=st.integers(0, 330_000))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_audio_of_any_length_joins_to_what_batch_finds(n_samples: int) -> None:
    pcm = TUNE[:n_samples]
    segments = stream(pcm, [7919], SHORT)
    n_frames = SHORT.n_frames(n_samples)
    assert len(segments) == -(-n_frames // SHORT.segment_frames)
    if not segments:
        return
    fingerprint = join(segments, SHORT)
    assert fingerprint.landmarks == find_landmarks(pcm, SHORT)
    assert fingerprint.n_frames == n_frames
    assert fingerprint.duration_s == pytest.approx(n_samples / 8000, abs=1e-9)
    levels = log_bands(pcm, SHORT)
    descriptor = pool_contrast(contrast_rows(levels, 0, n_frames, SHORT), SHORT)
    np.testing.assert_array_equal(fingerprint.descriptor, descriptor)
    for i, segment in enumerate(segments):
        assert segment.index == i
        assert segment.start_s == 6 * i
        assert segment.duration_s == 6 or i == len(segments) - 1


def test_segments_of_ninety_seconds() -> None:
    pcm = tune(200, seed=2)
    segments = extract(pcm)
    assert [segment.duration_s for segment in segments] == [90, 90, 20]
    assert [segment.start_s for segment in segments] == [0, 90, 180]
    assert join(segments).landmarks == find_landmarks(pcm)
    assert stream(pcm, [8192], PARAMS) == segments


@pytest.mark.parametrize("end", [-200, -1, 0, 1, 40, 127, 128, 896, 1023, 1024, 3000, 12_000])
def test_ends_about_a_segment_border(end: int) -> None:
    pcm = TUNE[: 2 * 6 * 8000 + end]
    segments = extract(pcm, SHORT)
    assert join(segments, SHORT).landmarks == find_landmarks(pcm, SHORT)
    assert sum(segment.duration_s for segment in segments) == pytest.approx(pcm.size / 8000)


def test_segments_come_as_soon_as_they_are_decided() -> None:
    extractor = Extractor(SHORT)
    arrival_s = []
    for at in range(0, TUNE.size, 800):
        segments = extractor.push(TUNE[at : at + 800])
        arrival_s += [extractor.duration_s - s.start_s - s.duration_s for s in segments]
    assert len(arrival_s) == 6
    assert max(arrival_s) < 12


def test_what_was_pushed_may_be_reused_by_the_caller() -> None:
    extractor = Extractor(SHORT)
    buffer = np.empty(1000, np.float32)
    segments = []
    for at in range(0, TUNE.size, 1000):
        part = TUNE[at : at + 1000]
        buffer[: part.size] = part
        segments += extractor.push(buffer[: part.size])
        buffer[:] = 7
    assert segments + extractor.finish() == SEGMENTS


def test_nothing_after_the_end() -> None:
    extractor = Extractor()
    assert extractor.finish() == []
    with pytest.raises(ValueError, match="finish"):
        extractor.push(TUNE)
    with pytest.raises(ValueError, match="finish"):
        extractor.finish()


def test_memory_is_bounded() -> None:
    # A day of audio without its 2.7 GB: the same minute again and again.
    minute = tune(60, seed=4)
    extractor = Extractor()
    n_segments = 0

    def push_minutes(n: int) -> int:
        nonlocal n_segments
        for _ in range(n):
            n_segments += len(extractor.push(minute))
        return tracemalloc.get_traced_memory()[0]

    push_minutes(3)
    tracemalloc.start()
    try:
        early = push_minutes(6)
        late = push_minutes(60)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_segments >= 45
    assert late < early + 300_000
    assert peak < 8_000_000


def test_descriptor_holds_the_contrast_to_a_quarter_neper() -> None:
    levels = log_bands(TUNE[:80_000])
    contrast = contrast_rows(levels, 0, len(levels))
    packed = pool_contrast(contrast)
    rows = len(levels) // 4
    assert packed.shape == (rows, PARAMS.descriptor_row_bytes)
    pooled = contrast[: 4 * rows, :165].reshape(rows, 4, 55, 3).mean(axis=(1, 3))
    unpacked = unpack_descriptor(packed)
    assert unpacked.shape == (rows, 55)
    assert np.abs(unpacked - np.clip(pooled, -3.5, 3.5)).max() <= 0.2501
    assert np.abs(unpacked).max() == 3.5
