"""The reference descriptor: contrast pooled to 64 ms × 1/12 octave, four bits a cell."""

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.jit import kernel
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.types import Contrast


@kernel
def _pool(
    contrast: NDArray[np.float32],
    n_rows: int,
    n_bands: int,
    row_frames: int,
    band_bins: int,
    step: np.float32,
    clip: int,
) -> NDArray[np.uint8]:
    out = np.empty((n_rows, n_bands), np.uint8)
    scale = step * np.float32(row_frames * band_bins)
    for row in range(n_rows):
        for band in range(n_bands):
            total = np.float32(0)
            for t in range(row * row_frames, (row + 1) * row_frames):
                for b in range(band * band_bins, (band + 1) * band_bins):
                    total += contrast[t, b]
            value = int(np.floor(total / scale + np.float32(0.5)))
            out[row, band] = min(max(value, -clip), clip) + clip + 1
    return out


def pool_contrast(contrast: Contrast, params: Params = PARAMS) -> NDArray[np.uint8]:
    """Packed descriptor rows of `contrast`, whose first row is a multiple of 4 frames.

    Returns uint8 (n_frames // 4, 28): two bands a byte, the lower one in the low nibble. A
    nibble is 8 + contrast / 0.5 neper, 1 … 15. An incomplete last row is dropped.
    """
    n_rows = contrast.shape[0] // params.descriptor_frames
    cells = _pool(
        contrast,
        n_rows,
        params.descriptor_bands,
        params.descriptor_frames,
        params.descriptor_bins,
        np.float32(params.descriptor_step_neper),
        params.descriptor_clip_steps,
    )
    packed = cells[:, 0::2].copy()
    high = cells[:, 1::2]
    packed[:, : high.shape[1]] |= high << 4
    return packed


def unpack_descriptor(packed: NDArray[np.uint8], params: Params = PARAMS) -> NDArray[np.float32]:
    """Packed rows to pooled contrast in neper: float32 (n_rows, 55)."""
    cells = np.empty((packed.shape[0], 2 * packed.shape[1]), np.uint8)
    cells[:, 0::2] = packed & 15
    cells[:, 1::2] = packed >> 4
    offset = params.descriptor_clip_steps + 1
    used = cells[:, : params.descriptor_bands].astype(np.float32)
    return (used - np.float32(offset)) * np.float32(params.descriptor_step_neper)
