"""The match index in a worker: it reads what the server writes, and lasts as long as its users."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.test_index_service import index_service, store
from tests.integration.working import worker_settings
from tests.sounds import tune

from soundhash_engine.matcher import match
from soundhash_server.services.matching import Searchable
from soundhash_server.store.listener import Listener
from soundhash_server.store.pool import Pool
from soundhash_workers.match_index import MatchIndex


@contextlib.asynccontextmanager
async def match_index(url: str, pool: Pool, data_dir: Path) -> AsyncIterator[MatchIndex]:
    listener = Listener(url)
    listening = asyncio.create_task(listener.run())
    try:
        yield MatchIndex(worker_settings(url, "", data_dir), pool, listener)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await listener.close()


async def found(index: Searchable, seed: int) -> bool:
    clip = tune(30.0, seed)[80_000:144_000]
    return bool((await asyncio.to_thread(match, index.snapshot(), clip)).matches)


async def test_it_reads_the_volumes_and_writes_none(
    postgres_url: str, pool: Pool, data_dir: Path
) -> None:
    await store(pool, 1)
    folder = data_dir / "index"
    async with match_index(postgres_url, pool, data_dir) as index:
        # Without a server everything is in memory.
        async with index.use() as used:
            assert await found(used, 1)
            assert not folder.exists()
            async with index_service(postgres_url, pool, folder) as server:
                # The server is the writer, although it came later.
                await server.compact()
                (volume,) = server.snapshot().volumes
                await store(pool, 2)
                async with asyncio.timeout(10):
                    while not await found(used, 2):
                        await asyncio.sleep(0.05)
                mapped = [one for one in used.snapshot().volumes if one.hours == volume.hours]
                assert len(mapped) >= 1
                assert await found(used, 1)
            left = sorted(path.name for path in folder.iterdir())
        assert sorted(path.name for path in folder.iterdir()) == left


async def test_it_lasts_as_long_as_its_users(postgres_url: str, pool: Pool, data_dir: Path) -> None:
    await store(pool, 1)
    async with match_index(postgres_url, pool, data_dir) as index:
        with pytest.raises(RuntimeError):
            index.snapshot()
        async with index.use() as one:
            async with index.use() as other:
                assert one is other
            assert await found(index, 1)
        with pytest.raises(RuntimeError):
            index.snapshot()
        # Many come and go at once, some of them before it is ready.
        await asyncio.gather(*(_use(index, 0.01 * n) for n in range(20)))
        with pytest.raises(RuntimeError):
            index.snapshot()
        async with index.use():
            assert await found(index, 1)


async def _use(index: MatchIndex, for_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(for_s):
            async with index.use():
                await asyncio.Event().wait()
