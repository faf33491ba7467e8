"""Why a match is a match: what lies on what, where else it was tried, what each part counted.

Nothing here decides anything. All of it is measured by the very functions that the search measures
with, at the place that the match names.
"""

import math
from collections.abc import Iterable

import numpy as np

from soundhash_engine.comparison import features_of, window_frames
from soundhash_engine.errors import SilentAudio
from soundhash_engine.explanation import Explanation, Place, WindowScore
from soundhash_engine.index import Index, Snapshot
from soundhash_engine.landmarks import query_features
from soundhash_engine.matcher import (
    EDGE_S,
    LINE_S,
    SINGLE_WINDOW_S,
    WINDOW_S,
    Match,
    context_bounds,
    window_starts,
)
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.placement import (
    Line,
    Part,
    align_landmarks,
    clip_landmarks,
    correlate_blocks,
    offset_histogram,
    read_patches,
    recording_landmarks,
)
from soundhash_engine.score import Contribution, confidence, contributions
from soundhash_engine.types import Fingerprint, Pcm, QueryFeatures
from soundhash_engine.verify import Evidence
from soundhash_engine.window import WindowSearch

RUNNERS_UP = 3
SAME_SCORE = 0.01
"""A window this near to the match's score is where it comes from."""


def explain(snapshot: Snapshot, pcm: Pcm, match: Match, params: Params = PARAMS) -> Explanation:
    """Why ``match`` was answered for the clip ``pcm`` (mono float32 at 8 kHz).

    Costs two full searches of one window. ``place`` is the part of the clip that convinces most on
    the match's line; it may convince more than the window that the match was found in.
    Raises ValueError when the recording is not in the snapshot or the match not within the clip,
    SilentAudio when the clip has no landmark there.
    """
    pcm = np.ascontiguousarray(pcm, np.float32)
    if match.clip_end_s > pcm.size / params.sample_rate_hz + 0.001:
        raise ValueError("the match is not within the clip")
    parts = (
        (query_features(pcm[first:last], params), first / params.sample_rate_hz)
        for first, last in parts_of(pcm.size, match, params)
    )
    return explain_features(snapshot, parts, match, params)


def explain_comparison(
    first: Fingerprint, second: Fingerprint, passage: Match, params: Params = PARAMS
) -> Explanation:
    """Why ``passage`` of ``compare(first, second)`` is shared; the second is the clip.

    Raises as ``explain`` does.
    """
    index = Index(params)
    index.apply([(passage.recording_id, 0, first)])
    parts = (
        (features_of(second, start, count, params), start / params.frames_per_s)
        for start, count in window_frames(second.n_frames, params)
        if start / params.frames_per_s < passage.clip_end_s
        and (start + count) / params.frames_per_s > passage.clip_start_s
    )
    return explain_features(index.snapshot(), parts, passage, params)


def parts_of(n_samples: int, match: Match, params: Params) -> list[tuple[int, int]]:
    """Samples of the windows that the match touches, and of what it covers of each.

    Last of a long clip the longer stretches on which doubtful matches are weighed.
    """
    rate = params.sample_rate_hz
    starts = window_starts(n_samples, params)
    length = n_samples if len(starts) == 1 else round(WINDOW_S * rate)
    out: list[tuple[int, int]] = []
    for start in starts:
        first = max(start, round(match.clip_start_s * rate))
        last = min(start + length, n_samples, round(match.clip_end_s * rate))
        if last <= first:
            continue
        whole = (start, min(start + length, n_samples))
        out.append(whole)
        trimmed = first - whole[0] > EDGE_S * rate or whole[1] - last > EDGE_S * rate
        if trimmed and last - first >= params.min_clip_s * rate:
            out.append((first, last))
    if len(starts) > 1:
        out += [
            (first, last)
            for first, last in context_bounds(n_samples, params)
            if first < match.clip_end_s * rate and last > match.clip_start_s * rate
        ]
    return out


def line_of(snapshot: Snapshot, match: Match, params: Params = PARAMS) -> Line | None:
    """The match as a line through its recording, None when the snapshot has that no more."""
    found = snapshot.find(match.recording_id)
    if found is None:
        return None
    volume, row = found
    # The start is cut off at 0 where the clip begins before the recording; the end is not.
    clip_s, video_s = match.clip_start_s, match.video_start_s
    if video_s <= 0.0:
        clip_s, video_s = match.clip_end_s, match.video_end_s
    return Line(
        volume=volume,
        row=row,
        recording_id=match.recording_id,
        at_zero_s=video_s - match.speed * clip_s,
        tempo=match.speed,
        pitch_bins=params.bands_per_octave * math.log2(match.pitch),
        identity=match.parts.identity,
        params=params,
    )


