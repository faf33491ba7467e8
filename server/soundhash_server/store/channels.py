"""Channels: lists of videos at a source, by every name they go under."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from soundhash_server.channel_refs import ChannelRef, display_name, name_suffix
from soundhash_server.model import Channel, ChannelFacts, FetchOptions, Page
from soundhash_server.store.pages import decode_token, limit_of, make_page
from soundhash_server.store.pool import Connection, Pool, connection, transaction

UNFINISHED = "('QUEUED', 'RUNNING', 'RETRYING', 'WAITING')"

_SELECT = """
SELECT c.id, c.service, c.service_id, c.name AS title, c.url, c.description, c.thumbnail_url,
    c.uploads_id, c.schedule, c.next_run_time, c.list_time, c.fetch_options AS options,
    c.max_videos, c.since, c.create_time
FROM channels AS c
"""
# A video is in the catalogue when its job says so and it was not deleted since, or when the
# same recording came in by another way.
IS_INDEXED = """(EXISTS (
    SELECT FROM videos AS v WHERE v.service = cv.service AND v.media_id = cv.media_id
        AND v.media_id <> ''
) OR (j.state = 'SUCCEEDED' AND EXISTS (
    SELECT FROM videos AS v WHERE v.id = (j.result ->> 'video_id')::uuid
)))"""
# Names are unique over all channels and collections: those who change them take turns.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('soundhash channel names'))"


class Channels:
    """Adds, describes and forgets channels. Every method raises PlatformError
    DATABASE_UNAVAILABLE when the database is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(
        self,
        ref: ChannelRef,
        *,
        options: FetchOptions | None = None,
        limits: tuple[int, datetime | None] | None = None,
    ) -> Channel:
        """The channel with this name, which is made if need be.

        options: how its videos are fetched; None leaves what is there. limits: most videos and
        earliest time of a submission, which the schedule repeats; None leaves them.
        """
        async with transaction(self._pool) as held:
            await held.execute(_LOCK)
            found = await held.fetchval(
                "SELECT id FROM channels WHERE service = $1 AND service_id = $2"
                " UNION ALL SELECT channel_id FROM channel_aliases WHERE service = $1 AND name = $2"
                " LIMIT 1",
                ref.service,
                ref.name,
            )
            if found is None:
                name = await _free_name(held, display_name(ref), name_suffix(ref.service, ref.name))
                found = await held.fetchval(
                    "INSERT INTO channels (name, service, service_id, url)"
                    " VALUES ($1, $2, $3, $4) RETURNING id",
                    name,
                    ref.service,
                    ref.name,
                    ref.url,
                )
            if options is not None:
                await held.execute(
                    "UPDATE channels SET fetch_options = $2 WHERE id = $1",
                    found,
                    dataclasses.asdict(options),
                )
            if limits is not None:
                await held.execute(
                    "UPDATE channels SET max_videos = $2, since = $3 WHERE id = $1", found, *limits
                )
            row = await held.fetchrow(f"{_SELECT} WHERE c.id = $1", found)
        return _to_channel(row)

    async def identify(self, channel_id: UUID, facts: ChannelFacts) -> Channel | None:
        """Stores what the source says about a channel.

        When that is one that is known already by another name, the two become one: the answer
        is the older one then. None when the channel was deleted.
        """
        async with transaction(self._pool) as held:
            await held.execute(_LOCK)
            row = await held.fetchrow(f"{_SELECT} WHERE c.id = $1 FOR UPDATE", channel_id)
            if row is None:
                return None
            channel = _to_channel(row)
            if facts.service_id and facts.service_id != channel.service_id:
                channel_id = await _rename_at_service(held, channel, facts.service_id)
                channel = _to_channel(
                    await held.fetchrow(f"{_SELECT} WHERE c.id = $1 FOR UPDATE", channel_id)
                )
            if facts.title and facts.title != channel.title:
                await _rename(held, channel, facts.title)
            await held.execute(
                """UPDATE channels SET url = coalesce(nullif($2, ''), url),
                    description = coalesce(nullif($3, ''), description),
                    thumbnail_url = coalesce(nullif($4, ''), thumbnail_url),
                    uploads_id = coalesce(nullif($5, ''), uploads_id) WHERE id = $1""",
                channel_id,
                facts.url,
                facts.description,
                facts.thumbnail_url,
                facts.uploads_id,
            )
            row = await held.fetchrow(f"{_SELECT} WHERE c.id = $1", channel_id)
        return _to_channel(row)

    async def get(self, channel_id: UUID) -> Channel | None:
        """With its counts. None when there is no such channel."""
        async with connection(self._pool) as held:
            row = await held.fetchrow(f"{_SELECT} WHERE c.id = $1 AND c.service <> ''", channel_id)
            return None if row is None else (await _counted(held, [_to_channel(row)]))[0]

    async def list(self, page_size: int, page_token: str) -> Page[Channel]:
        """Newest first, with their counts."""
        scope = "channels"
        after = decode_token(page_token, scope)
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"""{_SELECT} WHERE c.service <> '' AND (c.create_time, c.id) < ($1, $2)
                ORDER BY c.create_time DESC, c.id DESC LIMIT $3""",
                after.create_time,
                after.id,
                limit_of(page_size) + 1,
            )
            page = make_page(rows, page_size, scope, _to_channel)
            return dataclasses.replace(page, items=tuple(await _counted(held, page.items)))

    async def update(
        self,
        channel_id: UUID,
        *,
        schedule: tuple[str, datetime | None] | None = None,
        options: FetchOptions | None = None,
    ) -> Channel | None:
        """Sets the schedule (with its next time) and the options, where not None."""
        async with transaction(self._pool) as held:
            if schedule is not None:
                await held.execute(
                    "UPDATE channels SET schedule = $2, next_run_time = $3"
                    " WHERE id = $1 AND service <> ''",
                    channel_id,
                    *schedule,
                )
            if options is not None:
                await held.execute(
                    "UPDATE channels SET fetch_options = $2 WHERE id = $1 AND service <> ''",
                    channel_id,
                    dataclasses.asdict(options),
                )
        return await self.get(channel_id)

    async def delete(self, channel_id: UUID) -> bool:
        """Forgets a channel and its listing. Its videos keep its name. False when there is
        none."""
        async with transaction(self._pool) as held:
            await held.execute(_LOCK)
            found = await held.fetchval(
                "SELECT id FROM channels WHERE id = $1 AND service <> '' FOR UPDATE", channel_id
            )
            if found is None:
                return False
            await held.execute("DELETE FROM channel_videos WHERE channel_id = $1", channel_id)
            await held.execute("DELETE FROM channel_aliases WHERE channel_id = $1", channel_id)
            await held.execute(
                "UPDATE processing_jobs SET channel_id = NULL WHERE channel_id = $1", channel_id
            )
            if await held.fetchval(
                "SELECT EXISTS (SELECT FROM videos WHERE channel_id = $1)", channel_id
            ):
                # What is left is a name of a collection.
                await held.execute(
                    """UPDATE channels SET service = '', service_id = '', url = '',
                        description = '', thumbnail_url = '', uploads_id = '', list_cursor = NULL,
                        list_time = NULL, schedule = '', next_run_time = NULL,
                        fetch_options = '{}', max_videos = 0, since = NULL WHERE id = $1""",
                    channel_id,
                )
            else:
                await held.execute("DELETE FROM channels WHERE id = $1", channel_id)
        return True

    async def unfinished_jobs(self, channel_id: UUID) -> tuple[UUID, ...]:
        """CHANNEL jobs of a channel that are not finished."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                "SELECT id FROM processing_jobs WHERE channel_id = $1 AND kind = 'CHANNEL'"  # noqa: S608
                f" AND state IN {UNFINISHED}",
                channel_id,
            )
        return tuple(row["id"] for row in rows)

    async def now(self) -> datetime:
        """The database's time."""
        async with connection(self._pool) as held:
            moment: datetime = await held.fetchval("SELECT clock_timestamp()")
        return moment

    async def due(self, limit: int) -> tuple[datetime, tuple[Channel, ...]]:
        """The database's time, and channels whose schedule is due, the longest due first."""
        async with connection(self._pool) as held:
            now = await held.fetchval("SELECT clock_timestamp()")
            rows = await held.fetch(
                f"{_SELECT} WHERE c.next_run_time <= $1 ORDER BY c.next_run_time LIMIT $2",
                now,
                limit,
            )
        return now, tuple(_to_channel(row) for row in rows)

    async def put_off(self, channel: Channel, next_run_time: datetime) -> bool:
        """Moves a channel's next run, unless somebody else has. Returns whether this did."""
        async with connection(self._pool) as held:
            moved = await held.fetchval(
                "UPDATE channels SET next_run_time = $4"
                " WHERE id = $1 AND next_run_time = $2 AND schedule = $3 RETURNING id",
                channel.id,
                channel.next_run_time,
                channel.schedule,
                next_run_time,
            )
        return moved is not None


