"""The beginning, or another part, of what is behind a URL, as audio.

The source is fetched as for ingestion, and decoded while it comes: when there is enough audio,
fetching stops. Media that cannot be decoded as a stream (an MP4 with its index at the end) is
fetched as a whole first.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from soundhash_engine import DecodeError, StreamDecoder, decode_file
from soundhash_engine.params import SAMPLE_RATE_HZ
from soundhash_engine.types import Pcm
from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.fetcher import Fetched, Fetcher
from soundhash_server.fetching.scratch import Scratch
from soundhash_server.fetching.ytdlp import Found
from soundhash_server.model import FetchOptions
from soundhash_server.settings import Settings
from soundhash_server.sources import clean_text, title_from_name

_READ_BYTES = 256 << 10
_PROBE_BYTES = 8 << 20
"""What does not decode as a stream is looked at again, closely, when so much of it is there."""
_POLL_S = 0.05
_STOP_S = 5.0
_RETRY_AFTER_S = 5.0
_MEDIA_NAME = re.compile(r"media(\.[A-Za-z0-9]{1,8})?")
_NOT_MEDIA_ENDINGS = frozenset({".ytdl", ".part"})

OnProgress = Callable[[int, float], None]
"""Called with the bytes that have come and the seconds of audio at hand."""


@dataclass(frozen=True, slots=True)
class UrlClip:
    """Audio of a source, mono 8 kHz, and the title that the source gives it (may be empty)."""

    pcm: Pcm
    title: str


class ClipFetcher:
    """Gets clips from URLs; what it writes is gone when it answers."""

    def __init__(self, settings: Settings, fetcher: Fetcher, scratch: Scratch) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._scratch = scratch
        self._running = 0
        self._threads = ThreadPoolExecutor(settings.max_url_matches, thread_name_prefix="url-clip")

    @property
    def running(self) -> int:
        """Clips that are being fetched or decoded."""
        return self._running

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def fetch(
        self,
        url: str,
        options: FetchOptions,
        on_progress: OnProgress,
        *,
        start_s: float,
        length_s: float,
    ) -> UrlClip:
        """At most ``length_s`` of the audio behind ``url``, from ``start_s`` on.

        Raises JobError and EngineError for what the source is to blame for, PlatformError
        (TOO_MANY_MATCHES, URL_NOT_ALLOWED, MEDIA_TOO_LARGE), OSError (disk). The audio may be
        shorter, or empty, where the source ends.
        """
        if self._running >= self._settings.max_url_matches:
            raise _too_many(self._settings.max_url_matches)
        self._running += 1
        held = contextlib.ExitStack()
        held.callback(self._release)
        try:
            async with self._scratch.folder() as folder:
                return await self._fetch(
                    url, options, on_progress, _Listener(folder, start_s, length_s), held
                )
        finally:
            held.close()

    def _release(self) -> None:
        self._running -= 1

    async def _fetch(
        self,
        url: str,
        options: FetchOptions,
        on_progress: OnProgress,
        listener: _Listener,
        held: contextlib.ExitStack,
    ) -> UrlClip:
        most_bytes = min(options.max_bytes or (1 << 62), self._settings.clip_fetch_bytes)

        title = _title(url)

        async def on_found(found: Found) -> bool:
            nonlocal title
            title = clean_text(found.title)
            return True

        def on_bytes(done: int, total: int) -> None:
            if done > most_bytes:
                raise _too_large(most_bytes)
            if listener.needs_whole and total > most_bytes:
                raise _too_large(most_bytes)
            on_progress(done, listener.audio_s)

        fetching = asyncio.create_task(
            self._fetcher.fetch(
                url,
                listener.folder,
                on_bytes,
                options=options,
                on_found=on_found,
                total_s=self._settings.clip_fetch_s,
            )
        )
        listening = asyncio.get_running_loop().run_in_executor(self._threads, listener.run)
        try:
            async with asyncio.timeout(self._settings.clip_fetch_s):
                both: set[asyncio.Future[Any]] = {fetching, listening}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if not listening.done():
                    listener.end((await fetching).path)
                pcm = await asyncio.shield(listening)
            return UrlClip(pcm, clean_text(fetching.result().title) if _over(fetching) else title)
        except TimeoutError:
            raise JobError(
                "FETCH_STALLED",
                f"There is not enough audio after {self._settings.clip_fetch_s:g} s.",
            ) from None
        finally:
            listener.stop()
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)
            if not listening.done():
                await asyncio.wait([listening], timeout=_STOP_S)
            if listening.done():
                # Nobody may be left who would ask how it ended.
                _ = listening.cancelled() or listening.exception()
            else:
                # A decoder that hangs keeps its place until it is done.
                later = held.pop_all()
                listening.add_done_callback(lambda _: later.close())


class ListeningStopped(Exception):  # noqa: N818 - no error
    """`stop` was called."""


class _Listener:
    """Decodes a file that is still being written. `run` blocks and belongs into a thread; all
    else may be called from another one."""

    def __init__(self, folder: Path, start_s: float, length_s: float) -> None:
        self.folder = folder
        self.needs_whole = False
        """Whether nothing can be decoded before all of the file is there."""
        self._window = _Window(start_s, length_s)
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._path: Path | None = None

    @property
    def audio_s(self) -> float:
        """Audio of the wanted part that is at hand."""
        return self._window.audio_s

    def end(self, path: Path) -> None:
        """The file is complete."""
        self._path = path
        self._ended.set()

    def stop(self) -> None:
        """Nobody waits for the result any more."""
        self._stopped.set()

    def run(self) -> Pcm:
        """The wanted part, as soon as it is there, or what the file has of it.

        Raises DecodeError, ListeningStopped.
        """
        try:
            self._follow()
        except DecodeError as error:
            self.needs_whole = error.reason == "MOOV_AT_END"
            self._decode_what_is_there()
        return self._window.pcm()

    def _follow(self) -> None:
        at = 0
        with StreamDecoder() as decoder:
            while not (self._window.full or decoder.ended):
                # Asked before reading: what is read after the end is all there is.
                ended = self._ended.is_set()
                data = self._read(at)
                at += len(data)
                if data:
                    while not decoder.feed(data, timeout_s=_POLL_S):
                        if self._drain(decoder):
                            return
                elif ended:
                    decoder.end_of_input()
                self._drain(decoder)
                if not data and self._stopped.wait(_POLL_S):
                    raise ListeningStopped

    def _drain(self, decoder: StreamDecoder) -> bool:
        """Takes what is decoded; whether there is enough."""
        if self._stopped.is_set():
            raise ListeningStopped
        while not self._window.full and (pcm := decoder.read(timeout_s=0)) is not None:
            self._window.take(pcm)
        return self._window.full

    def _decode_what_is_there(self) -> None:
        """Decodes the file as one that can be sought in, again when there is more of it."""
        least_bytes = _PROBE_BYTES
        while True:
            complete = self._wait_for(least_bytes)
            self._window.clear()
            path = self._find()
            for pcm in decode_file(path) if path is not None else ():
                if self._stopped.is_set():
                    raise ListeningStopped
                self._window.take(pcm)
                if self._window.full:
                    return
            if complete:
                return
            least_bytes *= 2

    def _wait_for(self, least_bytes: int) -> bool:
        """Until the file is complete (True), or has so many bytes if they can be of use."""
        while not self._ended.wait(_POLL_S):
            if self._stopped.is_set():
                raise ListeningStopped
            if not self.needs_whole and self._size() >= least_bytes:
                return False
        return True

    def _find(self) -> Path | None:
        """The file that is being written, once it has bytes in it."""
        if self._path is not None:
            return self._path
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                if (
                    _MEDIA_NAME.fullmatch(path.name)
                    and path.suffix not in _NOT_MEDIA_ENDINGS
                    and path.stat().st_size
                ):
                    return path
        return None

    def _read(self, at: int) -> bytes:
        path = self._find()
        if path is None:
            return b""
        try:
            with path.open("rb") as file:
                file.seek(at)
                return file.read(_READ_BYTES)
        except FileNotFoundError:
            return b""

    def _size(self) -> int:
        path = self._find()
        with contextlib.suppress(OSError):
            return path.stat().st_size if path is not None else 0
        return 0


class _Window:
    """A part of audio that arrives in chunks."""

    def __init__(self, start_s: float, length_s: float) -> None:
        self._start = round(start_s * SAMPLE_RATE_HZ)
        self._length = round(length_s * SAMPLE_RATE_HZ)
        self.clear()

    def clear(self) -> None:
        self._seen = 0
        self._held = 0
        self._chunks: list[Pcm] = []

    @property
    def audio_s(self) -> float:
        return self._held / SAMPLE_RATE_HZ

    @property
    def full(self) -> bool:
        return self._held >= self._length

    def take(self, pcm: Pcm) -> None:
        part = pcm[max(0, self._start - self._seen) :][: self._length - self._held]
        self._seen += pcm.size
        if part.size:
            self._chunks.append(part)
            self._held += part.size

    def pcm(self) -> Pcm:
        return np.concatenate(self._chunks) if self._chunks else np.empty(0, np.float32)


def _over(task: asyncio.Task[Fetched]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _title(url: str) -> str:
    path = url.partition("?")[0].partition("://")[2].partition("/")[2]
    return clean_text(title_from_name(path))


def _too_many(limit: int) -> PlatformError:
    return PlatformError(
        ErrorKind.RESOURCE_EXHAUSTED,
        "TOO_MANY_MATCHES",
        f"The server already fetches {limit} clips.",
        "Try again after the given delay; an operator can raise SOUNDHASH_MAX_URL_MATCHES.",
        retry_after_s=_RETRY_AFTER_S,
        metadata={"limit": str(limit)},
    )


def _too_large(most_bytes: int) -> PlatformError:
    return PlatformError(
        ErrorKind.FAILED_PRECONDITION,
        "MEDIA_TOO_LARGE",
        f"There is not enough audio within the first {most_bytes} bytes.",
        "Ask for a part nearer to the start, or for less of it; an operator can raise "
        "SOUNDHASH_CLIP_FETCH_BYTES.",
        metadata={"most_bytes": str(most_bytes)},
    )