def explain_features(
    snapshot: Snapshot,
    parts: Iterable[tuple[QueryFeatures, float]],
    match: Match,
    params: Params = PARAMS,
) -> Explanation:
    """As ``explain``, for parts of the clip whose features are at hand, each with the second of
    the clip at which it begins."""
    line = line_of(snapshot, match, params)
    if line is None:
        raise ValueError(f"recording {match.recording_id} is not in the snapshot")
    best: Part | None = None
    windows: list[WindowScore] = []
    looked_at = False
    for features, begin_s in parts:
        looked_at = True
        if not len(features.landmarks):
            continue
        longer = features.n_samples > SINGLE_WINDOW_S * params.sample_rate_hz
        if longer and best is not None and best.score >= match.score - SAME_SCORE:
            break
        part = line.lay(features, begin_s)
        end_s = begin_s + features.n_samples / params.sample_rate_hz
        windows.append(WindowScore(begin_s, end_s, part.score))
        if best is None or part.score > best.score:
            best = part
    if not looked_at:
        raise ValueError("the match is not within the clip")
    if best is None:
        raise SilentAudio("nothing stands out in the clip where the match is")
    clip = clip_landmarks(best, params)
    recording = recording_landmarks(best, line)
    patches = read_patches(best, line)
    return Explanation(
        place=_place(
            line.recording_id,
            line.at(best.begin_s),
            line.tempo,
            line.pitch_bins,
            (best.evidence, best.terms),
            best,
            snapshot.hours,
            params,
        ),
        clip=clip,
        recording=recording,
        aligned=align_landmarks(clip, recording, line),
        offsets=offset_histogram(best, line),
        patches=patches,
        blocks=correlate_blocks(patches, line),
        windows=tuple(sorted(windows, key=lambda one: (one.start_s, one.end_s))),
        runners_up=_runners_up(snapshot, best, line),
    )


def _runners_up(snapshot: Snapshot, part: Part, line: Line) -> tuple[Place, ...]:
    """The best places that are not the match's own.

    A sure match ends the search; what would be answered without its recording is looked for too.
    """
    centre_s = 0.5 * (part.query.n_frames - 1) * line.frame_s + line.lead_s
    hits = [
        hit
        for view in (snapshot, snapshot.without([line.recording_id]))
        for hit in WindowSearch(view, part.features, line.params).run(math.inf).hits
    ]
    hits.sort(key=lambda hit: (-hit.score, hit.recording_id, hit.position))
    taken = [(line.recording_id, part.position - line.base)]
    out: list[Place] = []
    for hit in hits:
        known = any(
            recording_id == hit.recording_id
            and abs(position - hit.position) * line.frame_s < LINE_S
            for recording_id, position in taken
        )
        if known:
            continue
        taken.append((hit.recording_id, hit.position))
        out.append(
            _place(
                hit.recording_id,
                hit.position * line.frame_s + line.lead_s - hit.tempo * centre_s,
                hit.tempo,
                hit.pitch,
                (hit.evidence, contributions(hit.evidence, identity=hit.identity)),
                part,
                snapshot.hours,
                line.params,
            )
        )
        if len(out) == RUNNERS_UP:
            break
    return tuple(out)


def _place(
    recording_id: int,
    start_s: float,
    speed: float,
    pitch_bins: float,
    judged: tuple[Evidence, tuple[Contribution, ...]],
    part: Part,
    hours: float,
    params: Params,
) -> Place:
    """A place from what lies at the part's start: ``start_s`` of the recording."""
    evidence, terms = judged
    length_s = part.features.n_samples / params.sample_rate_hz
    score = sum(term.contribution for term in terms)
    return Place(
        recording_id=recording_id,
        clip_start_s=part.begin_s,
        clip_end_s=part.begin_s + length_s,
        video_start_s=start_s,
        video_end_s=start_s + speed * length_s,
        speed=speed,
        pitch=2.0 ** (pitch_bins / params.bands_per_octave),
        score=score,
        confidence=confidence(score, hours),
        contributions=terms,
        evidence=evidence,
    )
