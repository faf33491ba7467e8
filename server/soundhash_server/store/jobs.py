"""Jobs: rows that move by compare-and-set, so that any process may die at any moment.

    QUEUED --claim--> RUNNING --complete--> SUCCEEDED
                        |  ^ --fail--> RETRYING --claim, when due--> RUNNING
                        |  |           or FAILED
                        |  +-- claim takes over when the lease has expired
                        +--release--> QUEUED
    unfinished --cancel--> CANCELLED;  FAILED, CANCELLED --retry, submit--> QUEUED

A claim gives a lease with a fresh token. Every write of the worker names the token, so one
that lost its lease changes nothing. All times are the database's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg

from soundhash_engine.types import Segment
from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.model import (
    Failure,
    IngestParameters,
    IngestResult,
    Job,
    JobKind,
    JobProgress,
    JobState,
    JobStep,
    Lease,
    NewVideo,
    Page,
)
from soundhash_server.store.job_rows import JOB_COLUMNS, progress_json, result_json, to_job
from soundhash_server.store.pages import decode_token, limit_of, make_page
from soundhash_server.store.pool import Connection, Pool, connection, transaction
from soundhash_server.store.recordings import store_recording

QUEUED_OVERDUE_S = 5.0
"""A job that nobody took for this long may have lost its wake-up."""

WORKER_LOST = Failure(
    reason="WORKER_LOST",
    message="Every worker that took this job vanished before it was done.",
    remedy="Look at the workers' logs (out of memory?), then retry the job.",
    transient=True,
)

_DONE = JobProgress(step=JobStep.DONE, fraction=1.0)
_AFRESH = """state = 'QUEUED', attempt = 0, result = NULL, progress = '{}', lease_token = NULL,
    lease_expires = NULL, next_attempt_time = NULL, start_time = NULL, finish_time = NULL,
    update_time = clock_timestamp()"""
_CLAIMABLE = """(state = 'QUEUED'
    OR (state = 'RETRYING' AND next_attempt_time <= clock_timestamp())
    OR (state = 'RUNNING' AND lease_expires < clock_timestamp()))"""


class LeaseLost(Exception):  # noqa: N818 - a condition, not a mistake
    """The job was cancelled, finished or given to another worker; nothing was changed."""


class Jobs:
    """The work to do and how it stands. Every method raises PlatformError
    DATABASE_UNAVAILABLE when the database is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def submit(
        self,
        kind: JobKind,
        dedupe_key: str,
        parameters: IngestParameters,
        *,
        request_id: str = "",
        max_attempts: int,
        params_digest: str,
    ) -> tuple[Job, bool]:
        """The job for this source, and whether a worker has to be woken for it.

        The same ``request_id`` or ``dedupe_key`` gives the same job. It is queued afresh, with
        these parameters, when it failed or was cancelled, or when what it made is gone or has
        fingerprints of other parameters than ``params_digest``; else it stays as it is.
        """
        values = dataclasses.asdict(parameters)
        async with transaction(self._pool) as held:
            row = await held.fetchrow(
                "INSERT INTO processing_jobs"  # noqa: S608
                " (kind, dedupe_key, request_id, parameters, max_attempts)"
                " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING"
                f" RETURNING {JOB_COLUMNS}",
                kind.value,
                dedupe_key,
                request_id or None,
                values,
                max_attempts,
            )
            if row is not None:
                return to_job(row), True
            existing = await held.fetchrow(
                f"SELECT {JOB_COLUMNS} FROM processing_jobs"  # noqa: S608
                " WHERE dedupe_key = $1 OR request_id = $2"
                " ORDER BY request_id IS NOT DISTINCT FROM $2 DESC LIMIT 1 FOR UPDATE",
                dedupe_key,
                request_id or None,
            )
            if existing is None:
                raise RuntimeError("a job that was in the way is gone: jobs are never deleted")
            job = to_job(existing)
            if not await _stale(held, job, params_digest):
                return job, job.state is JobState.QUEUED
            again = await held.fetchrow(
                f"UPDATE processing_jobs SET {_AFRESH}, parameters = $2, max_attempts = $3"  # noqa: S608
                f" WHERE id = $1 RETURNING {JOB_COLUMNS}",
                job.id,
                values,
                max_attempts,
            )
        return _present(again), True

    async def get(self, job_id: UUID) -> Job | None:
        async with connection(self._pool) as held:
            row = await held.fetchrow(
                f"SELECT {JOB_COLUMNS} FROM processing_jobs WHERE id = $1",  # noqa: S608
                job_id,
            )
        return None if row is None else to_job(row)

    async def cancel(self, job_id: UUID) -> Job | None:
        """Cancels a job that is not finished; a finished one is returned as it is.

        None when there is no such job.
        """
        async with connection(self._pool) as held:
            row = await held.fetchrow(
                "UPDATE processing_jobs SET state = 'CANCELLED', lease_token = NULL,"  # noqa: S608
                " lease_expires = NULL, next_attempt_time = NULL,"
                " finish_time = clock_timestamp(), update_time = clock_timestamp()"
                " WHERE id = $1 AND state IN ('QUEUED', 'RUNNING', 'RETRYING')"
                f" RETURNING {JOB_COLUMNS}",
                job_id,
            )
        return await self.get(job_id) if row is None else to_job(row)

    async def retry(self, job_id: UUID) -> Job | None:
        """Queues a failed or cancelled job afresh. None when there is no such job.

        Raises PlatformError FAILED_PRECONDITION (JOB_NOT_RETRYABLE) in any other state.
        """
        async with connection(self._pool) as held:
            row = await held.fetchrow(
                f"UPDATE processing_jobs SET {_AFRESH} WHERE id = $1"  # noqa: S608
                f" AND state IN ('FAILED', 'CANCELLED') RETURNING {JOB_COLUMNS}",
                job_id,
            )
        if row is not None:
            return to_job(row)
        job = await self.get(job_id)
        if job is None:
            return None
        raise PlatformError(
            ErrorKind.FAILED_PRECONDITION,
            "JOB_NOT_RETRYABLE",
            f"Job {job_id} is {job.state.value}; only failed and cancelled jobs can be retried.",
            "Wait until it is finished, or submit the source again.",
            metadata={"job": str(job_id), "state": job.state.value},
        )

    async def claim(self, job_id: UUID, lease_s: float) -> Lease | None:
        """Takes a job that is queued, due for a retry, or whose worker's lease has expired.

        Counts an attempt. None when there is nothing to do: another worker has it, it is
        finished, not yet due or unknown; a job whose last attempt's worker vanished becomes
        FAILED with WORKER_LOST.
        """
        async with connection(self._pool) as held:
            row = await held.fetchrow(
                "UPDATE processing_jobs SET state = 'RUNNING', lease_token = gen_random_uuid(),"  # noqa: S608
                " lease_expires = clock_timestamp() + $2, attempt = attempt + 1,"
                " next_attempt_time = NULL, failure = NULL, progress = '{}',"
                " start_time = clock_timestamp(), update_time = clock_timestamp()"
                f" WHERE id = $1 AND {_CLAIMABLE}"
                " AND (state <> 'RUNNING' OR attempt < max_attempts)"
                f" RETURNING lease_token, {JOB_COLUMNS}",
                job_id,
                timedelta(seconds=lease_s),
            )
            if row is not None:
                return Lease(to_job(row), row["lease_token"])
            await held.execute(
                "UPDATE processing_jobs SET state = 'FAILED', failure = $2, lease_token = NULL,"
                " lease_expires = NULL, finish_time = clock_timestamp(),"
                " update_time = clock_timestamp()"
                " WHERE id = $1 AND state = 'RUNNING' AND lease_expires < clock_timestamp()"
                " AND attempt >= max_attempts",
                job_id,
                dataclasses.asdict(WORKER_LOST),
            )
        return None

    async def heartbeat(self, token: UUID, progress: JobProgress, lease_s: float) -> bool:
        """Extends the lease and tells the progress. False: the lease is lost, stop at once."""
        return await self._update_held(
            token,
            "progress = $2, lease_expires = clock_timestamp() + $3",
            progress_json(progress),
            timedelta(seconds=lease_s),
        )

    async def release(self, token: UUID) -> bool:
        """Gives a job back unfinished, without counting the attempt. False: the lease was lost."""
        return await self._update_held(
            token,
            "state = 'QUEUED', lease_token = NULL, lease_expires = NULL, progress = '{}',"
            " attempt = attempt - 1",
        )

    async def fail(self, token: UUID, failure: Failure, retry_delay_s: float | None) -> bool:
        """Ends an attempt: RETRYING after ``retry_delay_s``, or FAILED for good when it is None
        or the attempts are used up. False: the lease was lost, nothing changed."""
        delay = None if retry_delay_s is None else timedelta(seconds=retry_delay_s)
        again = "$3::interval IS NOT NULL AND attempt < max_attempts"
        return await self._update_held(
            token,
            f"failure = $2, lease_token = NULL, lease_expires = NULL,"
            f" state = CASE WHEN {again} THEN 'RETRYING' ELSE 'FAILED' END,"
            f" next_attempt_time = CASE WHEN {again} THEN clock_timestamp() + $3 END,"
            f" finish_time = CASE WHEN {again} THEN NULL ELSE clock_timestamp() END",
            dataclasses.asdict(failure),
            delay,
        )

    async def complete(
        self, token: UUID, video: NewVideo, segments: Sequence[Segment]
    ) -> IngestResult:
        """Stores the recording and ends the job as SUCCEEDED, in one transaction.

        See `store_recording` for what happens when the recording is there already. Raises
        LeaseLost with nothing stored; PlatformError EXTERNAL_ID_TAKEN.
        """
        async with transaction(self._pool) as held:
            job_id = await _locked(held, token)
            result = await store_recording(held, video, segments)
            await _succeed(held, job_id, result, video.duration_s)
        return result

    async def complete_existing(
        self, token: UUID, video_id: UUID, *, source_key: str = ""
    ) -> IngestResult:
        """Ends the job as SUCCEEDED with a video that is there already, and remembers that
        this source leads to it. Raises LeaseLost also when the video was deleted meanwhile:
        the job then goes on as if its worker had vanished."""
        async with transaction(self._pool) as held:
            job_id = await _locked(held, token)
            await held.execute("SELECT 1 FROM catalogue FOR UPDATE")  # see store_recording
            duration_s = await held.fetchval(
                "SELECT duration_s FROM videos WHERE id = $1 FOR UPDATE", video_id
            )
            if duration_s is None:
                raise LeaseLost
            if source_key:
                await held.execute(
                    "UPDATE videos SET source_key = $2 WHERE id = $1 AND source_key IS NULL"
                    " AND NOT EXISTS (SELECT 1 FROM videos WHERE source_key = $2)",
                    video_id,
                    source_key,
                )
            result = IngestResult(video_id, already_indexed=True)
            await _succeed(held, job_id, result, duration_s)
        return result

    async def overdue(self, limit: int) -> list[UUID]:
        """Jobs that a worker should be woken for: queued for a while, due for a retry, or
        with an expired lease; the oldest first."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                "SELECT id FROM processing_jobs"  # noqa: S608
                f" WHERE state IN ('QUEUED', 'RUNNING', 'RETRYING') AND {_CLAIMABLE}"
                " AND (state <> 'QUEUED' OR update_time < clock_timestamp() - $2::interval)"
                " ORDER BY update_time LIMIT $1",
                limit,
                timedelta(seconds=QUEUED_OVERDUE_S),
            )
        return [row["id"] for row in rows]

    async def unfinished_uploads(self) -> set[str]:
        """SHA-256 of the uploaded bytes that a job still needs."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                "SELECT parameters ->> 'content_sha256' AS digest FROM processing_jobs"
                " WHERE state IN ('QUEUED', 'RUNNING', 'RETRYING')"
            )
        return {row["digest"] for row in rows if row["digest"]}

    async def list(
        self,
        page_size: int,
        page_token: str,
        states: Sequence[JobState] = (),
        failure_reason: str = "",
    ) -> Page[Job]:
        """Newest first; only those in one of ``states``, with this failure, when given."""
        names = sorted({state.value for state in states})
        scope = f"jobs\0{','.join(names)}\0{failure_reason}"
        after = decode_token(page_token, scope)
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"""SELECT {JOB_COLUMNS} FROM processing_jobs
                WHERE (create_time, id) < ($1, $2)
                    AND ($3::text[] = '{{}}' OR state = ANY($3))
                    AND ($4 = '' OR failure ->> 'reason' = $4)
                ORDER BY create_time DESC, id DESC LIMIT $5""",  # noqa: S608
                after.create_time,
                after.id,
                names,
                failure_reason,
                limit_of(page_size) + 1,
            )
        return make_page(rows, page_size, scope, to_job)

    async def _update_held(self, token: UUID, changes: str, *values: object) -> bool:
        async with connection(self._pool) as held:
            found = await held.fetchval(
                f"UPDATE processing_jobs SET {changes}, update_time = clock_timestamp()"  # noqa: S608
                " WHERE state = 'RUNNING' AND lease_token = $1 RETURNING id",
                token,
                *values,
            )
        return found is not None


