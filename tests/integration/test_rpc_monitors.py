"""MonitorService as callers see it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from tests.integration.rpc import Running, refused, running
from tests.integration.test_store_monitors import NOON, OFFLINE, detection, report

from soundhash.v1 import monitors_pb2, monitors_pb2_grpc
from soundhash_server.embedded_postgres import Postgres
from soundhash_server.errors import PlatformError
from soundhash_server.model import AlertKind, MonitorLease, MonitorState
from soundhash_server.store.detections import Detections
from soundhash_server.store.migrate import migrate
from soundhash_server.store.monitors import Monitors

NO_ID = "00000000-0000-4000-8000-000000000000"
# Public addresses, which nobody looks up or connects to here.
RADIO = "http://8.8.8.8"


class Caller:
    """What a test does with monitors: as a caller, and as the worker that carries them."""

    def __init__(self, server: Running) -> None:
        self.stub = monitors_pb2_grpc.MonitorServiceStub(server.channel)
        self.store = Monitors(server.pool)
        self.found = Detections(server.pool)

    async def create(self, url: str | None = None, **more: Any) -> monitors_pb2.Monitor:
        where = f"{RADIO}/{uuid4()}" if url is None else url
        request = monitors_pb2.CreateMonitorRequest(url=where, **more)
        made: monitors_pb2.Monitor = await self.stub.CreateMonitor(request)
        return made

    async def take(self, monitor: monitors_pb2.Monitor) -> MonitorLease:
        leases = await self.store.claim(1000, 300.0)
        (lease,) = [one for one in leases if str(one.monitor.id) == monitor.id]
        return lease

    async def get(self, monitor_id: str) -> monitors_pb2.Monitor:
        found: monitors_pb2.Monitor = await self.stub.GetMonitor(
            monitors_pb2.GetMonitorRequest(id=monitor_id)
        )
        return found

    @contextlib.asynccontextmanager
    async def watching(self, *ids: str, since: Timestamp | None = None) -> AsyncIterator[Watch]:
        request = monitors_pb2.WatchDetectionsRequest(monitor_ids=ids, since=since)
        call = self.stub.WatchDetections(request)
        try:
            yield Watch(call)
        finally:
            call.cancel()


class Watch:
    """The events of a watching caller."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for event in self.call:
                self._events.put_nowait(event)
        except grpc.aio.AioRpcError as error:
            self._events.put_nowait(error)

    async def next(self) -> monitors_pb2.WatchDetectionsResponse:
        async with asyncio.timeout(20):
            event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        assert isinstance(event, monitors_pb2.WatchDetectionsResponse)
        return event

    async def until(self, detection_id: UUID) -> list[monitors_pb2.WatchDetectionsResponse]:
        """All events up to the first one of this detection."""
        events = [await self.next()]
        while events[-1].detection.id != str(detection_id):
            events.append(await self.next())
        return events

    async def nothing_more(self) -> None:
        await asyncio.sleep(0.3)
        assert self._events.empty()


@pytest.fixture
def caller(server: Running) -> Caller:
    return Caller(server)


