"""Jobs that have to wait, for a host, a disk or a quota, and do not lose attempts by that."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from tests.integration.working import Bench, open_bench, worker_settings, working
from tests.loopback import Loopback, serving
from tests.records import DIGEST

from soundhash_engine import PARAMS
from soundhash_server.fetching.failures import JobError
from soundhash_server.model import (
    BatchProgress,
    BatchResult,
    FolderParameters,
    IngestParameters,
    Job,
    JobKind,
    JobProgress,
    JobState,
    JobStep,
    Lease,
    NewJob,
)
from soundhash_server.sources import source_host, url_key
from soundhash_server.store.pauses import Pauses, pause_rule
from soundhash_workers import disk as disk_module
from soundhash_workers.disk import Disk
from soundhash_workers.pipeline import Pipeline, Report
from soundhash_workers.runner import JobRunner


@pytest.fixture
async def bench(postgres_url: str, redis_url: str, data_dir: Path) -> AsyncIterator[Bench]:
    async with open_bench(worker_settings(postgres_url, redis_url, data_dir)) as made:
        yield made


@pytest.fixture
async def web() -> AsyncIterator[Loopback]:
    async with serving(b"") as loopback:
        yield loopback


async def fetch(bench: Bench, *urls: str) -> list[Job]:
    jobs = await bench.jobs.submit_many(
        [
            NewJob(
                JobKind.INGEST,
                url_key(url),
                IngestParameters(url=url),
                source_host=source_host(url),
            )
            for url in urls
        ],
        max_attempts=3,
        params_digest=PARAMS.digest,
    )
    for job in jobs:
        await bench.queue.wake(job.id)
    return jobs


async def make_due(bench: Bench) -> None:
    await bench.pool.execute(
        "UPDATE processing_jobs SET next_attempt_time = now() WHERE state = 'RETRYING'"
    )


async def test_a_host_that_keeps_refusing_is_left_alone(bench: Bench, web: Loopback) -> None:
    settings = dataclasses.replace(bench.settings, host_refusals=2, retry_base_s=600.0)
    refusing = [web.url(f"/status/429?n={n}") for n in range(2)]
    elsewhere = web.url("/status/404").replace("127.0.0.1", "localhost")
    async with working(settings):
        for job in await fetch(bench, *refusing):
            await bench.until(job, lambda shown: shown.state is JobState.RETRYING)
        asked = web.requests.total()
        waiting = await fetch(bench, web.url("/status/404?1"), web.url("/status/404?2"))
        (other,) = await fetch(bench, elsewhere)
        # Another host goes on, though its turn comes later.
        await bench.finished(other)
        shown = [await bench.get(job.id) for job in waiting]
        assert [(job.state, job.attempt) for job in shown] == [(JobState.QUEUED, 0)] * 2
        assert web.requests.total() == asked + 1
        (paused,) = await Pauses(bench.pool, pause_rule(settings)).list()
        assert (paused.host, paused.reason) == ("127.0.0.1", "HTTP_TOO_MANY_REQUESTS")
        await bench.pool.execute("UPDATE source_pauses SET until = now()")
        for job in waiting:
            assert (await bench.finished(job)).attempt == 1


async def test_a_full_disk_costs_no_attempt(bench: Bench, web: Loopback) -> None:
    full = dataclasses.replace(
        bench.settings, min_free_disk_bytes=1 << 60, worker_concurrency=1, max_host_jobs=1
    )
    async with working(full):
        first, second = await fetch(bench, web.url("/status/404?1"), web.url("/status/404?2"))
        shown = await bench.until(first, lambda shown: shown.state is JobState.RETRYING)
        assert shown.failure is not None
        assert (shown.failure.reason, shown.attempt) == ("DISK_FULL", 0)
        # Nothing else is even begun.
        await make_due(bench)
        shown = await bench.until(first, lambda shown: shown.state is JobState.QUEUED)
        await asyncio.sleep(4 * full.sweep_s)
        for job in (first, second):
            waiting = await bench.get(job.id)
            assert (waiting.state, waiting.attempt) == (JobState.QUEUED, 0)
        assert web.requests.total() == 0
    async with working(bench.settings):
        for job in (first, second):
            done = await bench.finished(job)
            assert done.failure is not None
            assert (done.failure.reason, done.attempt) == ("HTTP_NOT_FOUND", 1)


def test_a_disk_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_module, "_LOOK_S", 0.0)
    full, wide = Disk(tmp_path, 1 << 62), Disk(tmp_path, 0)
    assert full.has_room() and wide.has_room(), "until a job says otherwise"
    wide.on_full()
    assert not wide.has_room(), "another volume may be the full one"
    monkeypatch.setattr(disk_module, "_FULL_S", 0.0)
    for one in (full, wide):
        one.on_full()
    assert wide.has_room() and not full.has_room()
    gone = Disk(tmp_path / "gone", 0)
    gone.on_full()
    assert not gone.has_room()


class Listing:
    """Does what a test says."""

    def __init__(self, do: Callable[[], Any]) -> None:
        self._do = do
        self.began = asyncio.Event()
        self.ended = asyncio.Event()

    async def run(self, lease: Lease, report: Report) -> tuple[BatchProgress, BatchResult]:
        counts = BatchProgress(listed=3)
        report.progress = JobProgress(JobStep.LIST, batch=counts)
        self.began.set()
        try:
            await self._do()
        finally:
            self.ended.set()
        return counts, BatchResult(counts)


def runner_of(bench: Bench, listing: Listing) -> JobRunner:
    return JobRunner(
        bench.settings,
        bench.jobs,
        Pauses(bench.pool, pause_rule(bench.settings)),
        cast("Pipeline", None),
        {JobKind.FOLDER: listing},
        bench.queue,
        Disk(bench.settings.data_dir, 0),
    )


async def begun(bench: Bench, *, watch: bool = False) -> Lease:
    job, _ = await bench.jobs.submit(
        JobKind.FOLDER,
        "folder",
        FolderParameters("/music", watch=watch),
        max_attempts=3,
        params_digest=DIGEST,
        source_host="h",
    )
    return await again(bench, job)


async def again(bench: Bench, job: Job) -> Lease:
    await make_due(bench)
    lease = await bench.jobs.claim(job.id, 30.0)
    assert lease is not None
    return lease


async def fail(error: Exception) -> None:
    raise error


async def test_a_spent_quota_is_waited_for(bench: Bench) -> None:
    error = JobError("QUOTA_EXCEEDED", "Spent.", retry_after_s=30_000.0)
    lease = await begun(bench)
    await runner_of(bench, Listing(lambda: fail(error))).run(lease)
    shown = await bench.get(lease.job.id)
    assert (shown.state, shown.attempt) == (JobState.RETRYING, 0)
    assert shown.failure is not None and shown.failure.reason == "QUOTA_EXCEEDED"
    assert shown.next_attempt_time is not None
    assert (shown.next_attempt_time - shown.update_time).total_seconds() >= 30_000


async def test_a_watch_goes_on_after_what_passes(bench: Bench) -> None:
    lease = await begun(bench, watch=True)
    passing, lasting = JobError("NETWORK_ERROR", "Away."), JobError("HTTP_GONE", "Gone.")
    await runner_of(bench, Listing(lambda: fail(passing))).run(lease)
    shown = await bench.get(lease.job.id)
    assert (shown.state, shown.attempt) == (JobState.RETRYING, 0)
    assert await bench.jobs.claim(lease.job.id, 30.0) is None, "not before it is due"
    second = await again(bench, lease.job)
    await runner_of(bench, Listing(lambda: fail(lasting))).run(second)
    assert (await bench.get(lease.job.id)).state is JobState.FAILED


async def test_a_listing_is_told_and_can_be_given_back(bench: Bench) -> None:
    listing = Listing(lambda: asyncio.sleep(60))
    lease = await begun(bench)
    running = asyncio.create_task(runner_of(bench, listing).run(lease))
    shown = await bench.until(lease.job, lambda shown: shown.progress.step is JobStep.LIST)
    assert shown.progress.batch is not None and shown.progress.batch.listed == 3
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert listing.ended.is_set()
    shown = await bench.get(lease.job.id)
    assert (shown.state, shown.attempt) == (JobState.QUEUED, 0)


async def test_a_cancelled_watch_stops(bench: Bench) -> None:
    listing = Listing(lambda: asyncio.sleep(60))
    lease = await begun(bench, watch=True)
    running = asyncio.create_task(runner_of(bench, listing).run(lease))
    await listing.began.wait()
    await bench.jobs.cancel(lease.job.id)
    await running
    assert listing.ended.is_set()
    assert (await bench.get(lease.job.id)).state is JobState.CANCELLED


async def test_a_refusing_host_is_counted_for_listings_too(bench: Bench) -> None:
    error = JobError("BOT_CHECK", "Sign in.")
    lease = await begun(bench)
    await runner_of(bench, Listing(lambda: fail(error))).run(lease)
    assert await bench.pool.fetchval("SELECT refusals FROM source_pauses WHERE host = 'h'") == 1
    second = await again(bench, lease.job)
    assert second.job.attempt == 2
    await runner_of(bench, Listing(lambda: asyncio.sleep(0))).run(second)
    assert (await bench.get(lease.job.id)).state is JobState.SUCCEEDED
    assert await bench.pool.fetchval("SELECT count(*) FROM source_pauses") == 0
