"""What brings audio in: jobs, how they stand, and why they fail."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime

from soundhash._types._duplicates import DuplicatesParameters, DuplicatesResult


class JobKind(enum.StrEnum):
    """What a job does. UNKNOWN: something that this client does not know yet."""

    UNKNOWN = "UNKNOWN"
    INGEST = "INGEST"
    CHANNEL = "CHANNEL"
    FOLDER = "FOLDER"
    DUPLICATES = "DUPLICATES"


class JobState(enum.StrEnum):
    """Where a job stands. UNKNOWN: a state that this client does not know yet."""

    UNKNOWN = "UNKNOWN"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    WAITING = "WAITING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def finished(self) -> bool:
        """Whether nothing happens any more unless the job is retried."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobStep(enum.StrEnum):
    """What a running job is doing. UNKNOWN: not started, or not known to this client."""

    UNKNOWN = "UNKNOWN"
    FETCH = "FETCH"
    FINGERPRINT = "FINGERPRINT"
    STORE = "STORE"
    DONE = "DONE"
    LIST = "LIST"
    KEEP = "KEEP"
    COMPARE = "COMPARE"


@dataclass(frozen=True, slots=True)
class BatchItem:
    """A video of a batch that a worker has: its job, what is done with it, and the part of that
    step that is done (0 to 1)."""

    job_id: str
    title: str
    step: JobStep
    fraction: float


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How the videos of a channel's or folder's job stand.

    listed: found so far. known: of them, already indexed. skipped: left out. queued, running,
    retrying: under way. indexed, failed: done by this job. videos_per_minute: over the last
    minutes. eta_s: until the rest is done at that rate (None: unknown). running_items: at most
    20. quota_units: of the YouTube Data API. listing_done: whether everything is listed.
    Of a folder: updated (files with other bytes than before), deleted (videos whose file is
    gone), duplicates, and unreadable files.
    """

    listed: int = 0
    known: int = 0
    skipped: int = 0
    queued: int = 0
    running: int = 0
    retrying: int = 0
    indexed: int = 0
    failed: int = 0
    videos_per_minute: float = 0.0
    eta_s: float | None = None
    running_items: tuple[BatchItem, ...] = ()
    quota_units: int = 0
    listing_done: bool = False
    updated: int = 0
    deleted: int = 0
    duplicates: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a running job has come.

    fraction: part of the present step that is done, 0 to 1; 0 when the total is unknown.
    audio_done_s, audio_total_s: audio fingerprinted and its stated length (None: unknown).
    bytes_done, bytes_total: bytes fetched and to fetch (0: unknown).
    """

    step: JobStep = JobStep.UNKNOWN
    fraction: float = 0.0
    audio_done_s: float = 0.0
    audio_total_s: float | None = None
    bytes_done: int = 0
    bytes_total: int = 0
    batch: BatchProgress | None = None
    """Of a channel's or folder's job: how its videos stand."""


@dataclass(frozen=True, slots=True)
class JobFailure:
    """Why a job's last attempt failed: a stable reason, a sentence, and what to do.

    transient: whether trying again later can help by itself.
    """

    reason: str
    message: str
    remedy: str
    transient: bool


@dataclass(frozen=True, slots=True)
class UploadStatus:
    """How much of a file has arrived.

    received_bytes: from the file's start. expire_time: when they are thrown away; None when
    there are none, or all.
    """

    received_bytes: int
    expire_time: datetime | None


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How to fetch a source; what is empty, 0 or None comes from the server's settings.

    cookies: name of a cookies file of the workers. cookies_from_browser: "name" or
    "name:profile". proxy: http, https or socks5 URL; never shown again. player_client: YouTube's
    client that yt-dlp pretends to be. max_bytes, max_duration_s: what is larger or longer is
    refused. max_bytes_per_s: bound of the speed.
    """

    cookies: str = ""
    cookies_from_browser: str = ""
    proxy: str = field(default="", repr=False)
    player_client: str = ""
    user_agent: str = ""
    max_bytes: int = 0
    max_duration_s: float | None = None
    max_bytes_per_s: int = 0


@dataclass(frozen=True, slots=True)
class IngestParameters:
    """What an ingest job was asked to do. url is empty for an upload, file_name for a URL.

    search: words, instead of a URL. path: of a scanned folder's file.
    """

    url: str
    file_name: str
    title: str
    external_id: str
    channel: str
    source_url: str
    content_sha256: str
    size_bytes: int
    search: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What an ingest job made. already_indexed: the recording was there before."""

    video_id: str
    already_indexed: bool


