"""Channels, Twitch clips, and what is kept of videos."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from soundhash._types._jobs import FetchOptions, JobFailure, JobState


@dataclass(frozen=True, slots=True)
class Channel:
    """A list of videos at a source, such as a YouTube channel.

    service, service_id: where it is, and its id there. schedule: cron expression (UTC) by which
    it is listed again, empty for none. list_time: when it was last listed to its end. listed,
    indexed, failed: its videos. job_id: of its unfinished job, empty for none. options: how its
    videos are fetched; the proxy is never shown.
    """

    id: str
    service: str
    service_id: str
    title: str
    url: str
    thumbnail_url: str
    schedule: str
    next_run_time: datetime | None
    list_time: datetime | None
    listed: int
    indexed: int
    failed: int
    job_id: str
    options: FetchOptions
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class ChannelVideo:
    """A video as a channel's listing names it.

    duration_s: 0 when the listing does not say. state: of its job, None when none was made.
    video_id: empty when it is not in the catalogue. skip_reason: why it was left out
    (LIVE_NOT_SUPPORTED, MEDIA_PRIVATE, ...), empty if it was not.
    """

    media_id: str
    title: str
    url: str
    publish_time: datetime | None
    duration_s: float
    job_id: str
    state: JobState | None
    video_id: str
    skip_reason: str


@dataclass(frozen=True, slots=True)
class Quota:
    """What the YouTube Data API allows a day.

    reset_time: when its day ends. configured: whether the API is used at all.
    """

    daily_units: int
    used_units: int
    reset_time: datetime | None
    configured: bool


@dataclass(frozen=True, slots=True)
class KeptObject:
    """A file that is kept of a video in object storage.

    sha256: of its bytes, lower-case hexadecimal. download_url: empty unless it was asked for.
    expire_time: when it is deleted; None: never.
    """

    key: str
    size_bytes: int
    sha256: str
    content_type: str
    download_url: str
    expire_time: datetime | None


@dataclass(frozen=True, slots=True)
class Clip:
    """A Twitch clip.

    id: its own. job_id: its job's UUID. failure: why its last attempt failed. video_id, title
    and duration_s (None) are empty until they are known. objects: what is kept of it.
    """

    id: str
    job_id: str
    state: JobState
    failure: JobFailure | None
    video_id: str
    title: str
    duration_s: float | None
    objects: tuple[KeptObject, ...]
    create_time: datetime | None
