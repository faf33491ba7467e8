"""An explanation as messages, within the bounds that they promise."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from soundhash.v1 import match_pb2
from soundhash_engine.explanation import (
    AlignedLandmarks,
    LandmarkPoints,
    OffsetHistogram,
    Patches,
    Place,
)
from soundhash_server.model import Video
from soundhash_server.rpc.convert import duration, match_message
from soundhash_server.services.explaining import DESCRIPTIONS, Explained
from soundhash_server.services.links import deep_link

MOST_LANDMARKS = 2000
MOST_ROWS = 1000
CONTRAST_STEPS_PER_NEPER = 16


def explained_message(made: Explained) -> match_pb2.ExplainMatchResponse:
    """The answer of ExplainMatch."""
    why = made.why
    ours = _chosen(why.clip, why.aligned.clip)
    theirs = _chosen(why.recording, why.aligned.recording)
    found = made.match
    clip, video = _patches(why.patches)
    patches = match_pb2.Patches()
    if clip.rows:
        times, frequency_hz = why.patches.recording_time_s, why.patches.frequency_hz
        patches = match_pb2.Patches(
            clip=clip,
            video=video,
            first_clip_s=float(why.patches.clip_time_s[0]),
            first_video_s=float(times[0]),
            row_s=float(times[1] - times[0]) if times.size > 1 else 0.0,
            lowest_hz=float(frequency_hz[0]),
        )
    return match_pb2.ExplainMatchResponse(
        match=match_message(found),
        place=_place(why.place, made.videos, fallback=(found.video_id, found.title)),
        clip_landmarks=_points(why.clip, ours),
        video_landmarks=_points(why.recording, theirs),
        aligned=_aligned(why.aligned, ours, theirs),
        offsets=_offsets(why.offsets),
        patches=patches,
        blocks=[
            match_pb2.CoverageBlock(
                start=duration(block.start_s),
                end=duration(block.end_s),
                correlation=block.correlation,
                covered=block.covered,
            )
            for block in why.blocks[:MOST_ROWS]
        ],
        runners_up=[
            _place(place, made.videos)
            for place in why.runners_up
            if place.recording_id in made.videos
        ],
        match_score=made.match_score,
        catalogue_hours=made.hours,
        from_kept=made.from_kept,
    )


def _place(
    place: Place, videos: Mapping[int, Video], *, fallback: tuple[UUID, str] | None = None
) -> match_pb2.MatchedPlace:
    video = videos.get(place.recording_id)
    video_id, title = (video.id, video.title) if video else (fallback or ("", ""))
    url = deep_link(video.source_url, place.video_start_s) if video and video.source_url else ""
    evidence = place.evidence
    return match_pb2.MatchedPlace(
        video_id=str(video_id),
        title=title,
        source_url=url,
        clip_start=duration(place.clip_start_s),
        clip_end=duration(place.clip_end_s),
        video_start=duration(place.video_start_s),
        video_end=duration(place.video_end_s),
        speed=place.speed,
        pitch=place.pitch,
        score=place.score,
        confidence=place.confidence,
        terms=[
            match_pb2.ScoreTerm(
                name=term.name,
                description=DESCRIPTIONS.get(term.name, term.name),
                value=term.value,
                weight=term.weight,
                contribution=term.contribution,
            )
            for term in place.contributions
        ],
        parts=match_pb2.ScoreParts(
            score=place.score,
            landmark_votes=evidence.lz,
            landmark_contrast=evidence.uz,
            rectified_correlation=evidence.rp,
            correlation=evidence.correlation,
            distance=evidence.distance,
            overlap=evidence.overlap,
            coverage=evidence.coverage,
        ),
    )


def _chosen(points: LandmarkPoints, aligned: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of the landmarks that are told, in the order of time: the aligned, then the
    strongest ones."""
    if len(points) <= MOST_LANDMARKS:
        return np.arange(len(points))
    first = np.zeros(len(points), np.int64)
    first[aligned] = 1
    order = np.lexsort((-points.strength.astype(np.int64), -first))
    return np.sort(order[:MOST_LANDMARKS])


def _points(points: LandmarkPoints, chosen: NDArray[np.int64]) -> match_pb2.LandmarkPoints:
    return match_pb2.LandmarkPoints(
        time_s=points.time_s[chosen].tolist(),
        frequency_hz=points.frequency_hz[chosen].tolist(),
        strength=points.strength[chosen].tolist(),
        total=len(points),
    )


def _aligned(
    pairs: AlignedLandmarks, ours: NDArray[np.int64], theirs: NDArray[np.int64]
) -> match_pb2.AlignedLandmarks:
    told = np.isin(pairs.clip, ours) & np.isin(pairs.recording, theirs)
    return match_pb2.AlignedLandmarks(
        clip=np.searchsorted(ours, pairs.clip[told]).tolist(),
        video=np.searchsorted(theirs, pairs.recording[told]).tolist(),
        residual_s=pairs.residual_s[told].tolist(),
        residual_bins=pairs.residual_bins[told].tolist(),
        total=len(pairs),
    )


def _offsets(votes: OffsetHistogram) -> match_pb2.OffsetHistogram:
    possible = np.flatnonzero(votes.possible)
    return match_pb2.OffsetHistogram(
        first_offset_s=float(votes.offset_s[0]),
        bin_s=float(votes.offset_s[1] - votes.offset_s[0]),
        votes=votes.votes.tolist(),
        first_possible=int(possible[0]) if possible.size else 0,
        last_possible=int(possible[-1]) if possible.size else 0,
        background=votes.background,
    )


def _patches(patches: Patches) -> tuple[match_pb2.ContrastPatch, match_pb2.ContrastPatch]:
    return _patch(patches.clip), _patch(patches.recording)


def _patch(contrast: NDArray[np.float32]) -> match_pb2.ContrastPatch:
    contrast = contrast[:MOST_ROWS]
    rows, bands = contrast.shape
    if not rows or not bands:
        return match_pb2.ContrastPatch()
    cells = np.clip(np.round(contrast * CONTRAST_STEPS_PER_NEPER) + 128, 0, 255)
    return match_pb2.ContrastPatch(rows=rows, bands=bands, cells=cells.astype(np.uint8).tobytes())
