"""Which objects there are in object storage, and of which videos.

    begin --> WRITING --finish--> WRITING, whole --settle_objects, with the video--> KEPT
    the video is deleted, doom --> DOOMED
    DOOMED, expired, or WRITING by nobody --Removal--> gone

The row comes before its object and goes after it. So a process may die anywhere: what it leaves
behind has a row, and the row is found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import asyncpg

from soundhash_server.model import KeptObject
from soundhash_server.store.pool import Connection, Pool, connection, transaction

ABANDONED_S = 600.0
"""A row that nobody writes to for this long belongs to a worker that is gone."""
_PUT_OFF_S = 300.0
_COLUMNS = "key, size_bytes, content_sha256, content_type, expire_time"


async def settle_objects(held: Connection, video_id: UUID) -> None:
    """Inside the transaction that stores a video: what was written for it is kept from now on,
    and what was kept before takes its leave. Does nothing when nothing new was written."""
    await held.execute(
        """UPDATE media_objects SET update_time = clock_timestamp(),
            state = CASE WHEN state = 'WRITING' AND content_sha256 <> '' THEN 'KEPT'
                ELSE 'DOOMED' END
        WHERE video_id = $1 AND state <> 'DOOMED' AND EXISTS (
            SELECT 1 FROM media_objects
            WHERE video_id = $1 AND state = 'WRITING' AND content_sha256 <> ''
        )""",
        video_id,
    )


class Objects:
    """The rows of one storage's objects. Every method raises PlatformError
    DATABASE_UNAVAILABLE when the database is away.

    storage: its address without secrets; empty: no storage is configured.
    """

    def __init__(self, pool: Pool, storage: str) -> None:
        self._pool = pool
        self._storage = storage

    async def begin(self, video_id: UUID, key: str, content_type: str) -> None:
        """Tells that an object is about to be written; waits while it is being removed."""
        async with connection(self._pool) as held:
            await held.execute(
                """INSERT INTO media_objects (storage, key, video_id, content_type)
                VALUES ($1, $2, $3, $4)
                ON CONFLICT (storage, key) DO UPDATE SET video_id = $3, content_type = $4,
                    state = 'WRITING', size_bytes = 0, content_sha256 = '', expire_time = NULL,
                    create_time = now(), update_time = clock_timestamp()""",
                self._storage,
                key,
                video_id,
                content_type,
            )

    async def touch(self, video_id: UUID) -> None:
        """Tells that somebody still writes."""
        async with connection(self._pool) as held:
            await held.execute(
                "UPDATE media_objects SET update_time = clock_timestamp()"
                " WHERE storage = $1 AND video_id = $2 AND state = 'WRITING'",
                self._storage,
                video_id,
            )

    async def finish(
        self,
        video_id: UUID,
        key: str,
        size_bytes: int,
        content_sha256: str,
        keep_s: float | None,
    ) -> bool:
        """Tells that an object is whole. keep_s: how long it is kept; None: for ever.

        False: it is not wanted any more, and will be removed unless somebody writes it anew.
        """
        async with connection(self._pool) as held:
            found = await held.fetchval(
                """UPDATE media_objects SET size_bytes = $3, content_sha256 = $4,
                    expire_time = clock_timestamp() + $5::interval,
                    update_time = clock_timestamp()
                WHERE storage = $1 AND key = $2 AND video_id = $6 AND state = 'WRITING'
                RETURNING 1""",
                self._storage,
                key,
                size_bytes,
                content_sha256,
                None if keep_s is None else timedelta(seconds=keep_s),
                video_id,
            )
            if found is None:
                # The row may be gone already, and the object was written after that.
                await held.execute(
                    """INSERT INTO media_objects (storage, key, video_id, content_type, state)
                    VALUES ($1, $2, $3, '', 'DOOMED') ON CONFLICT DO NOTHING""",
                    self._storage,
                    key,
                    video_id,
                )
        return found is not None

    async def of_video(self, video_id: UUID) -> tuple[KeptObject, ...]:
        """What is kept of a video, by key."""
        return (await self.of_videos([video_id])).get(video_id, ())

    async def of_videos(self, video_ids: Sequence[UUID]) -> dict[UUID, tuple[KeptObject, ...]]:
        """What is kept of some videos; those of which nothing is kept are left out."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"SELECT video_id, {_COLUMNS} FROM media_objects"  # noqa: S608
                " WHERE storage = $1 AND video_id = ANY($2::uuid[]) AND state = 'KEPT'"
                " AND (expire_time IS NULL OR expire_time > clock_timestamp()) ORDER BY key",
                self._storage,
                list(video_ids),
            )
        found: dict[UUID, tuple[KeptObject, ...]] = {}
        for row in rows:
            kept = KeptObject(**{name: row[name] for name in KeptObject.__dataclass_fields__})
            found[row["video_id"]] = (*found.get(row["video_id"], ()), kept)
        return found

    async def doom(self, video_id: UUID) -> int:
        """Has everything deleted that is kept of a video; returns how many objects that are."""
        async with connection(self._pool) as held:
            status = await held.execute(
                "UPDATE media_objects SET state = 'DOOMED', update_time = clock_timestamp()"
                " WHERE storage = $1 AND video_id = $2 AND state = 'KEPT'",
                self._storage,
                video_id,
            )
        return int(status.rpartition(" ")[2])

    @asynccontextmanager
    async def removal(self, video_id: UUID | None = None) -> AsyncIterator[Removal | None]:
        """An object that has to go, held until the end of the block; None when there is none.

        Nobody else can write or remove it meanwhile. When the block raises, it stays.
        video_id: only of this video.
        """
        async with transaction(self._pool) as held:
            row = await held.fetchrow(
                """SELECT key FROM media_objects
                WHERE storage = $1 AND ($2::uuid IS NULL OR video_id = $2)
                    AND ((state = 'DOOMED' AND update_time <= clock_timestamp())
                        OR (state = 'WRITING' AND update_time < clock_timestamp() - $3::interval)
                        OR (expire_time <= clock_timestamp() AND state = 'KEPT'))
                ORDER BY update_time LIMIT 1 FOR UPDATE SKIP LOCKED""",
                self._storage,
                video_id,
                timedelta(seconds=ABANDONED_S),
            )
            yield None if row is None else Removal(held, self._storage, row)


class Removal:
    """An object that has to go; the row is locked."""

    def __init__(self, held: Connection, storage: str, row: asyncpg.Record) -> None:
        self._held = held
        self._storage = storage
        self.key: str = row["key"]

    async def done(self) -> None:
        """The object is gone."""
        await self._held.execute(
            "DELETE FROM media_objects WHERE storage = $1 AND key = $2", self._storage, self.key
        )

    async def put_off(self) -> None:
        """The storage refuses; others come first."""
        await self._held.execute(
            "UPDATE media_objects SET state = 'DOOMED',"
            " update_time = clock_timestamp() + $3::interval WHERE storage = $1 AND key = $2",
            self._storage,
            self.key,
            timedelta(seconds=_PUT_OFF_S),
        )
