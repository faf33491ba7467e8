"""One monitor: listens to its source for ever, and tells what it hears."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from soundhash_engine import PARAMS, ClipTooShort, PcmFormat
from soundhash_server.errors import PlatformError
from soundhash_server.fetching.failures import JobError, failure_of
from soundhash_server.model import (
    Failure,
    Monitor,
    MonitorLease,
    MonitorReport,
    MonitorState,
)
from soundhash_server.services.live import (
    FinalMatch,
    ProvisionalMatch,
    StreamConfig,
    StreamEvent,
)
from soundhash_server.services.matching import match_options
from soundhash_workers.monitors.air import AirRecorder
from soundhash_workers.monitors.alerts import SILENT_DB, Alerts
from soundhash_workers.monitors.ear import Ear, Heard
from soundhash_workers.monitors.episodes import Episodes, Sighting
from soundhash_workers.monitors.intervals import Covered
from soundhash_workers.monitors.outbox import Outbox
from soundhash_workers.monitors.parts import NoRoom, Parts
from soundhash_workers.monitors.waiting import next_attempt_s

GOOD_S = 30.0
"""After so much audio a connection has been a good one: the next attempt is a first one."""
SURE_STABILITY = 0.5
"""From here on what a stream seems to be is taken for what it is."""
_TICK_S = 1.0
_FLUSH_S = 3.0
_STALE = timedelta(seconds=60)
_FORMAT = PcmFormat(PARAMS.sample_rate_hz, 1, "f32le")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Counts:
    heard_s: float = 0.0
    silent_s: float = 0.0
    recognised_s: float = 0.0
    connections: int = 0


class Session:
    """Listens for a monitor that this worker holds the lease of.

    on_change: is called when its state changes, which is worth a report.
    """

    def __init__(self, lease: MonitorLease, parts: Parts, on_change: Callable[[], None]) -> None:
        self._monitor = lease.monitor
        self._on_change = on_change
        self._parts = parts
        self._token = lease.token
        self._outbox = Outbox(parts.detections, lease.token)
        self._state = MonitorState.CONNECTING
        self._state_time = datetime.now(UTC)
        self._failure: Failure | None = None
        self._retry_time: datetime | None = None
        self._failed = 0
        """Attempts that failed since audio last came."""
        self._attempt = 0
        """Attempts since the last good connection."""
        self._counts, self._reported = _Counts(), _Counts()
        self._recognised = Covered()
        self._level_db = lease.monitor.stats.level_db
        self._title = lease.monitor.stats.source_title
        self._audio_time: datetime | None = None
        self._searched: datetime | None = None
        self._searched_s = 0.0
        self.searched_in_all_s = 0.0
        """Audio that was searched, of all connections."""
        self._ear: Ear | None = None
        self._recorder: AirRecorder | None = None
        self._episodes: Episodes
        self._alerts: Alerts
        self._again = asyncio.Event()
        self._poked = asyncio.Event()
        self._lost = False

    @property
    def late_s(self) -> float:
        """How far the search is behind the audio. 0 for a connection that is new: servers send
        what they have buffered at once."""
        ear = self._ear
        if ear is None or ear.age_s < GOOD_S:
            return 0.0
        return max(0.0, ear.given_s - self._searched_s)

    async def run(self) -> None:
        """Listens until cancelled. Raises LeaseLost, NoRoom."""
        async with self._parts.index.use():
            await self._take_over()
            telling = asyncio.create_task(self._tell(), name="monitor-tells")
            listening = asyncio.create_task(self._listen(), name="monitor-listens")
            try:
                done, _ = await asyncio.wait(
                    {telling, listening}, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
            finally:
                for task in (telling, listening):
                    task.cancel()
                await asyncio.gather(telling, listening, return_exceptions=True)
                await self._last_words()

    def lost(self) -> None:
        """The lease is gone: nothing more is to be told. Cancel `run` after this."""
        self._lost = True

    def update(self, monitor: Monitor) -> None:
        """Takes up what was changed about the monitor."""
        before, self._monitor = self._monitor, monitor
        if hasattr(self, "_episodes"):
            self._set_limits()
        if monitor.retry_now or monitor.config.options != before.config.options:
            self._attempt = 0
            self._again.set()

    def report(self) -> MonitorReport:
        """What happened since the last report that was taken, and how it stands."""
        counts, told = self._counts, self._reported
        return MonitorReport(
            state=self._state,
            state_time=self._state_time,
            heard_s=counts.heard_s - told.heard_s,
            silent_s=counts.silent_s - told.silent_s,
            recognised_s=counts.recognised_s + self._recognised.total_s - told.recognised_s,
            connections=counts.connections - told.connections,
            failed_attempts=self._failed,
            failure=self._failure,
            retry_time=self._retry_time,
            level_db=self._level_db,
            source_title=self._title,
            audio_time=self._audio_time,
        )

    def reported(self, report: MonitorReport) -> None:
        """This report was taken."""
        self._reported.heard_s += report.heard_s
        self._reported.silent_s += report.silent_s
        self._reported.recognised_s += report.recognised_s
        self._reported.connections += report.connections

    async def _take_over(self) -> None:
        """Goes on where whoever listened before has ended."""
        store, monitor = self._parts.detections, self._monitor
        while True:
            try:
                detections = await store.ongoing(monitor.id)
                alerts = await store.ongoing_alerts(monitor.id)
                break
            except PlatformError as error:
                log.debug("monitor waits for the database", reason=error.reason)
                await asyncio.sleep(_TICK_S)
        config, now = monitor.config, datetime.now(UTC)
        since = monitor.stats.audio_time
        if since is None or now - since > timedelta(seconds=config.loss_after_s) + _STALE:
            # Nobody listened for long: that is not the source's loss.
            since = now
        self._episodes = Episodes(
            monitor.id, detections, min_duration_s=0.0, min_confidence=config.min_confidence
        )
        self._alerts = Alerts(
            silence_after_s=config.silence_after_s,
            loss_after_s=config.loss_after_s,
            since=since,
            ongoing={one.kind for one in alerts},
        )
        self._set_limits()

    def _set_limits(self) -> None:
        config = self._monitor.config
        self._episodes.min_duration_s = config.min_duration_s
        self._episodes.min_confidence = config.min_confidence
        self._alerts.silence_after_s = config.silence_after_s
        self._alerts.loss_after_s = config.loss_after_s

    async def _listen(self) -> None:
        while True:
            self._again.clear()
            connection = asyncio.create_task(self._connect(), name="monitor-connection")
            again = asyncio.create_task(self._again.wait())
            try:
                await asyncio.wait({connection, again}, return_when=asyncio.FIRST_COMPLETED)
                if not connection.done():
                    # With other options, at once.
                    continue
                failure, retry_after_s = connection.result()
            finally:
                for task in (connection, again):
                    task.cancel()
                await asyncio.gather(connection, again, return_exceptions=True)
                self._episodes.interrupted()
                self._alerts.interrupted()
            await self._wait(failure, retry_after_s)

    async def _wait(self, failure: Failure, retry_after_s: float | None) -> None:
        """Until the source is to be tried again."""
        self._failed += 1
        self._attempt += 1
        settings = self._parts.settings
        delay_s = next_attempt_s(
            failure,
            self._attempt,
            base_s=settings.retry_base_s,
            cap_s=settings.retry_cap_s,
            retry_after_s=retry_after_s,
        )
        self._set_state(MonitorState.RETRYING, failure, delay_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._again.wait()

    async def _connect(self) -> tuple[Failure, float | None]:
        """Listens to one connection; why it ended, and for how long not to come back."""
        self._set_state(MonitorState.CONNECTING, self._failure)
        parts, monitor = self._parts, self._monitor
        error: Exception | None
        try:
            async with parts.sources.open(monitor.url, monitor.config.options) as events:
                ear = Ear(events, on_audio=self._heard, on_title=self._titled)
                self._ear, self._searched_s = ear, 0.0
                config = StreamConfig(_FORMAT, match_options(0, 0.0, 0.0))
                async with (
                    aclosing(ear.pcm()) as pcm,
                    aclosing(parts.live.run(config, pcm, record=False)) as told,
                ):
                    with contextlib.suppress(ClipTooShort):
                        async for event in told:
                            self._took(event, ear)
                error = ear.error
        except PlatformError as refused:
            if refused.reason == "SERVER_BUSY":
                raise NoRoom from None
            error = refused
        except Exception as raised:
            error = raised
        finally:
            self._counts.recognised_s += self._recognised.total_s
            self._recognised = Covered()
            self._ear = None
            if self._recorder is not None:
                await self._recorder.interrupt()
        if error is None:
            error = JobError("SOURCE_OFFLINE", "The source closed the connection.")
        return failure_of(error)

    async def _heard(self, heard: Heard) -> None:
        length_s = (heard.end - heard.start).total_seconds()
        if self._state is not MonitorState.LISTENING:
            self._counts.connections += 1
            self._failed = 0
            self._set_state(MonitorState.LISTENING, None)
        if self._ear is not None and self._ear.given_s >= GOOD_S:
            self._attempt = 0
        self._counts.heard_s += length_s
        if heard.level_db < SILENT_DB:
            self._counts.silent_s += length_s
        self._level_db, self._audio_time = heard.level_db, heard.end
        self._alerts.heard(heard.start, heard.end, heard.level_db, datetime.now(UTC))
        await self._record(heard)

    def _titled(self, text: str) -> None:
        self._title = text

    def _took(self, event: StreamEvent, ear: Ear) -> None:
        self.searched_in_all_s += event.heard_s - self._searched_s
        self._searched_s = event.heard_s
        self._searched = ear.air.at(event.heard_s)
        if isinstance(event, ProvisionalMatch):
            if event.stability < SURE_STABILITY:
                return
        elif not isinstance(event, FinalMatch):
            return
        match = event.match
        video = self._parts.videos.by_id(match.video_id)
        if video is None:
            # It was deleted at this moment.
            return
        start_s, end_s = max(0.0, match.clip_start_s), match.clip_end_s
        self._recognised.add(start_s, end_s)
        self._episodes.saw(
            Sighting(
                match.video_id,
                match.title,
                video.source_url,
                match.external_id,
                ear.air.at(start_s),
                ear.air.at(end_s),
                match.video_start_s + (start_s - match.clip_start_s) * match.speed,
                match.video_end_s,
                match.speed,
                match.pitch,
                match.confidence,
                match.also_at_s,
            )
        )
        self._poked.set()

    async def _record(self, heard: Heard) -> None:
        """Keeps what is heard, where that is wanted."""
        if self._monitor.config.keep_air_s > 0:
            if self._recorder is None:
                self._recorder = AirRecorder(self._parts.air, self._token)
            await self._recorder.push(heard.pcm, heard.start)
        elif self._recorder is not None:
            recorder, self._recorder = self._recorder, None
            await recorder.close()

    def _set_state(
        self, state: MonitorState, failure: Failure | None, delay_s: float | None = None
    ) -> None:
        now = datetime.now(UTC)
        if state is not self._state:
            self._state_time = now
            self._on_change()
        self._state, self._failure = state, failure
        self._retry_time = None if delay_s is None else now + timedelta(seconds=delay_s)

    async def _tell(self) -> None:
        away = False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._poked.wait()
            self._poked.clear()
            self._collect(all_progress=False)
            try:
                await self._outbox.flush()
                away = False
            except PlatformError as error:
                if not away:
                    log.warning("detections wait for the database", reason=error.reason)
                away = True
                await asyncio.sleep(_TICK_S)

    def _collect(self, *, all_progress: bool) -> None:
        now = datetime.now(UTC)
        self._episodes.advance(self._searched, now)
        self._alerts.advance(now, "" if self._failure is None else self._failure.message)
        for detection in self._episodes.changes(now, all_progress=all_progress):
            self._outbox.detection(detection)
        for event in self._alerts.changes():
            self._outbox.alert(event)

    async def _last_words(self) -> None:
        """How far it has come, for whoever goes on."""
        if self._recorder is not None:
            await self._recorder.close()
        if self._lost:
            return
        self._collect(all_progress=True)
        with contextlib.suppress(PlatformError, TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await self._outbox.flush()
