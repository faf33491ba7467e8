"""PCM to log band levels: Hann frames, FFT, triangular bands, integer logarithm.

A frame's levels depend on its own 1,024 samples alone: not on the frames around it, on how many
are computed together, on the position in a block. Streaming and batch extraction rest on that.
The FFT library vectorises over frames and treats what is left over by another code path, so
it always gets blocks of one size; the sums and the logarithm are written out here.
"""

import dataclasses
import functools
import math

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from soundhash_engine.jit import kernel
from soundhash_engine.params import LEVEL_STEPS_PER_NEPER, PARAMS, Params
from soundhash_engine.types import Levels, Pcm

BLOCK_FRAMES = 64
"""Frames in one FFT call, always; a multiple of every SIMD width."""

_LANES = 16
_LOG_TABLE_BITS = 12
_LOG_FRACTION_BITS = 16


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    window: NDArray[np.float32]
    first: NDArray[np.int32]
    start: NDArray[np.int32]
    weights: NDArray[np.float32]
    log_mantissa: NDArray[np.int32]
    log_exponent: int


@functools.lru_cache(maxsize=4)
def _tables(params: Params) -> _Tables:
    n_fft = params.n_fft_samples
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    fft_hz = np.arange(n_fft // 2 + 1) * params.sample_rate_hz / n_fft
    first, start, weights = [], [0], []
    for band in range(params.n_bands):
        centre_hz = params.lowest_band_hz * 2 ** (band / params.bands_per_octave)
        half_hz = max(
            centre_hz * (2 ** (1 / params.bands_per_octave) - 1), params.min_half_width_hz
        )
        triangle = np.maximum(0, 1 - np.abs(fft_hz - centre_hz) / half_hz)
        used = np.flatnonzero(triangle > 0)
        first.append(used[0])
        weights.append(triangle[used] / triangle.sum())
        start.append(start[-1] + used.size)
    scale = LEVEL_STEPS_PER_NEPER * 2**_LOG_FRACTION_BITS
    mantissa = 1 + (np.arange(2**_LOG_TABLE_BITS) + 0.5) / 2**_LOG_TABLE_BITS
    return _Tables(
        window=window.astype(np.float32),
        first=np.array(first, np.int32),
        start=np.array(start, np.int32),
        weights=np.concatenate(weights).astype(np.float32),
        # Half a step is added here so that the shift in the kernel rounds.
        log_mantissa=np.round(np.log(mantissa) * scale + 2 ** (_LOG_FRACTION_BITS - 1)).astype(
            np.int32
        ),
        log_exponent=round(math.log(2) * scale),
    )


@kernel
def _window_frames(
    pcm: NDArray[np.float32],
    n_frames: int,
    hop: int,
    window: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Windowed frames of `pcm` into the first rows of `out`; zeros into the others."""
    n_fft = window.size
    for i in range(out.shape[0]):
        if i < n_frames:
            for j in range(n_fft):
                out[i, j] = pcm[i * hop + j] * window[j]
        else:
            out[i, :] = 0


@kernel
def _band_levels(
    spectrum: NDArray[np.float32],
    n_frames: int,
    first: NDArray[np.int32],
    start: NDArray[np.int32],
    weights: NDArray[np.float32],
    floor: np.float32,
    log_mantissa: NDArray[np.int32],
    log_exponent: int,
    out: NDArray[np.int16],
) -> None:
    """Log levels of `n_frames` spectra (rows of interleaved real and imaginary parts).

    Sixteen frames side by side, so that each frame's sums keep their order and the compiler
    still vectorises.
    """
    n_bands = first.size
    top = first[n_bands - 1] + start[n_bands] - start[n_bands - 1]
    power = np.zeros((top, 16), np.float32)
    level = np.empty(16, np.float32)
    bits = level.view(np.int32)
    for block in range(0, n_frames, 16):
        n_lanes = min(16, n_frames - block)
        for lane in range(n_lanes):
            row = spectrum[block + lane]
            for k in range(top):
                re = row[2 * k]
                im = row[2 * k + 1]
                power[k, lane] = re * re + im * im
        for band in range(n_bands):
            for lane in range(16):
                level[lane] = floor
            k = first[band]
            for w in range(start[band], start[band + 1]):
                weight = weights[w]
                for lane in range(16):
                    level[lane] += weight * power[k, lane]
                k += 1
            for lane in range(n_lanes):
                # ln x = exponent · ln 2 + ln mantissa, in fixed point: the same on any machine.
                value = bits[lane]
                exponent = (value >> 23) - 127
                total = exponent * log_exponent + log_mantissa[(value >> 11) & 0xFFF]
                out[block + lane, band] = total >> 16


def log_bands(pcm: Pcm, params: Params = PARAMS) -> Levels:
    """Log band levels of all whole frames of `pcm`.

    Returns int16 (n_frames, n_bands) in 1/256 neper: 256 · ln(power + floor), the power being a
    triangular mean over the FFT bins of a band. Samples that are not finite are not handled
    here; the decoder never gives any.
    """
    tables = _tables(params)
    n_frames = params.n_frames(pcm.size)
    out = np.empty((n_frames, params.n_bands), np.int16)
    hop = params.hop_samples
    frames = np.empty((BLOCK_FRAMES, params.n_fft_samples), np.float32)
    # A private copy where needed: one array type means one compiled kernel.
    pcm = np.require(pcm, np.float32, ["C", "W"])
    for block in range(0, n_frames, BLOCK_FRAMES):
        count = min(BLOCK_FRAMES, n_frames - block)
        _window_frames(pcm[block * hop :], count, hop, tables.window, frames)
        spectrum = scipy.fft.rfft(frames, axis=1)
        _band_levels(
            spectrum.view(np.float32),
            count,
            tables.first,
            tables.start,
            tables.weights,
            np.float32(params.power_floor),
            tables.log_mantissa,
            tables.log_exponent,
            out[block : block + count],
        )
    return out
