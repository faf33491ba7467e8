"""Videos, what is kept of them, and pages of lists."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

from soundhash_server.model.jobs import JobState

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list, in a stable order."""

    items: tuple[T, ...]
    next_page_token: str
    """Opaque; empty on the last page."""


@dataclass(frozen=True, slots=True)
class Video:
    """One indexed recording."""

    id: UUID
    recording_id: int
    """The match index's key for it; never reused."""
    title: str
    source_url: str
    external_id: str
    channel: str
    duration_s: float
    content_sha256: str
    segment_count: int
    landmark_count: int
    params_digest: str
    revision: int
    """The catalogue's revision at which its fingerprints last changed."""
    create_time: datetime
    update_time: datetime
    service: str = ""
    media_id: str = ""
    description: str = ""
    publish_time: datetime | None = None
    thumbnail_url: str = ""
    monitor_id: UUID | None = None
    """The monitor that heard it; None for all but what was on the air."""
    monitor_name: str = ""
    air_time: datetime | None = None
    """When its first second was on the air. Set with monitor_id."""


@dataclass(frozen=True, slots=True)
class NewVideo:
    """What a worker stores for a recording; the database adds ids and times."""

    title: str
    source_url: str
    external_id: str
    channel: str
    source_key: str
    """Identity of the source (``url:...``); empty for bytes that were uploaded."""
    content_sha256: str
    duration_s: float
    service: str = ""
    """Where it comes from (yt-dlp's name, lower case); with ``media_id`` an identity."""
    media_id: str = ""
    description: str = ""
    publish_time: datetime | None = None
    thumbnail_url: str = ""
    id: UUID | None = None
    """Its id if it is a new one, where something is kept under it already."""


@dataclass(frozen=True, slots=True)
class KeptObject:
    """What is kept of a video in object storage under one key."""

    key: str
    size_bytes: int
    content_sha256: str
    content_type: str
    expire_time: datetime | None
    """When it is deleted; None: never."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What the database holds."""

    videos: int
    audio_s: float
    segments: int
    landmarks: int
    matches: int
    jobs: dict[JobState, int] = dataclasses.field(default_factory=dict)
