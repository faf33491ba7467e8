"""What a monitor has to say, until the database has taken it."""

from __future__ import annotations

from collections import deque
from uuid import UUID

import structlog

from soundhash_server.model import Detection
from soundhash_server.store.detections import Detections
from soundhash_workers.monitors.alerts import AlertBegan, AlertEnded

_MOST = 2000
"""Of each kind: days of a station, should the database be away for so long."""

log = structlog.get_logger(__name__)


class Outbox:
    """Detections, of each only the latest word, and alerts in order."""

    def __init__(self, detections: Detections, token: UUID) -> None:
        self._store = detections
        self._token = token
        self._detections: dict[UUID, Detection] = {}
        self._alerts: deque[AlertBegan | AlertEnded] = deque(maxlen=_MOST)

    def detection(self, detection: Detection) -> None:
        """Has to be stored."""
        self._detections[detection.id] = detection
        if len(self._detections) > _MOST:
            lost = self._detections.pop(next(iter(self._detections)))
            log.error("a detection is lost", monitor_id=str(lost.monitor_id), title=lost.title)

    def alert(self, event: AlertBegan | AlertEnded) -> None:
        """Has to be stored."""
        self._alerts.append(event)

    async def flush(self) -> None:
        """Stores everything. Raises LeaseLost, or PlatformError with the rest still here."""
        while self._alerts:
            event = self._alerts[0]
            if isinstance(event, AlertBegan):
                await self._store.begin_alert(self._token, event.kind, event.start, event.message)
            else:
                await self._store.end_alert(self._token, event.kind, event.end)
            if self._alerts and self._alerts[0] is event:
                self._alerts.popleft()
        for detection in list(self._detections.values()):
            await self._store.upsert(self._token, detection)
            if self._detections.get(detection.id) is detection:
                del self._detections[detection.id]
