"""What monitors have heard, and what is wrong with their sources.

Watchers ask "what changed after moment T". Two writers could commit in another order than they
took their times in, and the one behind would be missed for ever; so every writer takes the lock
of `_in_turn` before it takes the time, and holds it until it has committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from soundhash_server.live_urls import without_secrets
from soundhash_server.model import AlertKind, Detection, MonitorAlert, MonitorChange, Page
from soundhash_server.sources import clean_text
from soundhash_server.store.jobs import LeaseLost
from soundhash_server.store.pages import decode_token, limit_of, make_page
from soundhash_server.store.pool import Connection, Pool, connection, transaction

_DETECTION = """SELECT d.id, d.monitor_id, d.video_id, d.title, d.source_url, d.external_id,
    d.start_time, d.end_time, d.ongoing, d.video_start_s, d.video_end_s, d.covered_s,
    d.confidence, d.speed, d.pitch, m.name AS monitor_name, d.update_time,
    d.start_time AS create_time
FROM monitor_detections AS d JOIN monitors AS m ON m.id = d.monitor_id"""
_ALERT = """SELECT a.id, a.monitor_id, a.kind, a.start_time, a.end_time, a.message,
    m.name AS monitor_name, a.update_time, a.start_time AS create_time
FROM monitor_alerts AS a JOIN monitors AS m ON m.id = a.monitor_id"""


_TURN = "pg_advisory_xact_lock(hashtext('soundhash monitor changes'))"

NOTHING = UUID(int=0)
"""Before every id."""
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """A place in the order of changes: (update_time, id)."""

    time: datetime
    id: UUID = NOTHING


class Detections:
    """Detections and alerts of monitors. Every method raises PlatformError DATABASE_UNAVAILABLE
    when the database is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def upsert(self, token: UUID, detection: Detection) -> None:
        """Stores a detection of the monitor that this lease is for, by its id.

        Of one that is there already, everything but what it is and where it began changes: the
        order of lists is by when it began. Raises LeaseLost with nothing stored.
        """
        async with transaction(self._pool) as held:
            monitor_id, _ = await _locked(held, token)
            if monitor_id != detection.monitor_id:
                raise LeaseLost
            inserted = await held.fetchval(
                """INSERT INTO monitor_detections AS d (id, monitor_id, video_id, title, source_url,
                    external_id, start_time, end_time, ongoing, video_start_s, video_end_s,
                    covered_s, confidence, speed, pitch, update_time)
                VALUES ($1, $2, $3, $4, $5, $6, $7, greatest($7, $8::timestamptz), $9, $10, $11,
                    $12, $13, $14, $15, clock_timestamp())
                ON CONFLICT (id) DO UPDATE SET
                    end_time = greatest(d.start_time, $8),
                    ongoing = excluded.ongoing, video_end_s = excluded.video_end_s,
                    covered_s = excluded.covered_s, confidence = excluded.confidence,
                    speed = excluded.speed, pitch = excluded.pitch,
                    update_time = clock_timestamp()
                WHERE d.monitor_id = excluded.monitor_id
                RETURNING xmax = 0""",
                detection.id,
                detection.monitor_id,
                detection.video_id,
                detection.title,
                detection.source_url,
                detection.external_id,
                detection.start_time,
                detection.end_time,
                detection.ongoing,
                detection.video_start_s,
                detection.video_end_s,
                detection.covered_s,
                detection.confidence,
                detection.speed,
                detection.pitch,
            )
            if inserted:
                await held.execute(
                    "UPDATE monitors SET detections = detections + 1 WHERE id = $1",
                    detection.monitor_id,
                )

    async def ongoing(self, monitor_id: UUID) -> list[Detection]:
        """What goes on, the earliest first: for the worker that takes the monitor over."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"{_DETECTION} WHERE d.monitor_id = $1 AND d.ongoing ORDER BY d.start_time, d.id",
                monitor_id,
            )
        return [to_detection(row) for row in rows]

    async def ongoing_alerts(self, monitor_id: UUID) -> list[MonitorAlert]:
        """What is wrong: for the worker that takes the monitor over."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"{_ALERT} WHERE a.monitor_id = $1 AND a.end_time IS NULL ORDER BY a.start_time",
                monitor_id,
            )
        return [to_alert(row) for row in rows]

    async def begin_alert(
        self, token: UUID, kind: AlertKind, start_time: datetime, message: str = ""
    ) -> None:
        """Says that something is wrong, unless that is said already; then only another reason
        is taken up. Raises LeaseLost."""
        async with transaction(self._pool) as held:
            monitor_id, url = await _locked(held, token)
            await held.execute(
                """INSERT INTO monitor_alerts AS a
                    (monitor_id, kind, start_time, message, update_time)
                VALUES ($1, $2, $3, $4, clock_timestamp())
                ON CONFLICT (monitor_id, kind) WHERE end_time IS NULL DO UPDATE
                SET message = excluded.message, update_time = clock_timestamp()
                WHERE a.message <> excluded.message AND excluded.message <> ''""",
                monitor_id,
                kind.value,
                start_time,
                clean_text(without_secrets(message, url)),
            )

    async def end_alert(self, token: UUID, kind: AlertKind, end_time: datetime) -> None:
        """Says that it is over, where something was wrong. Raises LeaseLost."""
        async with transaction(self._pool) as held:
            monitor_id, _ = await _locked(held, token)
            await held.execute(
                """UPDATE monitor_alerts SET end_time = greatest(start_time, $3),
                    update_time = clock_timestamp()
                WHERE monitor_id = $1 AND kind = $2 AND end_time IS NULL""",
                monitor_id,
                kind.value,
                end_time,
            )

    async def now(self, monitor_ids: Sequence[UUID] = ()) -> tuple[Moment, list[MonitorChange]]:
        """The latest change there is, and what goes on, the longest unchanged first.

        monitor_ids: only of these; empty: of all.
        """
        async with transaction(self._pool, isolation="repeatable_read", readonly=True) as held:
            latest = await held.fetchrow(
                """SELECT update_time, id FROM (
                    (SELECT update_time, id FROM monitor_detections
                        ORDER BY update_time DESC, id DESC LIMIT 1)
                    UNION ALL (SELECT update_time, id FROM monitor_alerts
                        ORDER BY update_time DESC, id DESC LIMIT 1)
                ) AS latest ORDER BY update_time DESC, id DESC LIMIT 1"""
            )
            detections = await held.fetch(
                f"{_DETECTION} WHERE d.ongoing AND ($1::uuid[] = '{{}}' OR d.monitor_id = ANY($1))",
                list(monitor_ids),
            )
            alerts = await held.fetch(
                f"{_ALERT} WHERE a.end_time IS NULL"
                " AND ($1::uuid[] = '{}' OR a.monitor_id = ANY($1))",
                list(monitor_ids),
            )
        moment = (
            Moment(BEGINNING) if latest is None else Moment(latest["update_time"], latest["id"])
        )
        return moment, _in_order(detections, alerts)

    async def changes(
        self, since: Moment, monitor_ids: Sequence[UUID] = (), limit: int = 500
    ) -> list[MonitorChange]:
        """At most so many changes behind ``since``, the earliest first; each detection and alert
        as it is now, once. monitor_ids: only of these; empty: of all."""
        condition = """WHERE ({0}.update_time, {0}.id) > ($1, $2)
            AND ($3::uuid[] = '{{}}' OR {0}.monitor_id = ANY($3))
            ORDER BY {0}.update_time, {0}.id LIMIT $4"""
        values = (since.time, since.id, list(monitor_ids), limit)
        async with transaction(self._pool, isolation="repeatable_read", readonly=True) as held:
            detections = await held.fetch(f"{_DETECTION} {condition.format('d')}", *values)
            alerts = await held.fetch(f"{_ALERT} {condition.format('a')}", *values)
        return _in_order(detections, alerts)[:limit]

    async def list(
        self,
        page_size: int,
        page_token: str,
        *,
        monitor_id: UUID | None = None,
        video_id: UUID | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Page[Detection]:
        """The latest first. since: what ended after this; until: what began before this."""
        scope = f"detections\0{monitor_id}\0{video_id}\0{since}\0{until}"
        after = decode_token(page_token, scope)
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"""{_DETECTION}
                WHERE (d.start_time, d.id) < ($1, $2)
                    AND ($3::uuid IS NULL OR d.monitor_id = $3)
                    AND ($4::uuid IS NULL OR d.video_id = $4)
                    AND ($5::timestamptz IS NULL OR d.end_time > $5)
                    AND ($6::timestamptz IS NULL OR d.start_time < $6)
                ORDER BY d.start_time DESC, d.id DESC LIMIT $7""",
                after.create_time,
                after.id,
                monitor_id,
                video_id,
                since,
                until,
                limit_of(page_size) + 1,
            )
        return make_page(rows, page_size, scope, to_detection)

    async def alerts(
        self,
        page_size: int,
        page_token: str,
        *,
        monitor_id: UUID | None = None,
        ongoing: bool = False,
    ) -> Page[MonitorAlert]:
        """The latest first."""
        scope = f"alerts\0{monitor_id}\0{ongoing}"
        after = decode_token(page_token, scope)
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"""{_ALERT}
                WHERE (a.start_time, a.id) < ($1, $2)
                    AND ($3::uuid IS NULL OR a.monitor_id = $3)
                    AND (NOT $4::bool OR a.end_time IS NULL)
                ORDER BY a.start_time DESC, a.id DESC LIMIT $5""",
                after.create_time,
                after.id,
                monitor_id,
                ongoing,
                limit_of(page_size) + 1,
            )
        return make_page(rows, page_size, scope, to_alert)


