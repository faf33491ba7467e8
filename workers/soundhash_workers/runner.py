"""Carries one job through: work, complete or fail, whatever happens on the way.

The lease is told to the database twice a second, which is also how a cancelled job is noticed.
Nothing here has to succeed for the platform to be right: a worker that vanishes at any line
leaves a lease that expires, and every write names the lease's token.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import structlog

from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.fetching.failures import REASONS, JobError, failure_of
from soundhash_server.model import (
    BatchProgress,
    BatchResult,
    DuplicatesResult,
    Failure,
    FolderParameters,
    IngestParameters,
    Job,
    JobKind,
    Lease,
)
from soundhash_server.queue import JobQueue
from soundhash_server.settings import Settings
from soundhash_server.store.jobs import Jobs, LeaseLost
from soundhash_server.store.pauses import Pauses
from soundhash_server.tasks import end
from soundhash_workers.disk import Disk
from soundhash_workers.pipeline import Known, Pipeline, Prepared, Report
from soundhash_workers.retry import retry_delay_s
from soundhash_workers.uploads import Upload

HEARTBEAT_S = 0.4
_RETRY_S = 0.5
_PERSIST_S = 120.0
"""How long the outcome of a job is offered to a database that is away."""
_GIVE_BACK_S = 5.0
_QUOTA_S = 3600.0
WAITS_S = {"DISK_FULL": 30.0, "QUOTA_EXCEEDED": _QUOTA_S}
"""Failures that say nothing about the job: it waits about so long, and that is no attempt."""
_WATCH_AGAIN_S = 10.0
_LISTED = "listed"

T = TypeVar("T")
Listed = tuple[BatchProgress, BatchResult] | DuplicatesResult
Found = Prepared | Known | Listed
"""What the work of a job comes to: a recording, or what was listed, or what was compared."""

log = structlog.get_logger(__name__)


class Lister(Protocol):
    """Does the work of jobs of other kinds: submits jobs for what is new, or compares videos."""

    async def run(self, lease: Lease, report: Report) -> Listed:
        """The job's own counts and its result, when everything is listed or compared; leaves
        nothing open when cancelled. Raises JobError, PlatformError, OSError, LeaseLost."""
        ...


class JobRunner:
    """Carries out jobs that were taken; any number at once.

    listers: who does the jobs of the other kinds.
    """

    def __init__(
        self,
        settings: Settings,
        jobs: Jobs,
        pauses: Pauses,
        pipeline: Pipeline,
        listers: Mapping[JobKind, Lister],
        queue: JobQueue,
        disk: Disk,
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._pauses = pauses
        self._pipeline = pipeline
        self._listers = listers
        self._queue = queue
        self._disk = disk

    async def run(self, lease: Lease) -> None:
        """Does a job. When cancelled, gives it back, so that another worker takes it at once."""
        job = lease.job
        with structlog.contextvars.bound_contextvars(job_id=str(job.id), attempt=job.attempt):
            log.info("job started", kind=job.kind.value)
            started_s = time.monotonic()
            report = Report()
            outcome = await self._run(lease, report)
            log.info(
                "job ended",
                outcome=outcome,
                elapsed_s=round(time.monotonic() - started_s, 3),
                **report.took_s(),
            )

    async def _run(self, lease: Lease, report: Report) -> str:
        asked = lease.job.parameters
        upload = self._pipeline.upload_of(asked) if isinstance(asked, IngestParameters) else None
        work = asyncio.create_task(self._work(lease, upload, report), name="work")
        beat = asyncio.create_task(self._beat(lease, report), name="beat")
        try:
            await asyncio.wait({work, beat}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await end(work)
                await asyncio.to_thread(_keep, upload)
                return "lease lost"
        except asyncio.CancelledError:
            await end(work, beat)
            await self._give_back(lease)
            raise
        finally:
            await end(beat)
        # From here to the end is short, and half of it would have to be done again.
        ending = asyncio.create_task(self._end(lease, work, upload, report), name="ending")
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait({ending}, timeout=self._settings.drain_s)
            await end(ending)
            raise

    async def _work(self, lease: Lease, upload: Upload | None, report: Report) -> Found:
        if isinstance(lease.job.parameters, IngestParameters):
            return await self._pipeline.prepare(lease.job.parameters, upload, report)
        lister = self._listers.get(lease.job.kind)
        if lister is None:
            raise JobError("INTERNAL", f"This worker cannot do {lease.job.kind.value} jobs.")
        return await lister.run(lease, report)

    async def _beat(self, lease: Lease, report: Report) -> None:
        """Ends when the lease is lost. Without the database the work goes on: as long as nobody
        else could take the job it is still ours, and afterwards the token decides."""
        away = False
        while True:
            try:
                if not await self._jobs.heartbeat(
                    lease.token, report.progress, self._settings.job_lease_s
                ):
                    return
                away = False
            except PlatformError as error:
                if not away:
                    log.warning("heartbeat failed", reason=error.reason)
                away = True
            await asyncio.sleep(HEARTBEAT_S)

    async def _end(
        self, lease: Lease, work: asyncio.Task[Found], upload: Upload | None, report: Report
    ) -> str:
        try:
            outcome = await self._store(lease, work.result(), report)
        except LeaseLost:
            # Somebody else has done it or will, or this did and the answer got lost.
            return "lease lost"
        except Exception as error:
            return await self._fail(lease, error, upload)
        if upload is not None:
            await asyncio.to_thread(upload.remove)
        if lease.job.source_host and (report.progress.bytes_done or outcome == _LISTED):
            with contextlib.suppress(PlatformError):
                await self._pauses.answered(lease.job.source_host)
        return outcome

    async def _store(self, lease: Lease, found: Found, report: Report) -> str:
        async def tell() -> None:
            if not await self._jobs.heartbeat(
                lease.token, report.progress, self._settings.job_lease_s
            ):
                raise LeaseLost

        async def store() -> str:
            if isinstance(found, tuple):
                await self._jobs.finish_listing(lease.token, *found)
                return _LISTED
            if isinstance(found, DuplicatesResult):
                await self._jobs.complete_comparison(lease.token, found.videos, found.audio_s)
                return "compared"
            report.on_store()
            await tell()
            if isinstance(found, Known):
                result = await self._jobs.complete_existing(
                    lease.token, found.video_id, source_key=found.source_key
                )
            else:
                result = await self._jobs.complete(lease.token, found.video, found.segments)
            return "already indexed" if result.already_indexed else "indexed"

        return await _persist(store)

    async def _fail(self, lease: Lease, error: Exception, upload: Upload | None) -> str:
        failure, retry_after_s = failure_of(error)
        if failure.reason == "DISK_FULL":
            self._disk.on_full()
        try:
            waits_s = await self._wait_s(lease.job, failure, retry_after_s)
            delay_s = waits_s or self._delay_s(lease.job, failure, retry_after_s)
            kept = await _persist(
                lambda: (
                    self._jobs.fail(lease.token, failure, delay_s)
                    if waits_s is None
                    else self._jobs.postpone(lease.token, failure, waits_s)
                )
            )
        except PlatformError as unavailable:
            log.warning("failure not stored", reason=unavailable.reason)
            return "lease left to expire"
        if kept and upload is not None:
            # Bytes that fail for good are of no use; others may be tried again.
            await asyncio.to_thread(upload.keep if failure.transient else upload.remove)
        log.info("job failed", reason=failure.reason, message=failure.message, retry_in_s=delay_s)
        return "failed" if delay_s is None else "to be retried"

    async def _wait_s(
        self, job: Job, failure: Failure, retry_after_s: float | None
    ) -> float | None:
        """How long the job has to wait without that being an attempt; None when it counts."""
        wait_s = WAITS_S.get(failure.reason)
        if wait_s is not None:
            return max(retry_after_s or 0.0, wait_s) * _jitter()
        known = REASONS.get(failure.reason)
        if job.source_host and known is not None and known.refusal:
            paused = await _persist(lambda: self._pauses.until(job.source_host))
            await _persist(
                lambda: self._pauses.refused(job.source_host, failure.reason, retry_after_s)
            )
            if paused and failure.transient:
                # It was under way when the host was paused, and goes on when that is over.
                return retry_delay_s(
                    1,
                    self._settings.retry_base_s,
                    self._settings.retry_cap_s,
                    retry_after_s=retry_after_s,
                )
        if isinstance(job.parameters, FolderParameters) and job.parameters.watch:
            return _WATCH_AGAIN_S * _jitter() if failure.transient else None
        return None

    def _delay_s(self, job: Job, failure: Failure, retry_after_s: float | None) -> float | None:
        if not failure.transient or job.attempt >= job.max_attempts:
            return None
        return retry_delay_s(
            job.attempt,
            self._settings.retry_base_s,
            self._settings.retry_cap_s,
            retry_after_s=retry_after_s,
        )

    async def _give_back(self, lease: Lease) -> None:
        with contextlib.suppress(PlatformError, TimeoutError):
            async with asyncio.timeout(_GIVE_BACK_S):
                if await self._jobs.release(lease.token):
                    await self._queue.wake(lease.job.id)
                    log.info("job given back")


async def _persist(write: Callable[[], Awaitable[T]]) -> T:
    """Writes again while the database is away. A write whose answer was lost has ended the
    lease, so it cannot happen twice."""
    give_up_s = time.monotonic() + _PERSIST_S
    while True:
        try:
            return await write()
        except PlatformError as error:
            if error.kind is not ErrorKind.UNAVAILABLE or time.monotonic() > give_up_s:
                raise
        await asyncio.sleep(_RETRY_S)


def _jitter() -> float:
    """Jobs that failed together must not come back together."""
    return random.uniform(1.0, 1.5)  # noqa: S311 - no secret


def _keep(upload: Upload | None) -> None:
    if upload is not None:
        upload.keep()