def stamp(moment: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(moment)
    return made


def message(moment: Timestamp) -> datetime:
    return moment.ToDatetime(UTC)


async def test_a_monitor_from_beginning_to_end(caller: Caller) -> None:
    made = await caller.create(
        "http://dj:hunter2@8.8.8.8:8000/rock?token=s3cret&bitrate=128",
        config=monitors_pb2.MonitorConfig(
            fetch={"proxy": "http://me:pr0xy@8.8.4.4:1", "cookies": "mine.txt"}
        ),
        request_id="first",
    )
    assert made.url == "http://***@8.8.8.8:8000/rock?token=***&bitrate=128"
    assert made.state == monitors_pb2.MONITOR_STATE_WAITING
    config = made.config
    assert (config.name, config.min_confidence) == ("8.8.8.8", 0)
    lengths = (config.min_duration, config.silence_after, config.loss_after, config.keep_air)
    assert [one.ToSeconds() for one in lengths] == [3, 30, 60, 0]
    assert (config.fetch.cookies, config.fetch.proxy) == ("mine.txt", "")
    assert made.stats.level_db == -120
    for unset in ("failure", "retry_time", "current"):
        assert not made.HasField(unset)
    assert await caller.get(made.id) == made
    assert (await caller.create(f"{RADIO}/other", request_id="first")).id == made.id

    lease = await caller.take(made)
    url = lease.monitor.url
    assert "hunter2" in url and "hunter2" not in repr(lease)
    failure = dataclasses.replace(OFFLINE, message=f"{url} answers 404")
    retrying = report(
        MonitorState.RETRYING, failure=failure, retry_time=NOON, failed_attempts=2, heard_s=7.5
    )
    await caller.store.heartbeat({lease.token: retrying}, 300.0)
    await caller.found.begin_alert(lease.token, AlertKind.LOSS, NOON, f"{url}: hunter2, s3cret")
    shown = await caller.get(made.id)
    assert shown.state == monitors_pb2.MONITOR_STATE_RETRYING
    assert message(shown.retry_time) == message(shown.state_time) == NOON
    assert (shown.failure.reason, shown.failure.transient) == ("SOURCE_OFFLINE", True)
    assert (shown.stats.failed_attempts, shown.stats.heard.ToMilliseconds()) == (2, 7500)
    alerts = await caller.stub.ListAlerts(monitors_pb2.ListAlertsRequest(monitor_id=made.id))
    for secret in ("hunter2", "s3cret", "dj", "pr0xy"):
        assert secret not in str(shown) + str(alerts)

    await caller.stub.ResumeMonitor(monitors_pb2.ResumeMonitorRequest(id=made.id))
    told = await caller.store.heartbeat({lease.token: retrying}, 300.0)
    assert told[lease.token].retry_now

    await caller.found.upsert(lease.token, detection(lease.monitor.id))
    assert (await caller.get(made.id)).current.title == "A song"
    paused = await caller.stub.PauseMonitor(monitors_pb2.PauseMonitorRequest(id=made.id))
    assert (paused.state, paused.HasField("current")) == (monitors_pb2.MONITOR_STATE_PAUSED, False)
    assert await caller.store.heartbeat({lease.token: retrying}, 300.0) == {}
    again = await caller.stub.ResumeMonitor(monitors_pb2.ResumeMonitorRequest(id=made.id))
    assert (again.state, again.HasField("failure")) == (monitors_pb2.MONITOR_STATE_WAITING, False)
    assert again.stats.detections == 1

    await caller.stub.DeleteMonitor(monitors_pb2.DeleteMonitorRequest(id=made.id))
    for method, request in (
        ("GetMonitor", monitors_pb2.GetMonitorRequest(id=made.id)),
        ("PauseMonitor", monitors_pb2.PauseMonitorRequest(id=made.id)),
        ("ResumeMonitor", monitors_pb2.ResumeMonitorRequest(id=made.id)),
        ("DeleteMonitor", monitors_pb2.DeleteMonitorRequest(id=made.id)),
        (
            "UpdateMonitor",
            monitors_pb2.UpdateMonitorRequest(id=made.id, update_mask=FieldMask(paths=["name"])),
        ),
    ):
        with refused("NOT_FOUND", "MONITOR_NOT_FOUND"):
            await getattr(caller.stub, method)(request)


async def test_only_what_the_mask_names_changes(caller: Caller) -> None:
    config = monitors_pb2.MonitorConfig(
        name="X",
        min_confidence=0.5,
        min_duration={"seconds": 0},
        keep_air={"seconds": 60},
        fetch={"user_agent": "radio", "proxy": "http://8.8.8.8:1"},
    )
    made = await caller.create(config=config)
    assert made.config.min_duration.ToSeconds() == 0

    async def update(*paths: str, **values: Any) -> monitors_pb2.MonitorConfig:
        changed: monitors_pb2.Monitor = await caller.stub.UpdateMonitor(
            monitors_pb2.UpdateMonitorRequest(
                id=made.id,
                config=monitors_pb2.MonitorConfig(**values),
                update_mask=FieldMask(paths=paths),
            )
        )
        return changed.config

    now = await update("keep_air", "loss_after", keep_air={"seconds": 3600}, name="ignored")
    assert (now.name, now.min_confidence, now.keep_air.ToSeconds()) == ("X", 0.5, 3600)
    assert (now.loss_after.ToSeconds(), now.fetch.user_agent) == (60, "radio")
    now = await update("name", "min_duration", "fetch", "keep_air")
    assert (now.name, now.min_duration.ToSeconds(), now.keep_air.ToSeconds()) == ("8.8.8.8", 3, 0)
    assert now.fetch.user_agent == ""
    (stored,) = [one.monitor for one in await caller.store.claim(1000, 300.0)][-1:]
    assert stored.config.options.proxy == ""
    for paths in ([], ["url"], ["name", "nonsense"]):
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
            await update(*paths)


async def test_what_cannot_be_monitored(caller: Caller) -> None:
    made = await caller.create(f"{RADIO}/twice")
    with refused("ALREADY_EXISTS", "MONITOR_EXISTS") as caught:
        await caller.create("http://u:p@8.8.8.8:80/twice#x")
    assert caught[0].metadata["monitor"] == made.id
    for url in ("http://127.0.0.1/x", "rtmp://u:s3cret@10.0.0.1/app", "rtsp://[::1]/x"):
        with refused("INVALID_ARGUMENT", "URL_NOT_ALLOWED") as caught:
            await caller.create(url)
        assert "s3cret" not in caught[0].message
    for url in ("", "file:///etc/passwd", "radio", "http:///x", "rtmp://a/" + "x" * 2048):
        with refused("INVALID_ARGUMENT"):
            await caller.create(url)
    with refused("INVALID_ARGUMENT", "PROXY_NOT_ALLOWED"):
        await caller.create(
            config=monitors_pb2.MonitorConfig(fetch={"proxy": "http://127.0.0.1:1"})
        )
    wrong: list[dict[str, Any]] = [
        {"min_confidence": 1.5},
        {"min_confidence": float("nan")},
        {"min_duration": {"seconds": 601}},
        {"silence_after": {"nanos": 5}},
        {"loss_after": {"seconds": 86401}},
        {"keep_air": {"seconds": 2678401}},
        {"name": "x" * 201},
        {"fetch": {"cookies": "../x"}},
    ]
    for config in wrong:
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
            await caller.create(config=monitors_pb2.MonitorConfig(**config))
    (many,) = [await caller.create("https://8.8.8.8/" + "ä" * 2000)]
    await caller.stub.DeleteMonitor(monitors_pb2.DeleteMonitorRequest(id=many.id))


async def test_detections_and_alerts_in_pages(caller: Caller) -> None:
    made = await caller.create(config=monitors_pb2.MonitorConfig(name="Radio X"))
    lease = await caller.take(made)
    stored = [detection(lease.monitor.id, at_s=100 * i) for i in range(5)]
    for one in stored:
        await caller.found.upsert(lease.token, one)
    # What comes later moves nothing, and where an episode began stays.
    later = dataclasses.replace(
        stored[1],
        start_time=NOON + timedelta(days=1),
        end_time=NOON + timedelta(seconds=140),
        video_end_s=45.0,
        covered_s=10.0,
        confidence=0.99,
        ongoing=False,
    )
    await caller.found.upsert(lease.token, later)

    async def page(token: str = "", **filters: Any) -> monitors_pb2.ListDetectionsResponse:
        request = monitors_pb2.ListDetectionsRequest(
            page_size=2, page_token=token, monitor_id=made.id, **filters
        )
        answer: monitors_pb2.ListDetectionsResponse = await caller.stub.ListDetections(request)
        return answer

    first = await page()
    await caller.found.upsert(lease.token, detection(lease.monitor.id, at_s=1000))
    second = await page(first.next_page_token)
    third = await page(second.next_page_token)
    listed = [*first.detections, *second.detections, *third.detections]
    assert [one.id for one in listed] == [str(one.id) for one in reversed(stored)]
    assert third.next_page_token == ""
    seen = listed[3]
    assert message(seen.start_time) == NOON + timedelta(seconds=100)
    assert message(seen.end_time) == NOON + timedelta(seconds=140)
    assert (seen.ongoing, seen.confidence, seen.coverage) == (False, 0.99, 0.25)
    assert seen.source_url == "https://www.youtube.com/watch?v=abc&t=5s"
    assert (seen.monitor_name, seen.external_id) == ("Radio X", "abc")
    with refused("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID"):
        await page(first.next_page_token, video_id=NO_ID)

    video_id = str(stored[2].video_id)
    (only,) = (await page(video_id=video_id)).detections
    assert only.video_id == video_id
    since, until = (stamp(NOON + timedelta(seconds=at_s)) for at_s in (205, 300))
    (only,) = (await page(since=since, until=until)).detections
    assert only.id == str(stored[2].id)
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
        await page(since=Timestamp(seconds=10**15))

    for i in range(3):
        await caller.found.begin_alert(lease.token, AlertKind.SILENCE, NOON + i * timedelta(1))
        await caller.found.end_alert(lease.token, AlertKind.SILENCE, NOON + i * timedelta(1))
    for why in ("One reason.", "", "Another.", "Another."):
        await caller.found.begin_alert(lease.token, AlertKind.LOSS, NOON - timedelta(1), why)
    answer = await caller.stub.ListAlerts(
        monitors_pb2.ListAlertsRequest(monitor_id=made.id, page_size=3)
    )
    assert [message(one.start_time) for one in answer.alerts] == [
        NOON + i * timedelta(1) for i in (2, 1, 0)
    ]
    (loss,) = (
        await caller.stub.ListAlerts(
            monitors_pb2.ListAlertsRequest(monitor_id=made.id, ongoing=True)
        )
    ).alerts
    assert (loss.kind, loss.message) == (monitors_pb2.ALERT_KIND_LOSS, "Another.")
    assert (loss.HasField("end_time"), loss.monitor_name) == (False, "Radio X")


async def test_watching_tells_what_goes_on_and_then_every_change(caller: Caller) -> None:
    made, other = await caller.create(), await caller.create()
    leases = {str(one.monitor.id): one for one in await caller.store.claim(1000, 300.0)}
    lease, beside = leases[made.id], leases[other.id]
    going_on = detection(lease.monitor.id)
    over = dataclasses.replace(detection(lease.monitor.id), ongoing=False)
    await caller.found.upsert(lease.token, over)
    await caller.found.upsert(lease.token, going_on)
    await caller.found.begin_alert(lease.token, AlertKind.SILENCE, NOON)
    async with caller.watching(made.id) as watch:
        first, second = await watch.next(), await watch.next()
        assert first.detection.id == str(going_on.id)
        assert second.alert.kind == monitors_pb2.ALERT_KIND_SILENCE
        await watch.nothing_more()
    async with caller.watching(made.id) as watch:
        await watch.next(), await watch.next()
        await caller.found.upsert(beside.token, detection(beside.monitor.id))
        await caller.found.end_alert(lease.token, AlertKind.SILENCE, NOON)
        event = await watch.next()
        assert event.alert.HasField("end_time"), "not what another monitor hears"
        await caller.stub.PauseMonitor(monitors_pb2.PauseMonitorRequest(id=made.id))
        event = await watch.next()
        assert (event.detection.id, event.detection.ongoing) == (str(going_on.id), False)
        missed = event.update_time
    await caller.stub.ResumeMonitor(monitors_pb2.ResumeMonitorRequest(id=made.id))
    lease = await caller.take(made)
    late = [dataclasses.replace(detection(lease.monitor.id), ongoing=False) for _ in range(3)]
    for one in late:
        await caller.found.upsert(lease.token, one)
    now = detection(lease.monitor.id)
    await caller.found.upsert(lease.token, now)
    async with caller.watching(made.id, since=missed) as watch:
        events = await watch.until(now.id)
        # The last one of before may be repeated.
        assert [one.detection.id for one in events][-4:] == [str(one.id) for one in [*late, now]]
        assert all(one.update_time.ToNanoseconds() >= missed.ToNanoseconds() for one in events)
        assert (await watch.next()).detection.id == str(now.id), "and what goes on"
    with refused("NOT_FOUND", "MONITOR_NOT_FOUND"):
        async with caller.watching(NO_ID) as watch:
            await watch.next()
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
        async with caller.watching(since=Timestamp(seconds=10**15)) as watch:
            await watch.next()


async def test_nothing_is_left_out_however_many_write_at_once(caller: Caller) -> None:
    made = [await caller.create() for _ in range(8)]
    leases = [
        one
        for one in await caller.store.claim(1000, 300.0)
        if str(one.monitor.id) in {monitor.id for monitor in made}
    ]
    told: set[str] = set()
    written: set[str] = set()

    async def write(lease: MonitorLease) -> None:
        for _ in range(25):
            one = dataclasses.replace(detection(lease.monitor.id), ongoing=False)
            await caller.found.upsert(lease.token, one)
            written.add(str(one.id))

    async with caller.watching(*(monitor.id for monitor in made)) as watch:
        marker = detection(leases[0].monitor.id)
        await caller.found.upsert(leases[0].token, marker)
        await watch.until(marker.id)
        writers = asyncio.gather(*map(write, leases))
        last = None
        while len(told) < 200:
            event = await watch.next()
            moment = event.update_time.ToNanoseconds()
            assert last is None or moment >= last, "in the order of changes"
            told.add(event.detection.id)
            last = moment
        await writers
    assert told == written


async def test_a_watch_lives_through_a_database_that_goes_away(
    tmp_path: Path, redis_url: str
) -> None:
    own = Postgres(tmp_path / "postgres", {"fsync": "off", "synchronous_commit": "off"})
    await asyncio.to_thread(own.start)
    try:
        await migrate(own.url)
        async with running(own.url, redis_url, tmp_path / "data") as server:
            caller = Caller(server)
            made = await caller.create()
            lease = await caller.take(made)
            marker, missed, last = (detection(lease.monitor.id) for _ in range(3))
            await caller.found.upsert(lease.token, marker)
            async with caller.watching() as watch:
                await watch.until(marker.id)
                # Connections are cut: announcements of what comes next are lost.
                await server.pool.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND application_name LIKE 'soundhash%'"
                )
                await _in_spite_of_lost_connections(caller, lease, missed)
                await watch.until(missed.id)
                # The whole server is gone for a while.
                await asyncio.to_thread(own.stop)
                await watch.nothing_more()
                await asyncio.to_thread(own.start)
                await _in_spite_of_lost_connections(caller, lease, last)
                await watch.until(last.id)
    finally:
        await asyncio.to_thread(own.stop)


async def _in_spite_of_lost_connections(caller: Caller, lease: MonitorLease, one: Any) -> None:
    for _ in range(20):
        with contextlib.suppress(PlatformError):
            await caller.found.upsert(lease.token, one)
            return
    raise AssertionError("the database does not come back")


async def test_a_draining_server_ends_watches_at_once(
    postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    async with running(postgres_url, redis_url, tmp_path / "data", drain_s=60.0) as server:
        caller = Caller(server)
        made = await caller.create()
        lease = await caller.take(made)
        await caller.found.upsert(lease.token, detection(lease.monitor.id))
        async with caller.watching() as watch:
            await watch.next()
            stopping = asyncio.create_task(server.server.stop())
            with refused("UNAVAILABLE", "SERVER_DRAINING"):
                await watch.next()
        await stopping
