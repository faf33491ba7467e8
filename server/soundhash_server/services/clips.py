"""Twitch clips: submit, follow, show and remove them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from soundhash_engine import PARAMS
from soundhash_server.errors import not_found
from soundhash_server.fetching.ways import check_options
from soundhash_server.model import FetchOptions, IngestParameters, JobKind, JobState, NewJob, Page
from soundhash_server.queue import JobQueue
from soundhash_server.services.catalog import Hides
from soundhash_server.services.media import Kept, Media
from soundhash_server.sources import source_host
from soundhash_server.store.clips import ClipRow, Clips
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.listener import JOBS, Listener
from soundhash_server.store.objects import Objects
from soundhash_server.tasks import end
from soundhash_server.twitch import clip_ids, clip_key, clip_url

SIGNED_S = 3600.0
"""How long addresses to download from hold."""
_POLL_S = 1.0
"""Those who wait look again after this even if nothing was announced."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip and what is kept of it."""

    row: ClipRow
    objects: tuple[Kept, ...]


class TwitchClips:
    """Each clip is an INGEST job, the same as if its address had been submitted."""

    def __init__(
        self,
        clips: Clips,
        jobs: Jobs,
        objects: Objects,
        queue: JobQueue,
        listener: Listener,
        media: Media,
        index: Hides,
        *,
        max_attempts: int,
        allow_private_urls: bool,
    ) -> None:
        self._clips = clips
        self._jobs = jobs
        self._objects = objects
        self._queue = queue
        self._listener = listener
        self._media = media
        self._index = index
        self._max_attempts = max_attempts
        self._allow_private_urls = allow_private_urls

    async def submit(self, texts: Sequence[str], options: FetchOptions) -> tuple[Clip, ...]:
        """Fetches clips in the background; the same clip twice is one.

        Raises PlatformError INVALID_ARGUMENT: CLIP_ID_INVALID, which names every text that is
        no clip's id or address, and starts nothing; those of
        `ways.check_options`.
        """
        started = await self._start(texts, options)
        found = [await self._clips.get(clip_id) for clip_id, _ in started]
        return await self._with_objects([row for row in found if row is not None])

    async def process(self, texts: Sequence[str], options: FetchOptions) -> AsyncIterator[Clip]:
        """As `submit`; then each clip as soon as it is finished, well or not."""
        started = await self._start(texts, options)
        tasks = [asyncio.create_task(self._finished(*one)) for one in started]
        try:
            for task in asyncio.as_completed(tasks):
                row = await task
                if row is not None:
                    (clip,) = await self._with_objects([row])
                    yield clip
        finally:
            await end(*tasks)

    async def _finished(self, clip_id: str, job_id: UUID) -> ClipRow | None:
        """The clip when its job is finished; None when it was deleted meanwhile."""
        with self._listener.subscribe(JOBS, str(job_id)) as changes:
            while True:
                changes.clear()
                row = await self._clips.get(clip_id)
                if row is None or row.job.state.finished:
                    return row
                await changes.wait(_POLL_S)

    async def get(self, text: str, *, download_urls: bool) -> Clip:
        """How a clip stands.

        Raises PlatformError INVALID_ARGUMENT (CLIP_ID_INVALID), NOT_FOUND (CLIP_NOT_FOUND), and
        with ``download_urls`` as `Media.list`.
        """
        (clip_id,) = clip_ids([text], "id")
        row = await self._clips.get(clip_id)
        if row is None:
            raise not_found("clip", clip_id)
        (clip,) = await self._with_objects([row], SIGNED_S if download_urls else None)
        return clip

    async def list(self, page_size: int, page_token: str) -> Page[Clip]:
        """Newest first."""
        page = await self._clips.list(page_size, page_token)
        return Page(await self._with_objects(page.items), page.next_page_token)

    async def delete(self, text: str) -> None:
        """Removes a clip: its job, what is kept of it, and its video.

        A video that was there before under another source stays. Raises PlatformError
        INVALID_ARGUMENT (CLIP_ID_INVALID), NOT_FOUND (CLIP_NOT_FOUND).
        """
        (clip_id,) = clip_ids([text], "id")
        deleted = await self._clips.delete(clip_id)
        if deleted is None:
            raise not_found("clip", clip_id)
        if deleted.recording_id is not None:
            await self._index.hide(deleted.recording_id)
        if deleted.video_id is not None:
            await self._media.remove(deleted.video_id)

    async def _start(
        self, texts: Sequence[str], options: FetchOptions
    ) -> Sequence[tuple[str, UUID]]:
        """The clips' ids and their jobs'."""
        ids = clip_ids(texts)
        await check_options(options, self._allow_private_urls)
        jobs = await self._jobs.submit_many(
            [
                NewJob(
                    JobKind.INGEST,
                    clip_key(clip_id),
                    IngestParameters(url=clip_url(clip_id), options=options),
                    source_host=source_host(clip_url(clip_id)),
                )
                for clip_id in ids
            ],
            max_attempts=self._max_attempts,
            params_digest=PARAMS.digest,
        )
        await asyncio.gather(
            *(self._queue.wake(job.id) for job in jobs if job.state is JobState.QUEUED)
        )
        return [(clip_id, job.id) for clip_id, job in zip(ids, jobs, strict=True)]

    async def _with_objects(
        self, rows: Sequence[ClipRow], sign_for_s: float | None = None
    ) -> tuple[Clip, ...]:
        ids = [row.video_id for row in rows if row.video_id is not None]
        found = await self._objects.of_videos(ids) if ids else {}
        return tuple(
            [
                Clip(
                    row,
                    await self._media.sign(
                        found.get(row.video_id, ()) if row.video_id else (), sign_for_s
                    ),
                )
                for row in rows
            ]
        )
