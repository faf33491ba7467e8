"""Storing a recording: its video and segments, once, whoever comes first."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from soundhash_engine.types import Segment
from soundhash_server.model import IngestResult, NewVideo
from soundhash_server.sources import split_media_key
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
        "SELECT id FROM videos WHERE source_key = $1"
        " OR (media_id <> '' AND service = $2 AND media_id = $3) LIMIT 1",
        video.source_key or None,
        video.service,
        video.media_id,
    )
    if same_bytes is not None:
        video_id: UUID = same_bytes["id"]
        if video.source_key and same_source != video_id:
            await held.execute(
                "UPDATE videos SET source_key = NULL, service = '', media_id = '' WHERE id = $1",
                same_source,
            )
            await name_source(held, video_id, video.source_key)
        await _describe(held, video_id, video)
        if same_bytes["params_digest"] == params_digest:
            await settle_objects(held, video_id)
            return IngestResult(video_id, already_indexed=True)
    elif same_source is not None:
        video_id = same_source
        await _describe(held, video_id, video)
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


async def name_source(held: Connection, video_id: UUID, source_key: str) -> None:
    """Remembers that a source leads to a video, unless the video has one or another video has
    this one. The caller holds the catalogue's lock."""
    service, media_id = split_media_key(source_key)
    await held.execute(
        """UPDATE videos SET source_key = coalesce(source_key, $2),
            service = CASE WHEN media_id = '' THEN $3 ELSE service END,
            media_id = CASE WHEN media_id = '' THEN $4 ELSE media_id END
        WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM videos WHERE id <> $1
            AND (source_key = $2 OR (media_id <> '' AND service = $3 AND media_id = $4)))""",
        video_id,
        source_key,
        service,
        media_id,
    )


async def _describe(held: Connection, video_id: UUID, video: NewVideo) -> None:
    """Fills in what was not known of a video before."""
    await held.execute(
        """UPDATE videos SET
            description = CASE WHEN description = '' THEN $2 ELSE description END,
            publish_time = coalesce(publish_time, $3),
            thumbnail_url = CASE WHEN thumbnail_url = '' THEN $4 ELSE thumbnail_url END
        WHERE id = $1""",
        video_id,
        video.description,
        video.publish_time,
        video.thumbnail_url,
    )


async def _insert(held: Connection, video: NewVideo, params_digest: str, revision: int) -> UUID:
    try:
        video_id: UUID = await held.fetchval(
            """INSERT INTO videos (id, channel_id, title, source_url, external_id, source_key,
                content_sha256, duration_s, segment_count, landmark_count, params_digest, revision,
                service, media_id, description, publish_time, thumbnail_url)
            VALUES (coalesce($10, gen_random_uuid()), $1, $2, $3, $4, $5, $6, $7, 0, 0, $8, $9,
                $11, $12, $13, $14, $15)
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
            video.service,
            video.media_id,
            video.description,
            video.publish_time,
            video.thumbnail_url,
        )
    except asyncpg.UniqueViolationError:
        # Bytes and source were looked up under the catalogue's lock: only this one is left.
        raise external_id_taken(video.external_id) from None
    return video_id
