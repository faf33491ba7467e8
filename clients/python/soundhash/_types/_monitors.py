"""Monitors: live sources that the workers listen to, and what is heard on them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from soundhash._types._jobs import FetchOptions, JobFailure


class MonitorState(enum.StrEnum):
    """How a monitor stands. UNKNOWN: a state that this client does not know yet.

    WAITING: for a worker with room. RETRYING: the source failed or ended; it is tried again.
    """

    UNKNOWN = "UNKNOWN"
    WAITING = "WAITING"
    CONNECTING = "CONNECTING"
    LISTENING = "LISTENING"
    RETRYING = "RETRYING"
    PAUSED = "PAUSED"


@dataclass(frozen=True, slots=True)
class MonitorConfig:
    """What a monitor was asked to do.

    min_confidence: of a detection; 0: the server's threshold. min_duration_s: of a detection.
    silence_after_s, loss_after_s: how long the source sends silence, or no audio, before there
    is an alert. keep_air_s: how long what it hears stays in the index; 0: it is not indexed.
    options: how it is fetched; the proxy is never shown.
    """

    name: str
    min_confidence: float
    min_duration_s: float
    silence_after_s: float
    loss_after_s: float
    keep_air_s: float
    options: FetchOptions


@dataclass(frozen=True, slots=True)
class MonitorStats:
    """Counted since a monitor was created.

    heard_s, silent_s, recognised_s: audio, and how much of it. failed_attempts: to connect, since
    audio last arrived. level_db: of the latest audio, against full scale. audio_time: when that
    arrived. kept_air_s: audio that is indexed at the moment. source_title: what the source says
    that is playing; nothing checks it.
    """

    heard_s: float
    silent_s: float
    recognised_s: float
    detections: int
    connections: int
    failed_attempts: int
    level_db: float
    audio_time: datetime | None
    kept_air_s: float
    source_title: str


@dataclass(frozen=True, slots=True)
class Detection:
    """An episode: one video, or a part of it, on a monitored source.

    title, external_id: of the video when it was detected; it may be deleted since. source_url:
    the video's, opening it at video_start_s where the form of such links is known. start_time,
    end_time: on the air; while it is ongoing, the end is how far it has come. coverage: part of
    it in which the video was heard, 0 to 1. speed, pitch: against the video.
    """

    id: str
    monitor_id: str
    monitor_name: str
    video_id: str
    title: str
    source_url: str
    external_id: str
    start_time: datetime | None
    end_time: datetime | None
    ongoing: bool
    video_start_s: float
    video_end_s: float
    coverage: float
    confidence: float
    speed: float
    pitch: float


@dataclass(frozen=True, slots=True)
class Monitor:
    """A live source that the workers listen to.

    url: with *** for passwords and keys. state_time: since when it stands so. failure: why the
    last attempt failed, None while audio arrives. retry_time: of the next attempt, in RETRYING.
    current: what is heard at the moment, None if that is nothing known.
    """

    id: str
    url: str
    config: MonitorConfig
    state: MonitorState
    state_time: datetime | None
    failure: JobFailure | None
    retry_time: datetime | None
    stats: MonitorStats
    current: Detection | None
    create_time: datetime | None


class AlertKind(enum.StrEnum):
    """What an alert is about. SILENCE: the source sends silence. LOSS: no audio arrives."""

    UNKNOWN = "UNKNOWN"
    SILENCE = "SILENCE"
    LOSS = "LOSS"


@dataclass(frozen=True, slots=True)
class MonitorAlert:
    """Something is wrong with a source. end_time: None while it goes on. message: why, where
    that is known."""

    id: str
    monitor_id: str
    monitor_name: str
    kind: AlertKind
    start_time: datetime | None
    end_time: datetime | None
    message: str


@dataclass(frozen=True, slots=True)
class MonitorEvent:
    """A detection or an alert began, went on or ended; the other one is None.

    update_time: when that was stored; watching again `since` then misses nothing.
    """

    detection: Detection | None
    alert: MonitorAlert | None
    update_time: datetime | None
