"""What is kept of clips for a while, so that their matches can be explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from soundhash_server.store.pool import Pool, connection

_SWEPT_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class KeptPart:
    """A part of a clip, in the clip's seconds; ``features`` as the engine packs them."""

    begin_s: float
    end_s: float
    features: bytes


class ClipParts:
    """Stores and reads the kept parts of questions. Every method raises PlatformError
    DATABASE_UNAVAILABLE when the database is away.

    keep_days: older ones are not given any more, and swept.
    """

    def __init__(self, pool: Pool, *, keep_days: float) -> None:
        self._pool = pool
        self._keep_s = keep_days * 86400.0

    async def add(self, query_id: UUID, parts: Sequence[KeptPart]) -> None:
        """Keeps parts of a question; one that is there already stays."""
        async with connection(self._pool) as held:
            # A question that is gone by now keeps nothing.
            await held.executemany(
                "INSERT INTO clip_parts (query_id, begin_s, end_s, features)"
                " SELECT id, $2, $3, $4 FROM match_queries WHERE id = $1"
                " ON CONFLICT DO NOTHING",
                [(query_id, part.begin_s, part.end_s, part.features) for part in parts],
            )

    async def within(self, query_id: UUID, first_s: float, last_s: float) -> list[bytes]:
        """The parts of a question that touch these seconds of its clip, in order."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                "SELECT features FROM clip_parts WHERE query_id = $1"
                " AND begin_s < $3 AND end_s > $2"
                " AND create_time > now() - make_interval(secs => $4) ORDER BY begin_s, end_s",
                query_id,
                first_s,
                last_s,
                self._keep_s,
            )
        return [row["features"] for row in rows]

    async def sweep(self) -> int:
        """Deletes what has been kept long enough; returns how many parts."""
        total = 0
        while True:
            async with connection(self._pool) as held:
                rows = await held.fetch(
                    "DELETE FROM clip_parts WHERE ctid = ANY (ARRAY("
                    " SELECT ctid FROM clip_parts"
                    " WHERE create_time <= now() - make_interval(secs => $1)"
                    " ORDER BY create_time LIMIT $2 FOR UPDATE SKIP LOCKED)) RETURNING 1",
                    self._keep_s,
                    _SWEPT_AT_ONCE,
                )
            total += len(rows)
            if len(rows) < _SWEPT_AT_ONCE:
                return total
