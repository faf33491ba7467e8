"""Jobs: rows that move by compare-and-set, so that any process may die at any moment.

    QUEUED --claim--> RUNNING --complete--> SUCCEEDED
                        |  ^ --fail, postpone--> RETRYING --claim, when due--> RUNNING
                        |  |                     or FAILED
                        |  +-- claim takes over when the lease has expired
                        +--release--> QUEUED
                        +--finish_listing--> WAITING --its last job ends--> SUCCEEDED
    unfinished --cancel--> CANCELLED;  FAILED, CANCELLED --retry, submit--> QUEUED

A claim gives a lease with a fresh token. Every write of the worker names the token, so one
that lost its lease changes nothing. All times are the database's.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from soundhash_engine.types import Segment
from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.model import (
    BatchProgress,
    BatchResult,
    DuplicatesResult,
    Failure,
    IngestResult,
    Job,
    JobKind,
    JobParameters,
    JobProgress,
    JobResult,
    JobState,
    JobStep,
    Lease,
    NewJob,
    NewVideo,
    Page,
)
from soundhash_server.store.batches import UNFINISHED, finish_listing, settle, with_live_counts
from soundhash_server.store.job_cancelling import StartedMoreError, cancel
from soundhash_server.store.job_rows import (
    JOB_COLUMNS,
    progress_json,
    result_json,
    to_job,
)
from soundhash_server.store.job_submission import AFRESH, again, insert
from soundhash_server.store.pages import decode_token, limit_of, make_page
from soundhash_server.store.pool import Connection, Pool, connection, transaction
from soundhash_server.store.recordings import name_source, store_recording
from soundhash_server.store.turns import Bounds, Slot, claim_turn

WORKER_LOST = Failure(
    reason="WORKER_LOST",
    message="Every worker that took this job vanished before it was done.",
    remedy="Look at the workers' logs (out of memory?), then retry the job.",
    transient=True,
)

_DONE = JobProgress(step=JobStep.DONE, fraction=1.0)
_LOST = """state = 'FAILED', failure = $1, lease_token = NULL, lease_expires = NULL,
    finish_time = clock_timestamp(), update_time = clock_timestamp()"""
_CANCEL_TRIES = 20
_SUBMIT_TRIES = 20
_CLAIMABLE = """(state = 'QUEUED'
    OR (state = 'RETRYING' AND next_attempt_time <= clock_timestamp())
    OR (state = 'RUNNING' AND lease_expires < clock_timestamp()))"""


class LeaseLost(Exception):  # noqa: N818 - a condition, not a mistake
    """The job was cancelled, finished or given to another worker; nothing was changed."""


class _DeletedBeside(Exception):  # noqa: N818 - a condition, not a mistake
    """A clip was deleted, and its job with it, while it was submitted again."""


class Jobs:
    """The work to do and how it stands. Every method raises PlatformError
    DATABASE_UNAVAILABLE when the database is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def submit(
        self,
        kind: JobKind,
        dedupe_key: str,
        parameters: JobParameters,
        *,
        request_id: str = "",
        max_attempts: int,
        params_digest: str,
        parent_id: UUID | None = None,
        channel_id: UUID | None = None,
        source_host: str = "",
    ) -> tuple[Job, bool]:
        """The job for this source, and whether a worker has to be woken for it.

        The same ``request_id`` or ``dedupe_key`` gives the same job. It is queued afresh, with
        these parameters, when it failed or was cancelled, when it has listed a channel or a
        folder to the end, or when what it made is gone or has fingerprints of other parameters
        than ``params_digest``; else it stays as it is, but for a parent that it lacks, and for
        other options of fetching, with which one that waits is tried at once.
        """
        item = NewJob(kind, dedupe_key, parameters, parent_id, channel_id, source_host)
        for _ in range(_SUBMIT_TRIES):
            async with transaction(self._pool) as held:
                (made,) = await insert(held, [item], max_attempts, request_id)
                if made is not None:
                    return made, True
                existing = await held.fetchrow(
                    f"SELECT {JOB_COLUMNS} FROM processing_jobs"  # noqa: S608
                    " WHERE dedupe_key = $1 OR request_id = $2"
                    " ORDER BY request_id IS NOT DISTINCT FROM $2 DESC LIMIT 1 FOR UPDATE",
                    dedupe_key,
                    request_id or None,
                )
                if existing is not None:
                    return await again(held, to_job(existing), item, max_attempts, params_digest)
            # A clip was deleted, and its job with it, at this moment.
        raise RuntimeError("a job that is in the way is gone again and again")

    async def submit_many(
        self, items: Sequence[NewJob], *, max_attempts: int, params_digest: str
    ) -> list[Job]:
        """As `submit` for each, in order and in one transaction; the jobs of the items.

        Those in state QUEUED want a worker to be woken. Raises LeaseLost, with nothing
        submitted, when the parent of one has been cancelled or is finished.
        """
        for _ in range(_SUBMIT_TRIES):
            with contextlib.suppress(_DeletedBeside):
                return await self._submit_many(items, max_attempts, params_digest)
        raise RuntimeError("a job that is in the way is gone again and again")

    async def _submit_many(
        self, items: Sequence[NewJob], max_attempts: int, params_digest: str
    ) -> list[Job]:
        async with transaction(self._pool) as held:
            jobs = await insert(held, items, max_attempts)
            keys = [item.dedupe_key for item, job in zip(items, jobs, strict=True) if job is None]
            rows = await held.fetch(
                f"SELECT dedupe_key, {JOB_COLUMNS} FROM processing_jobs"  # noqa: S608
                " WHERE dedupe_key = ANY($1) ORDER BY id FOR UPDATE",
                keys,
            )
            existing = {row["dedupe_key"]: to_job(row) for row in rows}
            made_keys = {item.dedupe_key for item, job in zip(items, jobs, strict=True) if job}
            if not set(keys) <= existing.keys() | made_keys:
                raise _DeletedBeside
            found = []
            for item, made in zip(items, jobs, strict=True):
                job = made or existing[item.dedupe_key]
                if made is None:
                    job, _ = await again(held, job, item, max_attempts, params_digest)
                    existing[item.dedupe_key] = job
                found.append(job)
            # After the jobs, as everywhere. It cannot be cancelled unseen from here to the end.
            parents = list({item.parent_id for item in items if item.parent_id is not None})
            states = await held.fetch(
                "SELECT state FROM processing_jobs WHERE id = ANY($1) ORDER BY id FOR SHARE",
                parents,
            )
            if any(JobState(row["state"]).finished for row in states):
                raise LeaseLost
        return found

    async def get(self, job_id: UUID) -> Job | None:
        async with connection(self._pool) as held:
            row = await held.fetchrow(
                f"SELECT {JOB_COLUMNS} FROM processing_jobs WHERE id = $1",  # noqa: S608
                job_id,
            )
            if row is None:
                return None
            (job,) = await with_live_counts(held, [to_job(row)])
        return job

    async def cancel(self, job_id: UUID) -> Job | None:
        """Cancels a job that is not finished, and with it all that it has started; a finished
        one is returned as it is.

        None when there is no such job.
        """
        for _ in range(_CANCEL_TRIES):
            try:
                async with transaction(self._pool) as held:
                    await cancel(held, job_id)
                break
            except StartedMoreError:
                continue
        return await self.get(job_id)

    async def retry(self, job_id: UUID) -> Job | None:
        """Queues a failed or cancelled job afresh. None when there is no such job.

        Raises PlatformError FAILED_PRECONDITION (JOB_NOT_RETRYABLE) in any other state.
        """
        async with connection(self._pool) as held:
            row = await held.fetchrow(
                f"UPDATE processing_jobs SET {AFRESH} WHERE id = $1"  # noqa: S608
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

    async def take(self, slot: Slot, bounds: Bounds, lease_s: float) -> Lease | None:
        """Takes the job whose turn it is (see `turns`) and counts an attempt; None: nothing is
        to be done now."""
        async with connection(self._pool) as held:
            return await claim_turn(held, slot, bounds, lease_s)

    async def fail_lost(self) -> int:
        """Ends as WORKER_LOST what has no attempt left and whose worker vanished; how many."""
        async with transaction(self._pool) as held:
            rows = await held.fetch(
                f"UPDATE processing_jobs SET {_LOST} WHERE id IN ("  # noqa: S608
                " SELECT id FROM processing_jobs WHERE state = 'RUNNING'"
                " AND lease_expires < clock_timestamp() AND attempt >= max_attempts"
                """ AND NOT parameters @> '{"watch": true}'"""
                " ORDER BY id FOR UPDATE SKIP LOCKED) RETURNING parent_id",
                dataclasses.asdict(WORKER_LOST),
            )
            for parent_id in sorted({row["parent_id"] for row in rows if row["parent_id"]}):
                await settle(held, parent_id)
        return len(rows)

    async def claim(self, job_id: UUID, lease_s: float) -> Lease | None:
        """Takes a job that is queued, due for a retry, or whose worker's lease has expired.

        Counts an attempt. None when there is nothing to do: another worker has it, it is
        finished, not yet due or unknown; a job whose last attempt's worker vanished becomes
        FAILED with WORKER_LOST.
        """
        async with transaction(self._pool) as held:
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
            parent_id = await held.fetchval(
                f"UPDATE processing_jobs SET {_LOST}"  # noqa: S608
                " WHERE id = $2 AND state = 'RUNNING' AND lease_expires < clock_timestamp()"
                " AND attempt >= max_attempts RETURNING parent_id",
                dataclasses.asdict(WORKER_LOST),
                job_id,
            )
            await settle(held, parent_id)
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
            may_end=True,
        )

    async def postpone(self, token: UUID, failure: Failure, delay_s: float) -> bool:
        """Ends an attempt that could not be made and does not count: RETRYING after ``delay_s``,
        however many there were. False: the lease was lost, nothing changed."""
        return await self._update_held(
            token,
            "failure = $2, lease_token = NULL, lease_expires = NULL, state = 'RETRYING',"
            " attempt = greatest(attempt - 1, 0), next_attempt_time = clock_timestamp() + $3",
            dataclasses.asdict(failure),
            timedelta(seconds=delay_s),
        )

    async def finish_listing(self, token: UUID, batch: BatchProgress, result: BatchResult) -> None:
        """Ends a CHANNEL or FOLDER job's own work: it waits until all jobs that it has started
        have ended in any way, and then has ``result`` with their counts. Raises LeaseLost."""
        async with transaction(self._pool) as held:
            row = await held.fetchrow(
                f"SELECT {JOB_COLUMNS} FROM processing_jobs"  # noqa: S608
                " WHERE state = 'RUNNING' AND lease_token = $1 FOR NO KEY UPDATE",
                token,
            )
            if row is None:
                raise LeaseLost
            await finish_listing(held, to_job(row), batch, result)

    async def settle_waiting(self) -> int:
        """Ends every job that waits for others that have all ended: one whose last job was
        changed by other hands than these. Returns how many there were."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                "SELECT id FROM processing_jobs AS p WHERE state = 'WAITING' AND NOT EXISTS ("  # noqa: S608
                " SELECT FROM processing_jobs AS c WHERE c.parent_id = p.id"
                f" AND c.state IN {UNFINISHED})"
            )
        settled = 0
        for row in rows:
            async with transaction(self._pool) as held:
                settled += await settle(held, row["id"])
        return settled

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
                await name_source(held, video_id, source_key)
            result = IngestResult(video_id, already_indexed=True)
            await _succeed(held, job_id, result, duration_s)
        return result

    async def complete_comparison(self, token: UUID, videos: int, audio_s: float) -> None:
        """Ends a DUPLICATES job with the counts of what was stored of it. Raises LeaseLost."""
        async with transaction(self._pool) as held:
            job_id = await _locked(held, token)
            rows = await held.fetch(
                "SELECT kind, count(*) AS n FROM duplicate_pairs WHERE job_id = $1 GROUP BY kind",
                job_id,
            )
            counts = {row["kind"].lower(): row["n"] for row in rows}
            await _succeed(held, job_id, DuplicatesResult(videos, audio_s, **counts), audio_s)

    async def latest(self, kind: JobKind) -> Job | None:
        """The job of a kind that was submitted last, also again."""
        async with connection(self._pool) as held:
            row = await held.fetchrow(
                # The kind as it stands in the index.
                f"SELECT {JOB_COLUMNS} FROM processing_jobs WHERE kind = '{kind.value}'"  # noqa: S608
                " ORDER BY queue_time DESC, id DESC LIMIT 1",
            )
        return None if row is None else to_job(row)

    async def unfinished_uploads(self) -> set[str]:
        """SHA-256 of the uploaded bytes that a job still needs."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                "SELECT parameters ->> 'content_sha256' AS digest FROM processing_jobs"
                " WHERE state IN ('QUEUED', 'RUNNING', 'RETRYING') AND kind = 'INGEST'"
            )
        return {row["digest"] for row in rows if row["digest"]}

    async def list(
        self,
        page_size: int,
        page_token: str,
        states: Sequence[JobState] = (),
        failure_reason: str = "",
        *,
        parent_id: UUID | None = None,
        kinds: Sequence[JobKind] = (),
    ) -> Page[Job]:
        """Newest first; only those in one of ``states``, with this failure, that this job has
        started, of one of ``kinds``, when given."""
        names = sorted({state.value for state in states})
        kind_names = sorted({kind.value for kind in kinds})
        scope = f"jobs\0{','.join(names)}\0{failure_reason}"
        if parent_id is not None or kind_names:
            scope += f"\0{parent_id}\0{','.join(kind_names)}"
        after = decode_token(page_token, scope)
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"""SELECT {JOB_COLUMNS} FROM processing_jobs
                WHERE (create_time, id) < ($1, $2)
                    AND ($3::text[] = '{{}}' OR state = ANY($3))
                    AND ($4 = '' OR failure ->> 'reason' = $4)
                    AND ($6::uuid IS NULL OR parent_id = $6)
                    AND ($7::text[] = '{{}}' OR kind = ANY($7))
                ORDER BY create_time DESC, id DESC LIMIT $5""",  # noqa: S608
                after.create_time,
                after.id,
                names,
                failure_reason,
                limit_of(page_size) + 1,
                parent_id,
                kind_names,
            )
            page = make_page(rows, page_size, scope, to_job)
            return dataclasses.replace(page, items=tuple(await with_live_counts(held, page.items)))

    async def _update_held(
        self, token: UUID, changes: str, *values: object, may_end: bool = False
    ) -> bool:
        async with (transaction if may_end else connection)(self._pool) as held:
            row = await held.fetchrow(
                f"UPDATE processing_jobs SET {changes}, update_time = clock_timestamp()"  # noqa: S608
                " WHERE state = 'RUNNING' AND lease_token = $1 RETURNING state, parent_id",
                token,
                *values,
            )
            if may_end and row is not None and JobState(row["state"]).finished:
                await settle(held, row["parent_id"])
        return row is not None


async def _locked(held: Connection, token: UUID) -> UUID:
    job_id: UUID | None = await held.fetchval(
        "SELECT id FROM processing_jobs WHERE state = 'RUNNING' AND lease_token = $1 FOR UPDATE",
        token,
    )
    if job_id is None:
        raise LeaseLost
    return job_id


async def _succeed(held: Connection, job_id: UUID, result: JobResult, audio_s: float) -> None:
    progress = dataclasses.replace(_DONE, audio_done_s=audio_s, audio_total_s=audio_s)
    parent_id = await held.fetchval(
        "UPDATE processing_jobs SET state = 'SUCCEEDED', result = $2, progress = $3,"
        " failure = NULL, lease_token = NULL, lease_expires = NULL,"
        " finish_time = clock_timestamp(), update_time = clock_timestamp() WHERE id = $1"
        " RETURNING parent_id",
        job_id,
        result_json(result),
        progress_json(progress),
    )
    await settle(held, parent_id)
