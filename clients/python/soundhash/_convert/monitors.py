"""From the API's messages about monitors to the client's values."""

from __future__ import annotations

from soundhash import _types as t
from soundhash._convert.jobs import fetch_options, job_failure
from soundhash._convert.values import members, seconds, time_of
from soundhash.v1 import monitors_pb2

# Numbers that are missing here are what a newer server has invented: UNKNOWN.
_STATES = members(t.MonitorState, list(monitors_pb2.MonitorState.items()), "MONITOR_STATE_")
_ALERTS = members(t.AlertKind, list(monitors_pb2.AlertKind.items()), "ALERT_KIND_")


def monitor_state_number(state: str) -> monitors_pb2.MonitorState.ValueType:
    """The API's number of a monitor's state, given as a member or by its name in any case.

    Raises ValueError for what is no state that one can ask for.
    """
    name = state.upper()
    if name not in _STATES.values():
        raise ValueError(f"{str(state)!r} is not one of {', '.join(_STATES.values())}")
    return monitors_pb2.MonitorState.Value(f"MONITOR_STATE_{name}")


def monitor(m: monitors_pb2.Monitor) -> t.Monitor:
    return t.Monitor(
        id=m.id,
        url=m.url,
        config=_config(m.config),
        state=_STATES.get(m.state, t.MonitorState.UNKNOWN),
        state_time=time_of(m, "state_time"),
        failure=job_failure(m.failure) if m.HasField("failure") else None,
        retry_time=time_of(m, "retry_time"),
        stats=_stats(m.stats),
        current=detection(m.current) if m.HasField("current") else None,
        create_time=time_of(m, "create_time"),
    )


def _config(m: monitors_pb2.MonitorConfig) -> t.MonitorConfig:
    return t.MonitorConfig(
        name=m.name,
        min_confidence=m.min_confidence,
        min_duration_s=seconds(m.min_duration),
        silence_after_s=seconds(m.silence_after),
        loss_after_s=seconds(m.loss_after),
        keep_air_s=seconds(m.keep_air),
        options=fetch_options(m.fetch),
    )


def _stats(m: monitors_pb2.MonitorStats) -> t.MonitorStats:
    return t.MonitorStats(
        heard_s=seconds(m.heard),
        silent_s=seconds(m.silent),
        recognised_s=seconds(m.recognised),
        detections=m.detections,
        connections=m.connections,
        failed_attempts=m.failed_attempts,
        level_db=m.level_db,
        audio_time=time_of(m, "audio_time"),
        kept_air_s=seconds(m.kept_air),
        source_title=m.source_title,
    )


def detection(m: monitors_pb2.Detection) -> t.Detection:
    return t.Detection(
        id=m.id,
        monitor_id=m.monitor_id,
        monitor_name=m.monitor_name,
        video_id=m.video_id,
        title=m.title,
        source_url=m.source_url,
        external_id=m.external_id,
        start_time=time_of(m, "start_time"),
        end_time=time_of(m, "end_time"),
        ongoing=m.ongoing,
        video_start_s=seconds(m.video_start),
        video_end_s=seconds(m.video_end),
        coverage=m.coverage,
        confidence=m.confidence,
        speed=m.speed,
        pitch=m.pitch,
    )


def monitor_alert(m: monitors_pb2.MonitorAlert) -> t.MonitorAlert:
    return t.MonitorAlert(
        id=m.id,
        monitor_id=m.monitor_id,
        monitor_name=m.monitor_name,
        kind=_ALERTS.get(m.kind, t.AlertKind.UNKNOWN),
        start_time=time_of(m, "start_time"),
        end_time=time_of(m, "end_time"),
        message=m.message,
    )


def monitor_event(m: monitors_pb2.WatchDetectionsResponse) -> t.MonitorEvent | None:
    """The event, or None for a kind that this client does not know."""
    kind = m.WhichOneof("event")
    if kind is None:
        return None
    return t.MonitorEvent(
        detection=detection(m.detection) if kind == "detection" else None,
        alert=monitor_alert(m.alert) if kind == "alert" else None,
        update_time=time_of(m, "update_time"),
    )
