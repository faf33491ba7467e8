"""What monitors have heard: stored while it grows, listed apart, deleted when its time is over."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import numpy as np
import pytest
from tests.airing import PIECE, RATE_HZ, add_monitor, broadcast, cut_parts
from tests.records import add_video, make_segments, new_video
from tests.sounds import tune

from soundhash_engine import extract
from soundhash_server.errors import PlatformError
from soundhash_server.model import MatchRecord, OnAir, ScoreParts
from soundhash_server.store.air import Air, AirPart, PartGone
from soundhash_server.store.changes import Changes
from soundhash_server.store.fingerprints import Fingerprints
from soundhash_server.store.jobs import Jobs, LeaseLost
from soundhash_server.store.matches import Matches
from soundhash_server.store.monitors import AirLeft, Monitors
from soundhash_server.store.pool import Pool, connection, database_unavailable
from soundhash_server.store.stats import totals
from soundhash_server.store.videos import Videos
from soundhash_workers.air_sweep import BATCH, AirSweeper
from soundhash_workers.monitors import air_parts
from soundhash_workers.monitors.air import AirRecorder

NOW = datetime.now(UTC)


def part(
    segments: int = 1, *, ago_s: float = 0.0, part_id: UUID | None = None, salt: str = ""
) -> AirPart:
    """A part of made-up segments that began so long ago."""
    made = make_segments(segments, salt=salt)
    return AirPart(part_id or uuid4(), NOW - timedelta(seconds=ago_s), 90.0 * segments, made)


async def count(pool: Pool, table: str) -> int:
    async with connection(pool) as held:
        found: int = await held.fetchval(f"SELECT count(*) FROM {table}")
    return found


@pytest.fixture
def air(pool: Pool) -> Air:
    return Air(pool)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Parts of 30 s that overlap by 12 s and grow by 10 s."""
    monkeypatch.setattr(air_parts, "_PART_SAMPLES", 30 * RATE_HZ)
    monkeypatch.setattr(air_parts, "_STEP_SAMPLES", 18 * RATE_HZ)
    monkeypatch.setattr(air_parts, "_GROW_SAMPLES", 10 * RATE_HZ)
    yield


async def test_a_part_grows_in_place(pool: Pool, air: Air) -> None:
    monitor_id, token = await add_monitor(pool, "Radio X")
    first = part(1, salt="first ")
    await air.put(token, first)
    begun = await Changes(pool).current_revision()
    video = await Videos(pool).get(first.id)
    assert video is not None
    assert (video.monitor_id, video.monitor_name) == (monitor_id, "Radio X")
    assert video.air_time == first.air_time
    assert video.title == f"Radio X, {first.air_time:%Y-%m-%d %H:%M:%S} UTC"
    grown = dataclasses.replace(
        first,
        air_time=first.air_time - timedelta(seconds=1),
        duration_s=200.0,
        segments=[*first.segments, *make_segments(3, salt="later ")[1:]],
        kept=1,
        stored=True,
    )
    await air.put(token, grown)
    again = await Videos(pool).get(first.id)
    assert again is not None
    assert (again.recording_id, again.segment_count) == (video.recording_id, 3)
    assert again.air_time == grown.air_time
    assert again.revision == begun + 1 == await Changes(pool).current_revision()
    assert await Fingerprints(pool).segments(first.id) == list(grown.segments)
    # As after an answer that got lost: nothing is known to be stored.
    await air.put(token, dataclasses.replace(grown, kept=0, stored=False))
    assert await Fingerprints(pool).segments(first.id) == list(grown.segments)
    assert await count(pool, "videos") == 1


async def test_only_a_lease_of_a_monitor_that_keeps_stores(pool: Pool, air: Air) -> None:
    monitor_id, token = await add_monitor(pool, "Radio X")
    monitors = Monitors(pool)
    with pytest.raises(LeaseLost):
        await air.put(uuid4(), part())
    await monitors.update(monitor_id, keep_air_s=0.0)
    with pytest.raises(LeaseLost):
        await air.put(token, part())
    await monitors.update(monitor_id, keep_air_s=60.0)
    await air.put(token, part())
    await monitors.pause(monitor_id)
    with pytest.raises(LeaseLost):
        await air.put(token, part())
    assert await count(pool, "videos") == 1
    with pytest.raises(ValueError):
        await air.put(token, part(0))


async def test_a_part_that_somebody_deletes_stays_deleted(pool: Pool, air: Air) -> None:
    _, token = await add_monitor(pool, "Radio X")
    grows = part()
    await air.put(token, grows)
    await Videos(pool).delete(grows.id)
    with pytest.raises(PartGone):
        await air.put(token, dataclasses.replace(grows, stored=True))
    assert await count(pool, "videos") == await count(pool, "audio_fingerprints") == 0


