"""Made-up audio for tests: the same samples on every machine, as it is made of integers."""

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 8000


def tune(duration_s: float, seed: int = 1, *, noise: float = 0.02) -> NDArray[np.float32]:
    """Three voices of random notes with decaying envelopes over a little noise.

    Returns float32 (duration_s · 8000,), within ±1. The same seed gives the same tune, and a
    longer one begins as a shorter one does.
    """
    n = round(duration_s * SAMPLE_RATE_HZ)
    out = np.zeros(n, np.int64)
    for voice in range(3):
        random = _random(seed * 101 + voice)
        at = 0
        while at < n:
            length = 1200 + next(random) % 2800
            # A semitone scale from 160 Hz on, as phase steps of a 32-bit accumulator.
            step = _SEMITONES[next(random) % len(_SEMITONES)]
            loud = 64 + next(random) % 192
            t = np.arange(min(length, n - at), dtype=np.int64)
            phase = (t * step) & 0xFFFFFFFF
            triangle = np.abs((phase >> 15) - 65536) - 32768
            envelope = (length - t) * loud // length
            out[at : at + t.size] += triangle * envelope >> 8
            at += length
    loudness = round(noise * 32768)
    if loudness:
        out += (hiss(n, seed) * loudness) >> 15
    return (out / 131072).astype(np.float32)


def hiss(n_samples: int, seed: int = 1) -> NDArray[np.int64]:
    """White noise, int64 within ±32768."""
    state = np.arange(n_samples, dtype=np.uint64) + np.uint64(seed * 0x9E3779B9)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    return (state >> np.uint64(48)).astype(np.int64) - 32768


_SEMITONES = [round(160 * 1.0594631 ** (n + 0.37) * 2**32 / SAMPLE_RATE_HZ) for n in range(48)]


def _random(seed: int):
    state = seed * 2654435761 % 2**32
    while True:
        state = (state * 1664525 + 1013904223) % 2**32
        yield state >> 8
