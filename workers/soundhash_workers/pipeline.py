"""One ingest job: fetch, decode, fingerprint. Storing its result is the runner's part."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard
from uuid import UUID

from soundhash_engine import PARAMS, Segment
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.fetcher import Fetcher
from soundhash_server.fetching.scratch import Scratch
from soundhash_server.fetching.ytdlp import Found, NotWantedError
from soundhash_server.model import (
    IngestParameters,
    JobProgress,
    JobStep,
    NewVideo,
    Video,
)
from soundhash_server.paths import text_to_path
from soundhash_server.settings import Settings
from soundhash_server.sources import (
    clean_lines,
    clean_text,
    media_key,
    search_key,
    title_from_name,
    url_key,
)
from soundhash_server.store.videos import Videos, external_id_taken
from soundhash_server.twitch import clip_id_of_key
from soundhash_server.url_guard import check_url
from soundhash_workers.extract import Extracted, extract
from soundhash_workers.keeping import Keeper
from soundhash_workers.uploads import Upload


class Report:
    """How far a job has come, and what took how long; written by the work, read by whoever tells
    the database."""

    def __init__(self) -> None:
        self.progress = JobProgress()
        self._doing = "start"
        self._since_s = time.monotonic()
        self._took_s: dict[str, float] = {}

    def doing(self, what: str) -> None:
        """What the job does from now on, for `took_s` alone."""
        if what != self._doing:
            now_s = time.monotonic()
            self._took_s[self._doing] = self._took_s.get(self._doing, 0.0) + now_s - self._since_s
            self._doing, self._since_s = what, now_s

    def took_s(self) -> dict[str, float]:
        """Seconds that each thing has taken, as fields of a log line."""
        self.doing("")
        return {f"{what}_s": round(took_s, 3) for what, took_s in self._took_s.items() if what}

    def on_bytes(self, done: int, total: int) -> None:
        # Until something comes it may be the bound of downloads, or the source, that it waits for.
        self.doing("fetch" if done else "answer")
        self.progress = JobProgress(
            step=JobStep.FETCH,
            fraction=min(1.0, done / total) if total > 0 else 0.0,
            bytes_done=done,
            bytes_total=total,
        )

    def on_audio(self, done_s: float, total_s: float | None) -> None:
        self.doing("fingerprint")
        self.progress = replace(
            self.progress,
            step=JobStep.FINGERPRINT,
            fraction=min(1.0, done_s / total_s) if total_s else 0.0,
            audio_done_s=done_s,
            audio_total_s=total_s,
        )

    def on_keep(self, fraction: float) -> None:
        self.doing("keep")
        self.progress = replace(self.progress, step=JobStep.KEEP, fraction=fraction)

    def on_store(self) -> None:
        self.doing("store")
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
        fetcher: Fetcher,
        keeper: Keeper,
    ) -> None:
        self._settings = settings
        self._videos = videos
        self._scratch = scratch
        self._fetcher = fetcher
        self._keeper = keeper
        # More decoders than cores only take memory.
        self._decoders = asyncio.Semaphore(settings.effective_cpu_threads)
        self._threads = ThreadPoolExecutor(
            settings.effective_cpu_threads + 2, thread_name_prefix="extract"
        )

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def upload_of(self, parameters: IngestParameters) -> Upload | None:
        """The received file that a job is about; None for a URL or when it is gone."""
        if not parameters.content_sha256 or parameters.path:
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
        if parameters.url or parameters.search:
            return await self._from_source(parameters, report)
        digest = parameters.content_sha256
        known = await self._videos.by_sha256(digest)
        if _current(known):
            return Known(known.id, "")
        await self._check_external_id(parameters, known)
        if parameters.path:
            async with self._in_folder(parameters) as path:
                return await self._from_file(parameters, path, known, report)
        if upload is None:
            raise JobError("UPLOAD_GONE", "The uploaded bytes are not there.")
        return await self._from_file(parameters, upload.path, known, report)

    async def _from_file(
        self, parameters: IngestParameters, path: Path, known: Video | None, report: Report
    ) -> Prepared:
        size = parameters.size_bytes
        report.progress = JobProgress(step=JobStep.FINGERPRINT, bytes_done=size, bytes_total=size)
        extracted = await self._extract(path, self._settings.max_media_s, report)
        video_id = await self._keeper.keep(
            path, known=known.id if known else None, on_fraction=report.on_keep
        )
        name = parameters.file_name or Path(parameters.path).name
        return Prepared(
            NewVideo(
                title=clean_text(parameters.title) or title_from_name(name) or "Untitled",
                source_url=parameters.source_url,
                external_id=parameters.external_id,
                channel=clean_text(parameters.channel),
                source_key="",
                content_sha256=parameters.content_sha256,
                duration_s=extracted.duration_s,
                id=video_id,
            ),
            extracted.segments,
        )

    @asynccontextmanager
    async def _in_folder(self, parameters: IngestParameters) -> AsyncIterator[Path]:
        """A scanned folder's file, read where it lies, never changed. Raises JobError when it is
        not, or no longer, or not all the time what was scanned."""
        path = Path(text_to_path(parameters.path))
        async with self._decoders:
            before = await asyncio.to_thread(
                _checked, path, parameters.content_sha256, self._settings.folder_roots
            )
        yield path
        # What was decoded is what was hashed only if nobody has written meanwhile.
        if await asyncio.to_thread(_state, path) != before:
            raise JobError("FILE_CHANGED", "The file was changed while it was read.")

    async def _from_source(self, parameters: IngestParameters, report: Report) -> Prepared | Known:
        key = search_key(parameters.search) if parameters.search else url_key(parameters.url)
        known = await self._videos.by_source_key(key)
        if _current(known):
            return Known(known.id, "" if parameters.search else key)
        if parameters.url:
            await check_url(parameters.url, self._settings.allow_private_urls)
        resolved: Known | None = None

        async def on_found(found: Found) -> bool:
            nonlocal resolved
            there = await self._by_media(found.service, found.media_id)
            if _current(there):
                resolved = Known(there.id, media_key(found.service, found.media_id))
            return resolved is None

        async with self._scratch.folder() as folder:
            report.on_bytes(0, 0)
            try:
                fetched = await self._fetcher.fetch(
                    parameters.url,
                    folder,
                    report.on_bytes,
                    search=parameters.search,
                    options=parameters.options,
                    on_found=on_found,
                )
            except NotWantedError:
                assert resolved is not None  # noqa: S101 - it is why the recording is not wanted
                return resolved
            if fetched.media_id:
                key = media_key(fetched.service, fetched.media_id)
                known = await self._by_media(fetched.service, fetched.media_id) or known
            elif parameters.search:
                key = url_key(fetched.url)
            same = await self._videos.by_sha256(fetched.content_sha256)
            if _current(same):
                return Known(same.id, key)
            replaced = same or known
            await self._check_external_id(parameters, replaced)
            most_s = parameters.options.max_duration_s or self._settings.max_media_s
            extracted = await self._extract(
                fetched.path, min(most_s, self._settings.max_media_s), report
            )
            # The one call that keeps media: the file is still there, the video not yet.
            video_id = await self._keeper.keep(
                fetched.path,
                known=replaced.id if replaced else None,
                clip_id=clip_id_of_key(key),
                thumbnail_url=fetched.thumbnail_url,
                options=parameters.options,
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
                service=fetched.service,
                media_id=fetched.media_id,
                description=clean_lines(fetched.description),
                publish_time=fetched.publish_time,
                thumbnail_url=fetched.thumbnail_url,
                id=video_id,
            ),
            extracted.segments,
        )

    async def _by_media(self, service: str, media_id: str) -> Video | None:
        if not media_id:
            return None
        return await self._videos.by_source_key(media_key(service, media_id))

    async def _check_external_id(self, parameters: IngestParameters, own: Video | None) -> None:
        # Early, to save the work; the database decides in the end.
        wanted = parameters.external_id
        if wanted and own is None and await self._videos.external_id_taken(wanted):
            raise external_id_taken(wanted)

    async def _extract(self, path: Path, max_media_s: float, report: Report) -> Extracted:
        cancel = threading.Event()
        report.doing("decoder")
        async with self._decoders:
            running = asyncio.get_running_loop().run_in_executor(
                self._threads,
                functools.partial(
                    extract,
                    path,
                    max_media_s=max_media_s,
                    cancel=cancel,
                    on_audio=report.on_audio,
                    segment_s=self._settings.segment_s,
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


_FileState = tuple[int, int, int]


def _state(path: Path) -> _FileState:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise JobError("FILE_GONE", "The file is not there.") from None
    except PermissionError:
        raise JobError("FILE_UNREADABLE", "The file cannot be read.") from None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _checked(path: Path, content_sha256: str, roots: tuple[Path, ...]) -> _FileState:
    """The file's state when it had the bytes that were scanned."""
    real = path.resolve()
    if not any(real.is_relative_to(root.resolve()) for root in roots):
        raise JobError("FILE_NOT_ALLOWED", "The file is not in a folder that may be scanned.")
    before = _state(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise JobError("FILE_GONE", "The file is not there.") from None
    except (PermissionError, IsADirectoryError):
        raise JobError("FILE_UNREADABLE", "The file cannot be read.") from None
    if digest != content_sha256 or _state(path) != before:
        raise JobError("FILE_CHANGED", "The file is not what it was when it was scanned.")
    return before
