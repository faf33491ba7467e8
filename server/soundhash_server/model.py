"""What the platform talks about, as plain data: no protobuf, no SQL.

Times are aware UTC datetimes, lengths and offsets float seconds (``*_s``).
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

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


class JobKind(enum.Enum):
    INGEST = "INGEST"
    CHANNEL = "CHANNEL"
    FOLDER = "FOLDER"
    DUPLICATES = "DUPLICATES"


class JobState(enum.Enum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    WAITING = "WAITING"
    """Its own work is done; jobs that it has started are not."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def finished(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobStep(enum.Enum):
    FETCH = "FETCH"
    FINGERPRINT = "FINGERPRINT"
    STORE = "STORE"
    DONE = "DONE"
    LIST = "LIST"
    KEEP = "KEEP"
    COMPARE = "COMPARE"


@dataclass(frozen=True, slots=True)
class BatchItem:
    """A video of a batch that a worker has; see soundhash.v1.BatchItem."""

    job_id: UUID
    title: str
    step: JobStep | None
    fraction: float


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How a CHANNEL or FOLDER job stands; see soundhash.v1.BatchProgress.

    What the job counts itself (listed, known, skipped, updated, deleted, duplicates, unreadable,
    quota_units, listing_done) is stored with it; the rest is counted from the jobs that it has
    started whenever it is read.
    """

    listed: int = 0
    known: int = 0
    skipped: int = 0
    updated: int = 0
    deleted: int = 0
    duplicates: int = 0
    unreadable: int = 0
    quota_units: int = 0
    listing_done: bool = False
    queued: int = 0
    running: int = 0
    retrying: int = 0
    indexed: int = 0
    failed: int = 0
    videos_per_minute: float = 0.0
    eta_s: float | None = None
    running_items: tuple[BatchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job has come; see soundhash.v1.JobProgress."""

    step: JobStep | None = None
    fraction: float = 0.0
    audio_done_s: float = 0.0
    audio_total_s: float | None = None
    bytes_done: int = 0
    bytes_total: int = 0
    batch: BatchProgress | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed and what can be done; ``reason`` is UPPER_SNAKE."""

    reason: str
    message: str
    remedy: str
    transient: bool


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How to fetch; what is empty or 0 comes from the settings. See soundhash.v1.FetchOptions."""

    cookies: str = ""
    cookies_from_browser: str = ""
    proxy: str = dataclasses.field(default="", repr=False)
    player_client: str = ""
    user_agent: str = ""
    max_bytes: int = 0
    max_duration_s: float = 0.0
    max_bytes_per_s: int = 0


@dataclass(frozen=True, slots=True)
class IngestParameters:
    """What an INGEST job was asked to do.

    Exactly one of url, search, path (of a scanned folder's file, with its content_sha256) and
    content_sha256 alone (an upload) says what.
    """

    url: str = ""
    search: str = ""
    path: str = ""
    file_name: str = ""
    title: str = ""
    external_id: str = ""
    channel: str = ""
    source_url: str = ""
    content_sha256: str = ""
    size_bytes: int = 0
    options: FetchOptions = FetchOptions()


@dataclass(frozen=True, slots=True)
class ChannelParameters:
    """What a CHANNEL job was asked to do; see soundhash.v1.ChannelParameters."""

    channel_id: UUID
    channel: str
    max_videos: int = 0
    since: datetime | None = None
    dry_run: bool = False
    only_process: bool = False


@dataclass(frozen=True, slots=True)
class FolderParameters:
    """What a FOLDER job was asked to do; see soundhash.v1.FolderParameters."""

    path: str
    channel: str = ""
    dry_run: bool = False
    watch: bool = False


@dataclass(frozen=True, slots=True)
class DuplicatesParameters:
    """What a DUPLICATES job was asked to do; see soundhash.v1.DuplicatesParameters."""

    video_ids: tuple[UUID, ...] = ()
    """Empty: all videos."""
    min_shared_s: float = 10.0


