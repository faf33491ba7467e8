"""What monitors have heard, part by part, for as long as each of them keeps it.

A part is a video with a monitor and a time. It is stored while it still grows, so that it can be
found within the minute, and goes through the same tombstones as every deleted video when its time
is over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from soundhash_engine.types import Segment
from soundhash_server.store.fingerprints import store_segments
from soundhash_server.store.jobs import LeaseLost
from soundhash_server.store.pool import Connection, Pool, transaction
from soundhash_server.store.videos import delete_videos

REMEMBERED = timedelta(days=1)
"""Indexes that were away for less learn what is gone from the tombstones; others compare
everything."""


class PartGone(Exception):  # noqa: N818 - a condition, not a mistake
    """The part was deleted while it grew; what follows belongs to another one."""


@dataclass(frozen=True, slots=True)
class AirPart:
    """A part of what a monitor heard, as far as it has come.

    air_time: when its first second was on the air. segments: all of it; of these the first
    ``kept`` are stored already and have not changed since. stored: whether some of it is.
    """

    id: UUID
    air_time: datetime
    duration_s: float
    segments: Sequence[Segment]
    kept: int = 0
    stored: bool = False


class Air:
    """Every method raises PlatformError DATABASE_UNAVAILABLE when the database is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def put(self, token: UUID, part: AirPart) -> None:
        """Stores a part of the monitor that this lease is for, or what has grown of it.

        Raises LeaseLost when the lease is not valid or the monitor keeps nothing (any more),
        PartGone when it was stored before and somebody has deleted it; nothing is stored then.
        """
        if not part.segments:
            raise ValueError("a part without any segment")
        async with transaction(self._pool) as held:
            # It cannot be deleted while this is under way; its worker's heartbeats go on.
            monitor = await held.fetchrow(
                "SELECT id, name FROM monitors WHERE lease_token = $1 AND keep_air_s > 0"
                " FOR KEY SHARE",
                token,
            )
            if monitor is None:
                raise LeaseLost
            # See migrations/0001_init.sql: changes commit in the order of their revisions.
            revision: int = await held.fetchval("SELECT revision + 1 FROM catalogue FOR UPDATE")
            if not await _store(held, part, monitor, revision):
                raise PartGone
            await store_segments(held, part.id, part.segments[part.kept :], first=part.kept)
            await held.execute("UPDATE catalogue SET revision = $1", revision)

    async def expire(self, most: int) -> int:
        """Deletes parts that their monitors keep no longer, at most so many; how many it were.

        A part goes as a whole, when its last second is too old.
        """
        async with transaction(self._pool) as held:
            rows = await held.fetch(
                """SELECT v.id FROM monitors AS m CROSS JOIN LATERAL (
                    SELECT id FROM videos
                    WHERE monitor_id = m.id
                        AND air_time < clock_timestamp() - make_interval(secs => m.keep_air_s)
                        AND air_time + make_interval(secs => duration_s)
                            < clock_timestamp() - make_interval(secs => m.keep_air_s)
                    ORDER BY air_time LIMIT $1
                ) AS v LIMIT $1""",
                most,
            )
            return len(await _delete(held, rows))

    async def forget(self, monitor_id: UUID, most: int) -> list[int]:
        """Deletes parts of a monitor, at most so many; the recording_ids of those it were."""
        async with transaction(self._pool) as held:
            rows = await held.fetch(
                "SELECT id FROM videos WHERE monitor_id = $1 ORDER BY air_time LIMIT $2",
                monitor_id,
                most,
            )
            return await _delete(held, rows)

    async def forget_tombstones(self, most: int, older_than: timedelta = REMEMBERED) -> int:
        """Deletes tombstones of parts that are older, at most so many; how many it were.

        An index that has not followed since then begins anew.
        """
        async with transaction(self._pool) as held:
            rows = await held.fetch(
                """SELECT recording_id FROM video_deletions
                WHERE on_air AND delete_time < clock_timestamp() - $1::interval
                ORDER BY delete_time LIMIT $2""",
                older_than,
                most,
            )
            if not rows:
                return 0
            await held.execute("SELECT 1 FROM catalogue FOR UPDATE")
            gone = await held.fetch(
                "DELETE FROM video_deletions WHERE recording_id = ANY($1) RETURNING revision",
                [row["recording_id"] for row in rows],
            )
            newest = max((row["revision"] for row in gone), default=0)
            await held.execute(
                "UPDATE catalogue SET air_forgotten = $1 WHERE air_forgotten < $1", newest
            )
        return len(gone)


async def _delete(held: Connection, rows: Sequence[asyncpg.Record]) -> list[int]:
    """The recording_ids of those that nobody else has deleted meanwhile."""
    if not rows:
        return []
    await held.execute("SELECT 1 FROM catalogue FOR UPDATE")
    return await delete_videos(held, [row["id"] for row in rows])


async def _store(held: Connection, part: AirPart, monitor: asyncpg.Record, revision: int) -> bool:
    """The part's row; False when there should be one and is not."""
    values = (
        part.id,
        monitor["id"],
        _title(monitor["name"], part.air_time),
        part.air_time,
        part.duration_s,
        len(part.segments),
        sum(segment.landmark_count for segment in part.segments),
        part.segments[0].params_digest,
        revision,
    )
    changes = """monitor_id = $2, title = $3, air_time = $4, duration_s = $5, segment_count = $6,
        landmark_count = $7, params_digest = $8, revision = $9, update_time = now()"""
    if part.stored:
        found = await held.fetchval(
            f"UPDATE videos SET {changes} WHERE id = $1 RETURNING id",  # noqa: S608
            *values,
        )
        return found is not None
    await held.execute(
        f"""INSERT INTO videos (id, monitor_id, title, air_time, duration_s, segment_count,
            landmark_count, params_digest, revision, content_sha256)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        ON CONFLICT (id) DO UPDATE SET {changes}""",  # noqa: S608
        *values,
        # Nobody can send these bytes; the column is there to find the same bytes again.
        hashlib.sha256(part.id.bytes).hexdigest(),
    )
    return True


def _title(name: str, air_time: datetime) -> str:
    return f"{name}, {air_time:%Y-%m-%d %H:%M:%S} UTC"
