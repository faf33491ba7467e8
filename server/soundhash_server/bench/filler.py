"""Fingerprints of music that does not exist, as many hours as wanted, as like real ones as can be.

Each made-up recording (2 to 6 minutes) is two real recordings laid on one another: the low bands of
one, the high bands of another. Each is taken from a place of its own, reversed in time, stretched
by a factor of its own (0.8 … 1.25) that drifts along the recording, and transposed by whole
semitones (the low part down, the high part up, by up to 5). The descriptor goes the same way: rows
reversed and stretched, bands shifted, low ones of the first and high ones of the second. Landmarks
are ranked again and cut to the density that is stored.

No clip comes from made-up music. How like real music it is, `likeness` says; measured on game
music: 67,000 landmarks and 156,500 triples an hour (real: 72,000 and 163,000), and a key of another
album meets 0.014 … 0.021 postings an hour of it (real: 0.020; speech: 0.002).
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from soundhash_engine import PARAMS, Fingerprint, Landmarks
from soundhash_engine.landmarks import rank_landmarks
from soundhash_engine.triples import reference_triples

LEAST_S, MOST_S = 120.0, 360.0
QUARTERS_A_BAND = 12
MOST_SEMITONES = 5
STRETCH = 1.25
DRIFT = 0.03
LEAST_SOURCE_FRAMES = 1500


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A real recording, ready to be cut up: cells are the descriptor's, one a byte."""

    marks: Landmarks
    cells: NDArray[np.uint8]
    n_frames: int


def prepare(prints: Sequence[Fingerprint]) -> list[Source]:
    """The recordings that are long enough to make others of."""
    sources = []
    for made in prints:
        if made.n_frames >= LEAST_SOURCE_FRAMES:
            cells = np.empty((len(made.descriptor), 2 * made.descriptor.shape[1]), np.uint8)
            cells[:, 0::2] = made.descriptor & 15
            cells[:, 1::2] = made.descriptor >> 4
            sources.append(Source(made.landmarks, cells, made.n_frames))
    return sources


