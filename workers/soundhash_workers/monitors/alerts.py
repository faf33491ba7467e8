"""When something is wrong with a source: it sends silence, or nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from soundhash_server.model import AlertKind

SILENT_DB = -60.0
"""Audio below this power, dB of full scale, is silence."""
SOUND_S = 1.0
"""So much sound without a pause ends a silence; a click does not."""
RETURN_S = 2.0
"""So much audio ends a loss; a connection that breaks at once does not."""


@dataclass(frozen=True, slots=True)
class AlertBegan:
    """kind, since when, why (empty: no reason is known)."""

    kind: AlertKind
    start: datetime
    message: str


@dataclass(frozen=True, slots=True)
class AlertEnded:
    """kind, and when it was over."""

    kind: AlertKind
    end: datetime


class Alerts:
    """Watches one monitor. Pure: no clock, no database.

    since: when audio last arrived, or when waiting for it began. ongoing: what has been told
    already, by whoever listened before.
    """

    def __init__(
        self,
        *,
        silence_after_s: float,
        loss_after_s: float,
        since: datetime,
        ongoing: Collection[AlertKind] = (),
    ) -> None:
        self.silence_after_s = silence_after_s
        self.loss_after_s = loss_after_s
        self._arrived = self._heard_to = since
        # Whether it was told.
        self._lost = AlertKind.LOSS in ongoing
        self._quiet = AlertKind.SILENCE in ongoing
        self._returned: datetime | None = None
        self._returned_s = 0.0
        self._quiet_from: datetime | None = None
        self._sound_from: datetime | None = None
        self._events: list[AlertBegan | AlertEnded] = []

    def heard(self, start: datetime, end: datetime, level_db: float, now: datetime) -> None:
        """Audio arrived, at most a second of it at a time.

        start, end: its air time; level_db: its power. now: when it arrived, which may be later:
        servers send what they have buffered.
        """
        if self._lost:
            if self._returned is None:
                self._returned, self._returned_s = now, 0.0
            self._returned_s += (end - start).total_seconds()
            if self._returned_s >= RETURN_S:
                self._events.append(AlertEnded(AlertKind.LOSS, self._returned))
                self._lost = False
        self._arrived, self._heard_to = max(self._arrived, now), end
        if level_db < SILENT_DB:
            self._sound_from = None
            if self._quiet_from is None:
                self._quiet_from = start
            if not self._quiet and self._over(self._quiet_from, end, self.silence_after_s):
                self._quiet = True
                self._events.append(AlertBegan(AlertKind.SILENCE, self._quiet_from, ""))
            return
        if self._sound_from is None:
            self._sound_from = start
        if self._over(self._sound_from, end, SOUND_S):
            self._quiet_from = None
            if self._quiet:
                self._events.append(AlertEnded(AlertKind.SILENCE, self._sound_from))
                self._quiet = False

    def advance(self, now: datetime, reason: str = "") -> None:
        """Time passes. reason: why no audio comes, where that is known."""
        if not self._lost and self._over(self._arrived, now, self.loss_after_s):
            if self._quiet:
                # Nothing is heard any more, not even silence.
                self._events.append(AlertEnded(AlertKind.SILENCE, self._heard_to))
            self._lost, self._returned = True, None
            self._quiet, self._quiet_from, self._sound_from = False, None, None
            self._events.append(AlertBegan(AlertKind.LOSS, self._arrived, reason))

    def interrupted(self) -> None:
        """The connection broke."""
        self._returned = None

    def changes(self) -> list[AlertBegan | AlertEnded]:
        """What has to be told, in order."""
        told, self._events = self._events, []
        return told

    @staticmethod
    def _over(start: datetime, end: datetime, length_s: float) -> bool:
        return (end - start).total_seconds() >= length_s
