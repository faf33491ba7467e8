"""Lists of videos at a source."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from soundhash_server.model.jobs import FetchOptions, JobState


@dataclass(frozen=True, slots=True)
class Channel:
    """A list of videos at a source; see soundhash.v1.Channel."""

    id: UUID
    service: str
    service_id: str
    title: str
    url: str
    description: str
    thumbnail_url: str
    uploads_id: str
    """What the source calls the list of its uploads; empty where it has no name."""
    schedule: str
    next_run_time: datetime | None
    list_time: datetime | None
    options: FetchOptions
    max_videos: int
    """Of the last submission, as is ``since``: the schedule repeats it."""
    since: datetime | None
    create_time: datetime
    listed: int = 0
    indexed: int = 0
    failed: int = 0
    job_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class ChannelFacts:
    """What a source says about a channel; texts may be empty.

    service_id: the service's own id, where it has one.
    """

    service_id: str = ""
    title: str = ""
    url: str = ""
    description: str = ""
    thumbnail_url: str = ""
    uploads_id: str = ""


@dataclass(frozen=True, slots=True)
class ListedVideo:
    """A video as a source lists it; texts may be empty.

    service, media_id: its identity. skip_reason: why it cannot be fetched; empty if it can.
    duration_s: None when the listing does not say.
    """

    service: str
    media_id: str
    url: str
    title: str
    description: str = ""
    thumbnail_url: str = ""
    publish_time: datetime | None = None
    duration_s: float | None = None
    skip_reason: str = ""


@dataclass(frozen=True, slots=True)
class ChannelVideo:
    """A video of a channel's listing and what became of it; see soundhash.v1.ChannelVideo."""

    media_id: str
    title: str
    url: str
    publish_time: datetime | None
    duration_s: float | None
    job_id: UUID | None
    state: JobState | None
    video_id: UUID | None
    skip_reason: str


@dataclass(frozen=True, slots=True)
class Quota:
    """What an API allows a day; see soundhash.v1.Quota."""

    daily_units: int
    used_units: int
    reset_time: datetime
    configured: bool
