"""Whose turn it is: fair between channels, within bounds, never one of a paused host."""

from __future__ import annotations

import asyncio
from collections import Counter
from uuid import UUID, uuid4

import pytest
from tests.records import DIGEST

from soundhash_server.model import (
    ChannelParameters,
    Failure,
    FolderParameters,
    IngestParameters,
    Job,
    JobKind,
    JobParameters,
    JobState,
    Lease,
    NewJob,
)
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.pauses import PauseRule, Pauses
from soundhash_server.store.pool import Pool, create_pool
from soundhash_server.store.turns import Bounds, Slot

WIDE = Bounds(channel_jobs=1000, host_jobs=1000)
BROKEN = Failure("NETWORK_ERROR", "No answer.", "Wait.", transient=True)


@pytest.fixture
def jobs(pool: Pool) -> Jobs:
    return Jobs(pool)


@pytest.fixture
def pauses(pool: Pool) -> Pauses:
    return Pauses(pool, PauseRule(refusals=3, first_s=100.0, longest_s=1000.0))


async def channel(pool: Pool, name: str) -> UUID:
    made: UUID = await pool.fetchval("INSERT INTO channels (name) VALUES ($1) RETURNING id", name)
    return made


async def add(jobs: Jobs, n: int, channel_id: UUID | None = None, host: str = "") -> list[Job]:
    """n recordings of a channel and a host."""
    items = [
        NewJob(
            JobKind.INGEST,
            f"url:{uuid4()}",
            IngestParameters(title=f"{host} {number}"),
            channel_id=channel_id,
            source_host=host,
        )
        for number in range(n)
    ]
    return await jobs.submit_many(items, max_attempts=3, params_digest=DIGEST)


async def take(jobs: Jobs, bounds: Bounds = WIDE, slot: Slot = Slot.INGEST) -> Lease | None:
    return await jobs.take(slot, bounds, 30.0)


async def take_all(jobs: Jobs, bounds: Bounds, slot: Slot = Slot.INGEST) -> list[Job]:
    taken = []
    while (lease := await take(jobs, bounds, slot)) is not None:
        taken.append(lease.job)
    return taken


async def test_the_oldest_goes_first(jobs: Jobs) -> None:
    added = [job.id for job in await add(jobs, 30)]
    assert [job.id for job in await take_all(jobs, WIDE)] == added


async def test_a_channel_of_many_does_not_starve_one_of_few(jobs: Jobs, pool: Pool) -> None:
    large, small = await channel(pool, "large"), await channel(pool, "small")
    await add(jobs, 100, large, "h")
    await add(jobs, 5, small, "h")
    alone = await add(jobs, 1)
    order = []
    for _ in range(12):
        lease = await take(jobs)
        assert lease is not None
        order.append(lease.job.channel_id)
    assert Counter(order) == {large: 6, small: 5, alone[0].channel_id: 1}
    assert order[:3] == [large, small, None], "between equals the oldest"


async def test_bounds_hold_while_many_take_at_once(jobs: Jobs, pool: Pool) -> None:
    one, two = await channel(pool, "one"), await channel(pool, "two")
    await add(jobs, 20, one, "a")
    await add(jobs, 20, two, "a")
    await add(jobs, 20, two, "b")
    await add(jobs, 20, None, "c")
    files = await add(jobs, 20)
    bounds = Bounds(channel_jobs=4, host_jobs=3)
    found = await asyncio.gather(*(take(jobs, bounds) for _ in range(60)))
    taken = [lease.job for lease in found if lease is not None]
    assert len({job.id for job in taken}) == len(taken)
    hosts = Counter(job.source_host for job in taken)
    assert hosts == {"a": 3, "b": 3, "c": 3, "": len(files)}, "what is on disk has no host"
    assert max(Counter(job.channel_id for job in taken if job.channel_id).values()) <= 4
    assert await take(jobs, bounds) is None


async def test_listing_has_room_of_its_own(jobs: Jobs, pool: Pool) -> None:
    await add(jobs, 3, host="h")
    channel_id = await channel(pool, "c")
    kinds: dict[str, tuple[JobKind, JobParameters]] = {
        "channel": (JobKind.CHANNEL, ChannelParameters(channel_id, "@c")),
        "folder": (JobKind.FOLDER, FolderParameters("/music")),
        "watch": (JobKind.FOLDER, FolderParameters("/music", watch=True)),
    }
    made = {}
    for key, (kind, parameters) in kinds.items():
        job, _ = await jobs.submit(
            kind, key, parameters, max_attempts=3, params_digest=DIGEST, channel_id=channel_id
        )
        made[key] = job.id
    none = Bounds(channel_jobs=1, host_jobs=1)
    listed = await take_all(jobs, none, Slot.LISTING)
    assert [job.id for job in listed] == [made["channel"], made["folder"]]
    assert [job.id for job in await take_all(jobs, none, Slot.WATCH)] == [made["watch"]]
    assert len(await take_all(jobs, none)) == 1