@dataclass(frozen=True, slots=True)
class ChannelParameters:
    """What a channel's job was asked to do.

    channel: as it was named. max_videos: most new ones (0: all). since: published at or after.
    dry_run: only lists. only_process: does not list.
    """

    channel_id: str
    channel: str
    max_videos: int
    since: datetime | None
    dry_run: bool
    only_process: bool


@dataclass(frozen=True, slots=True)
class FolderParameters:
    """What a folder's job was asked to do. watch: goes on until it is cancelled."""

    path: str
    channel: str
    dry_run: bool
    watch: bool


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a channel's or folder's job came to.

    counts: at the end; in a dry run `queued` is what would be ingested. new_items: the first
    titles or paths that are new. unreadable_items: the first unreadable files, with the reason.
    """

    counts: BatchProgress
    quota_units: int
    new_items: tuple[str, ...]
    unreadable_items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work that workers carry out.

    failure: why the last attempt failed, None while nothing has failed. attempt of
    max_attempts have begun. next_attempt_time: set in RETRYING only. parameters, channel,
    folder, duplicates: what it was asked to do, by kind. result, batch_result,
    duplicates_result: what it made, by kind, set in SUCCEEDED only. parent_id: of the job that
    started it. source_host: it fetches from it.
    """

    id: str
    kind: JobKind
    state: JobState
    progress: JobProgress
    failure: JobFailure | None
    attempt: int
    max_attempts: int
    next_attempt_time: datetime | None
    create_time: datetime | None
    update_time: datetime | None
    start_time: datetime | None
    finish_time: datetime | None
    parameters: IngestParameters | None
    result: IngestResult | None
    channel: ChannelParameters | None = None
    folder: FolderParameters | None = None
    batch_result: BatchResult | None = None
    parent_id: str = ""
    source_host: str = ""
    duplicates: DuplicatesParameters | None = None
    duplicates_result: DuplicatesResult | None = None

    @property
    def source(self) -> str:
        """The URL, the words, the channel, the name or path of the file or folder, or the videos,
        that it is about."""
        if self.duplicates is not None:
            number = len(self.duplicates.video_ids)
            return f"duplicates of {number} videos" if number else "duplicates"
        if self.channel is not None:
            return self.channel.channel
        if self.folder is not None:
            return self.folder.path
        asked = self.parameters
        return asked.url or asked.search or asked.file_name or asked.path if asked else ""

    @property
    def video_id(self) -> str:
        """UUID of the video that it made or found; empty until it has succeeded."""
        return self.result.video_id if self.result else ""


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """All jobs that failed, or wait to be tried again, for one reason.

    remedy: what can be done. failed: for good. retrying: wait to be tried again. example: the
    latest message; example_job_id: its job. latest_time: when that was.
    """

    reason: str
    remedy: str
    failed: int
    retrying: int
    example: str
    example_job_id: str
    latest_time: datetime | None


@dataclass(frozen=True, slots=True)
class PausedHost:
    """A source that kept refusing and is left alone until then. refusals: in a row."""

    host: str
    until: datetime | None
    reason: str
    refusals: int


@dataclass(frozen=True, slots=True)
class FailureSummary:
    """What failed and why. groups: the most frequent first. paused_hosts: left alone now."""

    groups: tuple[FailureGroup, ...]
    paused_hosts: tuple[PausedHost, ...]


@dataclass(frozen=True, slots=True)
class RetriedJobs:
    """queued: jobs that were queued again. not_retryable: whose uploaded bytes are gone."""

    queued: int
    not_retryable: int
