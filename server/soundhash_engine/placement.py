"""A part of a clip laid on a recording where a match says: what lies on what.

The same measurements that the search decides by, kept instead of summed up.
"""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.explanation import (
    AlignedLandmarks,
    Block,
    LandmarkPoints,
    OffsetHistogram,
    Patches,
)
from soundhash_engine.pairs import PAIR_BIN_FRAMES, PAIR_NEAR_BINS, PAIR_SIDE_BINS
from soundhash_engine.params import Params
from soundhash_engine.patch import (
    BLOCK_CORRELATION,
    BLOCK_ROWS,
    block_correlations,
    centre_patch,
    read_patch,
)
from soundhash_engine.score import Contribution, contributions
from soundhash_engine.types import QueryFeatures
from soundhash_engine.verify import (
    Evidence,
    Query,
    count_votes,
    landmarks_around,
    prepare,
    verify,
)
from soundhash_engine.volume import Volume

AROUND_S = 2.0
"""The recording's landmarks are told this far before and after the clip."""
ALIGNED_S = 0.024
ALIGNED_BINS = 0.9
"""Landmarks nearer than this to one another are aligned."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A part of the clip laid where the match says.

    position  frame of the volume's time line at the part's centre
    """

    features: QueryFeatures
    query: Query
    begin_s: float
    position: float
    evidence: Evidence
    terms: tuple[Contribution, ...]

    @property
    def score(self) -> float:
        """Sum of the terms."""
        return sum(term.contribution for term in self.terms)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A match as a straight line through one recording.

    At the time c of the clip it plays the recording's time ``at_zero_s + tempo · c``;
    ``pitch_bins``: how much higher, in 1/36 octave.
    """

    volume: Volume
    row: int
    recording_id: int
    at_zero_s: float
    tempo: float
    pitch_bins: float
    identity: bool
    params: Params

    @property
    def frame_s(self) -> float:
        """16 ms."""
        return 1.0 / self.params.frames_per_s

    @property
    def lead_s(self) -> float:
        """A frame's level belongs to its middle."""
        return 0.5 * self.params.n_fft_samples / self.params.sample_rate_hz

    @property
    def base(self) -> float:
        """Frame of the volume's time line at which the recording begins."""
        return float(self.volume.base_frame[self.row])

    def at(self, clip_s: float) -> float:
        """The recording's time at a time of the clip."""
        return self.at_zero_s + self.tempo * clip_s

    def lay(self, features: QueryFeatures, begin_s: float) -> Part:
        """Verify a part of the clip that begins at ``begin_s``."""
        centre_s = begin_s + 0.5 * (features.landmarks.n_frames - 1) * self.frame_s + self.lead_s
        position = (self.at(centre_s) - self.lead_s) / self.frame_s + self.base
        query = prepare(features.contrast, features.landmarks, self.params)
        evidence = verify(
            query, self.volume, self.row, position, self.pitch_bins, self.tempo, self.params
        )
        terms = contributions(evidence, identity=self.identity)
        return Part(features, query, begin_s, position, evidence, terms)


def _frequency(bins: NDArray[np.float64], params: Params) -> NDArray[np.float64]:
    return np.asarray(params.lowest_band_hz * 2.0 ** (bins / params.bands_per_octave))


def clip_landmarks(part: Part, params: Params) -> LandmarkPoints:
    """All landmarks of the part."""
    marks = part.features.landmarks
    lead_s = 0.5 * params.n_fft_samples / params.sample_rate_hz
    return LandmarkPoints(
        time_s=marks.time.astype(np.float64) * params.half_frame_s + (part.begin_s + lead_s),
        frequency_hz=_frequency(0.25 * marks.bin.astype(np.float64), params),
        strength=marks.strength.copy(),
    )


def recording_landmarks(part: Part, line: Line) -> LandmarkPoints:
    """The recording's landmarks where the part lies, and around."""
    params = line.params
    time, bins, strength = landmarks_around(
        part.query, line.volume, line.row, part.position, line.tempo, params
    )
    time_s = (time - 2.0 * line.base) * params.half_frame_s + line.lead_s
    end_s = part.begin_s + part.features.n_samples / params.sample_rate_hz
    near = slice(
        *np.searchsorted(time_s, (line.at(part.begin_s) - AROUND_S, line.at(end_s) + AROUND_S))
    )
    return LandmarkPoints(
        time_s=time_s[near],
        frequency_hz=_frequency(0.25 * bins[near], params),
        strength=strength[near].copy(),
    )