JobParameters = IngestParameters | ChannelParameters | FolderParameters | DuplicatesParameters


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to submit together with others.

    parent_id: the CHANNEL or FOLDER job that starts it. channel_id: whose turn it takes.
    source_host: what it fetches from; empty for what is on disk.
    """

    kind: JobKind
    dedupe_key: str
    parameters: JobParameters
    parent_id: UUID | None = None
    channel_id: UUID | None = None
    source_host: str = ""


@dataclass(frozen=True, slots=True)
class IngestResult:
    video_id: UUID
    already_indexed: bool


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a CHANNEL or FOLDER job came to; see soundhash.v1.BatchResult."""

    counts: BatchProgress
    quota_units: int = 0
    new_items: tuple[str, ...] = ()
    unreadable_items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DuplicatesResult:
    """What a DUPLICATES job has found; see soundhash.v1.DuplicatesResult."""

    videos: int
    audio_s: float
    full: int = 0
    contains: int = 0
    partial: int = 0


JobResult = IngestResult | BatchResult | DuplicatesResult


@dataclass(frozen=True, slots=True)
class Job:
    """A row of processing_jobs: the truth about a piece of work."""

    id: UUID
    kind: JobKind
    state: JobState
    parameters: JobParameters
    progress: JobProgress
    failure: Failure | None
    result: JobResult | None
    attempt: int
    max_attempts: int
    next_attempt_time: datetime | None
    create_time: datetime
    update_time: datetime
    start_time: datetime | None
    finish_time: datetime | None
    parent_id: UUID | None = None
    channel_id: UUID | None = None
    source_host: str = ""


@dataclass(frozen=True, slots=True)
class PausedHost:
    """A source that is left alone until then; refusals: in a row, reason: of the last one."""

    host: str
    until: datetime
    reason: str
    refusals: int


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """All jobs whose last attempt failed for one reason; see soundhash.v1.FailureGroup."""

    reason: str
    remedy: str
    failed: int
    retrying: int
    example: str
    example_job_id: UUID
    latest_time: datetime


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's right to carry out a job; every write of the worker names the token,
    so that one which lost its lease cannot change anything."""

    job: Job
    token: UUID


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


@dataclass(frozen=True, slots=True)
class Totals:
    """What the database holds."""

    videos: int
    audio_s: float
    segments: int
    landmarks: int
    matches: int
    jobs: dict[JobState, int] = dataclasses.field(default_factory=dict)


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


class MonitorState(enum.Enum):
    WAITING = "WAITING"
    """For a worker: none holds its lease."""
    CONNECTING = "CONNECTING"
    LISTENING = "LISTENING"
    RETRYING = "RETRYING"
    PAUSED = "PAUSED"


@dataclass(frozen=True, slots=True)
class MonitorConfig:
    """What a monitor was asked to do; see soundhash.v1.MonitorConfig."""

    name: str
    min_confidence: float = 0.0
    """0: the server's threshold."""
    min_duration_s: float = 3.0
    silence_after_s: float = 30.0
    loss_after_s: float = 60.0
    keep_air_s: float = 0.0
    """0: what it hears is not indexed."""
    options: FetchOptions = FetchOptions()


@dataclass(frozen=True, slots=True)
class MonitorStats:
    """Counted since the monitor was created; see soundhash.v1.MonitorStats."""

    heard_s: float = 0.0
    silent_s: float = 0.0
    recognised_s: float = 0.0
    detections: int = 0
    connections: int = 0
    failed_attempts: int = 0
    level_db: float = -120.0
    source_title: str = ""
    audio_time: datetime | None = None
    kept_air_s: float = 0.0
    """Filled in for callers alone, not for workers."""