async def test_a_paused_host_is_left_alone(jobs: Jobs, pauses: Pauses, pool: Pool) -> None:
    await add(jobs, 2, host="bad")
    good = await add(jobs, 1, host="good")
    lease = await take(jobs)
    assert lease is not None
    for _ in range(3):
        await pauses.refused("bad", "BOT_CHECK")
    await pool.execute("UPDATE processing_jobs SET lease_expires = now() - interval '1s'")
    assert [job.id for job in await take_all(jobs, WIDE)] == [good[0].id]
    (paused,) = await pauses.list()
    assert (paused.host, paused.reason, paused.refusals) == ("bad", "BOT_CHECK", 3)
    await pauses.answered("bad")
    again = await take_all(jobs, WIDE)
    assert {job.attempt for job in again} == {1, 2} and len(again) == 2


async def test_pauses_double_under_a_cap(pauses: Pauses, pool: Pool) -> None:
    async def seconds() -> float:
        return float(
            await pool.fetchval("SELECT extract(epoch FROM until - now()) FROM source_pauses")
        )

    async def over() -> None:
        await pool.execute("UPDATE source_pauses SET until = now()")

    assert await pauses.refused("h", "HTTP_FORBIDDEN") is None
    assert await pauses.refused("h", "HTTP_FORBIDDEN") is None
    assert await pauses.until("h") is None
    lengths = []
    for _ in range(6):
        assert await pauses.refused("h", "HTTP_FORBIDDEN") is not None
        # Those that were under way do not make it longer.
        paused = await pauses.refused("h", "HTTP_FORBIDDEN")
        assert paused is not None and await pauses.until("h") == paused.until
        lengths.append(round(await seconds(), -1))
        await over()
    assert lengths == [100, 200, 400, 800, 1000, 1000]
    # What the host asks for counts more, but not without end.
    await pauses.refused("h", "HTTP_TOO_MANY_REQUESTS", retry_after_s=1e9)
    assert round(await seconds(), -1) == 1000
    await pauses.answered("h")
    assert await pool.fetchval("SELECT count(*) FROM source_pauses") == 0
    short = Pauses(pool, PauseRule(1, 10.0, 1000.0))
    await short.refused("g", "HTTP_TOO_MANY_REQUESTS", retry_after_s=300.0)
    assert round(await seconds(), -1) == 300


async def test_retries_that_are_due_take_their_turn(jobs: Jobs, pool: Pool) -> None:
    first, second = await add(jobs, 2)
    lease = await take(jobs)
    assert lease is not None and lease.job.id == first.id
    await jobs.fail(lease.token, BROKEN, 60.0)
    await pool.execute("UPDATE processing_jobs SET next_attempt_time = now() WHERE id = $1",
                       first.id)  # fmt: skip
    assert [(job.id, job.attempt) for job in await take_all(jobs, WIDE)] == [
        (first.id, 2),
        (second.id, 1),
    ]


async def test_locked_rows_are_passed_over(jobs: Jobs, pool: Pool) -> None:
    first, second = await add(jobs, 2)
    async with pool.acquire() as held, held.transaction():
        await held.execute("SELECT FROM processing_jobs WHERE id = $1 FOR UPDATE", first.id)
        async with asyncio.timeout(5):
            lease = await take(jobs)
        assert lease is not None and lease.job.id == second.id
        assert await take(jobs) is None
    lease = await take(jobs)
    assert lease is not None and lease.job.id == first.id


async def test_a_watch_outlives_its_workers(jobs: Jobs, pool: Pool) -> None:
    job, _ = await jobs.submit(
        JobKind.FOLDER, "w", FolderParameters("/music", watch=True), max_attempts=2,
        params_digest=DIGEST,
    )  # fmt: skip
    for attempt in range(1, 6):
        lease = await take(jobs, slot=Slot.WATCH)
        assert lease is not None and lease.job.attempt == attempt
        await pool.execute("UPDATE processing_jobs SET lease_expires = now() - interval '1s'")
        assert await jobs.fail_lost() == 0
    found = await jobs.get(job.id)
    assert found is not None and found.state is JobState.RUNNING


async def test_the_plan_reads_a_few_of_many(postgres_url: str) -> None:
    """Fifty thousand jobs wait, nobody has analysed the table, and the host is full."""
    # One connection, which has planned while the table was empty, and whose reads are counted.
    pool = await create_pool(postgres_url, 1, name="soundhash-test")
    jobs = Jobs(pool)
    await take(jobs)
    for name in ("one", "two"):
        channel_id = await channel(pool, name)
        await pool.execute(
            "INSERT INTO processing_jobs"
            " (kind, dedupe_key, parameters, max_attempts, source_host, channel_id)"
            " SELECT 'INGEST', $1 || n, '{}', 3, 'h', $2 FROM generate_series(1, 25000) AS n",
            name,
            channel_id,
        )
    bounds = Bounds(channel_jobs=2, host_jobs=3)
    before = await _rows_read(pool)
    assert len(await take_all(jobs, bounds)) == 3
    assert await _rows_read(pool) - before < 1000
    assert await pool.fetchval("SELECT count(*) + 0 * sum(attempt) FROM processing_jobs") == 50000
    assert await _rows_read(pool) - before > 50000, "reads are seen here"
    await pool.close()


async def _rows_read(pool: Pool) -> int:
    async with pool.acquire() as held:
        await held.execute("SELECT pg_stat_force_next_flush()")
        await held.execute("SELECT pg_stat_clear_snapshot()")
        found: int = await held.fetchval(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables"
            " WHERE relname = 'processing_jobs'"
        )
    return found