def align_landmarks(
    clip: LandmarkPoints, recording: LandmarkPoints, line: Line
) -> AlignedLandmarks:
    """Pairs of landmarks that lie on one another: the nearest first, each landmark once."""
    predicted_s = line.at_zero_s + line.tempo * clip.time_s
    predicted_bins = line.params.bands_per_octave * np.log2(clip.frequency_hz) - line.pitch_bins
    bins = line.params.bands_per_octave * np.log2(recording.frequency_hz)
    first = np.searchsorted(recording.time_s, predicted_s - ALIGNED_S)
    last = np.searchsorted(recording.time_s, predicted_s + ALIGNED_S, side="right")
    count = last - first
    ours = np.repeat(np.arange(len(clip)), count)
    theirs = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count - first, count)
    residual_s = recording.time_s[theirs] - predicted_s[ours]
    residual_bins = bins[theirs] - predicted_bins[ours]
    near = np.abs(residual_bins) <= ALIGNED_BINS
    ours, theirs = ours[near], theirs[near]
    residual_s, residual_bins = residual_s[near], residual_bins[near]
    distance = np.hypot(residual_s / ALIGNED_S, residual_bins / ALIGNED_BINS)
    used_ours = np.zeros(len(clip), np.bool_)
    used_theirs = np.zeros(len(recording), np.bool_)
    chosen: list[int] = []
    for i in np.argsort(distance, kind="stable").tolist():
        if not used_ours[ours[i]] and not used_theirs[theirs[i]]:
            used_ours[ours[i]] = used_theirs[theirs[i]] = True
            chosen.append(i)
    kept = np.array(sorted(chosen, key=lambda i: int(ours[i])), np.int64)
    return AlignedLandmarks(
        clip=ours[kept].astype(np.int64),
        recording=theirs[kept].astype(np.int64),
        residual_s=residual_s[kept],
        residual_bins=residual_bins[kept],
    )


def offset_histogram(part: Part, line: Line) -> OffsetHistogram:
    """Votes of pairs at the place and around it."""
    params = line.params
    marks = landmarks_around(part.query, line.volume, line.row, part.position, line.tempo, params)
    votes, first, last = count_votes(
        part.query,
        line.volume,
        line.row,
        marks,
        part.position,
        line.pitch_bins,
        line.tempo,
        params,
    )
    bins = np.arange(votes.size, dtype=np.float64) - PAIR_SIDE_BINS
    possible = (bins >= first - PAIR_SIDE_BINS) & (bins <= last - PAIR_SIDE_BINS)
    far = votes[possible & (np.abs(bins) > PAIR_NEAR_BINS)]
    return OffsetHistogram(
        offset_s=bins * (PAIR_BIN_FRAMES * line.frame_s),
        votes=votes,
        possible=possible,
        background=float(far.mean()) if far.size else 0.0,
    )


def read_patches(part: Part, line: Line) -> Patches:
    """Both sides' contrast at the place."""
    params = line.params
    volume = line.volume
    stored = volume.descriptor[volume.first_row[line.row] : volume.first_row[line.row + 1]]
    most = int(part.query.n_frames * line.tempo / params.descriptor_frames) + 3
    clip = np.zeros((most, params.descriptor_bands), np.float32)
    recording = np.zeros_like(clip)
    middle = np.zeros(most, np.float64)
    rows, bands = read_patch(
        part.query.integral,
        stored,
        0,
        params.descriptor_bands,
        params.descriptor_frames,
        params.descriptor_bins,
        params.descriptor_clip_steps,
        params.descriptor_step_neper,
        part.position - line.base,
        line.pitch_bins,
        line.tempo,
        clip,
        recording,
        middle,
    )
    if rows and bands:
        centre_patch(clip, rows, bands)
        centre_patch(recording, rows, bands)
    # The frame i covers [i, i + 1) there; its sound lies half a frame less than the lead later.
    clip_time_s = middle[:rows] * line.frame_s + (part.begin_s + line.lead_s - 0.5 * line.frame_s)
    # The lowest bands of the recording have no counterpart in a clip that plays higher.
    first_band = max(0, math.ceil(-line.pitch_bins / params.descriptor_bins))
    band = first_band + np.arange(bands, dtype=np.float64)
    centre = params.descriptor_bins * band + 0.5 * (params.descriptor_bins - 1)
    return Patches(
        clip=clip[:rows, :bands].copy(),
        recording=recording[:rows, :bands].copy(),
        clip_time_s=clip_time_s,
        recording_time_s=line.at_zero_s + line.tempo * clip_time_s,
        frequency_hz=_frequency(centre, params),
    )


def correlate_blocks(patches: Patches, line: Line) -> tuple[Block, ...]:
    """Half seconds of the patches."""
    rows, bands = patches.clip.shape
    if not rows or not bands:
        return ()
    values = block_correlations(patches.clip, patches.recording, rows, bands)
    half_s = 0.5 * line.params.descriptor_frames * line.frame_s / line.tempo
    out = []
    for k, value in enumerate(values.tolist()):
        last = rows if k == values.size - 1 else (k + 1) * BLOCK_ROWS
        out.append(
            Block(
                start_s=float(patches.clip_time_s[k * BLOCK_ROWS]) - half_s,
                end_s=float(patches.clip_time_s[last - 1]) + half_s,
                correlation=value,
                covered=value > BLOCK_CORRELATION,
            )
        )
    return tuple(out)