@dataclass(frozen=True, slots=True)
class Detection:
    """An episode: one video, or a part of it, on a monitored source."""

    id: UUID
    monitor_id: UUID
    video_id: UUID
    title: str
    source_url: str
    """The video's, as it is: without a deep link."""
    external_id: str
    start_time: datetime
    end_time: datetime
    """While it goes on: how far it has come."""
    ongoing: bool
    video_start_s: float
    video_end_s: float
    covered_s: float
    """Seconds of the episode in which the video was heard."""
    confidence: float
    speed: float
    pitch: float
    monitor_name: str = ""
    """Filled in when it is read."""

    @property
    def coverage(self) -> float:
        """Part of the episode in which the video was heard, 0 to 1."""
        length_s = (self.end_time - self.start_time).total_seconds()
        return min(1.0, max(0.0, self.covered_s / length_s)) if length_s > 0 else 1.0


class AlertKind(enum.Enum):
    SILENCE = "SILENCE"
    LOSS = "LOSS"


@dataclass(frozen=True, slots=True)
class MonitorAlert:
    """Something is wrong with a source; end_time None: still."""

    id: UUID
    monitor_id: UUID
    kind: AlertKind
    start_time: datetime
    end_time: datetime | None
    message: str
    monitor_name: str = ""


@dataclass(frozen=True, slots=True)
class Monitor:
    """A live source that workers listen to; see soundhash.v1.Monitor."""

    id: UUID
    url: str = dataclasses.field(repr=False)
    """As it was given, secrets included: for fetching. `live_urls.shown` is for people."""
    config: MonitorConfig
    state: MonitorState
    state_time: datetime
    failure: Failure | None
    retry_time: datetime | None
    """Set in RETRYING only."""
    stats: MonitorStats
    create_time: datetime
    retry_now: bool = False
    """For the worker that holds it: somebody wants it to connect again at once. Told once."""
    current: Detection | None = None
    """The latest that goes on. Filled in for callers alone, not for workers."""


@dataclass(frozen=True, slots=True)
class MonitorLease:
    """A worker's right to listen for a monitor; every write of the worker names the token."""

    monitor: Monitor
    token: UUID


@dataclass(frozen=True, slots=True)
class MonitorReport:
    """What a worker tells of a monitor with a heartbeat.

    heard_s, silent_s, recognised_s, connections: what came since the last report that was
    taken. All else is how it stands.
    """

    state: MonitorState
    """CONNECTING, LISTENING or RETRYING."""
    state_time: datetime
    heard_s: float = 0.0
    silent_s: float = 0.0
    recognised_s: float = 0.0
    connections: int = 0
    failed_attempts: int = 0
    failure: Failure | None = None
    retry_time: datetime | None = None
    level_db: float = -120.0
    source_title: str = ""
    audio_time: datetime | None = None
    """None: none arrived since the last report."""


@dataclass(frozen=True, slots=True)
class MonitorChange:
    """A detection or an alert that began, went on or ended, and when that was stored."""

    event: Detection | MonitorAlert
    update_time: datetime


class DuplicateKind(enum.Enum):
    """How two videos are alike; see soundhash.v1.DuplicateKind."""

    FULL = "FULL"
    CONTAINS = "CONTAINS"
    PARTIAL = "PARTIAL"


@dataclass(frozen=True, slots=True)
class SharedRange:
    """A passage that is in two videos; see soundhash.v1.SharedRange."""

    first_start_s: float
    first_end_s: float
    second_start_s: float
    second_end_s: float
    speed: float
    pitch: float
    confidence: float


@dataclass(frozen=True, slots=True)
class FoundPair:
    """Two recordings that are alike, by their keys in the match index; the longer one first."""

    kind: DuplicateKind
    first_recording: int
    second_recording: int
    ranges: tuple[SharedRange, ...]
    shared_s: float
    first_share: float
    second_share: float


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two videos that are alike; see soundhash.v1.DuplicatePair."""

    kind: DuplicateKind
    first: Video
    second: Video
    ranges: tuple[SharedRange, ...]
    first_share: float
    second_share: float


@dataclass(frozen=True, slots=True)
class DuplicatesPage:
    """A page of what a DUPLICATES job has found. complete: no more will come."""

    job_id: UUID
    complete: bool
    pairs: Page[DuplicatePair]
