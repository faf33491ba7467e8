"""The plain data that travels between the engine's stages."""

import dataclasses
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Pcm: TypeAlias = NDArray[np.float32]
"""Mono audio at 8 kHz, full scale ±1, shape (n_samples,)."""
Levels: TypeAlias = NDArray[np.int16]
"""Log band levels in 1/256 neper, shape (n_frames, n_bands)."""
Contrast: TypeAlias = NDArray[np.float32]
"""Levels less their local mean, in neper, shape (n_frames, n_bands)."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Landmarks:  # noqa: PLW1641 - arrays have no hash
    """Spectral peaks, sorted by (time, bin); all arrays have the same length.

    time      int32, half frames (8 ms) from the start of the audio
    bin       int16, quarter bins (1/144 octave) above 150 Hz
    strength  uint8, 0 … 63
    rank      uint8, how many of these landmarks within ±31 frames are stronger (ties: the
              earlier one is); 0 is the strongest. Made from the three fields above alone, so a
              stored and a fresh fingerprint agree on it; strengths being rounded, it may pass
              the limit under which landmarks were kept by a few.
    n_frames  frames of the audio that the landmarks come from
    """

    time: NDArray[np.int32]
    bin: NDArray[np.int16]
    strength: NDArray[np.uint8]
    rank: NDArray[np.uint8]
    n_frames: int

    def __len__(self) -> int:
        return self.time.size

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Landmarks):
            return NotImplemented
        return self.n_frames == other.n_frames and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("time", "bin", "strength", "rank")
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class QueryFeatures:
    """What the matcher needs of a clip.

    contrast   float32 (n_frames, n_bands), neper, after drop-out fill and noise subtraction
    landmarks  rank limit 60, from the same levels
    n_samples  length of the clip at 8 kHz
    """

    contrast: Contrast
    landmarks: Landmarks
    n_samples: int


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """The stored form of up to 90 s of a recording; everything a database row needs.

    index           0, 1, 2, … within the recording
    start_s         index · 90
    duration_s      90, or what the last segment has
    landmarks       blob: 3 bytes a landmark, compressed
    descriptor      blob: 4-bit pooled contrast, compressed
    vector          compact vector: float32 little endian, unit norm
    md5             hex, of version, landmarks and descriptor before compression
    params_digest   `Params.digest` that it was made with
    landmark_count  landmarks in the blob
    """

    index: int
    start_s: float
    duration_s: float
    landmarks: bytes
    descriptor: bytes
    vector: bytes
    md5: str
    params_digest: str
    landmark_count: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """A whole recording, joined from its segments.

    duration_s  of the audio
    n_frames    16 ms frames
    landmarks   rank limit 20
    descriptor  uint8 (n_frames // 4, 28): pooled contrast, two 4-bit bands a byte
    """

    duration_s: float
    n_frames: int
    landmarks: Landmarks
    descriptor: NDArray[np.uint8]
