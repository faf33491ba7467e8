"""Power spectra of real frames, sixteen at a time, bit for bit reproducible.

A stored fingerprint must be the same whatever the chunk size, the library version and the
machine, so the transform is written out instead of taken from a library: FFT libraries choose
their code path by batch size and processor. Sixteen frames lie side by side ("lanes"), so that
every lane sees the same operations in the same order and the compiler still vectorises. It is
about as fast as scipy's (1.4 µs a frame of 1,024 samples) and spares the server 28 MB.

The method: the even and odd samples of a real frame as one complex frame of half the length, a
self-sorting (Stockham) radix-4 transform of it, and one butterfly to take the two apart.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel

FRAME_SAMPLES = 1024
"""The kernels have this length and the sixteen lanes written out: constants let the compiler
unroll and vectorise."""
WORK_WIDTH = 512 * 16 + 208
"""Rows of scratch memory are padded: at a distance of a power of two they would fall on the same
cache sets."""


@functools.lru_cache(maxsize=4)
def twiddles(n_samples: int) -> NDArray[np.float32]:
    """cos and sin of −2πk / n, k = 0 … n − 1: float32 (2, n)."""
    angle = -2 * np.pi * np.arange(n_samples) / n_samples
    return np.stack((np.cos(angle), np.sin(angle))).astype(np.float32)


@kernel
def _radix4(
    from_re: NDArray[np.float32],
    from_im: NDArray[np.float32],
    to_re: NDArray[np.float32],
    to_im: NDArray[np.float32],
    length: int,
    stride: int,
    turn: NDArray[np.float32],
) -> None:
    """One pass: `stride` interleaved transforms of `length` points become 4 · stride."""
    quarter = length // 4
    width = stride * 16
    step = turn.shape[1] // length
    for p in range(quarter):
        re1, im1 = turn[0, p * step], turn[1, p * step]
        re2, im2 = turn[0, 2 * p * step], turn[1, 2 * p * step]
        re3, im3 = turn[0, 3 * p * step], turn[1, 3 * p * step]
        a = p * width
        b = a + quarter * width
        c = b + quarter * width
        d = c + quarter * width
        out = 4 * p * width
        for q in range(width):
            sum_ac_re = from_re[a + q] + from_re[c + q]
            sum_ac_im = from_im[a + q] + from_im[c + q]
            dif_ac_re = from_re[a + q] - from_re[c + q]
            dif_ac_im = from_im[a + q] - from_im[c + q]
            sum_bd_re = from_re[b + q] + from_re[d + q]
            sum_bd_im = from_im[b + q] + from_im[d + q]
            # i · (b − d)
            rot_re = from_im[d + q] - from_im[b + q]
            rot_im = from_re[b + q] - from_re[d + q]
            to_re[out + q] = sum_ac_re + sum_bd_re
            to_im[out + q] = sum_ac_im + sum_bd_im
            re = dif_ac_re - rot_re
            im = dif_ac_im - rot_im
            to_re[out + q + width] = re1 * re - im1 * im
            to_im[out + q + width] = re1 * im + im1 * re
            re = sum_ac_re - sum_bd_re
            im = sum_ac_im - sum_bd_im
            to_re[out + q + 2 * width] = re2 * re - im2 * im
            to_im[out + q + 2 * width] = re2 * im + im2 * re
            re = dif_ac_re + rot_re
            im = dif_ac_im + rot_im
            to_re[out + q + 3 * width] = re3 * re - im3 * im
            to_im[out + q + 3 * width] = re3 * im + im3 * re


@kernel
def _radix2(
    from_re: NDArray[np.float32],
    from_im: NDArray[np.float32],
    to_re: NDArray[np.float32],
    to_im: NDArray[np.float32],
    half: int,
) -> None:
    """The last pass, as the length is not a power of four."""
    for q in range(half):
        to_re[q] = from_re[q] + from_re[q + half]
        to_im[q] = from_im[q] + from_im[q + half]
        to_re[q + half] = from_re[q] - from_re[q + half]
        to_im[q + half] = from_im[q] - from_im[q + half]


@kernel
def power_spectra(
    pcm: NDArray[np.float32],
    first_sample: int,
    n_lanes: int,
    hop: int,
    window: NDArray[np.float32],
    turn: NDArray[np.float32],
    work: NDArray[np.float32],
    power: NDArray[np.float32],
) -> None:
    """Four times the power of up to 16 windowed frames of 1,024 samples.

    pcm           samples; frame j begins at first_sample + j · hop
    n_lanes       how many frames there are, ≤ 16; the other lanes become zero
    window        (1024,)
    turn          `twiddles(1024)`
    work          scratch, (4, WORK_WIDTH)
    power         out, (n_bins, 16), n_bins ≤ 512; bin 0 is not made
    """
    re, im = work[0, :8192], work[1, :8192]
    other_re, other_im = work[2, :8192], work[3, :8192]
    for i in range(512):
        even, odd = window[2 * i], window[2 * i + 1]
        at = first_sample + 2 * i
        for lane in range(n_lanes):
            re[i * 16 + lane] = pcm[at + lane * hop] * even
            im[i * 16 + lane] = pcm[at + lane * hop + 1] * odd
        for lane in range(n_lanes, 16):
            re[i * 16 + lane] = 0
            im[i * 16 + lane] = 0
    # 512 = 4 · 4 · 4 · 4 · 2. Literal lengths: the compiler copies each pass in place and knows
    # that its streams do not overlap, which makes it four times as fast.
    _radix4(re, im, other_re, other_im, 512, 1, turn)
    _radix4(other_re, other_im, re, im, 128, 4, turn)
    _radix4(re, im, other_re, other_im, 32, 16, turn)
    _radix4(other_re, other_im, re, im, 8, 64, turn)
    _radix2(re, im, other_re, other_im, 4096)
    points_re = other_re.reshape((512, 16))
    points_im = other_im.reshape((512, 16))
    for k in range(1, power.shape[0]):
        turn_re, turn_im = turn[0, k], turn[1, k]
        mirror = 512 - k
        for lane in range(16):
            even_re = points_re[k, lane] + points_re[mirror, lane]
            even_im = points_im[k, lane] - points_im[mirror, lane]
            odd_re = points_im[k, lane] + points_im[mirror, lane]
            odd_im = points_re[mirror, lane] - points_re[k, lane]
            out_re = even_re + (turn_re * odd_re - turn_im * odd_im)
            out_im = even_im + (turn_re * odd_im + turn_im * odd_re)
            power[k, lane] = out_re * out_re + out_im * out_im
