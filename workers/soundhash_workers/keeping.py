"""Keeping audio in object storage: what a job has fetched, before it is stored as a video.

Objects are named after the video (a Twitch clip: after the clip), so the video's id is chosen
here, before there is a row of it. A new video gets a fresh random id with every attempt: what an
attempt that was killed has left belongs to no video and never will, so the sweeper can remove it
without asking anybody. A video that is there keeps its id, and its objects are replaced. Each
object has its row before it is written (see store.objects).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from uuid import UUID

import aiohttp
import structlog

from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.fetching.download import Limits, NotAFileError, download
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.http import open_session_through
from soundhash_server.fetching.scratch import Scratch
from soundhash_server.fetching.ways import ways_of
from soundhash_server.keep import (
    Keep,
    audio_key,
    chunk_key,
    ending_of,
    media_key,
    parse_keep,
    sniff_image,
    thumbnail_key,
)
from soundhash_server.model import FetchOptions
from soundhash_server.services.media import remove_objects
from soundhash_server.settings import Settings
from soundhash_server.storage import Storage
from soundhash_server.store.objects import Objects
from soundhash_server.url_guard import check_url
from soundhash_workers.render import RATE_HZ, SAMPLE_BYTES, Rendered, render
from soundhash_workers.wav import MAX_PCM_BYTES, wav_header

_TOUCH_S = 60.0
_THUMBNAIL_BYTES = 8 << 20
_THUMBNAIL_S = 60.0
_SNIFF_BYTES = 16
_SWEEP_AGAIN_S = 30.0
_RENDER_SHARE = 0.5
"""Of the progress bar; the rest is sending."""
_DAY_S = 86_400.0

OnFraction = Callable[[float], None]
"""Called with the part of the keeping that is done, 0 to 1."""

log = structlog.get_logger(__name__)


class Keeper:
    """Keeps what the settings name. One for all jobs of a worker.

    storage: None keeps nothing. Raises SettingsError for SOUNDHASH_KEEP.
    """

    def __init__(
        self,
        settings: Settings,
        storage: Storage | None,
        objects: Objects,
        scratch: Scratch,
        session: aiohttp.ClientSession,
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._objects = objects
        self._scratch = scratch
        self._session = session
        self._kinds = parse_keep(settings.keep)
        self._renderers = asyncio.Semaphore(settings.effective_cpu_threads)
        self._threads = ThreadPoolExecutor(
            settings.effective_cpu_threads, thread_name_prefix="render"
        )

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def keep(
        self,
        media: Path,
        *,
        known: UUID | None,
        clip_id: str = "",
        thumbnail_url: str = "",
        options: FetchOptions | None = None,
        on_fraction: OnFraction,
    ) -> UUID | None:
        """Keeps what there is of a recording; it counts from the moment that its video is stored.

        media: the file as fetched or received. known: the video whose fingerprints the job will
        replace, if there is one. clip_id: of a Twitch clip. options: how the media was fetched;
        the thumbnail takes the same proxy. Returns the id that the video has to get if it is a
        new one (`NewVideo.id`); None when nothing is kept.

        Raises PlatformError (STORAGE_UNAVAILABLE, STORAGE_REFUSED), JobError, EngineError,
        OSError. A thumbnail that cannot be had is left out.
        """
        if self._storage is None or not (self._kinds or clip_id):
            return None
        video_id = known or uuid.uuid4()
        name = clip_id or str(video_id)
        work = _Keeping(self._storage, self._objects, video_id, self._keep_s, on_fraction)
        async with self._scratch.folder() as folder, work.alive():
            pcm = folder / "audio.pcm"
            rendered = await self._render(media, pcm, work)
            planned: list[tuple[str, Path, str, bytes, int, int]] = []
            if Keep.MEDIA in self._kinds or clip_id:
                ending, kind = ending_of(rendered.container, media.suffix)
                key = media_key(name, ending, is_clip=bool(clip_id))
                size = (await asyncio.to_thread(media.stat)).st_size
                planned.append((key, media, kind, b"", 0, size))
            if Keep.AUDIO in self._kinds:
                size = rendered.samples * SAMPLE_BYTES
                planned += [
                    (key, pcm, "audio/wav", wav_header(length), start, length)
                    for key, start, length in self._pieces(name, size)
                ]
            if Keep.THUMBNAIL in self._kinds and thumbnail_url:
                path = folder / "thumbnail"
                if found := await self._thumbnail(thumbnail_url, path, options):
                    ending, kind, size = found
                    planned.append((thumbnail_key(name, ending), path, kind, b"", 0, size))
            work.total_bytes = sum(size for *_, size in planned)
            for key, path, kind, head, start, size in planned:
                await work.put(key, path, kind, head=head, start=start, size=size)
        return video_id

    @property
    def _keep_s(self) -> float | None:
        return self._settings.keep_days * _DAY_S if self._settings.keep_days else None

    def _pieces(self, name: str, size: int) -> list[tuple[str, int, int]]:
        """Key, first byte and length of each piece of the audio."""
        found = [(audio_key(name), 0, size)] if size <= MAX_PCM_BYTES else []
        step = round(self._settings.keep_chunk_s * RATE_HZ) * SAMPLE_BYTES
        if size > step:
            found += [
                (chunk_key(name, number), start, min(step, size - start))
                for number, start in enumerate(range(0, size, step))
            ]
        return found

    async def _render(self, media: Path, pcm: Path, work: _Keeping) -> Rendered:
        wants_audio = Keep.AUDIO in self._kinds
        cancel = threading.Event()
        async with self._renderers:
            running = asyncio.get_running_loop().run_in_executor(
                self._threads,
                partial(
                    render,
                    media,
                    pcm if wants_audio else None,
                    max_media_s=self._settings.max_media_s,
                    loudness=wants_audio and self._settings.keep_loudness,
                    min_free_disk_bytes=self._settings.min_free_disk_bytes,
                    cancel=cancel,
                    on_fraction=work.rendered,
                ),
            )
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                # The file may be removed only when nobody reads it any more.
                cancel.set()
                await asyncio.wait([running])
                raise

    async def _thumbnail(
        self, url: str, path: Path, options: FetchOptions | None
    ) -> tuple[str, str, int] | None:
        """Ending, media type and size of a thumbnail; None when there is none to be had."""
        limits = Limits(_THUMBNAIL_BYTES, self._settings.min_free_disk_bytes, _THUMBNAIL_S)
        why = "NOT_AN_IMAGE"
        try:
            await check_url(url, self._settings.allow_private_urls)
            async with self._session_for(options) as session:
                found = await download(session, url, path, limits, lambda done, total: None)
            image = sniff_image(await asyncio.to_thread(_head, path))
            if image is not None:
                return (*image, found.size_bytes)
        except NotAFileError:
            pass
        except JobError as error:
            why = error.failure.reason
        except PlatformError as error:
            why = error.reason
        log.info("no thumbnail", why=why)
        return None

    @contextlib.asynccontextmanager
    async def _session_for(
        self, options: FetchOptions | None
    ) -> AsyncIterator[aiohttp.ClientSession]:
        """A session that goes the way of the media itself: who fetches through a proxy must not
        be seen beside it. Raises JobError."""
        ways = ways_of(options or FetchOptions(), self._settings)
        if not ways.proxies:
            yield self._session
            return
        proxy = next((one for one in ways.proxies if not one.is_socks), None)
        if proxy is None:
            raise JobError("PROXY_FAILED", "Thumbnails cannot be fetched over SOCKS.")
        async with await open_session_through(
            proxy,
            None,
            allow_private=self._settings.allow_private_urls,
            read_timeout_s=_THUMBNAIL_S,
        ) as session:
            yield session


class KeptSweeper:
    """Removes objects that are doomed, have expired, or were left by a worker that is gone."""

    def __init__(self, objects: Objects, storage: Storage | None) -> None:
        self._objects = objects
        self._storage = storage
        self._later_s = 0.0

    async def sweep(self) -> None:
        """Never raises for a storage that fails: other things have to be swept, too."""
        if self._storage is None or time.monotonic() < self._later_s:
            return
        try:
            removed = await remove_objects(self._objects, self._storage)
        except PlatformError as error:
            if error.reason != "STORAGE_UNAVAILABLE":
                raise
            self._later_s = time.monotonic() + _SWEEP_AGAIN_S
            return
        if removed:
            log.info("removed objects", count=removed)


class _Keeping:
    """The objects of one job on their way."""

    def __init__(
        self,
        storage: Storage,
        objects: Objects,
        video_id: UUID,
        keep_s: float | None,
        on_fraction: OnFraction,
    ) -> None:
        self._storage = storage
        self._objects = objects
        self._video_id = video_id
        self._keep_s = keep_s
        self._on_fraction = on_fraction
        self.total_bytes = 0
        self._sent_bytes = 0

    def rendered(self, fraction: float) -> None:
        self._on_fraction(_RENDER_SHARE * fraction)

    @contextlib.asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """Tells all the while that the rows are being worked on."""
        task = asyncio.create_task(self._touch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def put(
        self, key: str, path: Path, kind: str, *, head: bytes, start: int, size: int
    ) -> None:
        await self._objects.begin(self._video_id, key, kind)
        stored = await self._storage.put(key, path, kind, head=head, start=start, size=size)
        if not await self._objects.finish(
            self._video_id, key, stored.size_bytes, stored.content_sha256, self._keep_s
        ):
            raise PlatformError(
                ErrorKind.ABORTED,
                "VIDEO_DELETED",
                "The video was deleted while its audio was being kept.",
                "The job tries again by itself.",
            )
        self._sent_bytes += size
        share = self._sent_bytes / self.total_bytes if self.total_bytes else 1.0
        self._on_fraction(_RENDER_SHARE + (1 - _RENDER_SHARE) * share)

    async def _touch(self) -> None:
        while True:
            await asyncio.sleep(_TOUCH_S)
            with contextlib.suppress(PlatformError):
                await self._objects.touch(self._video_id)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_SNIFF_BYTES)
