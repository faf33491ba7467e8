"""A worker keeps what its monitors hear."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.air import Air, Station, serving_air
from tests.integration.working import worker_settings, working
from tests.monitoring import Watch, broadcast, song

from soundhash_engine import Index, join
from soundhash_engine.matcher import match
from soundhash_server.settings import Settings
from soundhash_server.store.fingerprints import Fingerprints
from soundhash_server.store.pool import Pool
from soundhash_server.store.videos import Videos


@pytest.fixture
async def air() -> AsyncIterator[Air]:
    async with serving_air() as serving:
        yield serving


@pytest.fixture
def settings(postgres_url: str, redis_url: str, data_dir: Path) -> Settings:
    return worker_settings(postgres_url, redis_url, data_dir, monitor_lease_s=1.5)


async def test_what_is_heard_is_kept_with_its_time(
    air: Air, pool: Pool, settings: Settings
) -> None:
    watch = Watch(pool)
    air.station("/one", Station(broadcast(song(2, 0, 22)), then="hang"))
    monitor_id = await watch.monitor(air.url("/one"), name="Radio X", keep_air_s=3600.0)
    begun = datetime.now(UTC)
    async with working(settings):
        await watch.until(monitor_id, lambda shown: shown.stats.heard_s > 21.5)
    # Stored when the worker stopped, at the latest.
    (kept,) = (await Videos(pool).list(10, "", monitor_id=monitor_id)).items
    assert kept.duration_s == pytest.approx(22, abs=0.3)
    assert kept.monitor_name == "Radio X" and kept.air_time is not None
    # The server sent 22 s at once: the last of them were on the air when it was asked.
    asked = kept.air_time + timedelta(seconds=kept.duration_s)
    assert begun < asked < datetime.now(UTC)
    # It is what was played.
    index = Index()
    index.apply([(7, 1, join(await Fingerprints(pool).segments(kept.id)))])
    (found,) = match(index.snapshot(), song(2, 2, 10)).matches
    assert found.video_start_s == pytest.approx(2.0, abs=0.3)
