"""Twitch clips: their jobs by the clips' ids, and the videos that came of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from soundhash_server.model import Job, Page
from soundhash_server.store.batches import settle
from soundhash_server.store.job_rows import JOB_COLUMNS, to_job
from soundhash_server.store.pages import decode_token, limit_of, make_page
from soundhash_server.store.pool import Pool, connection, transaction
from soundhash_server.store.videos import delete_video
from soundhash_server.twitch import SERVICE, clip_id_of_key, clip_key

_SCOPE = "clips"
_PREFIX = f"media:{SERVICE}:"
_SELECT = f"""SELECT j.*, v.id AS video_id, v.title AS video_title, v.duration_s AS video_duration_s
FROM (SELECT dedupe_key, {JOB_COLUMNS} FROM processing_jobs) AS j
LEFT JOIN videos AS v ON j.state = 'SUCCEEDED' AND v.id = (j.result ->> 'video_id')::uuid"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class ClipRow:
    """A clip's job, and the video that it has made or found if that is still there."""

    clip_id: str
    job: Job
    video_id: UUID | None
    title: str
    duration_s: float | None

    @property
    def create_time(self) -> datetime:
        return self.job.create_time


@dataclass(frozen=True, slots=True)
class DeletedClip:
    """What went with a clip; None: there was no video of its own."""

    video_id: UUID | None
    recording_id: int | None


class Clips:
    """Every method raises PlatformError DATABASE_UNAVAILABLE when the database is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, clip_id: str) -> ClipRow | None:
        async with connection(self._pool) as held:
            row = await held.fetchrow(f"{_SELECT} WHERE j.dedupe_key = $1", clip_key(clip_id))
        return None if row is None else _to_clip(row)

    async def list(self, page_size: int, page_token: str) -> Page[ClipRow]:
        """Newest first."""
        after = decode_token(page_token, _SCOPE)
        async with connection(self._pool) as held:
            rows = await held.fetch(
                # As in the index's condition, to the letter.
                f"{_SELECT} WHERE starts_with(j.dedupe_key, '{_PREFIX}')"
                " AND (j.create_time, j.id) < ($1, $2)"
                " ORDER BY j.create_time DESC, j.id DESC LIMIT $3",
                after.create_time,
                after.id,
                limit_of(page_size) + 1,
            )
        return make_page(rows, page_size, _SCOPE, _to_clip)

    async def delete(self, clip_id: str) -> DeletedClip | None:
        """Removes a clip's job and its video, if that is the clip's own: not one that was there
        under another source and has the same bytes. A worker that has the job stops.

        None when there is neither.
        """
        key = clip_key(clip_id)
        async with transaction(self._pool) as held:
            # Locks in the order of all others: the job, the catalogue, the video, the parent.
            job = await held.fetchrow(
                "DELETE FROM processing_jobs WHERE dedupe_key = $1 RETURNING id, parent_id", key
            )
            await held.execute("SELECT 1 FROM catalogue FOR UPDATE")
            video_id: UUID | None = await held.fetchval(
                "SELECT id FROM videos WHERE source_key = $1"
                " OR (service = $2 AND media_id = $3) LIMIT 1",
                key,
                SERVICE,
                clip_id,
            )
            if job is None and video_id is None:
                return None
            recording_id = None if video_id is None else await delete_video(held, video_id)
            if job is not None:
                await settle(held, job["parent_id"])
        return DeletedClip(video_id, recording_id)


def _to_clip(row: asyncpg.Record) -> ClipRow:
    job = to_job(row)
    asked = getattr(job.parameters, "title", "")
    return ClipRow(
        clip_id=clip_id_of_key(row["dedupe_key"]),
        job=job,
        video_id=row["video_id"],
        title=row["video_title"] or asked,
        duration_s=row["video_duration_s"],
    )
