"""Compile and load every kernel before the first request has to wait for it.

`python -m soundhash_engine.warm` at install time fills numba's cache on disk (some seconds);
`warm()` at a process's start loads it from there (about a second).
"""

import numpy as np

from soundhash_engine.fingerprint import extract, join
from soundhash_engine.landmarks import query_features
from soundhash_engine.params import SAMPLE_RATE_HZ


def warm() -> None:
    """Run the whole way once on four seconds of made-up sound."""
    t = np.arange(4 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    notes = 300 * 2 ** (np.floor(6 * t) % 7 / 4)
    pcm = (0.3 * np.sin(2 * np.pi * np.cumsum(notes) / SAMPLE_RATE_HZ)).astype(np.float32)
    # A drop-out, so that its filling runs too.
    pcm[16000:17000] = 0
    join(extract(pcm))
    query_features(pcm)


if __name__ == "__main__":
    warm()