async def test_lists_and_totals_are_of_videos_alone(pool: Pool, air: Air) -> None:
    video_id = await add_video(Jobs(pool), new_video(title="Radio X at its best"))
    monitor_id, token = await add_monitor(pool, "Radio X")
    other_id, other_token = await add_monitor(pool, "Radio Y")
    parts = [part() for _ in range(5)]
    for one in parts:
        await air.put(token, one)
    await air.put(other_token, part())
    videos = Videos(pool)
    assert [v.id for v in (await videos.list(10, "")).items] == [video_id]
    assert [v.id for v in (await videos.search("radio", 10, "")).items] == [video_id]
    held = await totals(pool)
    assert (held.videos, held.segments) == (1, 2)
    # One monitor's, the latest first, page by page.
    first = await videos.list(3, "", monitor_id=monitor_id)
    second = await videos.list(3, first.next_page_token, monitor_id=monitor_id)
    assert [v.id for v in (*first.items, *second.items)] == [one.id for one in reversed(parts)]
    assert not second.next_page_token
    with pytest.raises(PlatformError):
        await videos.list(3, first.next_page_token, monitor_id=other_id)
    # Two indexes, and each follows its own.
    for on_air, expected in ((False, 1), (True, 6)):
        changes = Changes(pool, on_air=on_air)
        assert len((await changes.all_revisions())[1]) == expected
        since = await changes.since(0)
        assert since is not None and len(since.changed) == expected


async def test_old_parts_are_deleted_in_bounded_batches(pool: Pool, air: Air) -> None:
    kept_id, token = await add_monitor(pool, "Radio X", keep_air_s=600.0)
    _, long_token = await add_monitor(pool, "Radio Y", keep_air_s=7200.0)
    for ago_s in (100.0, 820.0, 900.0, 3000.0):
        await air.put(token, part(ago_s=ago_s))
    await air.put(token, part(5, ago_s=800.0))
    await air.put(long_token, part(ago_s=3000.0))
    known = await Changes(pool).current_revision()
    # Of the part of 450 s that began 800 s ago some is young enough.
    assert await air.expire(2) == 2
    assert await air.expire(2) == 1
    assert await air.expire(2) == 0
    left = (await Videos(pool).list(10, "", monitor_id=kept_id)).items
    assert sorted(round((NOW - v.air_time).total_seconds()) for v in left if v.air_time) == [
        100,
        800,
    ]
    since = await Changes(pool, on_air=True).since(known)
    assert since is not None and len(since.deleted) == 3
    beside = await Changes(pool).since(known)
    assert beside is not None and beside.deleted == []
    # It shall keep nothing any more.
    await Monitors(pool).update(kept_id, keep_air_s=0.0)
    for _ in range(BATCH):
        await Air(pool).put(long_token, part(ago_s=9000.0))
    assert await AirSweeper(air).sweep() == BATCH + 2
    assert await count(pool, "videos") == 1


async def test_tombstones_are_forgotten_and_who_was_away_begins_anew(pool: Pool, air: Air) -> None:
    _, token = await add_monitor(pool, "Radio X", keep_air_s=60.0)
    changes = Changes(pool, on_air=True)
    kept = await add_video(Jobs(pool), new_video(title="one"))
    for _ in range(5):
        await air.put(token, part(ago_s=1000.0))
    known = await changes.current_revision()
    await air.expire(10)
    await Videos(pool).delete(kept)
    latest = await changes.current_revision()
    assert await air.forget_tombstones(10) == 0, "they are remembered for a day"
    assert await air.forget_tombstones(3, timedelta(0)) == 3
    assert await air.forget_tombstones(3, timedelta(0)) == 2
    assert await count(pool, "video_deletions") == 1, "that of the video"
    assert await changes.since(known) is None
    assert (await changes.since(latest)) is not None
    videos = await Changes(pool).since(known)
    assert videos is not None and len(videos.deleted) == 1


async def test_a_monitor_goes_after_what_it_heard(pool: Pool, air: Air) -> None:
    monitor_id, token = await add_monitor(pool, "Radio X")
    for _ in range(3):
        await air.put(token, part())
    monitors = Monitors(pool)
    with pytest.raises(AirLeft):
        await monitors.delete(monitor_id)
    assert len(await air.forget(monitor_id, 2)) == 2
    assert len(await air.forget(monitor_id, 2)) == 1
    assert await air.forget(monitor_id, 2) == []
    assert await monitors.delete(monitor_id)
    assert await count(pool, "audio_fingerprints") == 0


