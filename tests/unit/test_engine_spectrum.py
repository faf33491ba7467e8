"""Levels: right against the formula, and the same however they are computed."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sounds import tune

from soundhash_engine.fft import FRAME_SAMPLES, WORK_WIDTH, power_spectra, twiddles
from soundhash_engine.params import PARAMS
from soundhash_engine.spectrum import log_bands

TUNE = tune(12, seed=3)
LEVELS = log_bands(TUNE)


def test_power_spectra_are_four_times_the_squared_transform() -> None:
    pcm = tune(1, seed=9)
    window = np.hanning(FRAME_SAMPLES).astype(np.float32)
    power = np.zeros((512, 16), np.float32)
    work = np.empty((4, WORK_WIDTH), np.float32)
    power_spectra(pcm, 128, 7, 128, window, twiddles(FRAME_SAMPLES), work, power)
    for lane in range(16):
        expected = np.zeros(512)
        if lane < 7:
            frame = pcm[128 * (lane + 1) :][:FRAME_SAMPLES].astype(np.float64) * window
            expected = 4 * np.abs(np.fft.rfft(frame)[:512]) ** 2
        np.testing.assert_allclose(power[1:, lane], expected[1:], rtol=1e-4, atol=1e-6)


def test_levels_follow_the_formula() -> None:
    n_fft, hop = PARAMS.n_fft_samples, PARAMS.hop_samples
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    fft_hz = np.fft.rfftfreq(n_fft, 1 / PARAMS.sample_rate_hz)
    for i in (0, 5, 700):
        power = np.abs(np.fft.rfft(TUNE[i * hop : i * hop + n_fft] * window)) ** 2
        for band in (0, 1, 60, 120, 166):
            centre = 150 * 2 ** (band / 36)
            half = max(centre * (2 ** (1 / 36) - 1), 7.8125)
            weight = np.maximum(0, 1 - abs(fft_hz - centre) / half)
            expected = 256 * np.log(power @ weight / weight.sum() + 2.56e-5)
            # Half a step of rounding, a little for the logarithm's table and float32.
            assert abs(LEVELS[i, band] - expected) < 0.6


def test_number_of_frames() -> None:
    for n_samples, n_frames in ((0, 0), (1023, 0), (1024, 1), (1151, 1), (1152, 2)):
        assert PARAMS.n_frames(n_samples) == n_frames
        assert log_bands(np.zeros(n_samples, np.float32)).shape == (n_frames, PARAMS.n_bands)


@given(start=st.integers(0, 700), count=st.integers(1, 40))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_frame_depends_on_its_own_samples_alone(start: int, count: int) -> None:
    hop = PARAMS.hop_samples
    part = TUNE[start * hop : (start + count - 1) * hop + PARAMS.n_fft_samples]
    np.testing.assert_array_equal(
        log_bands(part), LEVELS[start : start + count][: PARAMS.n_frames(part.size)]
    )


def test_any_kind_of_array_gives_the_same_levels() -> None:
    pcm = TUNE[:8000]
    frozen = pcm.copy()
    frozen.flags.writeable = False
    strided = np.repeat(pcm, 2)[::2]
    for same in (frozen, strided, pcm.astype(np.float64), pcm.astype(">f4")):
        np.testing.assert_array_equal(log_bands(same), LEVELS[: PARAMS.n_frames(pcm.size)])


def test_samples_that_are_no_numbers_spoil_only_their_own_frames() -> None:
    pcm = TUNE[:16000].copy()
    pcm[8000] = np.nan
    pcm[8001] = np.inf
    spoilt = log_bands(pcm)
    clean = LEVELS[: len(spoilt)]
    first = np.arange(len(spoilt)) * PARAMS.hop_samples
    touched = (first <= 8001) & (first + PARAMS.n_fft_samples > 8000)
    np.testing.assert_array_equal(spoilt[~touched], clean[~touched])


def test_another_frame_length_is_refused() -> None:
    with pytest.raises(ValueError, match="n_fft_samples"):
        log_bands(TUNE, dataclasses.replace(PARAMS, n_fft_samples=2048))
