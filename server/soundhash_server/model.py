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


class JobKind(enum.Enum):
    INGEST = "INGEST"


class JobState(enum.Enum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
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


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job has come; see soundhash.v1.JobProgress."""

    step: JobStep | None = None
    fraction: float = 0.0
    audio_done_s: float = 0.0
    audio_total_s: float | None = None
    bytes_done: int = 0
    bytes_total: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed and what can be done; ``reason`` is UPPER_SNAKE."""

    reason: str
    message: str
    remedy: str
    transient: bool


@dataclass(frozen=True, slots=True)
class IngestParameters:
    """What an INGEST job was asked to do; exactly one of url and content_sha256 is set."""

    url: str = ""
    file_name: str = ""
    title: str = ""
    external_id: str = ""
    channel: str = ""
    source_url: str = ""
    content_sha256: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class IngestResult:
    video_id: UUID
    already_indexed: bool


@dataclass(frozen=True, slots=True)
class Job:
    """A row of processing_jobs: the truth about a piece of work."""

    id: UUID
    kind: JobKind
    state: JobState
    parameters: IngestParameters
    progress: JobProgress
    failure: Failure | None
    result: IngestResult | None
    attempt: int
    max_attempts: int
    next_attempt_time: datetime | None
    create_time: datetime
    update_time: datetime
    start_time: datetime | None
    finish_time: datetime | None


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


@dataclass(frozen=True, slots=True)
class Totals:
    """What the database holds."""

    videos: int
    audio_s: float
    segments: int
    landmarks: int
    matches: int
    jobs: dict[JobState, int] = dataclasses.field(default_factory=dict)
