"""MonitorService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from google.protobuf import empty_pb2

from soundhash.v1 import monitors_pb2, monitors_pb2_grpc
from soundhash_server.live_urls import shown
from soundhash_server.model import (
    Detection,
    Monitor,
    MonitorAlert,
    MonitorChange,
    MonitorConfig,
    MonitorState,
    MonitorStats,
)
from soundhash_server.rpc.convert import (
    duration,
    failure_message,
    fetch_options,
    fetch_options_message,
    seconds,
    timestamp,
    uuid_or_none,
)
from soundhash_server.rpc.interceptors import Context
from soundhash_server.rpc.validation import invalid_request
from soundhash_server.services.links import deep_link
from soundhash_server.services.monitors import MonitorAdmin

_DEFAULTS = MonitorConfig(name="")
# From the fields of a request's config to those of MonitorConfig.
_FIELDS = {
    "name": "name",
    "min_confidence": "min_confidence",
    "min_duration": "min_duration_s",
    "silence_after": "silence_after_s",
    "loss_after": "loss_after_s",
    "keep_air": "keep_air_s",
    "fetch": "options",
}


class MonitorServicer(monitors_pb2_grpc.MonitorServiceServicer):
    def __init__(self, monitors: MonitorAdmin) -> None:
        self._monitors = monitors

    async def CreateMonitor(
        self, request: monitors_pb2.CreateMonitorRequest, context: Context
    ) -> monitors_pb2.Monitor:
        made = await self._monitors.create(
            request.url,
            _config_from(request.config),
            paused=request.paused,
            request_id=request.request_id,
        )
        return monitor_message(made)

    async def GetMonitor(
        self, request: monitors_pb2.GetMonitorRequest, context: Context
    ) -> monitors_pb2.Monitor:
        return monitor_message(await self._monitors.get(UUID(request.id)))

    async def ListMonitors(
        self, request: monitors_pb2.ListMonitorsRequest, context: Context
    ) -> monitors_pb2.ListMonitorsResponse:
        page = await self._monitors.list(
            request.page_size, request.page_token, _states(request.states)
        )
        return monitors_pb2.ListMonitorsResponse(
            monitors=[monitor_message(one) for one in page.items],
            next_page_token=page.next_page_token,
        )

    async def UpdateMonitor(
        self, request: monitors_pb2.UpdateMonitorRequest, context: Context
    ) -> monitors_pb2.Monitor:
        wanted = _config_from(request.config)
        fields: dict[str, Any] = {
            _FIELDS[path]: getattr(wanted, _FIELDS[path]) for path in request.update_mask.paths
        }
        return monitor_message(await self._monitors.update(UUID(request.id), **fields))

    async def PauseMonitor(
        self, request: monitors_pb2.PauseMonitorRequest, context: Context
    ) -> monitors_pb2.Monitor:
        return monitor_message(await self._monitors.pause(UUID(request.id)))

    async def ResumeMonitor(
        self, request: monitors_pb2.ResumeMonitorRequest, context: Context
    ) -> monitors_pb2.Monitor:
        return monitor_message(await self._monitors.resume(UUID(request.id)))

    async def DeleteMonitor(
        self, request: monitors_pb2.DeleteMonitorRequest, context: Context
    ) -> empty_pb2.Empty:
        await self._monitors.delete(UUID(request.id))
        return empty_pb2.Empty()

    async def WatchDetections(
        self, request: monitors_pb2.WatchDetectionsRequest, context: Context
    ) -> AsyncIterator[monitors_pb2.WatchDetectionsResponse]:
        monitor_ids = [UUID(one) for one in request.monitor_ids]
        since = _moment(request, "since")
        async for change in self._monitors.watch(monitor_ids, since):
            yield _change_message(change)

    async def ListDetections(
        self, request: monitors_pb2.ListDetectionsRequest, context: Context
    ) -> monitors_pb2.ListDetectionsResponse:
        page = await self._monitors.detections(
            request.page_size,
            request.page_token,
            monitor_id=uuid_or_none(request.monitor_id),
            video_id=uuid_or_none(request.video_id),
            since=_moment(request, "since"),
            until=_moment(request, "until"),
        )
        return monitors_pb2.ListDetectionsResponse(
            detections=[_detection_message(one) for one in page.items],
            next_page_token=page.next_page_token,
        )

    async def ListAlerts(
        self, request: monitors_pb2.ListAlertsRequest, context: Context
    ) -> monitors_pb2.ListAlertsResponse:
        page = await self._monitors.alerts(
            request.page_size,
            request.page_token,
            monitor_id=uuid_or_none(request.monitor_id),
            ongoing=request.ongoing,
        )
        return monitors_pb2.ListAlertsResponse(
            alerts=[_alert_message(one) for one in page.items],
            next_page_token=page.next_page_token,
        )


def monitor_message(monitor: Monitor) -> monitors_pb2.Monitor:
    """Without the secrets of its URL and its proxy."""
    return monitors_pb2.Monitor(
        id=str(monitor.id),
        url=shown(monitor.url),
        config=_config_message(monitor.config),
        state=monitors_pb2.MonitorState.Value(f"MONITOR_STATE_{monitor.state.value}"),
        state_time=timestamp(monitor.state_time),
        failure=None if monitor.failure is None else failure_message(monitor.failure),
        retry_time=timestamp(monitor.retry_time),
        stats=_stats_message(monitor.stats),
        current=None if monitor.current is None else _detection_message(monitor.current),
        create_time=timestamp(monitor.create_time),
    )


def _config_from(message: monitors_pb2.MonitorConfig) -> MonitorConfig:
    """What is not set has its default."""

    given = {field.name: value for field, value in message.ListFields()}

    def length_s(field: str, default: float) -> float:
        return seconds(given[field]) if field in given else default

    return MonitorConfig(
        name=message.name,
        min_confidence=message.min_confidence,
        min_duration_s=length_s("min_duration", _DEFAULTS.min_duration_s),
        silence_after_s=length_s("silence_after", _DEFAULTS.silence_after_s),
        loss_after_s=length_s("loss_after", _DEFAULTS.loss_after_s),
        keep_air_s=length_s("keep_air", _DEFAULTS.keep_air_s),
        options=fetch_options(message.fetch),
    )


def _config_message(config: MonitorConfig) -> monitors_pb2.MonitorConfig:
    return monitors_pb2.MonitorConfig(
        name=config.name,
        min_confidence=config.min_confidence,
        min_duration=duration(config.min_duration_s),
        silence_after=duration(config.silence_after_s),
        loss_after=duration(config.loss_after_s),
        keep_air=duration(config.keep_air_s),
        fetch=fetch_options_message(config.options),
    )


def _stats_message(stats: MonitorStats) -> monitors_pb2.MonitorStats:
    return monitors_pb2.MonitorStats(
        heard=duration(stats.heard_s),
        silent=duration(stats.silent_s),
        recognised=duration(stats.recognised_s),
        detections=stats.detections,
        connections=stats.connections,
        failed_attempts=stats.failed_attempts,
        level_db=stats.level_db,
        audio_time=timestamp(stats.audio_time),
        kept_air=duration(stats.kept_air_s),
        source_title=stats.source_title,
    )


def _detection_message(found: Detection) -> monitors_pb2.Detection:
    return monitors_pb2.Detection(
        id=str(found.id),
        monitor_id=str(found.monitor_id),
        video_id=str(found.video_id),
        title=found.title,
        source_url=deep_link(found.source_url, found.video_start_s) if found.source_url else "",
        external_id=found.external_id,
        start_time=timestamp(found.start_time),
        end_time=timestamp(found.end_time),
        ongoing=found.ongoing,
        video_start=duration(found.video_start_s),
        video_end=duration(found.video_end_s),
        coverage=found.coverage,
        confidence=found.confidence,
        speed=found.speed,
        pitch=found.pitch,
        monitor_name=found.monitor_name,
    )


def _alert_message(alert: MonitorAlert) -> monitors_pb2.MonitorAlert:
    return monitors_pb2.MonitorAlert(
        id=str(alert.id),
        monitor_id=str(alert.monitor_id),
        kind=monitors_pb2.AlertKind.Value(f"ALERT_KIND_{alert.kind.value}"),
        start_time=timestamp(alert.start_time),
        end_time=timestamp(alert.end_time),
        message=alert.message,
        monitor_name=alert.monitor_name,
    )


def _change_message(change: MonitorChange) -> monitors_pb2.WatchDetectionsResponse:
    message = monitors_pb2.WatchDetectionsResponse(update_time=timestamp(change.update_time))
    match change.event:
        case Detection():
            message.detection.CopyFrom(_detection_message(change.event))
        case MonitorAlert():
            message.alert.CopyFrom(_alert_message(change.event))
    return message


def _states(numbers: Iterable[monitors_pb2.MonitorState.ValueType]) -> tuple[MonitorState, ...]:
    """States of a request, whose numbers have been checked."""
    names = (monitors_pb2.MonitorState.Name(number) for number in numbers)
    return tuple(MonitorState(name.removeprefix("MONITOR_STATE_")) for name in names)


def _moment(
    request: monitors_pb2.WatchDetectionsRequest | monitors_pb2.ListDetectionsRequest,
    field: Literal["since", "until"],
) -> datetime | None:
    """A time of a request; None when it is not set. Raises PlatformError INVALID_REQUEST."""
    given = {known.name: value for known, value in request.ListFields()}
    if field not in given:
        return None
    try:
        moment: datetime = given[field].ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise invalid_request({field: "must be a time of the years 1 to 9999"}) from None
    return moment
