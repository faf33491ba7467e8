"""Carries one job through: claim, work, complete or fail, whatever happens on the way.

The lease is told to the database twice a second, which is also how a cancelled job is noticed.
Nothing here has to succeed for the platform to be right: a worker that vanishes at any line
leaves a lease that expires, and every write names the lease's token.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

import structlog

from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.fetching.failures import failure_of
from soundhash_server.model import IngestResult, Lease
from soundhash_server.settings import Settings
from soundhash_server.store.jobs import Jobs, LeaseLost
from soundhash_server.tasks import end
from soundhash_workers.pipeline import Known, Pipeline, Prepared, Report
from soundhash_workers.retry import retry_delay_s
from soundhash_workers.uploads import Upload

HEARTBEAT_S = 0.4
_RETRY_S = 0.5
_PERSIST_S = 120.0
"""How long the outcome of a job is offered to a database that is away."""
_GIVE_BACK_S = 5.0

T = TypeVar("T")
KeepAlive = Callable[[], Awaitable[None]]

log = structlog.get_logger(__name__)


class JobRunner:
    """Runs jobs by their ids; any number at once."""

    def __init__(self, settings: Settings, jobs: Jobs, pipeline: Pipeline) -> None:
        self._settings = settings
        self._jobs = jobs
        self._pipeline = pipeline

    async def run(self, job_id: UUID, keep_alive: KeepAlive) -> None:
        """Does a job if it is to be done now and nobody else does it; else nothing.

        keep_alive: called with every heartbeat. When cancelled, gives the job back, so that
        another worker takes it at once. Raises PlatformError only from the claim.
        """
        lease = await self._jobs.claim(job_id, self._settings.job_lease_s)
        if lease is None:
            return
        with structlog.contextvars.bound_contextvars(job_id=str(job_id), attempt=lease.job.attempt):
            log.info("job started")
            started_s = time.monotonic()
            outcome = await self._run(lease, keep_alive)
            log.info("job ended", outcome=outcome, elapsed_s=round(time.monotonic() - started_s, 3))

    async def _run(self, lease: Lease, keep_alive: KeepAlive) -> str:
        report = Report()
        upload = self._pipeline.upload_of(lease.job.parameters)
        work = asyncio.create_task(
            self._pipeline.prepare(lease.job.parameters, upload, report), name="work"
        )
        beat = asyncio.create_task(self._beat(lease, report, keep_alive), name="beat")
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

    async def _beat(self, lease: Lease, report: Report, keep_alive: KeepAlive) -> None:
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
            await keep_alive()
            await asyncio.sleep(HEARTBEAT_S)

    async def _end(
        self,
        lease: Lease,
        work: asyncio.Task[Prepared | Known],
        upload: Upload | None,
        report: Report,
    ) -> str:
        try:
            report.on_store()
            result = await self._store(lease, work.result(), report)
        except LeaseLost:
            # Somebody else has done it or will, or this did and the answer got lost.
            return "lease lost"
        except Exception as error:
            return await self._fail(lease, error, upload)
        if upload is not None:
            await asyncio.to_thread(upload.remove)
        return "already indexed" if result.already_indexed else "indexed"

    async def _store(self, lease: Lease, found: Prepared | Known, report: Report) -> IngestResult:
        async def tell() -> None:
            if not await self._jobs.heartbeat(
                lease.token, report.progress, self._settings.job_lease_s
            ):
                raise LeaseLost

        async def store() -> IngestResult:
            await tell()
            if isinstance(found, Known):
                return await self._jobs.complete_existing(
                    lease.token, found.video_id, source_key=found.source_key
                )
            return await self._jobs.complete(lease.token, found.video, found.segments)

        return await _persist(store)

    async def _fail(self, lease: Lease, error: Exception, upload: Upload | None) -> str:
        failure, retry_after_s = failure_of(error)
        delay_s = None
        if failure.transient and lease.job.attempt < lease.job.max_attempts:
            delay_s = retry_delay_s(
                lease.job.attempt,
                self._settings.retry_base_s,
                self._settings.retry_cap_s,
                retry_after_s=retry_after_s,
            )
        try:
            kept = await _persist(lambda: self._jobs.fail(lease.token, failure, delay_s))
        except PlatformError as unavailable:
            log.warning("failure not stored", reason=unavailable.reason)
            return "lease left to expire"
        if kept and upload is not None:
            # Bytes that fail for good are of no use; others may be tried again.
            await asyncio.to_thread(upload.keep if failure.transient else upload.remove)
        log.info("job failed", reason=failure.reason, message=failure.message, retry_in_s=delay_s)
        return "failed" if delay_s is None else "to be retried"

    async def _give_back(self, lease: Lease) -> None:
        with contextlib.suppress(PlatformError, TimeoutError):
            async with asyncio.timeout(_GIVE_BACK_S):
                await self._jobs.release(lease.token)
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


def _keep(upload: Upload | None) -> None:
    if upload is not None:
        upload.keep()
