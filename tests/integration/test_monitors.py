"""Monitors in a worker: real stations on loopback, a real database, workers that die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.air import Air, Station, serving_air
from tests.integration.working import worker_settings, working
from tests.monitoring import BYTES_PER_S, Watch, broadcast, noise, silence, song

from soundhash_server.model import AlertKind, MonitorState
from soundhash_server.settings import Settings
from soundhash_server.store.pool import Pool


@pytest.fixture
async def air() -> AsyncIterator[Air]:
    async with serving_air() as serving:
        yield serving


@pytest.fixture
def watch(pool: Pool) -> Watch:
    return Watch(pool)


@pytest.fixture
def settings(postgres_url: str, redis_url: str, data_dir: Path) -> Settings:
    return worker_settings(postgres_url, redis_url, data_dir, monitor_lease_s=1.5)


async def test_what_a_station_plays_is_told(air: Air, watch: Watch, settings: Settings) -> None:
    videos = await watch.songs(1, 2)
    media = broadcast(song(1, 5, 15), noise(3), song(2, 20, 28))
    air.station("/radio", Station(media, then="hang", titles={0: "Artist - Title"}))
    monitor_id = await watch.monitor(air.url("/radio"))
    async with working(settings):
        heard = await watch.until_heard(
            monitor_id, lambda found: len(found) == 2 and found[1].covered_s > 6.5
        )
        monitor = await watch.until(monitor_id, lambda shown: shown.stats.heard_s > 20.5)
    first, second = heard
    assert [one.video_id for one in heard] == [videos[1], videos[2]]
    assert (first.title, first.external_id) == ("Song 1", "song-1")
    assert first.source_url == "https://www.youtube.com/watch?v=00000000001"
    assert first.video_start_s == pytest.approx(5, abs=0.7)
    assert first.video_end_s == pytest.approx(15, abs=1.0)
    assert second.video_start_s == pytest.approx(20, abs=1.0)
    # It played for ten seconds, and the next one began three seconds later.
    assert (first.end_time - first.start_time).total_seconds() == pytest.approx(10, abs=1.2)
    assert (second.start_time - first.start_time).total_seconds() == pytest.approx(13, abs=1.0)
    assert first.coverage > 0.9
    assert first.confidence > 0.9
    assert first.speed == pytest.approx(1.0, abs=0.01)
    assert monitor.state is MonitorState.LISTENING
    assert monitor.failure is None
    stats = monitor.stats
    assert stats.heard_s == pytest.approx(21, abs=0.3)
    assert stats.recognised_s == pytest.approx(18, abs=1.5)
    assert (stats.connections, stats.detections, stats.failed_attempts) == (1, 2, 0)
    assert stats.source_title == "Artist - Title"
    assert -40 < stats.level_db < 0


async def test_a_cut_connection_does_not_cut_what_is_heard(
    air: Air, watch: Watch, settings: Settings
) -> None:
    await watch.songs(1)
    station = air.station("/radio", _on_the_air(song(1)))
    monitor_id = await watch.monitor(air.url("/radio"), min_duration_s=2.0)
    async with working(settings):
        (before,) = await watch.until_heard(monitor_id, lambda found: len(found) == 1)
        station.cut()
        monitor = await watch.until(monitor_id, lambda shown: shown.stats.connections == 2)
        (after,) = await watch.until_heard(
            monitor_id, lambda found: found[0].video_end_s > before.video_end_s + 4
        )
    assert after.id == before.id
    assert after.ongoing
    assert after.coverage > 0.5
    assert monitor.stats.failed_attempts == 0


async def test_a_song_that_begins_anew_is_told_anew(
    air: Air, watch: Watch, settings: Settings
) -> None:
    await watch.songs(1)
    air.station("/radio", Station(broadcast(song(1, 0, 9), song(1, 0, 9), noise(4)), then="hang"))
    monitor_id = await watch.monitor(air.url("/radio"))
    async with working(settings):
        heard = await watch.until_heard(
            monitor_id, lambda found: len(found) == 2 and found[1].covered_s > 8
        )
    assert [one.ongoing for one in heard] == [False, True]
    assert [one.video_start_s for one in heard] == [pytest.approx(0, abs=0.7)] * 2
    assert [one.video_end_s for one in heard] == [pytest.approx(9, abs=1.3)] * 2


async def test_a_source_that_is_away_is_tried_for_ever(
    air: Air, watch: Watch, settings: Settings
) -> None:
    station = air.station("/radio", Station(broadcast(noise(20)), then="hang", status=503))
    monitor_id = await watch.monitor(air.url("/radio"), loss_after_s=1.0)
    async with working(settings):
        (alert,) = await watch.until_alerts(monitor_id, lambda found: len(found) == 1)
        assert (alert.kind, alert.end_time) == (AlertKind.LOSS, None)
        assert alert.message == "The source answers 503."
        shown = await watch.until(monitor_id, lambda one: one.stats.failed_attempts >= 3)
        assert shown.failure is not None
        assert (shown.failure.reason, shown.failure.transient) == ("HTTP_SERVER_ERROR", True)
        station.status = 200
        shown = await watch.until(monitor_id, lambda one: one.state is MonitorState.LISTENING)
        assert (shown.failure, shown.stats.failed_attempts) == (None, 0)
        alert, *_ = await watch.until_alerts(
            monitor_id, lambda found: found[0].end_time is not None
        )
        assert alert.end_time > alert.start_time


async def test_a_source_that_asks_for_time_is_given_it_unless_somebody_wants_otherwise(
    air: Air, watch: Watch, settings: Settings
) -> None:
    station = air.station(
        "/radio",
        Station(broadcast(noise(20)), then="hang", status=429, headers={"Retry-After": "3000"}),
    )
    monitor_id = await watch.monitor(air.url("/radio"))
    async with working(settings):
        shown = await watch.until(monitor_id, lambda one: one.retry_time is not None)
        assert shown.state is MonitorState.RETRYING
        wait_s = (shown.retry_time - shown.state_time).total_seconds()
        assert wait_s == pytest.approx(3000, abs=5)
        assert shown.failure.reason == "HTTP_TOO_MANY_REQUESTS"
        station.status = 200
        await watch.monitors.resume(monitor_id)
        await watch.until(monitor_id, lambda one: one.state is MonitorState.LISTENING)
    assert len(station.asked) == 2


async def test_silence_is_told_and_its_end(air: Air, watch: Watch, settings: Settings) -> None:
    media = broadcast(song(3, 0, 4), silence(8), song(3, 4, 8), silence(8))
    air.station("/radio", Station(media, then="hang"))
    monitor_id = await watch.monitor(air.url("/radio"), silence_after_s=5.0)
    async with working(settings):
        first, second = await watch.until_alerts(monitor_id, lambda found: len(found) == 2)
        shown = await watch.until(monitor_id, lambda one: one.stats.heard_s > 23)
    assert {first.kind, second.kind} == {AlertKind.SILENCE}
    assert first.end_time is not None
    assert (first.end_time - first.start_time).total_seconds() == pytest.approx(8, abs=0.6)
    assert second.end_time is None
    assert shown.stats.silent_s == pytest.approx(16, abs=1.0)
    assert shown.stats.level_db < -60


async def test_pause_resume_update_and_delete_take_effect_at_once(
    air: Air, watch: Watch, settings: Settings
) -> None:
    await watch.songs(1)
    station = air.station("/radio", Station(broadcast(song(1)), then="hang"))
    monitor_id = await watch.monitor(air.url("/radio"))
    async with working(settings):
        await watch.until_heard(monitor_id, lambda found: len(found) == 1)
        assert station.listening == 1
        await watch.monitors.pause(monitor_id)
        await _until(lambda: station.listening == 0)
        assert [one.ongoing for one in await watch.heard(monitor_id)] == [False]
        assert (await watch.get(monitor_id)).state is MonitorState.PAUSED
        before = (await watch.get(monitor_id)).stats.connections
        await watch.monitors.update(monitor_id, min_duration_s=600.0)
        await watch.monitors.resume(monitor_id)
        await watch.until(monitor_id, lambda one: one.stats.connections > before)
        await watch.until(monitor_id, lambda one: one.stats.recognised_s > 30)
        # What has been heard again is too short now.
        assert len(await watch.heard(monitor_id)) == 1
        await watch.monitors.update(monitor_id, min_duration_s=1.0)
        await watch.until_heard(monitor_id, lambda found: len(found) == 2)
        await watch.monitors.delete(monitor_id)
        await _until(lambda: station.listening == 0)


async def test_a_worker_that_stops_hands_over_at_once(
    air: Air, watch: Watch, settings: Settings
) -> None:
    await watch.songs(1)
    station = air.station("/radio", _on_the_air(song(1)))
    patient = Settings.from_env(settings.as_env(), monitor_lease_s=60.0)
    monitor_id = await watch.monitor(air.url("/radio"), min_duration_s=2.0)
    async with working(patient):
        (before,) = await watch.until_heard(monitor_id, lambda found: len(found) == 1)
    shown = await watch.get(monitor_id)
    assert shown.state is MonitorState.WAITING
    # Told with the last breath.
    assert shown.stats.heard_s > 2
    await _until(lambda: station.listening == 0)
    (left,) = await watch.heard(monitor_id)
    assert left.ongoing
    async with working(patient):
        (after,) = await watch.until_heard(
            monitor_id, lambda found: found[0].video_end_s > left.video_end_s + 3
        )
    assert after.id == before.id


async def test_monitors_are_shared_and_bounded(air: Air, watch: Watch, settings: Settings) -> None:
    stations = [air.station(f"/{n}", Station(broadcast(noise(20)), then="hang")) for n in range(5)]
    ids = [await watch.monitor(air.url(f"/{n}")) for n in range(5)]
    small = Settings.from_env(settings.as_env(), max_monitors=2)
    none = Settings.from_env(settings.as_env(), max_monitors=0)
    async with working(small), working(small), working(none):
        await _until(lambda: sum(one.listening for one in stations) == 4)
        await asyncio.sleep(2.0)
        states = [(await watch.get(one)).state for one in ids]
        assert sorted(state.value for state in states) == ["LISTENING"] * 4 + ["WAITING"]
        async with working(small):
            await _until(lambda: sum(one.listening for one in stations) == 5)


def _on_the_air(pcm: NDArray[np.float32]) -> Station:
    """A station that goes on whether anybody listens or not, and sends 16 s at once to whoever
    comes."""
    return Station(
        broadcast(pcm),
        bytes_per_s=BYTES_PER_S,
        burst_bytes=16 * BYTES_PER_S,
        on_air=True,
        then="hang",
    )


async def _until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not check():
            await asyncio.sleep(0.02)
