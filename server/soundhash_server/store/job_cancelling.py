"""Cancelling a job and those that it has started."""

from __future__ import annotations

from uuid import UUID

from soundhash_server.model import JobState
from soundhash_server.store.batches import UNFINISHED, settle
from soundhash_server.store.pool import Connection

_CANCELLED = """state = 'CANCELLED', lease_token = NULL, lease_expires = NULL, result = NULL,
    next_attempt_time = NULL, finish_time = clock_timestamp(), update_time = clock_timestamp()"""


class StartedMoreError(Exception):
    """While a job was being cancelled it has started others."""


async def cancel(held: Connection, job_id: UUID) -> None:
    """Cancels an unfinished job and its own; raises StartedMoreError when some came meanwhile."""
    state = await held.fetchval("SELECT state FROM processing_jobs WHERE id = $1", job_id)
    if state is None or JobState(state).finished:
        return
    # Its own first: whoever ends one of them locks this job after it.
    await held.execute(
        f"WITH own AS (SELECT id FROM processing_jobs WHERE parent_id = $1"  # noqa: S608
        f" AND state IN {UNFINISHED} ORDER BY id FOR UPDATE)"
        f" UPDATE processing_jobs SET {_CANCELLED} WHERE id IN (SELECT id FROM own)",
        job_id,
    )
    row = await held.fetchrow(
        f"UPDATE processing_jobs SET {_CANCELLED}"  # noqa: S608
        f" WHERE id = $1 AND state IN {UNFINISHED} RETURNING parent_id",
        job_id,
    )
    if row is None or await held.fetchval(
        f"SELECT EXISTS (SELECT FROM processing_jobs WHERE parent_id = $1"  # noqa: S608
        f" AND state IN {UNFINISHED})",
        job_id,
    ):
        raise StartedMoreError
    await settle(held, row["parent_id"])
