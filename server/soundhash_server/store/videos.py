"""Videos: what is indexed, by every name it goes under."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.model import Page, Video
from soundhash_server.sources import split_media_key
from soundhash_server.store.pages import decode_token, limit_of, make_page
from soundhash_server.store.pool import Connection, Pool, connection, transaction

SELECT_VIDEO = """
SELECT v.id, v.recording_id, v.title, v.source_url, coalesce(v.external_id, '') AS external_id,
    coalesce(c.name, '') AS channel, v.duration_s, v.content_sha256, v.segment_count,
    v.landmark_count, v.params_digest, v.revision, v.create_time, v.update_time, v.service,
    v.media_id, v.description, v.publish_time, v.thumbnail_url, v.monitor_id,
    coalesce(m.name, '') AS monitor_name, v.air_time
FROM videos AS v LEFT JOIN channels AS c ON c.id = v.channel_id
    LEFT JOIN monitors AS m ON m.id = v.monitor_id
"""
UPDATABLE = frozenset({"title", "source_url", "external_id", "channel"})


def to_video(row: asyncpg.Record) -> Video:
    """A row of SELECT_VIDEO."""
    return Video(**{name: row[name] for name in Video.__dataclass_fields__})


def external_id_taken(external_id: str) -> PlatformError:
    """ALREADY_EXISTS, EXTERNAL_ID_TAKEN."""
    return PlatformError(
        ErrorKind.ALREADY_EXISTS,
        "EXTERNAL_ID_TAKEN",
        f"Another video has the external id {external_id!r}.",
        "Choose another external id, or delete or change the other video first.",
        metadata={"external_id": external_id},
        resource=("video", external_id),
    )


async def channel_id(held: Connection, name: str) -> UUID | None:
    """The id of the channel with this name, which is made if need be; None for no name."""
    if not name:
        return None
    await held.execute("INSERT INTO channels (name) VALUES ($1) ON CONFLICT DO NOTHING", name)
    found: UUID = await held.fetchval("SELECT id FROM channels WHERE name = $1", name)
    return found


async def delete_video(held: Connection, video_id: UUID) -> int | None:
    """Removes a video inside a transaction that has locked the catalogue's row, and leaves a
    tombstone for the index; its recording_id, None when there is no such video."""
    deleted = await delete_videos(held, [video_id])
    return deleted[0] if deleted else None


async def delete_videos(held: Connection, video_ids: Sequence[UUID]) -> list[int]:
    """As `delete_video` for some at once; the recording_ids of those that were there."""
    rows = await held.fetch(
        """WITH gone AS (
            DELETE FROM videos WHERE id = ANY($1)
            RETURNING recording_id, monitor_id IS NOT NULL AS on_air
        ), bumped AS (
            UPDATE catalogue SET revision = revision + 1 WHERE EXISTS (SELECT FROM gone)
            RETURNING revision
        )
        INSERT INTO video_deletions (recording_id, revision, on_air)
        SELECT gone.recording_id, bumped.revision, gone.on_air FROM gone, bumped
        RETURNING recording_id""",
        list(video_ids),
    )
    return [row["recording_id"] for row in rows]


class Videos:
    """Reads, describes and removes videos; workers add them through `Jobs.complete`.

    Every method raises PlatformError DATABASE_UNAVAILABLE when the database is away.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, video_id: UUID) -> Video | None:
        return await self._one("v.id = $1", video_id)

    async def by_sha256(self, content_sha256: str) -> Video | None:
        """The video that was made from these bytes."""
        return await self._one("v.content_sha256 = $1", content_sha256)

    async def by_source_key(self, source_key: str) -> Video | None:
        """The video that this source leads to: it was fetched from there, or the job that was
        to fetch it from there has found it to be this one."""
        service, media_id = split_media_key(source_key)
        return await self._one(
            """v.id = coalesce(
                (SELECT id FROM videos WHERE source_key = $1),
                (SELECT id FROM videos WHERE media_id <> '' AND service = $2 AND media_id = $3),
                (SELECT (result ->> 'video_id')::uuid FROM processing_jobs WHERE dedupe_key = $1))
            """,
            source_key,
            service,
            media_id,
        )

    async def external_id_taken(self, external_id: str) -> bool:
        async with connection(self._pool) as held:
            found = await held.fetchval("SELECT 1 FROM videos WHERE external_id = $1", external_id)
        return found is not None

    async def by_recording_ids(self, recording_ids: Sequence[int]) -> dict[int, Video]:
        """The videos of these keys of the match index; those that are gone are left out."""
        if not recording_ids:
            return {}
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"{SELECT_VIDEO} WHERE v.recording_id = ANY($1::bigint[])", list(recording_ids)
            )
        return {row["recording_id"]: to_video(row) for row in rows}

    async def list(
        self,
        page_size: int,
        page_token: str,
        *,
        channel: str = "",
        external_id: str = "",
        monitor_id: UUID | None = None,
    ) -> Page[Video]:
        """Newest first. ``channel`` and ``external_id`` are exact; empty means all.

        ``monitor_id``: what this monitor has heard, instead of the videos.
        """
        scope = f"videos\0{channel}\0{external_id}"
        values: list[object] = []
        whose = "v.monitor_id IS NULL"
        if monitor_id is not None:
            scope += f"\0{monitor_id}"
            values, whose = [monitor_id], "v.monitor_id = $6"
        after = decode_token(page_token, scope)
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"""{SELECT_VIDEO}
                WHERE {whose} AND (v.create_time, v.id) < ($1, $2)
                    AND ($3 = '' OR v.channel_id = (SELECT id FROM channels WHERE name = $3))
                    AND ($4 = '' OR v.external_id = $4)
                ORDER BY v.create_time DESC, v.id DESC LIMIT $5""",  # noqa: S608
                after.create_time,
                after.id,
                channel,
                external_id,
                limit_of(page_size) + 1,
                *values,
            )
        return make_page(rows, page_size, scope, to_video)

    async def search(self, query: str, page_size: int, page_token: str) -> Page[Video]:
        """Videos with every word of the query, in any case, in their title, channel, external
        id or source URL; none that monitors have heard. Best first: the query is the title, begins
        it, lies in it, its words do; then newest first."""
        words = query.split()
        if not words:
            return Page((), "")
        scope = f"search\0{query}"
        after = decode_token(page_token, scope)
        phrase = _like_escaped(" ".join(words))
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"""SELECT * FROM (
                    SELECT found.*, CASE
                        WHEN title ILIKE $1 THEN 4
                        WHEN title ILIKE $1 || '%' THEN 3
                        WHEN title ILIKE '%' || $1 || '%' THEN 2
                        WHEN title ILIKE ALL ($2::text[]) THEN 1
                        ELSE 0 END AS rank
                    FROM ({SELECT_VIDEO}) AS found
                    WHERE monitor_id IS NULL
                        AND concat_ws(' ', title, channel, external_id, source_url)
                            ILIKE ALL ($2::text[])
                ) AS ranked
                WHERE (rank, create_time, id) < ($3, $4, $5)
                ORDER BY rank DESC, create_time DESC, id DESC LIMIT $6""",  # noqa: S608
                phrase,
                [f"%{_like_escaped(word)}%" for word in words],
                after.rank,
                after.create_time,
                after.id,
                limit_of(page_size) + 1,
            )
        return make_page(rows, page_size, scope, to_video)

    async def update(self, video_id: UUID, **fields: str) -> Video | None:
        """Changes title, source_url, external_id and channel, as named; empty clears.

        None when there is no such video. Raises PlatformError EXTERNAL_ID_TAKEN.
        """
        if unknown := fields.keys() - UPDATABLE:
            raise ValueError(f"cannot update {sorted(unknown)}")
        async with transaction(self._pool) as held:
            columns: dict[str, object] = {**fields}
            if "external_id" in columns:
                columns["external_id"] = columns["external_id"] or None
            if "channel" in columns:
                columns["channel_id"] = await channel_id(held, fields["channel"])
                del columns["channel"]
            # Names come from UPDATABLE alone.
            changes = "".join(f", {name} = ${i}" for i, name in enumerate(columns, 2))
            try:
                await held.execute(
                    f"UPDATE videos SET update_time = now(){changes} WHERE id = $1",  # noqa: S608
                    video_id,
                    *columns.values(),
                )
            except asyncpg.UniqueViolationError:
                raise external_id_taken(fields["external_id"]) from None
            row = await held.fetchrow(f"{SELECT_VIDEO} WHERE v.id = $1", video_id)
        return None if row is None else to_video(row)

    async def delete(self, video_id: UUID) -> int | None:
        """Removes a video with its fingerprints and leaves a tombstone for the index.

        Returns its recording_id; None when there is no such video.
        """
        async with transaction(self._pool) as held:
            # The catalogue's row first, always: see Jobs.complete.
            await held.execute("SELECT 1 FROM catalogue FOR UPDATE")
            return await delete_video(held, video_id)

    async def _one(self, condition: str, *values: object) -> Video | None:
        async with connection(self._pool) as held:
            row = await held.fetchrow(f"{SELECT_VIDEO} WHERE {condition}", *values)
        return None if row is None else to_video(row)


def _like_escaped(text: str) -> str:
    """The text as LIKE takes it literally."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
