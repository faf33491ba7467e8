"""A segment as one compact vector: a cheap check whether two segments sound the same."""

import functools

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.descriptor import unpack_descriptor
from soundhash_engine.params import PARAMS, Params

_TIME_PARTS = 8
_SHAPES = 16
VECTOR_DIMS = _TIME_PARTS * _SHAPES


def compact_vector(descriptor: NDArray[np.uint8], params: Params = PARAMS) -> NDArray[np.float32]:
    """128 numbers of unit norm (all zero for silence) from packed descriptor rows.

    The rectified contrast, averaged over each eighth of the segment, as the coefficients 1 … 16
    of a cosine transform over the bands.
    """
    contrast = np.maximum(unpack_descriptor(descriptor, params), 0)
    out = np.zeros((_TIME_PARTS, _SHAPES), np.float64)
    shapes = _cosines(params.descriptor_bands)
    edges = np.linspace(0, contrast.shape[0], _TIME_PARTS + 1).astype(int)
    for part in range(_TIME_PARTS):
        rows = contrast[edges[part] : edges[part + 1]]
        if rows.shape[0]:
            out[part] = shapes @ rows.mean(axis=0, dtype=np.float64)
    norm = np.linalg.norm(out)
    if norm > 0:
        out /= norm
    return out.ravel().astype(np.float32)


@functools.lru_cache(maxsize=4)
def _cosines(n_bands: int) -> NDArray[np.float64]:
    order = np.arange(1, _SHAPES + 1)[:, None]
    return np.asarray(np.cos(np.pi * order * (np.arange(n_bands) + 0.5) / n_bands))
