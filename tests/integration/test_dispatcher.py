"""What keeps a worker busy: room, turns without wake-ups, and nothing lost when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from tests.records import DIGEST

from soundhash_server.errors import PlatformError
from soundhash_server.model import IngestParameters, Job, JobKind, JobState, Lease, NewJob
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.pool import Pool, database_unavailable
from soundhash_server.store.turns import Bounds, Slot
from soundhash_workers.dispatcher import Dispatcher


class Worker:
    """Holds each job until it is told to end it."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.held: dict[UUID, asyncio.Event] = {}

    async def run(self, lease: Lease) -> None:
        ended = self.held[lease.job.id] = asyncio.Event()
        try:
            await ended.wait()
        except asyncio.CancelledError:
            await self.jobs.release(lease.token)
            raise
        finally:
            del self.held[lease.job.id]

    async def until_held(self, n: int) -> None:
        async with asyncio.timeout(10):
            while len(self.held) != n:
                await asyncio.sleep(0.01)


@pytest.fixture
def jobs(pool: Pool) -> Jobs:
    return Jobs(pool)


async def add(jobs: Jobs, n: int) -> list[Job]:
    items = [NewJob(JobKind.INGEST, f"url:{at}", IngestParameters(url=str(at))) for at in range(n)]
    return await jobs.submit_many(items, max_attempts=3, params_digest=DIGEST)


@asynccontextmanager
async def dispatching(jobs: Jobs, worker: Worker, look_s: float) -> AsyncIterator[Dispatcher]:
    dispatcher = Dispatcher(
        jobs, worker.run, rooms={Slot.LISTING: 1, Slot.INGEST: 2},
        bounds=Bounds(10, 10), lease_s=30.0, look_s=look_s,
    )  # fmt: skip
    running = asyncio.create_task(dispatcher.run())
    try:
        yield dispatcher
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await dispatcher.stop(5.0)


async def states(jobs: Jobs) -> set[JobState]:
    return {job.state for job in (await jobs.list(100, "")).items}


async def test_it_fills_its_room_and_gives_back_when_it_stops(jobs: Jobs) -> None:
    added = await add(jobs, 5)
    worker = Worker(jobs)
    async with dispatching(jobs, worker, look_s=600.0) as dispatcher:
        await worker.until_held(2)
        assert not dispatcher.has_room
        # An ended job is reason enough to look for the next one.
        worker.held[added[0].id].set()
        async with asyncio.timeout(10):
            while added[2].id not in worker.held:
                await asyncio.sleep(0.01)
        assert set(worker.held) == {added[1].id, added[2].id}
    assert not worker.held
    left = await jobs.list(10, "", [JobState.RUNNING])
    assert [job.id for job in left.items] == [added[0].id], "the one that was not given back"


async def test_it_looks_by_itself_and_when_woken(jobs: Jobs) -> None:
    worker = Worker(jobs)
    async with dispatching(jobs, worker, look_s=0.05):
        await asyncio.sleep(0.1)
        await add(jobs, 1)
        await worker.until_held(1)
    async with dispatching(jobs, worker, look_s=600.0) as dispatcher:
        await worker.until_held(1)
        await add(jobs, 2)
        dispatcher.wake()
        await worker.until_held(2)


class Away(Jobs):
    """Fails for a while, and then gives a job only when it is too late."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self.failures = 1
        self.taken = asyncio.Event()

    async def take(self, slot: Slot, bounds: Bounds, lease_s: float) -> Lease | None:
        if self.failures:
            self.failures -= 1
            raise database_unavailable(OSError())
        lease = await super().take(slot, bounds, lease_s)
        if lease is not None:
            self.taken.set()
            await asyncio.sleep(0.2)
        return lease


async def test_a_job_taken_while_it_stops_is_given_back(pool: Pool) -> None:
    jobs = Away(pool)
    with pytest.raises(PlatformError):
        await jobs.take(Slot.INGEST, Bounds(1, 1), 30.0)
    jobs.failures = 1
    await add(jobs, 1)
    worker = Worker(jobs)
    async with dispatching(jobs, worker, look_s=600.0):
        await jobs.taken.wait()
    assert not worker.held
    assert await states(jobs) == {JobState.QUEUED}
    assert (await jobs.list(1, "")).items[0].attempt == 0
