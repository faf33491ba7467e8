"""Jobs that start jobs: what theirs have come to, and when the last of them has ended.

Lock order everywhere: a job before its parent. Whoever ends a job then locks the parent, so of
two jobs that end at once the second one sees the first, and the parent cannot be left waiting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from soundhash_server.model import (
    BatchItem,
    BatchProgress,
    BatchResult,
    ChannelParameters,
    FolderParameters,
    Job,
    JobKind,
    JobProgress,
    JobState,
    JobStep,
)
from soundhash_server.store.job_rows import (
    JOB_COLUMNS,
    batch_json,
    progress_json,
    result_json,
    to_job,
    to_result,
    to_step,
)
from soundhash_server.store.pool import Connection

UNFINISHED = "('QUEUED', 'RUNNING', 'RETRYING', 'WAITING')"
MAX_RUNNING_ITEMS = 20
RATE_WINDOW = timedelta(minutes=5)
"""The rate is that of the last minutes: it tells when the rest will be done."""

_COUNTS = """SELECT c.parent_id, c.state, count(*) AS n,
    count(*) FILTER (WHERE c.finish_time > clock_timestamp() - $2::interval) AS lately,
    min(c.start_time) AS begin, clock_timestamp() AS now
FROM processing_jobs AS c JOIN processing_jobs AS p ON p.id = c.parent_id
WHERE c.parent_id = ANY($1) AND (c.finish_time IS NULL OR c.finish_time >= p.queue_time)
GROUP BY c.parent_id, c.state"""
_RUNNING = """SELECT parent_id, id, parameters, progress FROM (
    SELECT *, row_number() OVER (PARTITION BY parent_id ORDER BY start_time, id) AS n
    FROM processing_jobs WHERE parent_id = ANY($1) AND state = 'RUNNING'
) AS running WHERE n <= $2 ORDER BY n"""


async def with_live_counts(held: Connection, jobs: Sequence[Job]) -> list[Job]:
    """The same jobs; those of batches that have not succeeded with the counts of this moment."""
    ids = [
        job.id
        for job in jobs
        if job.kind in (JobKind.CHANNEL, JobKind.FOLDER) and job.state is not JobState.SUCCEEDED
    ]
    if not ids:
        return list(jobs)
    counts = await held.fetch(_COUNTS, ids, RATE_WINDOW)
    running = await held.fetch(_RUNNING, ids, MAX_RUNNING_ITEMS)
    return [
        _with_batch(job, [row for row in counts if row["parent_id"] == job.id], running)
        if job.id in ids
        else job
        for job in jobs
    ]


async def settle(held: Connection, parent_id: UUID | None) -> bool:
    """Ends a job that waits for the jobs that it has started, if all of them have ended.

    To be called in the transaction that ends one of them, after that.
    """
    if parent_id is None:
        return False
    row = await held.fetchrow(
        # Without a look at the state: one that is just being changed has to be waited for.
        f"SELECT {JOB_COLUMNS}, result AS waiting_result FROM processing_jobs"  # noqa: S608
        " WHERE id = $1 FOR NO KEY UPDATE",
        parent_id,
    )
    if row is None or row["state"] != JobState.WAITING.value:
        return False
    if await held.fetchval(
        f"SELECT EXISTS (SELECT FROM processing_jobs WHERE parent_id = $1"  # noqa: S608
        f" AND state IN {UNFINISHED})",
        parent_id,
    ):
        return False
    result = to_result(row["waiting_result"])
    if not isinstance(result, BatchResult):
        raise TypeError(f"job {parent_id} waits with the result of a single video")
    await _succeed(held, to_job(row), result)
    return True


async def finish_listing(
    held: Connection, job: Job, batch: BatchProgress, result: BatchResult
) -> None:
    """Makes a job wait for those that it has started, or ends it when there are none; it is
    locked already."""
    progress = JobProgress(JobStep.LIST, 1.0, batch=batch)
    await held.execute(
        "UPDATE processing_jobs SET state = 'WAITING', result = $2, progress = $3, failure = NULL,"
        " lease_token = NULL, lease_expires = NULL, update_time = clock_timestamp() WHERE id = $1",
        job.id,
        result_json(result),
        progress_json(progress),
    )
    await settle(held, job.id)


async def _succeed(held: Connection, job: Job, result: BatchResult) -> None:
    (counted,) = await with_live_counts(held, [job])
    batch = counted.progress.batch or BatchProgress()
    # Nothing is left to wait for.
    batch = dataclasses.replace(batch, eta_s=None, running_items=())
    if not _dry_run(job):
        result = dataclasses.replace(result, counts=batch)
    await held.execute(
        "UPDATE processing_jobs SET state = 'SUCCEEDED', result = $2, progress = $3,"
        " finish_time = clock_timestamp(), update_time = clock_timestamp() WHERE id = $1",
        job.id,
        result_json(result),
        {"step": JobStep.DONE.value, "fraction": 1.0, "batch": batch_json(batch)},
    )


def _dry_run(job: Job) -> bool:
    match job.parameters:
        case ChannelParameters() | FolderParameters():
            return job.parameters.dry_run
    return False


def _with_batch(job: Job, counts: Sequence[Any], running: Sequence[Any]) -> Job:
    number = {JobState(row["state"]): row["n"] for row in counts}
    queued, retrying = number.get(JobState.QUEUED, 0), number.get(JobState.RETRYING, 0)
    at_work = number.get(JobState.RUNNING, 0)
    rate = _per_minute(counts)
    batch = dataclasses.replace(
        job.progress.batch or BatchProgress(),
        queued=queued,
        running=at_work,
        retrying=retrying,
        indexed=number.get(JobState.SUCCEEDED, 0),
        failed=number.get(JobState.FAILED, 0) + number.get(JobState.CANCELLED, 0),
        videos_per_minute=rate,
        eta_s=60.0 * (queued + at_work + retrying) / rate if rate else None,
        running_items=tuple(_item(row) for row in running if row["parent_id"] == job.id),
    )
    return dataclasses.replace(job, progress=dataclasses.replace(job.progress, batch=batch))


def _per_minute(counts: Sequence[Any]) -> float:
    lately = sum(row["lately"] for row in counts)
    begins: list[datetime] = [row["begin"] for row in counts if row["begin"] is not None]
    if not lately or not begins:
        return 0.0
    now = counts[0]["now"]
    # A minute's worth of finished videos needs some time to be one.
    span_s = max(1.0, (now - max(min(begins), now - RATE_WINDOW)).total_seconds())
    return float(60.0 * lately / span_s)


def _item(row: Any) -> BatchItem:
    asked, done = row["parameters"], row["progress"]
    path = asked.get("path", "")
    title = (
        asked.get("title")
        or asked.get("file_name")
        or path.rsplit("/", 1)[-1]
        or asked.get("search")
        or asked.get("url", "")
    )
    return BatchItem(row["id"], title, to_step(done.get("step")), done.get("fraction", 0.0))
