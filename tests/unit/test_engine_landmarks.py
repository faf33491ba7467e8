"""Landmarks, against plain implementations of their definitions."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from tests.sounds import hiss, tune

from soundhash_engine.landmarks import (
    clean_query_levels,
    contrast_rows,
    find_landmarks,
    find_peaks,
    keep_strongest,
    query_features,
)
from soundhash_engine.params import PARAMS
from soundhash_engine.spectrum import log_bands
from soundhash_engine.types import Contrast, Levels

TUNE = tune(20, seed=5)

# Few values, so that ties are common.
small_levels = npst.arrays(
    np.int16, st.tuples(st.integers(1, 60), st.just(40)), elements=st.integers(-6, 6)
)
SMALL = dataclasses.replace(
    PARAMS, n_bands=40, mean_half_frames=7, mean_half_bins=5, min_peak_contrast_neper=-1e9
)


def plain_contrast(levels: Levels, half_frames: int, half_bins: int) -> Contrast:
    out = np.empty(levels.shape, np.float32)
    for t, b in np.ndindex(levels.shape):
        box = levels[
            max(0, t - half_frames) : t + half_frames + 1, max(0, b - half_bins) : b + half_bins + 1
        ]
        out[t, b] = (levels[t, b] - box.mean(dtype=np.float64)) / 256
    return out


def plain_peaks(levels: Levels) -> list[tuple[int, int]]:
    n, n_bands = levels.shape
    found = []
    for t in range(4, n - 4):
        for b in range(3, n_bands - 3):
            box = levels[t - 4 : t + 5, b - 3 : b + 4]
            if levels[t, b] == box.max() and box.argmax() == 4 * 7 + 3:
                found.append((t, b))
    return found


@given(levels=small_levels)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_contrast_is_level_less_box_mean(levels: Levels) -> None:
    np.testing.assert_allclose(
        contrast_rows(levels, 0, len(levels), SMALL), plain_contrast(levels, 7, 5), atol=1e-6
    )


@given(levels=small_levels, data=st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_contrast_of_a_part_is_a_part_of_the_contrast(levels: Levels, data: st.DataObject) -> None:
    lo = data.draw(st.integers(0, len(levels)))
    hi = data.draw(st.integers(lo, len(levels)))
    whole = contrast_rows(levels, 0, len(levels), SMALL)
    np.testing.assert_array_equal(contrast_rows(levels, lo, hi, SMALL), whole[lo:hi])
    # Rows further away than the window do not matter.
    first = max(0, lo - 7)
    cut = levels[first : hi + 7]
    np.testing.assert_array_equal(contrast_rows(cut, lo - first, hi - first, SMALL), whole[lo:hi])


@given(levels=small_levels)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_peaks_are_the_first_maxima_of_their_boxes(levels: Levels) -> None:
    contrast = contrast_rows(levels, 0, len(levels), SMALL)
    peaks = find_peaks(levels, contrast, 0, SMALL)
    found = plain_peaks(levels)
    assert peaks.frame.tolist() == [t for t, _ in found]
    # A rounded place is within half a step of the cell.
    assert np.all(abs(peaks.time - 2 * peaks.frame) <= 1)
    assert np.all(abs(peaks.bin - 4 * np.array([b for _, b in found], np.int16)) <= 2)


@given(
    frames=st.lists(st.integers(0, 150), max_size=120),
    strengths=st.lists(st.integers(0, 9), min_size=120, max_size=120),
    limit=st.integers(1, 12),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_sliding_rank(frames: list[int], strengths: list[int], limit: int) -> None:
    from soundhash_engine.landmarks import Peaks

    frame = np.array(sorted(frames), np.int32)
    strength = np.array(strengths[: frame.size], np.float32)
    peaks = Peaks(frame, 2 * frame, np.arange(frame.size, dtype=np.int16), strength)
    expected = []
    for i in range(frame.size):
        near = abs(frame - frame[i]) <= 31
        earlier = np.arange(frame.size) < i
        stronger = (strength > strength[i]) | ((strength == strength[i]) & earlier)
        if np.count_nonzero(near & stronger) < limit:
            expected.append(i)
    kept = keep_strongest(peaks, 0, frame.size, limit)
    assert kept.bin.tolist() == expected


def test_landmarks_of_a_tone_lie_on_it() -> None:
    # Bursts of one frequency: the bin says which, to 1/144 octave.
    t = np.arange(5 * 8000) / 8000
    for tone_hz in (220.0, 777.0, 3001.0):
        pcm = (0.3 * np.sin(2 * np.pi * tone_hz * t) * (t % 0.5 < 0.2)).astype(np.float32)
        found = find_landmarks(pcm + 1e-4 * hiss(pcm.size).astype(np.float32) / 32768)
        strongest = found.bin[found.strength > 55]
        expected = 4 * 36 * np.log2(tone_hz / 150)
        assert strongest.size >= 5
        assert np.all(abs(strongest - expected) < 3)


def test_landmarks_are_sorted_and_within_range() -> None:
    for query in (False, True):
        found = find_landmarks(TUNE, query=query)
        key = found.time.astype(np.int64) * 10_000 + found.bin
        assert np.all(np.diff(key) > 0)
        assert found.time.min() >= 8
        assert found.time.max() <= 2 * found.n_frames
        assert found.bin.min() >= 4 * 3 - 2
        assert found.bin.max() <= 4 * 163 + 2
        assert found.strength.max() <= 63
        assert found.n_frames == PARAMS.n_frames(TUNE.size)


def test_rank_limits() -> None:
    reference, query = find_landmarks(TUNE), find_landmarks(TUNE, query=True)
    # Ranks come from rounded strengths and may pass the limit of the exact ones a little.
    assert reference.rank.max() < 20 + 5
    assert 20 + 5 < query.rank.max() < 60 + 5
    assert len(query) > 1.5 * len(reference)
    # About 20 a second are kept.
    assert 14 < len(reference) / 20 < 21


def test_most_reference_landmarks_are_in_the_query() -> None:
    reference, query = find_landmarks(TUNE), find_landmarks(TUNE, query=True)
    known = set(zip(query.time.tolist(), query.bin.tolist(), strict=True))
    hits = sum(
        any((t + i, b + j) in known for i in (-1, 0, 1) for j in (-1, 0, 1))
        for t, b in zip(reference.time.tolist(), reference.bin.tolist(), strict=True)
    )
    assert hits > 0.9 * len(reference)


@pytest.mark.parametrize("frames", [1, 7, 64, 333])
def test_shift_by_whole_frames_shifts_landmarks(frames: int) -> None:
    whole = find_landmarks(TUNE)
    shifted = find_landmarks(TUNE[frames * PARAMS.hop_samples :])
    # Everything that decides on a landmark reaches 75 frames; further in there is no edge.
    inside = shifted.time > 2 * 75
    later = whole.time > 2 * (75 + frames)
    for name in ("bin", "strength"):
        np.testing.assert_array_equal(
            getattr(shifted, name)[inside], getattr(whole, name)[later], err_msg=name
        )
    np.testing.assert_array_equal(shifted.time[inside] + 2 * frames, whole.time[later])


@pytest.mark.parametrize("gain", [0.25, 2.0])
def test_loudness_moves_few_landmarks(gain: float) -> None:
    whole = find_landmarks(TUNE)
    other = find_landmarks(TUNE * np.float32(gain))
    both = set(zip(whole.time.tolist(), whole.bin.tolist(), strict=True)) & set(
        zip(other.time.tolist(), other.bin.tolist(), strict=True)
    )
    assert len(both) > 0.9 * len(whole)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_silence_and_a_constant_have_no_landmarks(level: float) -> None:
    pcm = np.full(40_000, level, np.float32)
    for query in (False, True):
        assert len(find_landmarks(pcm, query=query)) == 0


def test_flickering_last_bit_has_no_landmarks() -> None:
    flicker = (hiss(40_000) > 0).astype(np.float32) / 32768
    assert len(find_landmarks(flicker)) == 0


@pytest.mark.parametrize("n_samples", [0, 1, 1023, 1024, 1500, 2100])
def test_almost_no_audio(n_samples: int) -> None:
    features = query_features(TUNE[:n_samples])
    assert features.contrast.shape == (PARAMS.n_frames(n_samples), PARAMS.n_bands)
    assert len(features.landmarks) == len(find_landmarks(TUNE[:n_samples])) == 0
    assert features.n_samples == n_samples


def plain_clean(levels: Levels) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Drop-outs, and levels after noise subtraction, as their definition says."""
    power = np.exp(levels / 256)
    noise = np.sort(power, axis=0)[len(levels) // 2]
    left = 256 * np.log(np.maximum(power - 0.8 * noise, 0.1 * power))
    mean = levels.mean(axis=1)
    low = np.zeros(len(levels), bool)
    for t in range(len(levels)):
        near = np.sort(mean[max(0, t - 20) : t + 21])
        if mean[t] < near[near.size // 2] - 2.5 * 256:
            low[max(0, t - 2) : t + 3] = True
    return low, left


def test_stationary_noise_is_taken_off() -> None:
    levels = log_bands(TUNE)
    low, expected = plain_clean(levels)
    assert not low.any()
    assert not clean_query_levels(levels).any()
    # Two roundings to a step.
    assert np.abs(levels - expected).max() <= 1.01


def test_dropouts_are_filled_and_give_no_landmarks() -> None:
    pcm = TUNE.copy()
    holes = (20_000, 60_000, 61_500, 158_500)
    for at in holes:
        pcm[at : at + 1200] = 0
    levels = log_bands(pcm)
    expected, _ = plain_clean(levels)
    before = levels.copy()
    filled = clean_query_levels(levels)
    np.testing.assert_array_equal(filled, expected)
    assert filled.sum() >= len(holes)
    assert before[filled].mean() < levels[filled].mean() - 256
    landmarks = query_features(pcm).landmarks
    assert not filled[landmarks.time // 2].any()
    # The rest is still found.
    whole = query_features(TUNE).landmarks
    both = set(zip(whole.time.tolist(), whole.bin.tolist(), strict=True)) & set(
        zip(landmarks.time.tolist(), landmarks.bin.tolist(), strict=True)
    )
    assert len(both) > 0.75 * len(whole)


def test_query_features_leave_the_clip_alone() -> None:
    pcm = TUNE[:40_000].copy()
    first = query_features(pcm)
    np.testing.assert_array_equal(pcm, TUNE[:40_000])
    second = query_features(pcm)
    assert first.landmarks == second.landmarks
    np.testing.assert_array_equal(first.contrast, second.contrast)
