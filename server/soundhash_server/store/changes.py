"""What the match index follows: the catalogue's revision and what changed since one.

Each change of what is indexed increments the catalogue's revision while it holds the
catalogue's row lock, so changes commit in the order of their revisions: a snapshot that shows
revision R shows every change up to R.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from soundhash_engine.types import Segment
from soundhash_server.store.fingerprints import SELECT_SEGMENT, to_segment
from soundhash_server.store.pool import Pool, connection, transaction

LOAD_SEGMENTS = 512
"""About this many segments are read at once: some 30 MB."""


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """What happened to the catalogue after some revision."""

    revision: int
    """The catalogue's revision with these changes applied."""
    changed: list[tuple[int, int]]
    """(recording_id, revision) of what was added or fingerprinted anew."""
    deleted: list[int]
    """recording_ids."""


class Changes:
    """Reads changes of the videos, or ``on_air`` of what monitors have heard: two indexes.

    Every method raises PlatformError DATABASE_UNAVAILABLE when the database is away.
    """

    def __init__(self, pool: Pool, *, on_air: bool = False) -> None:
        self._pool = pool
        self._on_air = on_air
        self._mine = f"monitor_id IS {'NOT ' if on_air else ''}NULL"

    async def current_revision(self) -> int:
        async with connection(self._pool) as held:
            revision: int = await held.fetchval("SELECT revision FROM catalogue")
        return revision

    async def identity(self) -> UUID:
        """Tells this database from every other one."""
        async with connection(self._pool) as held:
            identity: UUID = await held.fetchval("SELECT identity FROM catalogue")
        return identity

    async def since(self, revision: int) -> ChangeSet | None:
        """Everything after ``revision``, as of one moment.

        None when some of it is forgotten: compare with `all_revisions` instead.
        """
        async with transaction(self._pool, isolation="repeatable_read", readonly=True) as held:
            catalogue = await held.fetchrow("SELECT revision, air_forgotten FROM catalogue")
            if catalogue is None:
                raise RuntimeError("the catalogue has no row")
            current: int = catalogue["revision"]
            if current == revision:
                return ChangeSet(current, [], [])
            if self._on_air and revision < catalogue["air_forgotten"]:
                return None
            changed = await held.fetch(
                "SELECT recording_id, revision FROM videos"  # noqa: S608
                f" WHERE revision > $1 AND {self._mine} ORDER BY revision",
                revision,
            )
            deleted = await held.fetch(
                "SELECT recording_id FROM video_deletions"
                " WHERE revision > $1 AND on_air = $2 ORDER BY revision",
                revision,
                self._on_air,
            )
        return ChangeSet(
            current,
            [(row["recording_id"], row["revision"]) for row in changed],
            [row["recording_id"] for row in deleted],
        )

    async def all_revisions(self) -> tuple[int, dict[int, int]]:
        """The catalogue's revision, and the revision of every recording by its id."""
        async with transaction(self._pool, isolation="repeatable_read", readonly=True) as held:
            current: int = await held.fetchval("SELECT revision FROM catalogue")
            rows = await held.fetch(
                f"SELECT recording_id, revision FROM videos WHERE {self._mine}"  # noqa: S608
            )
        return current, {row["recording_id"]: row["revision"] for row in rows}

    async def load(
        self, recording_ids: Sequence[int]
    ) -> AsyncIterator[tuple[int, int, list[Segment]]]:
        """(recording_id, revision, segments) of each of these that still exists.

        Reads in batches of about LOAD_SEGMENTS and holds no connection while the caller works.
        """
        async with connection(self._pool) as held:
            sizes = await held.fetch(
                "SELECT recording_id, segment_count FROM videos"
                " WHERE recording_id = ANY($1::bigint[]) ORDER BY recording_id",
                list(recording_ids),
            )
        for batch in _batches(sizes):
            async with connection(self._pool) as held:
                rows = await held.fetch(
                    f"SELECT v.recording_id, v.revision, {SELECT_SEGMENT} FROM videos AS v"  # noqa: S608
                    " JOIN audio_fingerprints AS f ON f.video_id = v.id"
                    " WHERE v.recording_id = ANY($1::bigint[])"
                    " ORDER BY v.recording_id, f.segment_index",
                    batch,
                )
            for loaded in _recordings(rows):
                yield loaded


def _batches(sizes: Sequence[asyncpg.Record]) -> Iterator[list[int]]:
    batch: list[int] = []
    segments = 0
    for row in sizes:
        if batch and segments + row["segment_count"] > LOAD_SEGMENTS:
            yield batch
            batch, segments = [], 0
        batch.append(row["recording_id"])
        segments += row["segment_count"]
    if batch:
        yield batch


def _recordings(rows: Sequence[asyncpg.Record]) -> Iterator[tuple[int, int, list[Segment]]]:
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end]["recording_id"] != rows[start]["recording_id"]:
            first = rows[start]
            segments = [to_segment(row) for row in rows[start:end]]
            yield first["recording_id"], first["revision"], segments
            start = end