def _to_channel(row: asyncpg.Record | None) -> Channel:
    if row is None:
        raise RuntimeError("a locked channel is gone")
    values: dict[str, Any] = dict(row)
    return Channel(**{**values, "options": FetchOptions(**values["options"])})


async def _counted(held: Connection, channels: Sequence[Channel]) -> list[Channel]:
    rows = await held.fetch(
        f"""SELECT cv.channel_id AS id, count(*) AS listed,
            count(*) FILTER (WHERE {IS_INDEXED}) AS indexed,
            count(*) FILTER (WHERE j.state = 'FAILED') AS failed
        FROM channel_videos AS cv LEFT JOIN processing_jobs AS j ON j.id = cv.job_id
        WHERE cv.channel_id = ANY($1) GROUP BY cv.channel_id""",  # noqa: S608
        [channel.id for channel in channels],
    )
    counts = {row["id"]: row for row in rows}
    jobs = {
        row["channel_id"]: row["id"]
        for row in await held.fetch(
            "SELECT channel_id, id FROM processing_jobs WHERE channel_id = ANY($1)"  # noqa: S608
            f" AND kind = 'CHANNEL' AND state IN {UNFINISHED} ORDER BY create_time",
            [channel.id for channel in channels],
        )
    }
    return [
        dataclasses.replace(
            channel,
            job_id=jobs.get(channel.id),
            listed=counts[channel.id]["listed"] if channel.id in counts else 0,
            indexed=counts[channel.id]["indexed"] if channel.id in counts else 0,
            failed=counts[channel.id]["failed"] if channel.id in counts else 0,
        )
        for channel in channels
    ]


