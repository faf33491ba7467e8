"""Jobs: what was asked, how far it has come, what it came to."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


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
