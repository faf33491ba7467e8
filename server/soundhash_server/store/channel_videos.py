"""What channels' sources list: rows in the source's order, and how far a listing has come."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from soundhash_server.model import BatchProgress, ChannelVideo, JobState, ListedVideo, Page
from soundhash_server.store.channels import IS_INDEXED
from soundhash_server.store.pages import decode_token, limit_of, make_page
from soundhash_server.store.pool import Pool, connection, transaction

_RUN_STRIDE = 1_000_000
"""Room for the videos of one listing, before those of the earlier ones."""


@dataclass(frozen=True, slots=True)
class ListCursor:
    """Where a listing goes on.

    page: the source's own mark of the next page; empty for the first. full: whether it has to
    go on to the end, because an earlier one did not. base, offset: the next video's position is
    their sum. quota_units: spent on it so far.
    """

    page: str = ""
    full: bool = False
    base: int = 0
    offset: int = 0
    quota_units: int = 0


@dataclass(frozen=True, slots=True)
class StoredPage:
    """new: videos that were not listed before, or can be fetched only now. known: others."""

    new: int
    known: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A listed video that no job was made for."""

    service: str
    media_id: str
    url: str
    title: str
    position: int


# Listed, can be fetched, and nobody does or did: $1 channel, $2 since, $3 parameters.
_IS_PENDING = """cv.channel_id = $1 AND cv.skip_reason = ''
    AND (cv.job_id IS NULL OR j.state = 'CANCELLED')
    AND ($2::timestamptz IS NULL OR cv.publish_time >= $2)
    AND NOT EXISTS (
        SELECT FROM videos AS v WHERE v.service = cv.service AND v.media_id = cv.media_id
            AND v.media_id <> '' AND v.params_digest = $3
    )"""
# A job j that its parent p has started since it was last queued itself.
_OF_THIS_RUN = "(j.finish_time IS NULL OR j.finish_time >= p.queue_time)"
_FROM = "FROM channel_videos AS cv LEFT JOIN processing_jobs AS j ON j.id = cv.job_id"


