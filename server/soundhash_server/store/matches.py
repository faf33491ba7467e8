"""Matches: what was answered, kept also after the video is gone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

import asyncpg

from soundhash_server.model import MatchRecord, OnAir, Page, ScoreParts
from soundhash_server.store.pages import decode_token, limit_of, make_page
from soundhash_server.store.pool import Pool, connection, transaction

QueryKind = Literal["CLIP", "STREAM"]

_COLUMNS = (
    "query_id",
    "video_id",
    "title",
    "source_url",
    "external_id",
    "clip_start_s",
    "clip_end_s",
    "video_start_s",
    "video_end_s",
    "speed",
    "pitch",
    "confidence",
    "parts",
    "also_at_s",
    "monitor_id",
    "monitor_name",
    "air_time",
)
_NAMES = ", ".join(_COLUMNS)
_INSERT = (
    f"INSERT INTO match_results ({_NAMES})"  # noqa: S608
    f" VALUES ({', '.join(f'${i}' for i in range(1, len(_COLUMNS) + 1))})"
    " RETURNING id, create_time"
)
_SELECT = f"SELECT id, create_time, {_NAMES} FROM match_results"  # noqa: S608


class Matches:
    """Stores and reads answers. Every method raises PlatformError DATABASE_UNAVAILABLE when
    the database is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def record(
        self,
        kind: QueryKind,
        clip_duration_s: float,
        elapsed_s: float,
        matches: Sequence[MatchRecord],
        *,
        query_id: UUID | None = None,
    ) -> tuple[UUID, list[MatchRecord]]:
        """Stores a question and its answers, all or nothing.

        ``query_id``: adds the answers to that question and renews its figures, for a stream
        whose answers come one by one. Returns the question's id, and the answers with their ids
        and times, in order.
        """
        async with transaction(self._pool) as held:
            query_id = await held.fetchval(
                "INSERT INTO match_queries (kind, clip_duration_s, elapsed_s, id)"
                " VALUES ($1, $2, $3, coalesce($4, gen_random_uuid()))"
                " ON CONFLICT (id) DO UPDATE SET clip_duration_s = excluded.clip_duration_s,"
                " elapsed_s = excluded.elapsed_s RETURNING id",
                kind,
                clip_duration_s,
                elapsed_s,
                query_id,
            )
            if query_id is None:
                raise RuntimeError("INSERT ... RETURNING gave no row")
            stored = []
            for match in matches:
                kept = dataclasses.replace(match, query_id=query_id)
                row = await held.fetchrow(_INSERT, *_values(kept))
                if row is None:
                    raise RuntimeError("INSERT ... RETURNING gave no row")
                stored.append(
                    dataclasses.replace(kept, id=row["id"], create_time=row["create_time"])
                )
        return query_id, stored

    async def get(self, match_id: UUID) -> MatchRecord | None:
        async with connection(self._pool) as held:
            row = await held.fetchrow(f"{_SELECT} WHERE id = $1", match_id)
        return None if row is None else _to_match(row)

    async def list(
        self,
        page_size: int,
        page_token: str,
        *,
        video_id: UUID | None = None,
        query_id: UUID | None = None,
    ) -> Page[MatchRecord]:
        """Newest first; only those of a video or of a question when given."""
        scope = f"matches\0{video_id}\0{query_id}"
        after = decode_token(page_token, scope)
        # Conditions are added as needed, so that each filter uses its own index.
        conditions = "(create_time, id) < ($1, $2)"
        values: list[object] = [after.create_time, after.id, limit_of(page_size) + 1]
        for column, value in (("video_id", video_id), ("query_id", query_id)):
            if value is not None:
                values.append(value)
                conditions += f" AND {column} = ${len(values)}"
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"{_SELECT} WHERE {conditions} ORDER BY create_time DESC, id DESC LIMIT $3",
                *values,
            )
        return make_page(rows, page_size, scope, _to_match)


def _values(match: MatchRecord) -> list[Any]:
    """What is stored of a match, in the order of _COLUMNS."""
    on_air = match.on_air
    values = {
        "parts": dataclasses.asdict(match.parts),
        "monitor_id": on_air and on_air.monitor_id,
        "monitor_name": on_air.monitor_name if on_air else "",
        "air_time": on_air and on_air.start_time,
    }
    return [values[name] if name in values else getattr(match, name) for name in _COLUMNS]


def _to_match(row: asyncpg.Record) -> MatchRecord:
    values = dict(row)
    values["parts"] = ScoreParts(**values["parts"])
    values["also_at_s"] = tuple(values["also_at_s"])
    monitor_id, name = values.pop("monitor_id"), values.pop("monitor_name")
    start_time = values.pop("air_time")
    if monitor_id is not None:
        # Seconds of the video, which are those on the air.
        length_s = (values["clip_end_s"] - values["clip_start_s"]) * values["speed"]
        end_time = start_time + timedelta(seconds=length_s)
        values["on_air"] = OnAir(monitor_id, name, start_time, end_time)
    return MatchRecord(**values)
