"""What explains matches later is kept beside the answers, within bounds, and never in their way."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from tests.songs import cut, song

from soundhash_engine import Index, Match, Snapshot, extract, join, match
from soundhash_server.services.clip_keeping import MOST_WAITING, ClipKeeper
from soundhash_server.store.clip_parts import ClipParts
from soundhash_server.store.matches import Matches
from soundhash_server.store.pool import Pool

CLIP = cut(song(20.0, 1), 5.0, 3.0).astype(np.float32)


class Fixed:
    """An index that does not change."""

    def __init__(self) -> None:
        index = Index()
        index.apply([(1, 1, join(extract(song(20.0, 1))))])
        self._snapshot = index.snapshot()

    def snapshot(self) -> Snapshot:
        return self._snapshot


@pytest.fixture(scope="module")
def index() -> Fixed:
    return Fixed()


@pytest.fixture(scope="module")
def found(index: Fixed) -> list[Match]:
    return list(match(index.snapshot(), CLIP).matches)


async def question(pool: Pool) -> UUID:
    query_id, _ = await Matches(pool).record("CLIP", 3.0, 0.01, ())
    return query_id


async def kept(pool: Pool, query_id: UUID) -> int:
    return len(await ClipParts(pool, keep_days=1.0).within(query_id, 0.0, 3.0))


async def test_kept_once_and_given_for_its_seconds(
    pool: Pool, index: Fixed, found: list[Match]
) -> None:
    keeper = ClipKeeper(index, ClipParts(pool, keep_days=1.0), keep_days=1.0)
    query_id = await question(pool)
    for _ in range(2):
        keeper.keep(query_id, CLIP, found)
        await keeper.settled(query_id)
    assert await kept(pool, query_id) == 1
    assert await ClipParts(pool, keep_days=1.0).within(query_id, 3.5, 9.0) == []
    assert await ClipParts(pool, keep_days=0.0).within(query_id, 0.0, 3.0) == []
    await pool.execute("DELETE FROM match_queries WHERE id = $1", query_id)
    assert await kept(pool, query_id) == 0
    keeper.keep(query_id, CLIP, found)
    await keeper.close()
    assert await kept(pool, query_id) == 0


async def test_nothing_is_kept_without_a_match_or_when_it_is_off(
    pool: Pool, index: Fixed, found: list[Match]
) -> None:
    query_id = await question(pool)
    off = ClipKeeper(index, ClipParts(pool, keep_days=0.0), keep_days=0.0)
    off.keep(query_id, CLIP, found)
    on = ClipKeeper(index, ClipParts(pool, keep_days=1.0), keep_days=1.0)
    on.keep(query_id, CLIP, [])
    await off.close()
    await on.close()
    assert await kept(pool, query_id) == 0


async def test_who_has_too_much_to_do_lets_some_go(
    pool: Pool, index: Fixed, found: list[Match]
) -> None:
    keeper = ClipKeeper(index, ClipParts(pool, keep_days=1.0), keep_days=1.0)
    asked = [await question(pool) for _ in range(MOST_WAITING + 4)]
    for query_id in asked:
        keeper.keep(query_id, CLIP, found)
    await keeper.close()
    counts = [await kept(pool, query_id) for query_id in asked]
    assert counts == [1] * MOST_WAITING + [0] * 4


async def test_a_database_that_is_away_costs_no_answer(
    pool: Pool, index: Fixed, found: list[Match]
) -> None:
    from soundhash_server.store.pool import create_pool

    away = await create_pool("postgresql://nobody@127.0.0.1:1/none", 2)
    keeper = ClipKeeper(index, ClipParts(away, keep_days=1.0), keep_days=1.0)
    query_id = await question(pool)
    keeper.keep(query_id, CLIP, found)
    await keeper.settled(query_id)
    keeper.keep(query_id, CLIP, found)
    await keeper.close()
    assert await kept(pool, query_id) == 0
