"""Announcements: they arrive, never pile up, and their connection comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.records import add_video, new_video

from soundhash_server.model import IngestParameters, JobKind, JobProgress
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.listener import CATALOGUE, JOBS, Listener
from soundhash_server.store.pool import Pool


@pytest.fixture
async def listener(postgres_url: str) -> AsyncIterator[Listener]:
    made = Listener(postgres_url)
    task = asyncio.create_task(made.run())
    async with asyncio.timeout(10):
        while not made.connected:
            await asyncio.sleep(0.01)
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await made.close()


async def test_changes_of_jobs_and_catalogue_are_announced(listener: Listener, pool: Pool) -> None:
    jobs_changed, indexed = listener.subscribe(JOBS), listener.subscribe(CATALOGUE)
    assert not await indexed.wait(timeout_s=0.05)
    await add_video(Jobs(pool), new_video())
    assert await jobs_changed.wait(timeout_s=5)
    assert await indexed.wait(timeout_s=5)
    await asyncio.sleep(0.05)
    jobs_changed.clear()
    assert not await jobs_changed.wait(timeout_s=0.05), "once, however many there were"


async def test_each_waiter_has_a_flag_of_its_own(listener: Listener, pool: Pool) -> None:
    waiters = [listener.subscribe(CATALOGUE) for _ in range(100)]
    await add_video(Jobs(pool), new_video())
    assert all(await asyncio.gather(*(waiter.wait(timeout_s=5) for waiter in waiters)))


async def test_only_the_job_that_is_watched(listener: Listener, pool: Pool) -> None:
    jobs = Jobs(pool)
    await add_video(jobs, new_video(title="one"))
    (watched,) = (await jobs.list(2, "")).items
    with listener.subscribe(JOBS, str(watched.id)) as changes:
        await add_video(jobs, new_video(title="two"))
        assert not await changes.wait(timeout_s=0.2)
        await jobs.cancel(watched.id)  # finished: nothing changes, nothing is announced
        assert not await changes.wait(timeout_s=0.1)
        await pool.execute("UPDATE processing_jobs SET attempt = 2 WHERE id = $1", watched.id)
        assert await changes.wait(timeout_s=5)
    assert not listener._waiting, "a closed subscription is forgotten"


async def test_progress_is_announced(listener: Listener, pool: Pool) -> None:
    jobs = Jobs(pool)
    job, _ = await jobs.submit(
        JobKind.INGEST, "url:x", IngestParameters(url="x"), max_attempts=1, params_digest=""
    )
    lease = await jobs.claim(job.id, 30)
    assert lease is not None
    with listener.subscribe(JOBS, str(job.id)) as changes:
        await asyncio.sleep(0.05)
        changes.clear()
        await jobs.heartbeat(lease.token, JobProgress(fraction=0.5), 30)
        assert await changes.wait(timeout_s=5)


async def test_lost_connection_comes_back_and_raises_every_flag(
    listener: Listener, pool: Pool
) -> None:
    changes = listener.subscribe(CATALOGUE)
    killed = await pool.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'soundhash-listener' AND datname = current_database()"
    )
    assert killed == 1
    assert await changes.wait(timeout_s=10), "what was announced meanwhile may be lost"
    assert listener.connected
    await add_video(Jobs(pool), new_video())
    assert await changes.wait(timeout_s=5)


async def test_unknown_channel_is_a_mistake(listener: Listener) -> None:
    with pytest.raises(ValueError, match="no such channel"):
        listener.subscribe("soundhash_nothing")
