"""Two stored fingerprints side by side, without an index."""

import dataclasses

import numpy as np

from soundhash_engine.descriptor import unpack_descriptor
from soundhash_engine.errors import SilentAudio
from soundhash_engine.index import Index
from soundhash_engine.matcher import ClipSearch, Match, MatchOptions, Passage, collect
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.types import Fingerprint, Landmarks, QueryFeatures
from soundhash_engine.vector import compact_vector

WINDOW_FRAMES = 624
"""10 s; a multiple of the descriptor's row."""
HOP_FRAMES = 312
MOST_WINDOWS = 60
"""A long recording is compared at this many places, evenly spread."""


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """How two recordings relate.

    passages       of the second recording found in the first: ``clip_*`` are seconds of the second,
                   ``video_*`` of the first; best first, empty if they share nothing
    score          of the best passage, −inf without one
    confidence     0 … 1
    offset_s       the second's start in the first's seconds
    speed, pitch   of the second against the first
    correlation, distance  of the best passage: −1 … 1 and 0 … 2
    vector_cosine  cosine of the compact vectors, −1 … 1
    """

    passages: tuple[Match, ...]
    score: float
    confidence: float
    offset_s: float
    speed: float
    pitch: float
    correlation: float
    distance: float
    vector_cosine: float


def features_of(
    fingerprint: Fingerprint, first_frame: int, n_frames: int, params: Params = PARAMS
) -> QueryFeatures:
    """A stored fingerprint's frames [first, first + n) as if they were a clip.

    ``first_frame`` is a multiple of the descriptor's row. The contrast is the descriptor's: pooled
    and quantised, which is all that the patch reads of it anyway.
    """
    marks = fingerprint.landmarks
    low, high = np.searchsorted(marks.time, (2 * first_frame, 2 * (first_frame + n_frames)))
    rows = fingerprint.descriptor[
        first_frame // params.descriptor_frames : (first_frame + n_frames)
        // params.descriptor_frames
    ]
    pooled = unpack_descriptor(rows, params)
    contrast = np.zeros((n_frames, params.n_bands), np.float32)
    wide = np.repeat(
        np.repeat(pooled, params.descriptor_frames, axis=0), params.descriptor_bins, axis=1
    )
    contrast[: wide.shape[0], : wide.shape[1]] = wide
    return QueryFeatures(
        contrast=contrast,
        landmarks=Landmarks(
            time=(marks.time[low:high] - np.int32(2 * first_frame)).astype(np.int32),
            bin=marks.bin[low:high].copy(),
            strength=marks.strength[low:high].copy(),
            rank=marks.rank[low:high].copy(),
            n_frames=n_frames,
        ),
        n_samples=n_frames * params.hop_samples + params.n_fft_samples - params.hop_samples,
    )


def window_frames(n_frames: int, params: Params = PARAMS) -> list[tuple[int, int]]:
    """First frame and number of frames of the windows in which a recording is looked for."""
    row = params.descriptor_frames
    last = max(0, n_frames - WINDOW_FRAMES) // row * row
    count = min(MOST_WINDOWS, -(-last // HOP_FRAMES) + 1)
    starts = np.unique(np.linspace(0, last, count).astype(int) // row * row)
    return [(start, min(WINDOW_FRAMES, n_frames - start)) for start in starts.tolist()]


def compare(first: Fingerprint, second: Fingerprint, params: Params = PARAMS) -> Comparison:
    """Find the second recording, or passages of it, in the first.

    Raises SilentAudio when one of them has no landmark.
    """
    for name, fingerprint in (("first", first), ("second", second)):
        if not len(fingerprint.landmarks):
            raise SilentAudio(f"nothing stands out in the {name} recording")
    index = Index(params)
    index.apply([(0, 0, first)])
    snapshot = index.snapshot()
    search = ClipSearch(snapshot, params)
    passages: list[Passage] = []
    for start, length in window_frames(second.n_frames, params):
        passages += search.features(
            features_of(second, start, length, params), start / params.frames_per_s
        )
    options = MatchOptions(top=100)
    matches = collect(passages, snapshot, options)
    a = compact_vector(first.descriptor, params)
    b = compact_vector(second.descriptor, params)
    best = matches[0] if matches else None
    return Comparison(
        passages=tuple(matches),
        score=best.score if best else float("-inf"),
        confidence=best.confidence if best else 0.0,
        offset_s=best.video_start_s - best.speed * best.clip_start_s if best else 0.0,
        speed=best.speed if best else 1.0,
        pitch=best.pitch if best else 1.0,
        correlation=best.parts.correlation if best else 0.0,
        distance=best.parts.distance if best else float(np.sqrt(2.0)),
        vector_cosine=float(np.dot(a, b)),
    )
