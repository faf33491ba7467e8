"""A segment as one compact vector: a cheap check whether two segments sound the same."""

import functools
import itertools

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.descriptor import unpack_descriptor
from soundhash_engine.params import PARAMS, Params

_TIME_PARTS = 8
_SHAPES = 16
VECTOR_DIMS = _TIME_PARTS * _SHAPES


def compact_vector(descriptor: NDArray[np.uint8], params: Params = PARAMS) -> NDArray[np.float32]:
    """128 numbers of unit norm (all zero for silence) from packed descriptor rows.

    The rectified contrast averaged over each eighth of the segment, less the mean of the eighths
    (which all music shares), as the coefficients 1 … 16 of a cosine transform over the bands.
    Measured on 60 segments: cosine ≥ 0.977 to a 24 kbit/s re-encoding with the start moved by
    75 ms, median 0.005 and 99th percentile 0.32 to other segments.
    """
    contrast = np.maximum(unpack_descriptor(descriptor, params), 0)
    means = np.zeros((_TIME_PARTS, params.descriptor_bands))
    edges = np.linspace(0, contrast.shape[0], _TIME_PARTS + 1).astype(int)
    for part, (start, end) in enumerate(itertools.pairwise(edges)):
        if end > start:
            means[part] = contrast[start:end].mean(axis=0, dtype=np.float64)
    means -= means.mean(axis=0)
    shapes = means @ _cosines(params.descriptor_bands).T
    norm = np.linalg.norm(shapes)
    if norm > 0:
        shapes /= norm
    return shapes.ravel().astype(np.float32)


@functools.lru_cache(maxsize=4)
def _cosines(n_bands: int) -> NDArray[np.float64]:
    order = np.arange(1, _SHAPES + 1)[:, None]
    return np.asarray(np.cos(np.pi * order * (np.arange(n_bands) + 0.5) / n_bands))
