"""Made-up music that can be played faster or higher: for tests, and where no recordings are."""

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 8000


def song(
    duration_s: float, seed: int, *, tempo: float = 1.0, pitch: float = 1.0, start_s: float = 0.0
) -> NDArray[np.float32]:
    """Four voices of plucked notes, five a second each, with three harmonics.

    ``duration_s`` seconds of audio from ``start_s`` (of the unchanged song) on, played ``tempo``
    times as fast and ``pitch`` times as high. The same seed is the same song.
    """
    n = round(duration_s * SAMPLE_RATE_HZ)
    out = np.zeros(n)
    last_s = start_s + duration_s * tempo
    for voice in range(4):
        random = np.random.default_rng((seed, voice))
        at_s = float(random.uniform(0, 0.2))
        while at_s < last_s:
            length_s = float(random.uniform(0.1, 0.5))
            hz = 180 * 2 ** (int(random.integers(0, 40)) / 12 + float(random.uniform(0, 0.03)))
            loud = float(random.uniform(0.2, 1.0))
            first = round((at_s - start_s) / tempo * SAMPLE_RATE_HZ)
            count = round(length_s / tempo * SAMPLE_RATE_HZ)
            if first >= 0 and first + count < n:
                t = np.arange(count) / SAMPLE_RATE_HZ
                pluck = loud * np.exp(-6 * t * tempo) * np.minimum(1, t * 200)
                for harmonic, share in ((1, 1.0), (2, 0.5), (3, 0.25)):
                    if hz * pitch * harmonic < SAMPLE_RATE_HZ / 2:
                        wave = np.sin(2 * np.pi * hz * pitch * harmonic * t)
                        out[first : first + count] += share * pluck * wave
            at_s += length_s
    hiss = np.random.default_rng((seed, 4)).standard_normal(n)
    return (0.2 * out + 0.001 * hiss).astype(np.float32)