async def test_matches_remember_when_it_was_on_the_air(pool: Pool) -> None:
    start = datetime(2026, 11, 21, 18, 3, 10, tzinfo=UTC)
    on_air = OnAir(uuid4(), "Radio X", start, start + timedelta(seconds=10.5))
    made = MatchRecord(
        id=None,
        query_id=None,
        video_id=uuid4(),
        title="Radio X",
        source_url="",
        external_id="",
        clip_start_s=1.0,
        clip_end_s=11.0,
        video_start_s=20.0,
        video_end_s=30.5,
        speed=1.05,
        pitch=1.0,
        confidence=0.9,
        parts=ScoreParts(9.0, 0, 0, 0, 0, 0, 0, 0),
        also_at_s=(),
        create_time=NOW,
        on_air=on_air,
    )
    matches = Matches(pool)
    _, (stored, plain) = await matches.record(
        "CLIP", 12.0, 0.1, [made, dataclasses.replace(made, on_air=None)]
    )
    assert stored.id is not None and plain.id is not None
    read = await matches.get(stored.id)
    assert read == stored and read.on_air == on_air
    found = await matches.get(plain.id)
    assert found is not None and found.on_air is None


async def test_a_recorder_stores_while_it_hears(pool: Pool, air: Air, small_parts: None) -> None:
    monitor_id, token = await add_monitor(pool, "Radio X")
    recorder = AirRecorder(air, token)
    pcm = tune(50.0, 21)
    for at in range(0, pcm.size, PIECE):
        await recorder.push(pcm[at : at + PIECE], NOW + timedelta(seconds=at / RATE_HZ))
        if at == 12 * RATE_HZ:
            async with asyncio.timeout(10):
                while not await count(pool, "videos"):
                    await asyncio.sleep(0.01)
    await recorder.interrupt()
    await recorder.push(tune(5.0, 22), NOW + timedelta(minutes=10))
    await recorder.close()
    expected = [*cut_parts(pcm, NOW), *cut_parts(tune(5.0, 22), NOW + timedelta(minutes=10))]
    stored = list((await Videos(pool).list(100, "", monitor_id=monitor_id)).items)[::-1]
    assert [(v.air_time, v.duration_s) for v in stored] == [
        (one.content.air_time, one.content.duration_s) for one in expected
    ]
    for video, one in zip(stored, expected, strict=True):
        assert await Fingerprints(pool).segments(video.id) == list(one.content.segments)


class Flaky(Air):
    """Whose database is away for a while."""

    away = False

    async def put(self, token: UUID, content: AirPart) -> None:
        if self.away:
            raise database_unavailable(OSError())
        await super().put(token, content)


async def test_a_recorder_catches_up_when_the_database_is_back(
    pool: Pool, small_parts: None
) -> None:
    monitor_id, token = await add_monitor(pool, "Radio X")
    air = Flaky(pool)
    recorder = AirRecorder(air, token)
    pcm = tune(75.0, 23)

    async def play(start_s: int, end_s: int) -> None:
        for at in range(start_s * RATE_HZ, end_s * RATE_HZ, PIECE):
            await recorder.push(pcm[at : at + PIECE], NOW + timedelta(seconds=at / RATE_HZ))
            while recorder._working is not None:
                await asyncio.sleep(0.005)

    await play(0, 12)
    air.away = True
    await play(12, 52)
    assert await count(pool, "videos") == 1
    air.away = False
    await play(52, 75)
    await recorder.close()
    stored = list((await Videos(pool).list(100, "", monitor_id=monitor_id)).items)[::-1]
    expected = cut_parts(pcm, NOW)
    assert {v.air_time: v.duration_s for v in stored} == {
        one.content.air_time: one.content.duration_s for one in expected
    }


async def test_a_recorder_keeps_nothing_for_who_keeps_nothing(
    pool: Pool, air: Air, small_parts: None
) -> None:
    monitor_id, token = await add_monitor(pool, "Radio X", keep_air_s=0.0)
    recorder = AirRecorder(air, token)
    pcm = tune(40.0, 24)
    for at in range(0, pcm.size, PIECE):
        if at == 20 * RATE_HZ:
            while recorder._working is not None:
                await asyncio.sleep(0.005)
            await Monitors(pool).update(monitor_id, keep_air_s=3600.0)
        await recorder.push(pcm[at : at + PIECE], NOW + timedelta(seconds=at / RATE_HZ))
    await recorder.close()
    (video,) = (await Videos(pool).list(10, "", monitor_id=monitor_id)).items
    assert video.air_time is not None and video.air_time > NOW


async def test_a_recorder_that_nobody_gets_to_does_not_grow(pool: Pool, air: Air) -> None:
    _, token = await add_monitor(pool, "Radio X")
    recorder = AirRecorder(air, token)
    second = np.zeros(RATE_HZ, np.float32)
    for at in range(1000):  # without ever giving the work a chance
        await recorder.push(second, NOW + timedelta(seconds=at))
    assert recorder._waiting_samples <= 121 * RATE_HZ
    assert len(recorder._waiting) <= 122
    await recorder.close()
    assert (await count(pool, "videos")) <= 1


async def test_stored_parts_are_what_the_audio_gives(pool: Pool, small_parts: None) -> None:
    _, token = await add_monitor(pool, "Radio X")
    pcm = tune(31.0, 25)
    first, *_ = await broadcast(pool, token, pcm, NOW)
    assert await Fingerprints(pool).segments(first) == extract(pcm[: 30 * RATE_HZ])
