"""What a worker does when something around it breaks."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from tests.integration.working import (
    Bench,
    open_bench,
    worker_process,
    worker_settings,
    working,
)
from tests.loopback import Loopback, serving
from tests.media import encode
from tests.sounds import tune

from soundhash_server.embedded_valkey import Valkey
from soundhash_server.fetching.scratch import Scratch
from soundhash_server.model import IngestParameters, JobState
from soundhash_server.queue import QUEUE_NAME
from soundhash_server.settings import Settings
from soundhash_server.sources import sha256_key
from soundhash_workers.uploads import KEEP_S

SONG = encode(tune(6.0, seed=31), "wav")


@pytest.fixture
async def bench(postgres_url: str, redis_url: str, data_dir: Path) -> AsyncIterator[Bench]:
    async with open_bench(worker_settings(postgres_url, redis_url, data_dir)) as made:
        yield made


@pytest.fixture
async def web() -> AsyncIterator[Loopback]:
    async with serving(SONG) as loopback:
        yield loopback


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


async def _hanging(bench: Bench, web: Loopback) -> None:
    """Waits until a fetch hangs."""
    async with asyncio.timeout(60):
        while not web.hanging:
            await asyncio.sleep(0.02)


async def test_a_wake_up_that_was_lost_is_not_missed(bench: Bench) -> None:
    digest = hashlib.sha256(SONG).hexdigest()
    bench.settings.uploads_dir.mkdir(parents=True)
    bench.path_of(digest).write_bytes(SONG)
    parameters = IngestParameters(content_sha256=digest, file_name="a.wav")
    async with working(bench.settings):
        job = await bench.submit(sha256_key(digest), parameters, wake=False)
        await bench.succeeded(job)


async def test_the_queue_may_go_away_and_forget_everything(
    bench: Bench, web: Loopback, redis: Redis
) -> None:
    contents = [encode(tune(3.0, seed=seed), "wav") for seed in (36, 37, 38)]
    lease_s = 2.0
    async with working(dataclasses.replace(bench.settings, job_lease_s=lease_s)):
        held = await bench.submit_url(web.url("/hang.wav"))
        await _hanging(bench, web)
        for content in contents:
            await redis.client_kill_filter(_type="normal", skipme=True)
            await redis.flushdb()
            await bench.succeeded(await bench.upload(content))
        # The job that was under way never noticed, and was not begun a second time.
        shown = await bench.get(held.id)
        assert (shown.state, shown.attempt, web.hanging) == (JobState.RUNNING, 1, 1)
        # Much longer than its mark in the queue and its lease last.
        await asyncio.sleep(lease_s + 1.5)
        shown = await bench.get(held.id)
        assert (shown.state, shown.attempt, web.hanging) == (JobState.RUNNING, 1, 1)
        assert web.requests["/hang.wav"] == 1


async def test_a_queue_server_that_dies(bench: Bench, tmp_path: Path) -> None:
    server = Valkey(tmp_path)
    settings = worker_settings(bench.settings.database_url, server.url, bench.settings.data_dir)
    # It is not even there at first.
    async with open_bench(settings) as own, working(settings):
        job = await own.upload(SONG)
        assert job.state is JobState.QUEUED
        server.start()
        try:
            await own.succeeded(job)
            pid = server.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            other = await own.upload(encode(tune(3.0, seed=33), "wav"))
            await asyncio.sleep(0.3)
            server.start()
            await own.succeeded(other)
        finally:
            server.stop()


async def test_lost_connections_to_the_database_cost_no_job(bench: Bench, web: Loopback) -> None:
    contents = [encode(tune(20.0, seed=seed), "wav") for seed in (34, 35)]
    async with working(bench.settings):
        held = await bench.submit_url(web.url("/hang.wav"))
        await _hanging(bench, web)
        for content in contents:
            job = await bench.upload(content)
            for _ in range(4):
                await bench.pool.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'soundhash-worker'"
                )
                await asyncio.sleep(0.03)
            done = await bench.succeeded(job)
            # A claim whose answer is lost on the way counts, and is made again.
            assert done.attempt <= 2
        assert (await bench.get(held.id)).attempt == 1


async def test_a_full_disk_is_waited_out(bench: Bench, web: Loopback) -> None:
    settings = worker_settings(
        bench.settings.database_url,
        bench.settings.redis_url,
        bench.settings.data_dir,
        min_free_disk_bytes=1 << 60,
        retry_base_s=600.0,
    )
    async with working(settings):
        job = await bench.submit_url(web.url("/song.wav"))
        shown = await bench.until(job, lambda shown: shown.state is JobState.RETRYING)
        assert shown.failure is not None
        assert shown.failure.reason == "DISK_FULL"
        assert web.requests.total() == 0


async def test_sigterm_gives_jobs_back_at_once(bench: Bench, web: Loopback) -> None:
    with worker_process(bench.settings) as worker:
        job = await bench.submit_url(web.url("/hang.wav"))
        await _hanging(bench, web)
        started_s = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        status = await asyncio.to_thread(worker.wait, 10)
    assert status == 0
    assert time.monotonic() - started_s < 3
    shown = await bench.get(job.id)
    assert (shown.state, shown.attempt) == (JobState.QUEUED, 0)
    assert list(bench.settings.scratch_dir.iterdir()) == []
    # Whoever is there has been told, and whoever comes next takes it.
    async with Redis.from_url(bench.settings.redis_url) as redis:
        assert await redis.zscore(QUEUE_NAME, str(job.id)) is not None
    async with working(bench.settings):
        await bench.running(job)


async def test_a_killed_worker_loses_nothing_and_leaves_nothing(
    bench: Bench, web: Loopback
) -> None:
    with worker_process(_hasty(bench)) as worker:
        job = await bench.submit_url(web.url("/hang.wav"))
        await _hanging(bench, web)
        worker.kill()
        await asyncio.to_thread(worker.wait, 10)
    assert bench.files_left() == ["media"]
    async with working(bench.settings):
        taken = await bench.until(job, lambda shown: shown.attempt == 2)
        assert taken.state is JobState.RUNNING
        await _hanging(bench, web)
        # What the dead one left is gone; the fetch under way has its own.
        assert bench.files_left() == ["media"]
    assert bench.files_left() == []


async def test_a_job_that_kills_every_worker_ends(bench: Bench) -> None:
    job = await bench.submit(
        sha256_key("0" * 64), IngestParameters(content_sha256="0" * 64), wake=False, max_attempts=1
    )
    assert await bench.jobs.claim(job.id, 0.01) is not None
    async with working(bench.settings):
        done = await bench.finished(job)
    assert done.failure is not None
    assert (done.state, done.failure.reason) == (JobState.FAILED, "WORKER_LOST")


async def test_files_that_nobody_needs_are_swept(bench: Bench) -> None:
    folder = bench.settings.uploads_dir
    folder.mkdir(parents=True)
    old, young = folder / ("a" * 64), folder / ("b" * 64)
    needed, other = folder / ("c" * 64), folder / "tmp"
    for path in (old, young, needed):
        path.write_bytes(b"x")
    other.mkdir()
    await bench.submit(sha256_key(needed.name), IngestParameters(url="http://127.0.0.1:1/"))
    await bench.pool.execute(
        "UPDATE processing_jobs SET state = 'RETRYING', next_attempt_time = now() + '1 day',"
        " parameters = parameters || $1",
        {"content_sha256": needed.name},
    )
    # Only ctime tells when a file came under its name, and nothing can set that one.
    monkey = pytest.MonkeyPatch()
    monkey.setattr("soundhash_workers.uploads.KEEP_S", 1.2)
    assert KEEP_S == 24 * 3600
    try:
        async with working(_hasty(bench)):
            async with asyncio.timeout(10):
                while old.exists():
                    await asyncio.sleep(0.05)
                    young.touch()
    finally:
        monkey.undo()
    assert young.exists() and needed.exists() and other.exists()


def test_scratch_of_the_living_is_left_alone(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path;"
        "from soundhash_server.fetching.scratch import Scratch;"
        "s = Scratch(Path(sys.argv[1])); (s._own / 'part').write_text('x');"
        "print('there', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        while "there" not in other.stdout.readline():
            pass
        own = Scratch(tmp_path)
        assert len(list(tmp_path.rglob("part"))) == 1
        other.kill()
        other.wait()
        own.sweep()
        assert list(tmp_path.rglob("part")) == []
        own.close()
        assert list(tmp_path.iterdir()) == []
    finally:
        other.kill()
        other.wait()
        if other.stdout is not None:
            other.stdout.close()


def _hasty(bench: Bench) -> Settings:
    """With a lease that expires soon; only where nothing keeps this process from renewing it."""
    return dataclasses.replace(bench.settings, job_lease_s=1.0)