def _warp(random: np.random.Generator, n_frames: int) -> NDArray[np.float64]:
    """Frames of the source that have passed at each frame of the made-up recording, rising."""
    knots = np.linspace(0, n_frames, max(2, n_frames // 600))
    stretch = STRETCH ** random.uniform(-1, 1)
    rate = stretch * (1 + DRIFT * random.uniform(-1, 1, len(knots)))
    return np.concatenate([[0.0], np.cumsum(np.interp(np.arange(n_frames), knots, rate))])


def _layer(
    source: Source, random: np.random.Generator, n_frames: int, semitones: int, low: int, high: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8], NDArray[np.uint8]]:
    """Times, bins and strengths of landmarks, and descriptor cells, of the bands [low, high)."""
    passed = _warp(random, n_frames)
    marks = source.marks
    # Reversed; past its end the source begins again.
    start = random.uniform(0, source.n_frames)
    turns = np.arange(1 + int((passed[-1] + start) // source.n_frames))
    back = (source.n_frames - 0.5 * marks.time[::-1])[None, :]
    at = (back + source.n_frames * turns[:, None]).ravel() - start
    inside = (at >= 0) & (at < passed[-1])
    which = (len(marks) - 1 - np.tile(np.arange(len(marks)), len(turns)))[inside]
    time = np.round(2 * np.interp(at[inside], passed, np.arange(n_frames + 1))).astype(np.int32)
    bins = marks.bin[which].astype(np.int32) + QUARTERS_A_BAND * semitones
    keep = (bins >= QUARTERS_A_BAND * low) & (bins < QUARTERS_A_BAND * high)
    keep &= (time >= 0) & (time < 2 * n_frames) & (bins >= 12) & (bins <= 655)
    step = PARAMS.descriptor_frames
    frame = passed[np.arange(n_frames // step) * step] + start
    row = (source.n_frames - 1 - frame.astype(np.int64) % source.n_frames) // step
    row = np.clip(row, 0, len(source.cells) - 1)
    band = np.clip(np.arange(low, high) - semitones, 0, PARAMS.descriptor_bands - 1)
    cells = source.cells[np.ix_(row, band)]
    return time[keep], bins[keep], marks.strength[which][keep], cells


def make(sources: Sequence[Source], seed: int) -> Fingerprint:
    """One made-up recording; the same for the same seed."""
    random = np.random.default_rng(seed)
    n_frames = int(random.uniform(LEAST_S, MOST_S) * PARAMS.frames_per_s)
    bands = PARAMS.descriptor_bands
    split = int(random.integers(18, 37))
    first, second = random.choice(len(sources), 2, replace=len(sources) < 2)
    down = -int(random.integers(0, MOST_SEMITONES + 1))
    up = int(random.integers(0, MOST_SEMITONES + 1))
    layers = [
        _layer(sources[first], random, n_frames, down, 0, split),
        _layer(sources[second], random, n_frames, up, split, bands),
    ]
    time, bins, strength = (np.concatenate([layer[i] for layer in layers]) for i in range(3))
    order = np.lexsort((bins, time))
    time, bins, strength = time[order], bins[order].astype(np.int16), strength[order]
    ranked = rank_landmarks(time, bins, strength, n_frames)
    keep = ranked.rank < PARAMS.rank_limit
    cells = np.full((len(layers[0][3]), 2 * PARAMS.descriptor_row_bytes), 0, np.uint8)
    cells[:, :split] = layers[0][3]
    cells[:, split:bands] = layers[1][3]
    return Fingerprint(
        duration_s=n_frames / PARAMS.frames_per_s,
        n_frames=n_frames,
        landmarks=rank_landmarks(time[keep], bins[keep], strength[keep], n_frames),
        descriptor=np.bitwise_or(cells[:, 0::2], cells[:, 1::2] << np.uint8(4)),
    )


def catalogue(sources: Sequence[Source], hours: float, seed: int = 0) -> Iterator[Fingerprint]:
    """Made-up recordings until they make so many hours."""
    seconds = 0.0
    while seconds < hours * 3600.0:
        made = make(sources, seed)
        seconds += made.duration_s
        seed += 1
        yield made


@dataclasses.dataclass(frozen=True, slots=True)
class Likeness:
    """What a search meets: figures that should be alike for real and made-up music.

    landmarks_h, triples_h  an hour of audio
    foreign_reads           postings an hour of catalogue holds of each key of other recordings,
                            in millionths: what a key costs that finds nothing
    common_share            share of postings whose key occurs more than 4, 16, 64 times
    top_keys                postings of the most frequent keys: 99.9th and 99.99th percentile over
                            distinct keys, and the most frequent one
    """

    hours: float
    landmarks_h: float
    triples_h: float
    foreign_reads: float
    common_share: tuple[float, float, float]
    top_keys: tuple[float, float, float]


def likeness(prints: Sequence[Fingerprint], foreign: Sequence[Fingerprint]) -> Likeness:
    """Figures of recordings, probed with the keys of others."""
    hours = sum(p.duration_s for p in prints) / 3600.0
    keys = np.concatenate([reference_triples(p.landmarks)[0] for p in prints])
    distinct, counts = np.unique(keys, return_counts=True)
    probes = np.concatenate([reference_triples(p.landmarks)[0] for p in foreign])
    at = np.minimum(np.searchsorted(distinct, probes), len(distinct) - 1)
    met = np.where(distinct[at] == probes, counts[at], 0)
    # As a search does: a key that is everywhere is not asked.
    met = met[met <= 16 + int(hours / 100)]
    top = np.percentile(counts, [99.9, 99.99, 100.0])
    return Likeness(
        hours=hours,
        landmarks_h=sum(len(p.landmarks) for p in prints) / hours,
        triples_h=len(keys) / hours,
        foreign_reads=1e6 * float(met.sum()) / len(probes) / hours,
        common_share=(
            float(counts[counts > 4].sum() / len(keys)),
            float(counts[counts > 16].sum() / len(keys)),
            float(counts[counts > 64].sum() / len(keys)),
        ),
        top_keys=(float(top[0]), float(top[1]), float(top[2])),
    )
