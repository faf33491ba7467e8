"""Made-up music that can be played faster or higher, for tests of matching."""

import numpy as np
from numpy.typing import NDArray

from soundhash_server.bench.songs import SAMPLE_RATE_HZ, song

__all__ = ["SAMPLE_RATE_HZ", "cut", "noise", "song"]


def noise(duration_s: float, seed: int, level: float = 0.05) -> NDArray[np.float32]:
    """White noise."""
    random = np.random.default_rng(seed)
    return (level * random.standard_normal(round(duration_s * SAMPLE_RATE_HZ))).astype(np.float32)


def cut(pcm: NDArray[np.float32], start_s: float, length_s: float) -> NDArray[np.float32]:
    """A piece of audio."""
    first = round(start_s * SAMPLE_RATE_HZ)
    return pcm[first : first + round(length_s * SAMPLE_RATE_HZ)]