async def _rename_at_service(held: Connection, channel: Channel, service_id: str) -> UUID:
    """Gives a channel its service's own id; returns the channel that has it in the end."""
    other: UUID | None = await held.fetchval(
        "SELECT id FROM channels WHERE service = $1 AND service_id = $2 FOR UPDATE",
        channel.service,
        service_id,
    )
    kept = channel.id if other is None else other
    await held.execute(
        "INSERT INTO channel_aliases (service, name, channel_id) VALUES ($1, $2, $3)"
        " ON CONFLICT (service, name) DO UPDATE SET channel_id = excluded.channel_id",
        channel.service,
        channel.service_id,
        kept,
    )
    if other is None:
        await held.execute(
            "UPDATE channels SET service_id = $2 WHERE id = $1", channel.id, service_id
        )
        return kept
    await held.execute(
        "UPDATE channel_aliases SET channel_id = $2 WHERE channel_id = $1", channel.id, other
    )
    await held.execute(
        "UPDATE processing_jobs SET channel_id = $2,"
        " parameters = CASE WHEN kind = 'CHANNEL'"
        " THEN jsonb_set(parameters, '{channel_id}', to_jsonb($3::text)) ELSE parameters END"
        " WHERE channel_id = $1",
        channel.id,
        other,
        str(other),
    )
    await held.execute(
        """UPDATE channels SET
            schedule = CASE WHEN schedule = '' THEN $2 ELSE schedule END,
            next_run_time = CASE WHEN schedule = '' THEN $3 ELSE next_run_time END WHERE id = $1""",
        other,
        channel.schedule,
        channel.next_run_time,
    )
    await held.execute("UPDATE videos SET channel_id = $2 WHERE channel_id = $1", channel.id, other)
    await held.execute("DELETE FROM channels WHERE id = $1", channel.id)
    return kept


async def _rename(held: Connection, channel: Channel, title: str) -> None:
    plain = await held.fetchval(
        "SELECT id FROM channels WHERE name = $1 AND service = '' FOR UPDATE", title
    )
    if plain is not None:
        # A collection that was called so before is this channel's.
        await held.execute(
            "UPDATE videos SET channel_id = $2 WHERE channel_id = $1", plain, channel.id
        )
        await held.execute("DELETE FROM channels WHERE id = $1", plain)
    name = await _free_name(
        held, title, name_suffix(channel.service, channel.service_id), own=channel.id
    )
    await held.execute("UPDATE channels SET name = $2 WHERE id = $1", channel.id, name)


async def _free_name(held: Connection, wanted: str, suffix: str, own: UUID | None = None) -> str:
    """The wanted name, or one with a suffix when another channel has it."""
    name = wanted
    for number in range(1, 1000):
        taken = await held.fetchval("SELECT id FROM channels WHERE name = $1", name)
        if taken is None or taken == own:
            return name
        name = f"{wanted} ({suffix})" if number == 1 else f"{wanted} ({suffix}, {number})"
    raise RuntimeError(f"no free name for channel {wanted!r}")