class ChannelVideos:
    """The listed videos. Every method raises PlatformError DATABASE_UNAVAILABLE when the
    database is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def begin(self, channel_id: UUID) -> ListCursor | None:
        """Where the listing of a channel goes on, or its start. None when there is no channel."""
        async with transaction(self._pool) as held:
            row = await held.fetchrow(
                "SELECT list_cursor, list_time FROM channels WHERE id = $1 FOR UPDATE", channel_id
            )
            if row is None:
                return None
            cursor = ListCursor(**(row["list_cursor"] or {}))
            if cursor.page:
                return cursor
            least = await held.fetchval(
                "SELECT min(position) FROM channel_videos WHERE channel_id = $1", channel_id
            )
            return ListCursor(
                full=cursor.full or row["list_time"] is None,
                base=0 if least is None else least - _RUN_STRIDE,
            )

    async def store_page(
        self, channel_id: UUID, videos: Sequence[ListedVideo], after: ListCursor
    ) -> StoredPage:
        """Stores a page and where the listing goes on, in one transaction.

        after: the cursor behind this page.
        """
        first = after.base + after.offset - len(videos)
        rows = {
            (video.service, video.media_id): (position, video)
            for position, video in enumerate(videos, first)
        }
        async with transaction(self._pool) as held:
            before = {
                (row["service"], row["media_id"]): row["skip_reason"]
                for row in await held.fetch(
                    """SELECT service, media_id, skip_reason FROM channel_videos
                    WHERE channel_id = $1 AND (service, media_id) IN (
                        SELECT * FROM unnest($2::text[], $3::text[])
                    )""",
                    channel_id,
                    [service for service, _ in rows],
                    [media_id for _, media_id in rows],
                )
            }
            await held.executemany(
                """INSERT INTO channel_videos AS cv (channel_id, service, media_id, url, title,
                    description, thumbnail_url, publish_time, duration_s, position, skip_reason)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                ON CONFLICT (channel_id, service, media_id) DO UPDATE SET
                    title = excluded.title, skip_reason = excluded.skip_reason,
                    publish_time = coalesce(excluded.publish_time, cv.publish_time),
                    duration_s = coalesce(excluded.duration_s, cv.duration_s)""",
                [
                    (
                        channel_id,
                        video.service,
                        video.media_id,
                        video.url,
                        video.title,
                        video.description,
                        video.thumbnail_url,
                        video.publish_time,
                        video.duration_s,
                        position,
                        video.skip_reason,
                    )
                    for position, video in rows.values()
                ],
            )
            await held.execute(
                "UPDATE channels SET list_cursor = $2 WHERE id = $1",
                channel_id,
                dataclasses.asdict(after),
            )
        known = sum(
            before.get(key) is not None and not (before[key] and not video.skip_reason)
            for key, (_, video) in rows.items()
        )
        return StoredPage(len(rows) - known, known)

    async def finish(self, channel_id: UUID, *, to_the_end: bool) -> None:
        """A listing is over. ``to_the_end``: everything is listed now; else the next one must
        not stop where it meets what is known."""
        async with connection(self._pool) as held:
            if to_the_end:
                await held.execute(
                    "UPDATE channels SET list_cursor = NULL, list_time = clock_timestamp()"
                    " WHERE id = $1",
                    channel_id,
                )
            else:
                await held.execute(
                    "UPDATE channels SET list_cursor = $2 WHERE id = $1",
                    channel_id,
                    dataclasses.asdict(ListCursor(full=True)),
                )

    async def unready(
        self, channel_id: UUID, skip_reason: str, limit: int
    ) -> Sequence[ListedVideo]:
        """Videos that were left out for a reason that may pass, the newest first."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                """SELECT service, media_id, url, title, description, thumbnail_url, publish_time,
                    duration_s, skip_reason FROM channel_videos
                WHERE channel_id = $1 AND skip_reason = $2 ORDER BY position LIMIT $3""",
                channel_id,
                skip_reason,
                limit,
            )
        return [ListedVideo(**dict(row)) for row in rows]

    async def now_ready(self, channel_id: UUID, videos: Sequence[ListedVideo]) -> None:
        """Stores anew what is known of videos that were left out."""
        async with connection(self._pool) as held:
            await held.executemany(
                "UPDATE channel_videos SET skip_reason = $4, duration_s = $5"
                " WHERE channel_id = $1 AND service = $2 AND media_id = $3",
                [
                    (channel_id, one.service, one.media_id, one.skip_reason, one.duration_s)
                    for one in videos
                ],
            )

    async def pending(
        self,
        channel_id: UUID,
        params_digest: str,
        *,
        since: datetime | None = None,
        after: int | None = None,
        limit: int,
    ) -> tuple[Pending, ...]:
        """Listed videos that no job was made for and that are not in the catalogue with these
        parameters, in the source's order.

        since: only those that are known to be published at or after it. after: only behind this
        position.
        """
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"""SELECT cv.service, cv.media_id, cv.url, cv.title, cv.position {_FROM}
                WHERE {_IS_PENDING} AND ($4::bigint IS NULL OR cv.position > $4)
                ORDER BY cv.position, cv.service, cv.media_id LIMIT $5""",
                channel_id,
                since,
                params_digest,
                after,
                limit,
            )
        return tuple(Pending(**dict(row)) for row in rows)

    async def count_pending(
        self, channel_id: UUID, params_digest: str, since: datetime | None
    ) -> int:
        """How many `pending` would give."""
        async with connection(self._pool) as held:
            count: int = await held.fetchval(
                f"SELECT count(*) {_FROM} WHERE {_IS_PENDING}",
                channel_id,
                since,
                params_digest,
            )
        return count

    async def submitted(self, channel_id: UUID, jobs: Sequence[tuple[Pending, UUID]]) -> None:
        """Remembers the jobs of videos."""
        async with connection(self._pool) as held:
            await held.executemany(
                "UPDATE channel_videos SET job_id = $4"
                " WHERE channel_id = $1 AND service = $2 AND media_id = $3",
                [(channel_id, video.service, video.media_id, job_id) for video, job_id in jobs],
            )

    async def count_submitted(self, batch_job_id: UUID) -> int:
        """How many jobs this run of a CHANNEL job has made, or taken over."""
        async with connection(self._pool) as held:
            count: int = await held.fetchval(
                "SELECT count(*) FROM processing_jobs AS j"  # noqa: S608
                " JOIN processing_jobs AS p ON p.id = j.parent_id"
                f" WHERE p.id = $1 AND {_OF_THIS_RUN}",
                batch_job_id,
            )
        return count

    async def counts(self, channel_id: UUID, batch_job_id: UUID) -> BatchProgress:
        """Of all that is listed: how many there are, are known without this job, and can never
        be fetched."""
        async with connection(self._pool) as held:
            row = await held.fetchrow(
                f"""SELECT count(*) AS listed,
                    count(*) FILTER (WHERE {IS_INDEXED} AND p.id IS NULL) AS known,
                    count(*) FILTER (WHERE cv.skip_reason <> '') AS skipped
                {_FROM} LEFT JOIN processing_jobs AS p
                    ON p.id = $2 AND p.id = j.parent_id AND {_OF_THIS_RUN}
                WHERE cv.channel_id = $1""",
                channel_id,
                batch_job_id,
            )
        return BatchProgress(**dict(row or {}))

    async def list(self, channel_id: UUID, page_size: int, page_token: str) -> Page[ChannelVideo]:
        """In the source's order, the newest first."""
        scope = f"channel videos\0{channel_id}"
        after = decode_token(page_token, scope)
        async with connection(self._pool) as held:
            # The position stands in for a time, which page tokens hold.
            rows = await held.fetch(
                f"""SELECT * FROM (
                    SELECT timestamptz 'epoch' - cv.position * interval '1 microsecond'
                            AS create_time,
                        md5(cv.service || ' ' || cv.media_id)::uuid AS id,
                        cv.media_id, cv.title, cv.url, cv.publish_time, cv.duration_s, cv.job_id,
                        j.state, cv.skip_reason,
                        coalesce(
                            (SELECT v.id FROM videos AS v
                                WHERE v.id = (j.result ->> 'video_id')::uuid),
                            (SELECT v.id FROM videos AS v
                                WHERE v.service = cv.service AND v.media_id = cv.media_id
                                    AND v.media_id <> '')
                        ) AS video_id
                    {_FROM} WHERE cv.channel_id = $1
                ) AS found WHERE (create_time, id) < ($2, $3)
                ORDER BY create_time DESC, id DESC LIMIT $4""",  # noqa: S608
                channel_id,
                after.create_time,
                after.id,
                limit_of(page_size) + 1,
            )
        return make_page(rows, page_size, scope, _to_video)


def _to_video(row: asyncpg.Record) -> ChannelVideo:
    values: dict[str, Any] = {name: row[name] for name in ChannelVideo.__dataclass_fields__}
    state = values["state"]
    return ChannelVideo(**{**values, "state": None if state is None else JobState(state)})
