"""A worker in this process, and the jobs that tests give it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from subprocess import Popen
from typing import IO, Any
from uuid import UUID

from tests.platforms import environment

from soundhash_engine import PARAMS
from soundhash_server.model import IngestParameters, Job, JobKind, JobState
from soundhash_server.queue import JobQueue
from soundhash_server.settings import Settings
from soundhash_server.sources import sha256_key, url_key
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.pool import Pool, create_pool
from soundhash_server.store.videos import Videos
from soundhash_workers.worker import serve

WAIT_S = 30.0


class Bench:
    """What tests need around a worker: its settings, the stores, and ways to submit and wait."""

    def __init__(self, settings: Settings, pool: Pool, queue: JobQueue) -> None:
        self.settings = settings
        self.pool = pool
        self.queue = queue
        self.jobs = Jobs(pool)
        self.videos = Videos(pool)

    async def upload(self, content: bytes, file_name: str = "song.wav", **more: Any) -> Job:
        """Puts a file where the server puts it, and submits its job."""
        digest = hashlib.sha256(content).hexdigest()
        self.settings.uploads_dir.mkdir(parents=True, exist_ok=True)
        self.path_of(digest).write_bytes(content)
        return await self.submit(
            sha256_key(digest),
            IngestParameters(
                file_name=file_name, content_sha256=digest, size_bytes=len(content), **more
            ),
        )

    async def submit_url(self, url: str, **more: Any) -> Job:
        return await self.submit(url_key(url), IngestParameters(url=url, **more))

    async def submit(
        self, key: str, parameters: IngestParameters, *, wake: bool = True, max_attempts: int = 3
    ) -> Job:
        job, needs_wake = await self.jobs.submit(
            JobKind.INGEST,
            key,
            parameters,
            max_attempts=max_attempts,
            params_digest=PARAMS.digest,
        )
        if needs_wake and wake:
            await self.queue.wake(job.id)
        return job

    async def get(self, job_id: UUID) -> Job:
        job = await self.jobs.get(job_id)
        assert job is not None
        return job

    async def until(
        self, job: Job, condition: Callable[[Job], bool], timeout_s: float = WAIT_S
    ) -> Job:
        """The job as soon as it meets the condition."""
        shown = await self.get(job.id)
        try:
            async with asyncio.timeout(timeout_s):
                while not condition(shown):
                    await asyncio.sleep(0.02)
                    shown = await self.get(job.id)
        except TimeoutError:
            raise AssertionError(f"the job stays {shown}") from None
        return shown

    async def finished(self, job: Job, timeout_s: float = WAIT_S) -> Job:
        return await self.until(job, lambda shown: shown.state.finished, timeout_s)

    async def running(self, job: Job) -> Job:
        return await self.until(job, lambda shown: shown.state is JobState.RUNNING)

    async def succeeded(self, job: Job, timeout_s: float = WAIT_S) -> Job:
        done = await self.finished(job, timeout_s)
        assert done.state is JobState.SUCCEEDED, done.failure
        return done

    def path_of(self, digest: str) -> Path:
        return self.settings.uploads_dir / digest

    def files_left(self) -> list[str]:
        """All that lies in uploads and in scratch, but for locks and folders of workers."""
        roots = (self.settings.uploads_dir, self.settings.scratch_dir)
        return sorted(
            path.name
            for root in roots
            for path in root.rglob("*")
            if path.is_file() and path.suffix != ".lock"
        )


def worker_settings(database_url: str, redis_url: str, data_dir: Path, **more: Any) -> Settings:
    """Settings of a worker that does not wait for long."""
    values: dict[str, Any] = {
        "database_url": database_url,
        "redis_url": redis_url,
        "data_dir": data_dir,
        "min_free_disk_bytes": 0,
        "job_lease_s": 5.0,
        "retry_base_s": 0.05,
        "sweep_s": 0.1,
        "allow_private_urls": True,
        "worker_concurrency": 4,
        **more,
    }
    return Settings.from_env({}, **values)


@contextlib.asynccontextmanager
async def open_bench(settings: Settings) -> AsyncIterator[Bench]:
    """Stores and queue, without a worker."""
    pool = await create_pool(settings.database_url, 4, name="soundhash-test")
    queue = JobQueue.connect(settings.redis_url)
    try:
        yield Bench(settings, pool, queue)
    finally:
        await queue.close()
        await pool.close()


@contextlib.asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[None]:
    """A worker in this process until the end of the block; it must not end before."""
    task = asyncio.create_task(serve(settings))
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.contextmanager
def worker_process(settings: Settings, log: IO[bytes] | None = None) -> Iterator[Popen[bytes]]:
    """A worker as a process of its own, killed at the end of the block."""
    names = ("database_url", "redis_url", "job_lease_s", "monitor_lease_s", "allow_private_urls")
    more = ("min_free_disk_bytes", "sweep_s", "retry_base_s", "worker_concurrency")
    values = settings.as_env()
    given = {name: values[f"SOUNDHASH_{name}"] for name in map(str.upper, names + more)}
    process = Popen(
        [sys.executable, "-m", "soundhash_workers"],
        env=environment(settings.data_dir, given),
        stderr=log or subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
