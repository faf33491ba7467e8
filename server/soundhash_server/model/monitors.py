"""Live sources that workers listen to, and what they hear."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from soundhash_server.model.jobs import Failure, FetchOptions


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
    options: FetchOptions = field(default_factory=FetchOptions)


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
