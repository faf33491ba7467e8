"""What DUPLICATES jobs have found: pairs of videos that are alike."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from soundhash_server.model import (
    DuplicateKind,
    DuplicatePair,
    FoundPair,
    Page,
    SharedRange,
)
from soundhash_server.store.jobs import LeaseLost
from soundhash_server.store.pages import limit_of, page_token_invalid
from soundhash_server.store.pool import Connection, Pool, connection, transaction
from soundhash_server.store.videos import SELECT_VIDEO, to_video

# version, checksum of the list's filters, shared seconds, ids of both videos
_TOKEN = struct.Struct(">BId16s16s")
_TOKEN_VERSION = 1


@dataclass(frozen=True, slots=True)
class _Cursor:
    """Sort key of a row: pages go on behind it."""

    shared_s: float
    first_id: UUID
    second_id: UUID


_FIRST = _Cursor(float("inf"), UUID(int=0), UUID(int=0))


class Duplicates:
    """Pairs by the job that has found them. Every method raises PlatformError
    DATABASE_UNAVAILABLE when the database is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def begin(self, token: UUID) -> None:
        """Forgets what an earlier attempt at the job has found. Raises LeaseLost."""
        async with transaction(self._pool) as held:
            job_id = await _job_of(held, token)
            await held.execute("DELETE FROM duplicate_pairs WHERE job_id = $1", job_id)

    async def put(self, token: UUID, pairs: Sequence[FoundPair]) -> None:
        """Adds pairs, or what more was found of them; those of videos that are gone are left out.

        Raises LeaseLost.
        """
        async with transaction(self._pool) as held:
            job_id = await _job_of(held, token)
            # Deleting one of the videos waits until this is done, and then takes its pairs along.
            await held.execute(
                """INSERT INTO duplicate_pairs AS d (job_id, first_id, second_id, kind, ranges,
                    shared_s, first_share, second_share)
                SELECT $1, a.id, b.id, i.kind, i.held -> 'ranges', i.shared_s, i.first_share,
                    i.second_share
                FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::jsonb[], $6::float8[],
                    $7::float8[], $8::float8[])
                    AS i (first, second, kind, held, shared_s, first_share, second_share)
                JOIN videos AS a ON a.recording_id = i.first
                JOIN videos AS b ON b.recording_id = i.second
                FOR KEY SHARE OF a, b
                ON CONFLICT (job_id, first_id, second_id) DO UPDATE SET
                    kind = excluded.kind, ranges = excluded.ranges,
                    shared_s = excluded.shared_s, first_share = excluded.first_share,
                    second_share = excluded.second_share""",
                job_id,
                [pair.first_recording for pair in pairs],
                [pair.second_recording for pair in pairs],
                [pair.kind.value for pair in pairs],
                # A list of lists would be an array of two dimensions.
                [{"ranges": [dataclasses.asdict(one) for one in pair.ranges]} for pair in pairs],
                [pair.shared_s for pair in pairs],
                [pair.first_share for pair in pairs],
                [pair.second_share for pair in pairs],
            )

    async def list(
        self,
        job_id: UUID,
        page_size: int,
        page_token: str,
        *,
        video_id: UUID | None = None,
        kinds: Sequence[DuplicateKind] = (),
    ) -> Page[DuplicatePair]:
        """The longest shared passages first; only pairs with this video, of these kinds."""
        names = sorted({kind.value for kind in kinds})
        scope = f"duplicates\0{job_id}\0{video_id}\0{','.join(names)}"
        after = _decode(page_token, scope)
        limit = limit_of(page_size)
        async with transaction(self._pool, isolation="repeatable_read", readonly=True) as held:
            rows = await held.fetch(
                """SELECT first_id, second_id, kind, ranges, shared_s, first_share, second_share
                FROM duplicate_pairs
                WHERE job_id = $1 AND shared_s <= $2
                    AND (shared_s < $2 OR (first_id, second_id) > ($3, $4))
                    AND ($5::uuid IS NULL OR first_id = $5 OR second_id = $5)
                    AND ($6::text[] = '{}' OR kind = ANY($6))
                ORDER BY shared_s DESC, first_id, second_id LIMIT $7""",
                job_id,
                after.shared_s,
                after.first_id,
                after.second_id,
                video_id,
                names,
                limit + 1,
            )
            ids = {row[name] for row in rows for name in ("first_id", "second_id")}
            found = await held.fetch(f"{SELECT_VIDEO} WHERE v.id = ANY($1)", list(ids))
        videos = {row["id"]: to_video(row) for row in found}
        token = ""
        if len(rows) > limit:
            last = rows[limit - 1]
            token = _encode(_Cursor(last["shared_s"], last["first_id"], last["second_id"]), scope)
        return Page(
            tuple(
                DuplicatePair(
                    kind=DuplicateKind(row["kind"]),
                    first=videos[row["first_id"]],
                    second=videos[row["second_id"]],
                    ranges=tuple(SharedRange(**one) for one in row["ranges"]),
                    first_share=row["first_share"],
                    second_share=row["second_share"],
                )
                for row in rows[:limit]
            ),
            token,
        )

    async def recordings(self, video_ids: Sequence[UUID]) -> dict[UUID, int]:
        """Keys of videos in the match index; those that are gone are left out."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                "SELECT id, recording_id FROM videos WHERE id = ANY($1) AND monitor_id IS NULL",
                list(video_ids),
            )
        return {row["id"]: row["recording_id"] for row in rows}


async def _job_of(held: Connection, token: UUID) -> UUID:
    """The job of a lease, which nobody can end or give away in this transaction."""
    job_id: UUID | None = await held.fetchval(
        "SELECT id FROM processing_jobs WHERE state = 'RUNNING' AND lease_token = $1 FOR SHARE",
        token,
    )
    if job_id is None:
        raise LeaseLost
    return job_id


def _encode(cursor: _Cursor, scope: str) -> str:
    packed = _TOKEN.pack(
        _TOKEN_VERSION,
        zlib.crc32(scope.encode()),
        cursor.shared_s,
        cursor.first_id.bytes,
        cursor.second_id.bytes,
    )
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def _decode(token: str, scope: str) -> _Cursor:
    if not token:
        return _FIRST
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        version, checksum, shared_s, first, second = _TOKEN.unpack(packed)
    except (binascii.Error, ValueError, struct.error):
        raise page_token_invalid() from None
    if version != _TOKEN_VERSION or checksum != zlib.crc32(scope.encode()):
        raise page_token_invalid()
    return _Cursor(shared_s, UUID(bytes=first), UUID(bytes=second))
