"""Storing a recording: its video and segments, once, whoever comes first."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from soundhash_engine.types import Segment
from soundhash_server.model import IngestResult, NewVideo
from soundhash_server.store.fingerprints import replace_segments
from soundhash_server.store.objects import settle_objects
from soundhash_server.store.pool import Connection
from soundhash_server.store.videos import channel_id, external_id_taken


async def store_recording(
    held: Connection, video: NewVideo, segments: Sequence[Segment]
) -> IngestResult:
    """Stores a recording inside the caller's transaction and bumps the catalogue's revision.

    - New bytes from a new source: a new video.
    - Bytes that are there with the same parameters: nothing is added (already_indexed).
    - Bytes that are there with other parameters, or other bytes from a source that is there:
      that video's fingerprints are replaced; its id and description stay.

    A source leads to one video: when it now delivers the bytes of another video, it moves.
    Raises PlatformError EXTERNAL_ID_TAKEN; ValueError without segments.
    """
    if not segments:
        raise ValueError("a recording without any segment")
    params_digest = segments[0].params_digest
    # This lock makes writers of the catalogue one after the other; see migrations/0001_init.sql.
    # It is always taken after the job's row and before any video's: no deadlocks.
    revision: int = await held.fetchval("SELECT revision + 1 FROM catalogue FOR UPDATE")
    same_bytes = await held.fetchrow(
        "SELECT id, params_digest, source_key FROM videos WHERE content_sha256 = $1",
        video.content_sha256,
    )
    same_source: UUID | None = await held.fetchval(
        "SELECT id FROM videos WHERE source_key = $1", video.source_key or None
    )
    if same_bytes is not None:
        video_id: UUID = same_bytes["id"]
        if video.source_key and same_source != video_id:
            await held.execute("UPDATE videos SET source_key = NULL WHERE id = $1", same_source)
            await held.execute(
                "UPDATE videos SET source_key = coalesce(source_key, $2) WHERE id = $1",
                video_id,
                video.source_key,
            )
        if same_bytes["params_digest"] == params_digest:
            await settle_objects(held, video_id)
            return IngestResult(video_id, already_indexed=True)
    elif same_source is not None:
        video_id = same_source
    else:
        video_id = await _insert(held, video, params_digest, revision)
    await settle_objects(held, video_id)
    await replace_segments(held, video_id, segments)
    await held.execute(
        """UPDATE videos SET content_sha256 = $2, duration_s = $3, segment_count = $4,
            landmark_count = $5, params_digest = $6, revision = $7, update_time = now()
        WHERE id = $1""",
        video_id,
        video.content_sha256,
        video.duration_s,
        len(segments),
        sum(segment.landmark_count for segment in segments),
        params_digest,
        revision,
    )
    await held.execute("UPDATE catalogue SET revision = $1", revision)
    return IngestResult(video_id, already_indexed=False)


async def _insert(held: Connection, video: NewVideo, params_digest: str, revision: int) -> UUID:
    try:
        video_id: UUID = await held.fetchval(
            """INSERT INTO videos (id, channel_id, title, source_url, external_id, source_key,
                content_sha256, duration_s, segment_count, landmark_count, params_digest, revision)
            VALUES (coalesce($10, gen_random_uuid()), $1, $2, $3, $4, $5, $6, $7, 0, 0, $8, $9)
            RETURNING id""",
            await channel_id(held, video.channel),
            video.title,
            video.source_url,
            video.external_id or None,
            video.source_key or None,
            video.content_sha256,
            video.duration_s,
            params_digest,
            revision,
            video.id,
        )
    except asyncpg.UniqueViolationError:
        # Bytes and source were looked up under the catalogue's lock: only this one is left.
        raise external_id_taken(video.external_id) from None
    return video_id
