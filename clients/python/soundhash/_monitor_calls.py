"""The calls of monitors, described once for both clients."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from soundhash import _types as t
from soundhash._calls import Call, Listing
from soundhash._convert import monitors as convert
from soundhash._convert import to_duration, to_fetch_options, to_timestamp
from soundhash._retry import Attempts
from soundhash.v1 import monitors_pb2

_LASTED_S = 5.0
"""A watch that lived for so long was connected: what fails after it counts from the beginning."""


def create_monitor(url: str, paused: bool, request_id: str, **config: Any) -> Call[t.Monitor]:
    """Adds a monitor; without a request id it gets one, so that repeating it is safe."""
    message, _ = _config(**config)
    request = monitors_pb2.CreateMonitorRequest(
        url=url, config=message, paused=paused, request_id=request_id or uuid.uuid4().hex
    )
    return Call("monitors", "CreateMonitor", request, convert.monitor, idempotent=True)


def get_monitor(monitor_id: str) -> Call[t.Monitor]:
    request = monitors_pb2.GetMonitorRequest(id=monitor_id)
    return Call("monitors", "GetMonitor", request, convert.monitor, idempotent=True)


def list_monitors(states: Iterable[str], limit: int | None) -> Listing[t.Monitor]:
    request = monitors_pb2.ListMonitorsRequest(
        states=[convert.monitor_state_number(state) for state in states]
    )
    return Listing("monitors", "ListMonitors", request, "monitors", convert.monitor, limit)


def update_monitor(monitor_id: str, **config: Any) -> Call[t.Monitor]:
    """Changes what is not None."""
    message, paths = _config(**config)
    request = monitors_pb2.UpdateMonitorRequest(
        id=monitor_id, config=message, update_mask=FieldMask(paths=paths)
    )
    return Call("monitors", "UpdateMonitor", request, convert.monitor, idempotent=True)


def pause_monitor(monitor_id: str) -> Call[t.Monitor]:
    request = monitors_pb2.PauseMonitorRequest(id=monitor_id)
    return Call("monitors", "PauseMonitor", request, convert.monitor, idempotent=True)


def resume_monitor(monitor_id: str) -> Call[t.Monitor]:
    request = monitors_pb2.ResumeMonitorRequest(id=monitor_id)
    return Call("monitors", "ResumeMonitor", request, convert.monitor, idempotent=True)


def delete_monitor(monitor_id: str) -> Call[None]:
    request = monitors_pb2.DeleteMonitorRequest(id=monitor_id)
    return Call("monitors", "DeleteMonitor", request, lambda _: None)


def list_detections(
    monitor_id: str,
    video_id: str,
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
) -> Listing[t.Detection]:
    request = monitors_pb2.ListDetectionsRequest(
        monitor_id=monitor_id,
        video_id=video_id,
        since=None if since is None else to_timestamp(since),
        until=None if until is None else to_timestamp(until),
    )
    return Listing("monitors", "ListDetections", request, "detections", convert.detection, limit)


def list_alerts(monitor_id: str, ongoing: bool, limit: int | None) -> Listing[t.MonitorAlert]:
    request = monitors_pb2.ListAlertsRequest(monitor_id=monitor_id, ongoing=ongoing)
    return Listing("monitors", "ListAlerts", request, "alerts", convert.monitor_alert, limit)


class Watching:
    """How far a watch of detections has come, over all its connections."""

    def __init__(
        self, monitor_ids: Iterable[str], since: datetime | None, attempts: Attempts
    ) -> None:
        self.attempts = attempts
        self._request = monitors_pb2.WatchDetectionsRequest(
            # Each letter of a text would be an id.
            monitor_ids=[monitor_ids] if isinstance(monitor_ids, str) else list(monitor_ids),
            since=None if since is None else to_timestamp(since),
        )
        self._latest_ns = 0
        # What can come again after a break: what goes on, and what was told last.
        self._ongoing: dict[str, int] = {}
        self._last: set[str] = set()
        self._begun = 0.0

    def request(self) -> monitors_pb2.WatchDetectionsRequest:
        """Of a connection that begins now: it goes on behind what has come."""
        self._begun = time.monotonic()
        return self._request

    def take(self, message: monitors_pb2.WatchDetectionsResponse) -> t.MonitorEvent | None:
        """The event; None if it has come before, or is of an unknown kind."""
        self.attempts.works()
        event = convert.monitor_event(message)
        if event is None:
            return None
        changed_ns = message.update_time.ToNanoseconds()
        told = event.detection or event.alert
        assert told is not None  # noqa: S101 - one of both is set
        if self._ongoing.get(told.id) == changed_ns:
            return None
        if told.id in self._last and changed_ns == self._latest_ns:
            return None
        if changed_ns > self._latest_ns:
            self._latest_ns = changed_ns
            self._request.since.CopyFrom(message.update_time)
            self._last.clear()
        self._last.add(told.id)
        if _goes_on(event):
            self._ongoing[told.id] = changed_ns
        else:
            self._ongoing.pop(told.id, None)
        return event

    def next_delay_s(self, error: Exception) -> float:
        """How long to wait before connecting again. Raises the error when that is in vain."""
        if time.monotonic() - self._begun >= _LASTED_S:
            self.attempts.works()
        return self.attempts.next_delay_s(error)


def _goes_on(event: t.MonitorEvent) -> bool:
    if event.detection is not None:
        return event.detection.ongoing
    return event.alert is not None and event.alert.end_time is None


def _config(
    *,
    name: str | None,
    min_confidence: float | None,
    min_duration_s: float | None,
    silence_after_s: float | None,
    loss_after_s: float | None,
    keep_air_s: float | None,
    options: t.FetchOptions | None,
) -> tuple[monitors_pb2.MonitorConfig, list[str]]:
    """A config of what is not None, and the fields that those are."""
    lengths = {
        "min_duration": min_duration_s,
        "silence_after": silence_after_s,
        "loss_after": loss_after_s,
        "keep_air": keep_air_s,
    }
    message = monitors_pb2.MonitorConfig(
        name=name or "",
        min_confidence=min_confidence or 0.0,
        fetch=None if options is None else to_fetch_options(options),
        **{field: to_duration(value) for field, value in lengths.items() if value is not None},
    )
    given = {"name": name, "min_confidence": min_confidence, **lengths, "fetch": options}
    return message, [field for field, value in given.items() if value is not None]
