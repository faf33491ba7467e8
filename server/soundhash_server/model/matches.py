"""Answers: what of a clip is what of a video."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class ScoreParts:
    """See soundhash.v1.ScoreParts."""

    score: float
    landmark_votes: float
    landmark_contrast: float
    rectified_correlation: float
    correlation: float
    distance: float
    overlap: float
    coverage: float


@dataclass(frozen=True, slots=True)
class OnAir:
    """Where and when a matching part was on the air, as a monitor heard it."""

    monitor_id: UUID
    monitor_name: str
    start_time: datetime
    end_time: datetime


@dataclass(frozen=True, slots=True)
class MatchRecord:
    """One answered match; see soundhash.v1.Match."""

    id: UUID | None
    """None while it is not stored (provisional)."""
    query_id: UUID | None
    video_id: UUID
    title: str
    source_url: str
    external_id: str
    clip_start_s: float
    clip_end_s: float
    video_start_s: float
    video_end_s: float
    speed: float
    pitch: float
    confidence: float
    parts: ScoreParts
    also_at_s: tuple[float, ...]
    create_time: datetime
    on_air: OnAir | None = None
    """Set when the video is what a monitor has heard."""
