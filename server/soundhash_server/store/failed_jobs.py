"""What failed and why, and having it tried again in bulk."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from soundhash_server.model import FailureGroup
from soundhash_server.store.job_submission import AFRESH
from soundhash_server.store.pool import Pool, connection

_AT_ONCE = 1000

_GROUPS = """WITH groups AS (
    SELECT failure ->> 'reason' AS reason,
        count(*) FILTER (WHERE state = 'FAILED') AS failed,
        count(*) FILTER (WHERE state <> 'FAILED') AS retrying,
        max(coalesce(finish_time, update_time)) AS latest_time,
        (array_agg(id ORDER BY coalesce(finish_time, update_time) DESC, id))[1] AS latest
    FROM processing_jobs
    WHERE failure IS NOT NULL AND state IN ('FAILED', 'RETRYING', 'QUEUED')
        AND ($1::uuid IS NULL OR channel_id = $1)
    GROUP BY 1
)
SELECT g.reason, j.failure ->> 'remedy' AS remedy, g.failed, g.retrying,
    j.failure ->> 'message' AS example, g.latest AS example_job_id, g.latest_time
FROM groups AS g JOIN processing_jobs AS j ON j.id = g.latest
ORDER BY g.failed + g.retrying DESC, g.reason"""
_CHOSEN = """state = 'FAILED' AND ($1 = '' OR failure ->> 'reason' = $1)
    AND ($2::uuid IS NULL OR channel_id = $2)"""


@dataclass(frozen=True, slots=True)
class FailedUpload:
    job_id: UUID
    content_sha256: str


class FailedJobs:
    """Raises PlatformError DATABASE_UNAVAILABLE when the database is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def groups(self, channel_id: UUID | None = None) -> list[FailureGroup]:
        """Jobs that failed or wait to be tried again, by reason, the most frequent first; only
        those of a channel when given."""
        async with connection(self._pool) as held:
            rows = await held.fetch(_GROUPS, channel_id)
        return [FailureGroup(**row) for row in rows]

    async def uploads(self, reason: str, channel_id: UUID | None) -> list[FailedUpload]:
        """Failed jobs that need bytes which were uploaded; reason: empty for all."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                "SELECT id AS job_id, parameters ->> 'content_sha256' AS content_sha256"  # noqa: S608
                f" FROM processing_jobs WHERE {_CHOSEN} AND kind = 'INGEST'"
                " AND parameters ->> 'content_sha256' <> ''"
                " AND coalesce(parameters ->> 'path', '') = ''",
                reason,
                channel_id,
            )
        return [FailedUpload(**row) for row in rows]

    async def retry(
        self, reason: str, channel_id: UUID | None, leave: Collection[UUID]
    ) -> list[UUID]:
        """Queues failed jobs afresh, but for those of ``leave``; the ids of those it queued."""
        queued: list[UUID] = []
        async with connection(self._pool) as held:
            # What fails again meanwhile is not tried a second time.
            now: datetime = await held.fetchval("SELECT clock_timestamp()")
        while True:
            async with connection(self._pool) as held:
                rows = await held.fetch(
                    f"UPDATE processing_jobs SET {AFRESH} WHERE id IN ("  # noqa: S608
                    f" SELECT id FROM processing_jobs WHERE {_CHOSEN}"
                    " AND finish_time <= $3 AND id <> ALL($4::uuid[])"
                    " ORDER BY id LIMIT $5 FOR UPDATE) RETURNING id",
                    reason,
                    channel_id,
                    now,
                    list(leave),
                    _AT_ONCE,
                )
            queued += [row["id"] for row in rows]
            if len(rows) < _AT_ONCE:
                return queued
