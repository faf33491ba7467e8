"""What becomes of what is submitted: a new job, the one that is there, or that one afresh."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import asyncpg

from soundhash_server.model import (
    FetchOptions,
    IngestParameters,
    IngestResult,
    Job,
    JobParameters,
    JobState,
    NewJob,
)
from soundhash_server.store.job_rows import JOB_COLUMNS, parameters_json, to_job
from soundhash_server.store.pool import Connection

AFRESH = """state = 'QUEUED', attempt = 0, result = NULL, progress = '{}', lease_token = NULL,
    lease_expires = NULL, next_attempt_time = NULL, start_time = NULL, finish_time = NULL,
    queue_time = clock_timestamp(), update_time = clock_timestamp()"""


async def insert(
    held: Connection, items: Sequence[NewJob], max_attempts: int, request_id: str = ""
) -> list[Job | None]:
    """Inserts jobs whose source has none yet; None for the others."""
    # In the order of their keys, so that two who insert the same ones do not wait for each
    # other; created in the order given, for that is the order of their turns.
    rows = await held.fetch(
        "INSERT INTO processing_jobs (kind, dedupe_key, parameters, max_attempts,"  # noqa: S608
        " parent_id, channel_id, source_host, request_id, create_time)"
        " SELECT i.kind, i.key, i.parameters, $8, i.parent_id, i.channel_id, i.host, $7,"
        " statement_timestamp() + i.n * interval '1 microsecond'"
        " FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::uuid[], $5::uuid[], $6::text[])"
        " WITH ORDINALITY AS i (kind, key, parameters, parent_id, channel_id, host, n)"
        " ORDER BY i.key, i.n ON CONFLICT DO NOTHING"
        f" RETURNING dedupe_key, {JOB_COLUMNS}",
        [item.kind.value for item in items],
        [item.dedupe_key for item in items],
        [parameters_json(item.parameters) for item in items],
        [item.parent_id for item in items],
        [item.channel_id for item in items],
        [item.source_host for item in items],
        request_id or None,
        max_attempts,
    )
    made = {row["dedupe_key"]: to_job(row) for row in rows}
    return [made.get(item.dedupe_key) for item in items]


async def again(
    held: Connection, job: Job, item: NewJob, max_attempts: int, params_digest: str
) -> tuple[Job, bool]:
    """What becomes of a job that is locked and was submitted again; see `Jobs.submit`."""
    if await _stale(held, job, params_digest):
        row = await held.fetchrow(
            f"UPDATE processing_jobs SET {AFRESH}, parameters = $2, max_attempts = $3,"  # noqa: S608
            " parent_id = coalesce($4, parent_id), channel_id = coalesce($5, channel_id),"
            " source_host = $6"
            f" WHERE id = $1 RETURNING {JOB_COLUMNS}",
            job.id,
            parameters_json(item.parameters),
            max_attempts,
            item.parent_id,
            item.channel_id,
            item.source_host,
        )
        return present(row), True
    if (changed := _with_other_options(job, item.parameters)) is not None:
        row = await held.fetchrow(
            "UPDATE processing_jobs SET state = 'QUEUED', next_attempt_time = NULL,"  # noqa: S608
            " parameters = $2, queue_time = clock_timestamp(), update_time = clock_timestamp()"
            f" WHERE id = $1 RETURNING {JOB_COLUMNS}",
            job.id,
            parameters_json(changed),
        )
        job = present(row)
    lacks_parent = job.parent_id is None and item.parent_id not in (None, job.id)
    if lacks_parent and not job.state.finished:
        row = await held.fetchrow(
            "UPDATE processing_jobs SET parent_id = $2, channel_id = coalesce(channel_id, $3)"  # noqa: S608
            f" WHERE id = $1 RETURNING {JOB_COLUMNS}",
            job.id,
            item.parent_id,
            item.channel_id,
        )
        job = present(row)
    return job, job.state is JobState.QUEUED


def _with_other_options(job: Job, wanted: JobParameters) -> IngestParameters | None:
    """What a job has to do that waits, without the options of fetching that it is now wanted
    with (cookies, say, that it failed without); None when nothing is to change."""
    if (
        job.state in (JobState.QUEUED, JobState.RETRYING)
        and isinstance(job.parameters, IngestParameters)
        and isinstance(wanted, IngestParameters)
        and wanted.options not in (FetchOptions(), job.parameters.options)
    ):
        return dataclasses.replace(job.parameters, options=wanted.options)
    return None


async def _stale(held: Connection, job: Job, params_digest: str) -> bool:
    """Whether a submitted job's outcome is not what the caller wants, so it has to run again."""
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        return True
    if not isinstance(job.result, IngestResult):
        # A channel or a folder is looked through again whenever that is asked for.
        return job.state.finished
    digest = await held.fetchval(
        "SELECT params_digest FROM videos WHERE id = $1", job.result.video_id
    )
    return bool(digest != params_digest)


def present(row: asyncpg.Record | None) -> Job:
    if row is None:
        raise RuntimeError("an UPDATE of a locked row gave no row")
    return to_job(row)
