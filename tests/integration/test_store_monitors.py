"""Monitors: who listens to what, by leases, against a real PostgreSQL."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from soundhash_server.errors import PlatformError
from soundhash_server.model import (
    AlertKind,
    Detection,
    Failure,
    FetchOptions,
    Monitor,
    MonitorConfig,
    MonitorLease,
    MonitorReport,
    MonitorState,
)
from soundhash_server.store.detections import Detections
from soundhash_server.store.jobs import LeaseLost
from soundhash_server.store.monitors import Monitors
from soundhash_server.store.pool import Pool

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
OFFLINE = Failure("SOURCE_OFFLINE", "Nothing is on the air.", "Wait.", transient=True)


@pytest.fixture
def monitors(pool: Pool) -> Monitors:
    return Monitors(pool)


async def create(
    monitors: Monitors, name: str = "one", *, paused: bool = False, request_id: str = ""
) -> Monitor:
    url = f"http://radio.example/{name}"
    key = hashlib.sha256(url.encode()).hexdigest()
    return await monitors.create(
        url, key, MonitorConfig(name=name), paused=paused, request_id=request_id
    )


async def read(monitors: Monitors, monitor_id: UUID) -> Monitor:
    found = await monitors.get(monitor_id)
    assert found is not None
    return found


async def take(monitors: Monitors, lease_s: float = 30.0) -> MonitorLease:
    (lease,) = await monitors.claim(1, lease_s)
    return lease


def report(state: MonitorState = MonitorState.LISTENING, **more: Any) -> MonitorReport:
    return dataclasses.replace(MonitorReport(state, NOON), **more)


def detection(monitor_id: UUID, at_s: float = 0.0, length_s: float = 10.0) -> Detection:
    return Detection(
        id=uuid4(),
        monitor_id=monitor_id,
        video_id=uuid4(),
        title="A song",
        source_url="https://www.youtube.com/watch?v=abc",
        external_id="abc",
        start_time=NOON + timedelta(seconds=at_s),
        end_time=NOON + timedelta(seconds=at_s + length_s),
        ongoing=True,
        video_start_s=5.0,
        video_end_s=5.0 + length_s,
        covered_s=length_s / 2,
        confidence=0.9,
        speed=1.0,
        pitch=1.0,
    )


async def test_a_new_monitor_waits_with_what_it_was_asked_to_do(monitors: Monitors) -> None:
    config = MonitorConfig(
        "Radio X", 0.5, 4.0, 20.0, 40.0, 3600.0, FetchOptions(proxy="http://u:p@proxy:1")
    )
    made = await monitors.create("http://a.example/", "key", config, paused=False, request_id="")
    assert made.state is MonitorState.WAITING
    assert made.config == config
    assert made == await read(monitors, made.id)
    assert await monitors.get(uuid4()) is None


async def test_one_source_is_monitored_once(monitors: Monitors) -> None:
    made = await create(monitors, request_id="r")
    again = await create(monitors, request_id="r")
    assert again.id == made.id
    for request_id in ("", "other"):
        with pytest.raises(PlatformError) as refused:
            await create(monitors, request_id=request_id)
        assert refused.value.reason == "MONITOR_EXISTS"
        assert refused.value.metadata["monitor"] == str(made.id)
    by_request = await create(monitors, "two", request_id="r")
    assert by_request.id == made.id, "a repeated call returns the first one's"


async def test_concurrent_calls_make_one(monitors: Monitors) -> None:
    made = await asyncio.gather(*(create(monitors, request_id="r") for _ in range(8)))
    assert len({one.id for one in made}) == 1


async def test_concurrent_claims_never_share_a_monitor(monitors: Monitors) -> None:
    ids = {(await create(monitors, f"m{i}")).id for i in range(20)}
    taken = await asyncio.gather(*(monitors.claim(4, 30.0) for _ in range(8)))
    leases = [lease for batch in taken for lease in batch]
    counts = Counter(lease.monitor.id for lease in leases)
    assert max(counts.values()) == 1
    leases += await monitors.claim(100, 30.0)
    assert {lease.monitor.id for lease in leases} == ids
    assert len({lease.token for lease in leases}) == 20
    assert await monitors.claim(5, 30.0) == []
    assert (await read(monitors, next(iter(ids)))).state is MonitorState.CONNECTING


async def test_reports_add_up_and_say_how_it_stands(monitors: Monitors) -> None:
    made = await create(monitors)
    lease = await take(monitors)
    await monitors.heartbeat(
        {lease.token: report(heard_s=10, silent_s=2, recognised_s=5, connections=1)}, 30.0
    )
    later = report(heard_s=5, level_db=-20.5, source_title="Artist\x00 - Song", audio_time=NOON)
    told = await monitors.heartbeat({lease.token: later}, 30.0)
    now = await read(monitors, made.id)
    assert told[lease.token] == now
    assert (now.state, now.state_time) == (MonitorState.LISTENING, NOON)
    assert (now.stats.heard_s, now.stats.silent_s, now.stats.recognised_s) == (15, 2, 5)
    assert (now.stats.connections, now.stats.level_db) == (1, -20.5)
    assert (now.stats.audio_time, now.stats.source_title) == (NOON, "Artist  - Song")

    retry = NOON + timedelta(minutes=1)
    broken = report(
        MonitorState.RETRYING,
        failure=OFFLINE,
        retry_time=retry,
        failed_attempts=3,
        heard_s=float("nan"),
        level_db=float("-inf"),
    )
    await monitors.heartbeat({lease.token: broken}, 30.0)
    now = await read(monitors, made.id)
    assert (now.state, now.failure, now.retry_time) == (MonitorState.RETRYING, OFFLINE, retry)
    assert (now.stats.failed_attempts, now.stats.heard_s, now.stats.level_db) == (3, 15, -120)
    assert now.stats.audio_time == NOON, "as long as none arrives, the last one's"


async def test_a_lost_lease_changes_nothing(monitors: Monitors, pool: Pool) -> None:
    made = await create(monitors)
    lease = await take(monitors)
    vanished = detection(made.id)
    await Detections(pool).upsert(lease.token, vanished)
    assert (await read(monitors, made.id)).current == dataclasses.replace(
        vanished, monitor_name="one"
    )
    await pool.execute("UPDATE monitors SET lease_expires = now() - interval '1 s'")
    waiting = await read(monitors, made.id)
    assert (waiting.state, waiting.current) == (MonitorState.WAITING, None)
    other = await take(monitors)
    assert other.monitor.id == made.id
    told = await monitors.heartbeat(
        {lease.token: report(heard_s=5), other.token: report(heard_s=1)}, 30.0
    )
    assert set(told) == {other.token}
    assert told[other.token].stats.heard_s == 1
    found = Detections(pool)
    with pytest.raises(LeaseLost):
        await found.upsert(lease.token, detection(made.id))
    for call in (found.begin_alert, found.end_alert):
        with pytest.raises(LeaseLost):
            await call(lease.token, AlertKind.LOSS, NOON)
    (kept,) = await found.ongoing(made.id)
    assert kept.id == vanished.id, "for the next worker to go on with"


async def test_an_expired_lease_that_nobody_took_is_renewed(monitors: Monitors, pool: Pool) -> None:
    await create(monitors)
    lease = await take(monitors)
    await pool.execute("UPDATE monitors SET lease_expires = now() - interval '1 s'")
    assert lease.token in await monitors.heartbeat({lease.token: report()}, 30.0)
    assert await monitors.claim(1, 30.0) == []


async def test_released_monitors_are_free_at_once(monitors: Monitors) -> None:
    made = await create(monitors)
    lease = await take(monitors)
    await monitors.release([lease.token, uuid4()])
    await monitors.release([])
    assert (await take(monitors)).monitor.id == made.id
    assert await monitors.heartbeat({lease.token: report()}, 30.0) == {}


async def test_a_pause_takes_the_lease_and_ends_what_goes_on(
    monitors: Monitors, pool: Pool
) -> None:
    made = await create(monitors)
    lease = await take(monitors)
    found = Detections(pool)
    await found.upsert(lease.token, detection(made.id))
    await found.begin_alert(lease.token, AlertKind.SILENCE, NOON)
    assert (await read(monitors, made.id)).current is not None

    for _ in range(2):
        paused = await monitors.pause(made.id)
        assert paused is not None
        assert (paused.state, paused.current) == (MonitorState.PAUSED, None)
    assert await monitors.heartbeat({lease.token: report()}, 30.0) == {}
    assert await monitors.claim(1, 30.0) == []
    (ended,) = (await found.list(10, "")).items
    assert not ended.ongoing
    (alert,) = (await found.alerts(10, "")).items
    assert alert.end_time is not None
    assert await found.ongoing_alerts(made.id) == []

    resumed = await monitors.resume(made.id)
    assert resumed is not None
    assert resumed.state is MonitorState.WAITING
    assert not (await take(monitors)).monitor.retry_now
    assert await monitors.pause(uuid4()) is None
    assert await monitors.resume(uuid4()) is None


async def test_one_that_waits_to_connect_is_told_once_to_do_so_now(monitors: Monitors) -> None:
    made = await create(monitors)
    lease = await take(monitors)
    listening = {lease.token: report()}
    retrying = {lease.token: report(MonitorState.RETRYING, failure=OFFLINE, retry_time=NOON)}
    await monitors.heartbeat(listening, 30.0)
    await monitors.resume(made.id)
    assert not (await monitors.heartbeat(listening, 30.0))[lease.token].retry_now
    await monitors.heartbeat(retrying, 30.0)
    await monitors.resume(made.id)
    assert (await monitors.heartbeat(retrying, 30.0))[lease.token].retry_now
    assert not (await monitors.heartbeat(retrying, 30.0))[lease.token].retry_now


async def test_changed_config_reaches_the_worker(monitors: Monitors) -> None:
    made = await create(monitors)
    lease = await take(monitors)
    options = FetchOptions(user_agent="radio")
    changed = await monitors.update(made.id, keep_air_s=60.0, name="Y", options=options)
    assert changed is not None
    assert changed.config == MonitorConfig(name="Y", keep_air_s=60.0, options=options)
    told = await monitors.heartbeat({lease.token: report()}, 30.0)
    assert told[lease.token].config == changed.config
    assert await monitors.update(uuid4(), name="Z") is None
    with pytest.raises(ValueError, match="url"):
        await monitors.update(made.id, url="http://other/")


async def test_a_deleted_monitor_is_gone_with_what_it_heard(monitors: Monitors, pool: Pool) -> None:
    made = await create(monitors)
    lease = await take(monitors)
    found = Detections(pool)
    await found.upsert(lease.token, detection(made.id))
    await found.begin_alert(lease.token, AlertKind.LOSS, NOON)
    assert await monitors.delete(made.id)
    assert not await monitors.delete(made.id)
    assert await monitors.heartbeat({lease.token: report()}, 30.0) == {}
    with pytest.raises(LeaseLost):
        await found.upsert(lease.token, detection(made.id))
    assert (await found.list(10, "")).items == ()
    assert (await found.alerts(10, "")).items == ()


async def test_pauses_and_deletions_beside_a_busy_worker(monitors: Monitors, pool: Pool) -> None:
    """No deadlock, no write after the lease is gone, whatever comes first."""
    made = [await create(monitors, f"m{i}") for i in range(6)]
    leases = await monitors.claim(6, 30.0)
    found = Detections(pool)

    async def work(lease: MonitorLease) -> None:
        for at_s in range(20):
            try:
                await found.upsert(lease.token, detection(lease.monitor.id, at_s))
                await found.begin_alert(lease.token, AlertKind.SILENCE, NOON)
                await found.end_alert(lease.token, AlertKind.SILENCE, NOON)
            except LeaseLost:
                return

    async def beat() -> None:
        for _ in range(20):
            await monitors.heartbeat({lease.token: report(heard_s=1) for lease in leases}, 30.0)

    async def steer(monitor: Monitor, turn: int) -> None:
        await asyncio.sleep(0.01 * turn)
        await (monitors.delete(monitor.id) if turn % 2 else monitors.pause(monitor.id))

    await asyncio.gather(
        beat(), *map(work, leases), *(steer(one, turn) for turn, one in enumerate(made))
    )
    assert len((await monitors.list(10, "")).items) == 3
    assert all(not one.ongoing for one in (await found.list(1000, "")).items)


async def test_lists_keep_their_order_while_paging(monitors: Monitors) -> None:
    made = [await create(monitors, f"m{i}") for i in range(7)]
    first = await monitors.list(3, "")
    await create(monitors, "new")
    await monitors.delete(first.items[2].id)
    second = await monitors.list(3, first.next_page_token)
    third = await monitors.list(3, second.next_page_token)
    listed = [*first.items, *second.items, *third.items]
    assert [one.id for one in listed] == [one.id for one in reversed(made)]
    assert third.next_page_token == ""
    await monitors.pause(made[0].id)
    (paused,) = (await monitors.list(5, "", [MonitorState.PAUSED])).items
    assert paused.id == made[0].id
    (lease,) = await monitors.claim(1, 30.0)
    (connecting,) = (await monitors.list(5, "", [MonitorState.CONNECTING])).items
    assert connecting.id == lease.monitor.id
    with pytest.raises(PlatformError, match="page token"):
        await monitors.list(3, first.next_page_token, [MonitorState.PAUSED])
