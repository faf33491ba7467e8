"""Fingerprints: the stored segments of videos, a row a segment."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from soundhash_engine.types import Segment
from soundhash_server.model import Page, Video
from soundhash_server.store.pool import Connection, Pool, connection
from soundhash_server.store.videos import Videos

SEGMENT_COLUMNS = (
    "segment_index",
    "start_s",
    "duration_s",
    "landmark_count",
    "landmarks",
    "descriptor",
    "vector",
    "md5",
    "params_digest",
)
SELECT_SEGMENT = ", ".join(f"f.{name}" for name in SEGMENT_COLUMNS)


def to_segment(row: asyncpg.Record) -> Segment:
    """A row with SELECT_SEGMENT."""
    return Segment(
        index=row["segment_index"],
        start_s=row["start_s"],
        duration_s=row["duration_s"],
        landmarks=row["landmarks"],
        descriptor=row["descriptor"],
        vector=row["vector"],
        md5=row["md5"],
        params_digest=row["params_digest"],
        landmark_count=row["landmark_count"],
    )


async def replace_segments(held: Connection, video_id: UUID, segments: Sequence[Segment]) -> None:
    """Makes these the segments of a video, inside the caller's transaction."""
    await store_segments(held, video_id, segments, first=0)


async def store_segments(
    held: Connection, video_id: UUID, segments: Sequence[Segment], *, first: int
) -> None:
    """Makes these the segments of a video from the one with number ``first`` on."""
    await held.execute(
        "DELETE FROM audio_fingerprints WHERE video_id = $1 AND segment_index >= $2",
        video_id,
        first,
    )
    await held.copy_records_to_table(
        "audio_fingerprints",
        columns=("video_id", *SEGMENT_COLUMNS),
        records=(
            (
                video_id,
                segment.index,
                segment.start_s,
                segment.duration_s,
                segment.landmark_count,
                segment.landmarks,
                segment.descriptor,
                segment.vector,
                segment.md5,
                segment.params_digest,
            )
            for segment in segments
        ),
    )


class Fingerprints:
    """Reads fingerprints. Every method raises PlatformError DATABASE_UNAVAILABLE when the
    database is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._videos = Videos(pool)

    async def segments(self, video_id: UUID) -> list[Segment]:
        """The segments of a video in their order; empty when there is no such video."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                f"SELECT {SELECT_SEGMENT} FROM audio_fingerprints AS f"  # noqa: S608
                " WHERE f.video_id = $1 ORDER BY f.segment_index",
                video_id,
            )
        return [to_segment(row) for row in rows]

    async def list(self, page_size: int, page_token: str) -> Page[Video]:
        """The videos that have fingerprints, newest first."""
        return await self._videos.list(page_size, page_token)
