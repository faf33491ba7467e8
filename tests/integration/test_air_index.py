"""The rolling index: weeks of parts come and go, and nothing grows."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from tests.airing import add_monitor
from tests.integration.test_index_service import until
from tests.sounds import tune

from soundhash_engine import extract
from soundhash_engine.matcher import match
from soundhash_engine.types import Segment
from soundhash_server.services.air_index import AIR_PARAMS
from soundhash_server.services.index import IndexService
from soundhash_server.store.air import Air, AirPart
from soundhash_server.store.changes import Changes
from soundhash_server.store.listener import Listener
from soundhash_server.store.pool import Pool, connection
from soundhash_server.store.videos import Videos

PART_S = 8.0
SEAL_HOURS = 20 * PART_S / 3600
"""A volume for every twenty parts."""
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def sounds() -> list[list[Segment]]:
    """A few parts' audio: what is on the air comes again and again."""
    return [extract(tune(PART_S, 300 + n)) for n in range(7)]


@dataclasses.dataclass
class Rolling:
    """An index of the air that a test moves on by hand, step by step."""

    service: IndexService
    pool: Pool
    token: UUID
    sounds: list[list[Segment]]

    async def hear(self, number: int, ago_s: float) -> UUID:
        """Stores a part that grows once, as recorders do."""
        segments = self.sounds[number % len(self.sounds)]
        half = AirPart(uuid4(), NOW - timedelta(seconds=ago_s), PART_S / 2, segments)
        air = Air(self.pool)
        await air.put(self.token, half)
        await air.put(self.token, dataclasses.replace(half, duration_s=PART_S, stored=True))
        return half.id

    async def follow(self) -> None:
        await self.service._catch_up()
        await self.service._seal_if_due()
        if self.service._sealing is not None:
            await self.service._sealing

    async def count(self, table: str) -> int:
        async with connection(self.pool) as held:
            found: int = await held.fetchval(f"SELECT count(*) FROM {table}")
        return found


def make_service(url: str, pool: Pool, directory: Path) -> IndexService:
    return IndexService(
        Changes(pool, on_air=True),
        Listener(url),
        directory,
        poll_s=0.1,
        seal_hours=SEAL_HOURS,
        params=AIR_PARAMS,
        rolling=True,
    )


@pytest.fixture
async def rolling(
    postgres_url: str, pool: Pool, data_dir: Path, sounds: list[list[Segment]]
) -> AsyncIterator[Rolling]:
    _, token = await add_monitor(pool, "Radio X", keep_air_s=3600.0)
    service = make_service(postgres_url, pool, data_dir)
    yield Rolling(service, pool, token, sounds)
    await service.close()


def disk_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


async def test_nothing_grows_while_parts_come_and_go(rolling: Rolling, data_dir: Path) -> None:
    """Sixty parts are kept; five times as many pass through."""
    kept, passed = 60, 300
    air = Air(rolling.pool)
    parts: list[UUID] = []
    figures = []
    for number in range(passed):
        parts.append(await rolling.hear(number, ago_s=0.0))
        if number % 5 == 4:
            # What is older than the window has become too old.
            async with connection(rolling.pool) as held:
                await held.execute(
                    "UPDATE videos SET air_time = air_time - interval '2 hours' WHERE id = ANY($1)",
                    parts[:-kept],
                )
            await air.expire(100)
            await air.forget_tombstones(100, timedelta(0))
            parts = parts[-kept:]
            await rolling.follow()
        if number % 60 == 59:
            state = await rolling.service.state()
            figures.append(
                (
                    await rolling.count("videos"),
                    await rolling.count("audio_fingerprints"),
                    await rolling.count("video_deletions"),
                    state.status.recordings,
                    state.status.dead_recordings,
                    state.status.volumes,
                    state.status.memory_bytes,
                    disk_bytes(data_dir),
                )
            )
    for videos, rows, tombstones, recordings, dead, volumes, memory, disk in figures:
        assert videos == rows == recordings == kept
        assert tombstones == 0
        assert dead <= kept
        assert volumes <= 6
        assert memory <= 2 * max(figure[6] for figure in figures[:2])
        assert disk <= 2 * max(figure[7] for figure in figures[:2])
    assert rolling.service._unusable == set()
    # And it still answers, with the latest of what is the same.
    clip = tune(PART_S, 300 + 3)[8000:48_000]
    found = match(rolling.service.snapshot(), clip).matches
    videos_by_id = await Videos(rolling.pool).by_recording_ids([m.recording_id for m in found])
    assert {video.id for video in videos_by_id.values()} <= set(parts)
    assert len(found) == 5
    # All of it goes: the files go too.
    async with connection(rolling.pool) as held:
        await held.execute("UPDATE videos SET air_time = air_time - interval '2 hours'")
    assert await air.expire(1000) == kept
    await rolling.follow()
    await rolling.follow()
    state = await rolling.service.state()
    assert (state.status.recordings, state.status.dead_recordings, state.disk_bytes) == (0, 0, 0)
    assert list(data_dir.glob("v*")) == []


async def test_a_server_that_was_away_longer_than_tombstones_last(
    rolling: Rolling, postgres_url: str, tmp_path: Path
) -> None:
    away = make_service(postgres_url, rolling.pool, tmp_path / "away")
    first = [await rolling.hear(n, ago_s=7300.0) for n in range(3)]
    second = [await rolling.hear(n + 3, ago_s=0.0) for n in range(3)]
    await away._catch_up()
    assert away.snapshot().recordings == len(first) + len(second)
    air = Air(rolling.pool)
    assert await air.expire(10) == 3
    await rolling.hear(6, ago_s=0.0)
    assert await air.forget_tombstones(10, timedelta(0)) == 3
    await away._catch_up()
    assert away.snapshot().recordings == 4
    assert away.applied_revision == await Changes(rolling.pool).current_revision()
    await away.close()


async def test_the_index_of_videos_holds_nothing_of_the_air(
    rolling: Rolling, postgres_url: str, tmp_path: Path
) -> None:
    listener = Listener(postgres_url)
    videos = IndexService(
        Changes(rolling.pool), listener, tmp_path / "index", poll_s=0.1, seal_hours=1.0
    )
    part = await rolling.hear(1, ago_s=0.0)
    await videos._catch_up()
    await rolling.follow()
    assert videos.snapshot().recordings == 0
    assert rolling.service.snapshot().recordings == 1
    settled, changed_s = videos._settled, videos._last_change_s
    await Videos(rolling.pool).delete(part)
    await videos._catch_up()
    # Nor is it kept busy by it.
    assert (videos._settled, videos._last_change_s) == (settled, changed_s)
    await rolling.follow()
    await until(lambda: rolling.service.snapshot().recordings == 0)
    await videos.close()
    await listener.close()
