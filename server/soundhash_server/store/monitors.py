"""Monitors: live sources, and which worker listens to each.

A worker claims monitors and keeps them with heartbeats. Each has a lease with a fresh token that
every write of the worker names, so one that lost it (paused, deleted, silent for too long and
taken by another) changes nothing. Leases go by the database's time alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.model import (
    Monitor,
    MonitorConfig,
    MonitorLease,
    MonitorReport,
    MonitorState,
    Page,
)
from soundhash_server.store.detections import end_all, latest_ongoing
from soundhash_server.store.listener import MONITOR_ORDERS
from soundhash_server.store.monitor_rows import (
    MONITOR_COLUMNS,
    STATE,
    cleaned,
    options_json,
    to_monitor,
)
from soundhash_server.store.pages import decode_token, limit_of, make_page
from soundhash_server.store.pool import Connection, Pool, connection, transaction

UPDATABLE = frozenset(
    {"name", "min_confidence", "min_duration_s", "silence_after_s", "loss_after_s"}
    | {"keep_air_s", "options"}
)
"""What `Monitors.update` can change: fields of MonitorConfig."""


class AirLeft(Exception):  # noqa: N818 - a condition, not a mistake
    """Something that a monitor heard is still in the index."""


class Monitors:
    """Every method raises PlatformError DATABASE_UNAVAILABLE when the database is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(
        self, url: str, source_key: str, config: MonitorConfig, *, paused: bool, request_id: str
    ) -> Monitor:
        """A new monitor; the first call's one when ``request_id`` was used before.

        source_key: the source's identity. Raises PlatformError ALREADY_EXISTS (MONITOR_EXISTS,
        with its id) when the source is monitored already.
        """
        async with transaction(self._pool) as held:
            row = await held.fetchrow(
                f"""INSERT INTO monitors AS m (url, source_key, request_id, name, min_confidence,
                    min_duration_s, silence_after_s, loss_after_s, keep_air_s, fetch_options,
                    paused)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                ON CONFLICT DO NOTHING RETURNING {MONITOR_COLUMNS}""",  # noqa: S608
                url,
                source_key,
                request_id or None,
                config.name,
                config.min_confidence,
                config.min_duration_s,
                config.silence_after_s,
                config.loss_after_s,
                config.keep_air_s,
                options_json(config.options),
                paused,
            )
            if row is not None:
                await _order(held, row["id"])
                return to_monitor(row)
            row = await held.fetchrow(
                f"""SELECT m.request_id, {MONITOR_COLUMNS} FROM monitors AS m
                WHERE m.request_id = $1 OR m.source_key = $2
                ORDER BY m.request_id IS NOT DISTINCT FROM $1 DESC LIMIT 1""",  # noqa: S608
                request_id or None,
                source_key,
            )
            if row is None:  # it was deleted at this moment
                raise _try_again()
            if request_id and row["request_id"] == request_id:
                return await _for_callers(held, to_monitor(row))
        raise _exists(row["id"])

    async def get(self, monitor_id: UUID) -> Monitor | None:
        """With what goes on now and how much of it is indexed."""
        async with connection(self._pool) as held:
            return await _read(held, monitor_id)

    async def names(self, monitor_ids: Sequence[UUID]) -> dict[UUID, str]:
        """The names of those that exist."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                "SELECT id, name FROM monitors WHERE id = ANY($1)", list(monitor_ids)
            )
        return {row["id"]: row["name"] for row in rows}

    async def update(self, monitor_id: UUID, **fields: Any) -> Monitor | None:
        """Changes fields of its MonitorConfig, as named (see UPDATABLE).

        None when there is no such monitor.
        """
        if unknown := fields.keys() - UPDATABLE:
            raise ValueError(f"cannot update {sorted(unknown)}")
        columns = dict(fields)
        if "options" in columns:
            columns["fetch_options"] = options_json(columns.pop("options"))
        # Names come from UPDATABLE alone.
        changes = "".join(f", {name} = ${i}" for i, name in enumerate(columns, 2))
        async with transaction(self._pool) as held:
            await held.execute(
                f"UPDATE monitors SET update_time = now(){changes} WHERE id = $1",  # noqa: S608
                monitor_id,
                *columns.values(),
            )
            await _order(held, monitor_id)
            return await _read(held, monitor_id)

    async def pause(self, monitor_id: UUID) -> Monitor | None:
        """Takes it from its worker until `resume`, and ends what goes on. None: there is none."""
        async with transaction(self._pool) as held:
            changed = await held.fetchval(
                """UPDATE monitors SET paused = true, lease_token = NULL, lease_expires = NULL,
                    retry_now = false, state_time = clock_timestamp(), update_time = now()
                WHERE id = $1 AND NOT paused RETURNING id""",
                monitor_id,
            )
            if changed is not None:
                await end_all(held, monitor_id)
                await _order(held, monitor_id)
            return await _read(held, monitor_id)

    async def resume(self, monitor_id: UUID) -> Monitor | None:
        """Ends a pause; one that waits to connect again is to do so at once. None: there is
        none."""
        async with transaction(self._pool) as held:
            await held.execute(
                """UPDATE monitors SET
                    state_time = CASE WHEN paused THEN clock_timestamp() ELSE state_time END,
                    failed_attempts = CASE WHEN paused THEN 0 ELSE failed_attempts END,
                    failure = CASE WHEN paused THEN NULL ELSE failure END,
                    retry_now = NOT paused AND state = 'RETRYING',
                    paused = false, update_time = now()
                WHERE id = $1""",
                monitor_id,
            )
            await _order(held, monitor_id)
            return await _read(held, monitor_id)

    async def delete(self, monitor_id: UUID) -> bool:
        """Removes it with its detections and alerts. False: there is none.

        Raises AirLeft while something that it heard is in the index; nothing is removed then.
        """
        async with transaction(self._pool) as held:
            try:
                found = await held.fetchval(
                    "DELETE FROM monitors WHERE id = $1 RETURNING id", monitor_id
                )
            except asyncpg.ForeignKeyViolationError:
                raise AirLeft from None
            if found is not None:
                await _order(held, monitor_id)
        return found is not None

    async def claim(self, most: int, lease_s: float) -> list[MonitorLease]:
        """Takes at most so many monitors that no worker listens to, those that wait longest
        first. They are CONNECTING from here on."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"""WITH free AS MATERIALIZED (
                    SELECT id FROM monitors
                    WHERE NOT paused
                        AND (lease_expires IS NULL OR lease_expires < clock_timestamp())
                    ORDER BY lease_expires NULLS FIRST, state_time, id LIMIT $1
                    FOR NO KEY UPDATE SKIP LOCKED
                )
                UPDATE monitors AS m SET lease_token = gen_random_uuid(),
                    lease_expires = clock_timestamp() + $2, state = 'CONNECTING',
                    state_time = clock_timestamp(), retry_time = NULL, retry_now = false
                FROM free WHERE m.id = free.id RETURNING m.lease_token, {MONITOR_COLUMNS}""",  # noqa: S608
                most,
                timedelta(seconds=lease_s),
            )
        return [MonitorLease(to_monitor(row), row["lease_token"]) for row in rows]

    async def heartbeat(
        self, leases: Mapping[UUID, MonitorReport], lease_s: float
    ) -> dict[UUID, Monitor]:
        """Renews these leases (by their tokens) and tells how their monitors stand, all at once.

        The monitors as they are now, by token: their config may have changed, and `retry_now`
        is told once. A token that is missing was lost: stop listening for it.
        """
        if not leases:
            return {}
        reports = [cleaned(report) for report in leases.values()]
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"""WITH told AS (
                    SELECT * FROM unnest($2::uuid[], $3::text[], $4::timestamptz[],
                        $5::float8[], $6::float8[], $7::float8[], $8::int8[], $9::int4[],
                        $10::jsonb[], $11::timestamptz[], $12::float8[], $13::text[],
                        $14::timestamptz[]) AS t (token, state, state_time, heard_s, silent_s,
                        recognised_s, connections, failed_attempts, failure, retry_time, level_db,
                        source_title, audio_time)
                ), own AS MATERIALIZED (
                    -- In one order, so that nobody waits for each other.
                    SELECT id, retry_now FROM monitors
                    WHERE lease_token = ANY($2) ORDER BY id FOR NO KEY UPDATE
                )
                UPDATE monitors AS m SET lease_expires = clock_timestamp() + $1,
                    state = t.state, state_time = t.state_time, failure = t.failure,
                    retry_time = t.retry_time, failed_attempts = t.failed_attempts,
                    heard_s = m.heard_s + t.heard_s, silent_s = m.silent_s + t.silent_s,
                    recognised_s = m.recognised_s + t.recognised_s,
                    connections = m.connections + t.connections, level_db = t.level_db,
                    source_title = t.source_title,
                    audio_time = coalesce(t.audio_time, m.audio_time), retry_now = false
                FROM told AS t, own
                WHERE m.lease_token = t.token AND m.id = own.id
                RETURNING m.lease_token, own.retry_now AS asked, {MONITOR_COLUMNS}""",  # noqa: S608
                timedelta(seconds=lease_s),
                list(leases),
                [report.state.value for report in reports],
                [report.state_time for report in reports],
                [report.heard_s for report in reports],
                [report.silent_s for report in reports],
                [report.recognised_s for report in reports],
                [report.connections for report in reports],
                [report.failed_attempts for report in reports],
                [report.failure and dataclasses.asdict(report.failure) for report in reports],
                [report.retry_time for report in reports],
                [report.level_db for report in reports],
                [report.source_title for report in reports],
                [report.audio_time for report in reports],
            )
        return {
            row["lease_token"]: dataclasses.replace(to_monitor(row), retry_now=row["asked"])
            for row in rows
        }

    async def release(self, tokens: Iterable[UUID]) -> None:
        """Gives monitors back, so that other workers can take them at once."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                """UPDATE monitors SET lease_token = NULL, lease_expires = NULL,
                    state_time = clock_timestamp()
                WHERE lease_token = ANY($1) RETURNING id""",
                list(tokens),
            )
            if rows:
                await _order(held, rows[0]["id"])

    async def list(
        self, page_size: int, page_token: str, states: Sequence[MonitorState] = ()
    ) -> Page[Monitor]:
        """Newest first, as `get` gives them; only those in one of ``states``, when given."""
        names = sorted({state.value for state in states})
        scope = f"monitors\0{','.join(names)}"
        after = decode_token(page_token, scope)
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"""SELECT {MONITOR_COLUMNS} FROM monitors AS m
                WHERE (m.create_time, m.id) < ($1, $2)
                    AND ($3::text[] = '{{}}' OR {STATE} = ANY($3))
                ORDER BY m.create_time DESC, m.id DESC LIMIT $4""",  # noqa: S608
                after.create_time,
                after.id,
                names,
                limit_of(page_size) + 1,
            )
            page = make_page(rows, page_size, scope, to_monitor)
            return dataclasses.replace(page, items=tuple(await _filled_in(held, page.items)))


async def _read(held: Connection, monitor_id: UUID) -> Monitor | None:
    row = await held.fetchrow(
        f"SELECT {MONITOR_COLUMNS} FROM monitors AS m WHERE m.id = $1",  # noqa: S608
        monitor_id,
    )
    return None if row is None else await _for_callers(held, to_monitor(row))


async def _for_callers(held: Connection, monitor: Monitor) -> Monitor:
    (filled,) = await _filled_in(held, [monitor])
    return filled


async def _filled_in(held: Connection, monitors: Sequence[Monitor]) -> list[Monitor]:
    """The monitors with what is stored elsewhere: what goes on, and what is indexed of them."""
    # Where nobody listens, what went on when the worker vanished is not what is on now.
    carried = [one.id for one in monitors if one.state is not MonitorState.WAITING]
    current = await latest_ongoing(held, carried)
    rows = await held.fetch(
        # Parts overlap: what is on the air once counts once.
        """SELECT monitor_id, extract(epoch FROM sum(upper(kept) - lower(kept))) AS kept_s
        FROM (
            SELECT monitor_id, unnest(range_agg(tstzrange(
                air_time, air_time + make_interval(secs => duration_s)))) AS kept
            FROM videos WHERE monitor_id = ANY($1) GROUP BY monitor_id
        ) AS parts GROUP BY monitor_id""",
        [monitor.id for monitor in monitors],
    )
    kept_s = {row["monitor_id"]: float(row["kept_s"] or 0.0) for row in rows}
    return [
        dataclasses.replace(
            monitor,
            current=current.get(monitor.id),
            stats=dataclasses.replace(monitor.stats, kept_air_s=kept_s.get(monitor.id, 0.0)),
        )
        for monitor in monitors
    ]


async def _order(held: Connection, monitor_id: UUID) -> None:
    """Tells the workers that there is something new to do."""
    await held.execute("SELECT pg_notify($1, $2)", MONITOR_ORDERS, str(monitor_id))


def _exists(monitor_id: UUID) -> PlatformError:
    return PlatformError(
        ErrorKind.ALREADY_EXISTS,
        "MONITOR_EXISTS",
        f"Monitor {monitor_id} listens to this source already.",
        "Update or resume that monitor, or delete it first.",
        metadata={"monitor": str(monitor_id)},
        resource=("monitor", str(monitor_id)),
    )


def _try_again() -> PlatformError:
    return PlatformError(
        ErrorKind.ABORTED,
        "MONITOR_CHANGED",
        "The monitor of this source was deleted at this moment.",
        "Try again.",
        retry_after_s=0.1,
    )
