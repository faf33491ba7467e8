"""One ingest job: fetch, decode, fingerprint. Storing its result is the runner's part."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard
from uuid import UUID

import aiohttp

from soundhash_engine import PARAMS, Segment
from soundhash_server.fetching.download import Limits
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.fetch import Fetched, fetch
from soundhash_server.fetching.scratch import Scratch
from soundhash_server.model import (
    IngestParameters,
    JobProgress,
    JobStep,
    NewVideo,
    Video,
)
from soundhash_server.settings import Settings
from soundhash_server.sources import clean_text, title_from_name, url_key
from soundhash_server.store.videos import Videos, external_id_taken
from soundhash_server.twitch import clip_id_of_key
from soundhash_server.url_guard import check_url
from soundhash_workers.extract import Extracted, extract
from soundhash_workers.keeping import Keeper
from soundhash_workers.uploads import Upload


class Report:
    """How far a job has come; written by the work, read by whoever tells the database."""

    def __init__(self) -> None:
        self.progress = JobProgress()

    def on_bytes(self, done: int, total: int) -> None:
        self.progress = JobProgress(
            step=JobStep.FETCH,
            fraction=min(1.0, done / total) if total > 0 else 0.0,
            bytes_done=done,
            bytes_total=total,
        )

    def on_audio(self, done_s: float, total_s: float | None) -> None:
        self.progress = replace(
            self.progress,
            step=JobStep.FINGERPRINT,
            fraction=min(1.0, done_s / total_s) if total_s else 0.0,
            audio_done_s=done_s,
            audio_total_s=total_s,
        )

    def on_keep(self, fraction: float) -> None:
        self.progress = replace(self.progress, step=JobStep.KEEP, fraction=fraction)

    def on_store(self) -> None:
        self.progress = replace(self.progress, step=JobStep.STORE, fraction=0.0)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recording that is ready to be stored."""

    video: NewVideo
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """The recording is indexed already."""

    video_id: UUID
    source_key: str


class Pipeline:
    """Does the work of ingest jobs. One for all jobs of a worker."""

    def __init__(
        self,
        settings: Settings,
        videos: Videos,
        scratch: Scratch,
        session: aiohttp.ClientSession,
        keeper: Keeper,
    ) -> None:
        self._settings = settings
        self._videos = videos
        self._scratch = scratch
        self._session = session
        self._keeper = keeper
        # More decoders than cores only take memory.
        self._decoders = asyncio.Semaphore(settings.effective_cpu_threads)
        self._threads = ThreadPoolExecutor(
            settings.effective_cpu_threads + 2, thread_name_prefix="extract"
        )
        self._limits = Limits(settings.max_upload_bytes, settings.min_free_disk_bytes)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def upload_of(self, parameters: IngestParameters) -> Upload | None:
        """The received file that a job is about; None for a URL or when it is gone."""
        if not parameters.content_sha256:
            return None
        try:
            return Upload(self._settings.uploads_dir / parameters.content_sha256)
        except FileNotFoundError:
            return None

    async def prepare(
        self, parameters: IngestParameters, upload: Upload | None, report: Report
    ) -> Prepared | Known:
        """What is to be stored for a job. Leaves no file; stops at once when cancelled.

        Raises JobError, EngineError, PlatformError, OSError.
        """
        if parameters.url:
            return await self._from_url(parameters, report)
        digest = parameters.content_sha256
        known = await self._videos.by_sha256(digest)
        if _current(known):
            return Known(known.id, "")
        await self._check_external_id(parameters, known)
        if upload is None:
            raise JobError("UPLOAD_GONE", "The uploaded bytes are not there.")
        size = parameters.size_bytes
        report.progress = JobProgress(step=JobStep.FINGERPRINT, bytes_done=size, bytes_total=size)
        extracted = await self._extract(upload.path, report)
        video_id = await self._keeper.keep(
            upload.path, known=known.id if known else None, on_fraction=report.on_keep
        )
        title = clean_text(parameters.title) or title_from_name(parameters.file_name)
        return Prepared(
            NewVideo(
                title=title or "Untitled",
                source_url=parameters.source_url,
                external_id=parameters.external_id,
                channel=clean_text(parameters.channel),
                source_key="",
                content_sha256=digest,
                duration_s=extracted.duration_s,
                id=video_id,
            ),
            extracted.segments,
        )

    async def _from_url(self, parameters: IngestParameters, report: Report) -> Prepared | Known:
        key = url_key(parameters.url)
        known = await self._videos.by_source_key(key)
        if _current(known):
            return Known(known.id, key)
        await check_url(parameters.url, self._settings.allow_private_urls)
        async with self._fetched(parameters.url, report) as fetched:
            same = await self._videos.by_sha256(fetched.content_sha256)
            if _current(same):
                return Known(same.id, key)
            await self._check_external_id(parameters, same or known)
            extracted = await self._extract(fetched.path, report)
            replaced = same or known
            video_id = await self._keeper.keep(
                fetched.path,
                known=replaced.id if replaced else None,
                clip_id=clip_id_of_key(key),
                on_fraction=report.on_keep,
            )
        return Prepared(
            NewVideo(
                title=clean_text(parameters.title) or clean_text(fetched.title) or "Untitled",
                source_url=parameters.source_url or fetched.url,
                external_id=parameters.external_id,
                channel=clean_text(parameters.channel) or clean_text(fetched.channel),
                source_key=key,
                content_sha256=fetched.content_sha256,
                duration_s=extracted.duration_s,
                id=video_id,
            ),
            extracted.segments,
        )

    @asynccontextmanager
    async def _fetched(self, url: str, report: Report) -> AsyncIterator[Fetched]:
        async with self._scratch.folder() as folder:
            report.on_bytes(0, 0)
            yield await fetch(
                self._session,
                url,
                folder,
                self._limits,
                report.on_bytes,
                max_media_s=self._settings.max_media_s,
                allow_private=self._settings.allow_private_urls,
            )

    async def _check_external_id(self, parameters: IngestParameters, own: Video | None) -> None:
        # Early, to save the work; the database decides in the end.
        wanted = parameters.external_id
        if wanted and own is None and await self._videos.external_id_taken(wanted):
            raise external_id_taken(wanted)

    async def _extract(self, path: Path, report: Report) -> Extracted:
        cancel = threading.Event()
        async with self._decoders:
            running = asyncio.get_running_loop().run_in_executor(
                self._threads,
                functools.partial(
                    extract,
                    path,
                    max_media_s=self._settings.max_media_s,
                    cancel=cancel,
                    on_audio=report.on_audio,
                ),
            )
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                # The file may be removed only when nobody reads it any more.
                cancel.set()
                await asyncio.wait([running])
                raise


def _current(video: Video | None) -> TypeGuard[Video]:
    """Whether a video is there with fingerprints of today's parameters."""
    return video is not None and video.params_digest == PARAMS.digest