def to_detection(row: asyncpg.Record) -> Detection:
    """A row of _DETECTION."""
    return Detection(**{name: row[name] for name in Detection.__dataclass_fields__})


def to_alert(row: asyncpg.Record) -> MonitorAlert:
    """A row of _ALERT."""
    values = {name: row[name] for name in MonitorAlert.__dataclass_fields__}
    return MonitorAlert(**{**values, "kind": AlertKind(row["kind"])})


async def latest_ongoing(held: Connection, monitor_ids: Sequence[UUID]) -> dict[UUID, Detection]:
    """The latest detection that goes on, for each monitor that has one."""
    rows = await held.fetch(
        f"""SELECT DISTINCT ON (monitor_id) * FROM (
            {_DETECTION} WHERE d.monitor_id = ANY($1) AND d.ongoing
        ) AS found ORDER BY monitor_id, start_time DESC, id DESC""",  # noqa: S608
        list(monitor_ids),
    )
    return {row["monitor_id"]: to_detection(row) for row in rows}


async def end_all(held: Connection, monitor_id: UUID) -> None:
    """Ends what goes on, inside a transaction that holds the monitor's row: nobody listens any
    more."""
    await _in_turn(held)
    await held.execute(
        "UPDATE monitor_detections SET ongoing = false, update_time = clock_timestamp()"
        " WHERE monitor_id = $1 AND ongoing",
        monitor_id,
    )
    await held.execute(
        """UPDATE monitor_alerts SET end_time = greatest(start_time, clock_timestamp()),
            update_time = clock_timestamp()
        WHERE monitor_id = $1 AND end_time IS NULL""",
        monitor_id,
    )


async def _locked(held: Connection, token: UUID) -> tuple[UUID, str]:
    """The id and URL of a lease's monitor, which cannot be lost from here to the end of the
    transaction; in turn (see _in_turn). Raises LeaseLost."""
    row = await held.fetchrow(
        # The row first, then the turn: who waits for a row keeps nobody else from writing.
        f"""SELECT id, url, {_TURN} FROM (
            SELECT id, url FROM monitors WHERE lease_token = $1 FOR NO KEY UPDATE
        ) AS own""",  # noqa: S608
        token,
    )
    if row is None:
        raise LeaseLost
    return row["id"], row["url"]


async def _in_turn(held: Connection) -> None:
    """Who changes detections or alerts does so alone from here to the end of the transaction,
    which must take no further locks of monitors. NOTIFY makes such commits take turns anyway."""
    await held.execute(f"SELECT {_TURN}")


def _in_order(
    detections: Sequence[asyncpg.Record], alerts: Sequence[asyncpg.Record]
) -> list[MonitorChange]:
    found = [MonitorChange(to_detection(row), row["update_time"]) for row in detections]
    found += [MonitorChange(to_alert(row), row["update_time"]) for row in alerts]
    return sorted(found, key=lambda change: (change.update_time, change.event.id))
