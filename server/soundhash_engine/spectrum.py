"""PCM to log band levels: Hann frames, FFT, triangular bands, integer logarithm.

A frame's levels depend on its own 1,024 samples alone: not on the frames around it, on how many
are computed together, on the position in a block. Streaming and batch extraction rest on that.
"""

import dataclasses
import functools
import math

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.fft import FRAME_SAMPLES, WORK_WIDTH, power_spectra, twiddles
from soundhash_engine.jit import kernel
from soundhash_engine.params import LEVEL_STEPS_PER_NEPER, PARAMS, Params
from soundhash_engine.types import Levels, Pcm

_LOG_TABLE_BITS = 12
_LOG_FRACTION_BITS = 16


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    window: NDArray[np.float32]
    turn: NDArray[np.float32]
    first: NDArray[np.int32]
    start: NDArray[np.int32]
    weights: NDArray[np.float32]
    log_mantissa: NDArray[np.int32]
    log_exponent: int


@functools.lru_cache(maxsize=4)
def _tables(params: Params) -> _Tables:
    n_fft = params.n_fft_samples
    if n_fft != FRAME_SAMPLES:
        raise ValueError(f"n_fft_samples must be {FRAME_SAMPLES}, not {n_fft}")
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
        # The power that comes in is four times the true one.
        weights.append(triangle[used] / triangle.sum() / 4)
        start.append(start[-1] + used.size)
    scale = LEVEL_STEPS_PER_NEPER * 2**_LOG_FRACTION_BITS
    mantissa = 1 + (np.arange(2**_LOG_TABLE_BITS) + 0.5) / 2**_LOG_TABLE_BITS
    return _Tables(
        window=window.astype(np.float32),
        turn=twiddles(n_fft),
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
def _band_levels(
    power: NDArray[np.float32],
    n_lanes: int,
    first: NDArray[np.int32],
    start: NDArray[np.int32],
    weights: NDArray[np.float32],
    floor: np.float32,
    log_mantissa: NDArray[np.int32],
    log_exponent: int,
    out: NDArray[np.int16],
) -> None:
    """Log levels of the first `n_lanes` frames of `power` (n_bins, 16) into rows of `out`."""
    level = np.empty(16, np.float32)
    bits = level.view(np.int32)
    for band in range(first.size):
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
            exponent = (bits[lane] >> 23) - 127
            total = exponent * log_exponent + log_mantissa[(bits[lane] >> 11) & 0xFFF]
            out[lane, band] = total >> 16


@kernel
def _levels(
    pcm: NDArray[np.float32],
    hop: int,
    window: NDArray[np.float32],
    turn: NDArray[np.float32],
    first: NDArray[np.int32],
    start: NDArray[np.int32],
    weights: NDArray[np.float32],
    floor: np.float32,
    log_mantissa: NDArray[np.int32],
    log_exponent: int,
    out: NDArray[np.int16],
) -> None:
    """Log levels of as many frames as `out` has rows."""
    n_bands = first.size
    work = np.empty((4, WORK_WIDTH), np.float32)
    power = np.empty((first[n_bands - 1] + start[n_bands] - start[n_bands - 1], 16), np.float32)
    for block in range(0, out.shape[0], 16):
        n_lanes = min(16, out.shape[0] - block)
        power_spectra(pcm, block * hop, n_lanes, hop, window, turn, work, power)
        _band_levels(
            power,
            n_lanes,
            first,
            start,
            weights,
            floor,
            log_mantissa,
            log_exponent,
            out[block : block + n_lanes],
        )


def log_bands(pcm: Pcm, params: Params = PARAMS) -> Levels:
    """Log band levels of all whole frames of `pcm`.

    Returns int16 (n_frames, n_bands) in 1/256 neper: 256 · ln(power + floor), the power being a
    triangular mean over the FFT bins of a band. Samples that are not finite give levels without
    meaning in the frames that hold them, and in no others.
    """
    tables = _tables(params)
    out = np.empty((params.n_frames(pcm.size), params.n_bands), np.int16)
    _levels(
        # A private copy where needed: one array type means one compiled kernel.
        np.require(pcm, np.float32, ["C", "W"]),
        params.hop_samples,
        tables.window,
        tables.turn,
        tables.first,
        tables.start,
        tables.weights,
        np.float32(params.power_floor),
        tables.log_mantissa,
        tables.log_exponent,
        out,
    )
    return out