async def _stale(held: Connection, job: Job, params_digest: str) -> bool:
    """Whether a submitted job's outcome is not what the caller wants, so it has to run again."""
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        return True
    if job.result is None:
        return False
    digest = await held.fetchval(
        "SELECT params_digest FROM videos WHERE id = $1", job.result.video_id
    )
    return bool(digest != params_digest)


async def _locked(held: Connection, token: UUID) -> UUID:
    job_id: UUID | None = await held.fetchval(
        "SELECT id FROM processing_jobs WHERE state = 'RUNNING' AND lease_token = $1 FOR UPDATE",
        token,
    )
    if job_id is None:
        raise LeaseLost
    return job_id


async def _succeed(held: Connection, job_id: UUID, result: IngestResult, audio_s: float) -> None:
    progress = dataclasses.replace(_DONE, audio_done_s=audio_s, audio_total_s=audio_s)
    await held.execute(
        "UPDATE processing_jobs SET state = 'SUCCEEDED', result = $2, progress = $3,"
        " failure = NULL, lease_token = NULL, lease_expires = NULL,"
        " finish_time = clock_timestamp(), update_time = clock_timestamp() WHERE id = $1",
        job_id,
        result_json(result),
        progress_json(progress),
    )


def _present(row: asyncpg.Record | None) -> Job:
    if row is None:
        raise RuntimeError("an UPDATE of a locked row gave no row")
    return to_job(row)
