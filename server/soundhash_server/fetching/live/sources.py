"""Opens live sources, and gives what they play."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import aiohttp

from soundhash_engine.types import Pcm
from soundhash_server.errors import PlatformError
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.fetcher import Fetcher
from soundhash_server.fetching.http import open_session_through
from soundhash_server.fetching.live.access import Access
from soundhash_server.fetching.live.decoding import Decoder, decoding
from soundhash_server.fetching.live.opening import open_source
from soundhash_server.fetching.live.pieces import Audio, LiveEvent, NewPart, Pieces, Title
from soundhash_server.fetching.ways import Proxy, Ways, ways_of
from soundhash_server.model import FetchOptions
from soundhash_server.settings import Settings
from soundhash_server.url_guard import split_url

_STALL_S = 30.0
_MUTE_S = 60.0
_MAX_TITLES = 16


class LiveSources:
    """Opens live sources. One for a process.

    session: guarded (`http.open_session`). fetcher: knows whose turn it is among the proxies.
    stall_s: a source that sends no bytes for so long has failed; mute_s: one whose bytes hold no
    sound.
    """

    def __init__(
        self,
        settings: Settings,
        session: aiohttp.ClientSession,
        fetcher: Fetcher,
        *,
        stall_s: float = _STALL_S,
        mute_s: float = _MUTE_S,
    ) -> None:
        self._settings = settings
        self._session = session
        self._fetcher = fetcher
        self._stall_s = stall_s
        self._mute_s = mute_s
        # Each takes a process, and they may all be asked for at once.
        self._pages = asyncio.Semaphore(settings.max_downloads)

    @asynccontextmanager
    async def open(
        self, url: str, options: FetchOptions
    ) -> AsyncIterator[AsyncIterator[LiveEvent]]:
        """Connects to a source and gives what it plays, as fast as it is read, in bounded memory.

        One call is one connection: what is given ends when the source ends, and raises when it
        fails; nothing connects again. Raises JobError (also on entering) and PlatformError
        (URL_INVALID, URL_NOT_ALLOWED). The messages do not hold the URL.
        """
        split_url(url, live=True)
        async with AsyncExitStack() as stack:
            source = await self._opened(stack, url, ways_of(options, self._settings))
            decoder = await stack.enter_async_context(decoding())
            playing = _Playing(source, decoder, self._mute_s)
            yield await stack.enter_async_context(aclosing(playing.events()))

    async def _opened(self, stack: AsyncExitStack, url: str, ways: Ways) -> Pieces:
        """The source, over the first proxy that works."""
        for proxy, is_last in await self._fetcher.proxies(ways):
            async with AsyncExitStack() as attempt:
                try:
                    access = await self._access(attempt, ways, proxy)
                    source = await open_source(attempt, access, url)
                except JobError as error:
                    many = len(ways.proxies) > 1
                    await self._fetcher.failed(proxy, error, is_one_of_many=many)
                    if is_last or error.failure.reason != "PROXY_FAILED":
                        raise
                    continue
                await self._fetcher.worked(proxy)
                stack.push_async_exit(attempt.pop_all())
                return source
        raise AssertionError("there is always a way to try")

    async def _access(self, stack: AsyncExitStack, ways: Ways, proxy: Proxy | None) -> Access:
        session = self._session
        allow_private = self._settings.allow_private_urls
        if proxy is not None and proxy.is_socks:
            raise JobError("PROXY_NOT_ALLOWED", "Live sources are not fetched over SOCKS proxies.")
        if proxy is not None or ways.cookies is not None:
            session = await stack.enter_async_context(
                await open_session_through(
                    proxy, ways.cookies, allow_private=allow_private, read_timeout_s=self._stall_s
                )
            )
        return Access(session, ways, proxy, allow_private, self._stall_s, self._pages)


class _Playing:
    """An open source on its way through a decoder."""

    def __init__(self, source: Pieces, decoder: Decoder, mute_s: float) -> None:
        self._source = source
        self._decoder = decoder
        self._mute_s = mute_s
        self._titles: deque[Title] = deque(maxlen=_MAX_TITLES)
        self._fed_bytes = 0

    async def events(self) -> AsyncGenerator[LiveEvent, None]:
        pump = asyncio.create_task(self._pump())
        heard = False
        try:
            while True:
                pcm = await self._next(pump)
                while self._titles:
                    yield self._titles.popleft()
                if pcm is None:
                    break
                heard = True
                yield Audio(pcm)
            # All has been decoded that came before the source failed, if it has.
            await pump
            if not heard:
                raise self._nothing_heard()
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def _pump(self) -> None:
        try:
            async with aclosing(self._source) as pieces:
                async for piece in pieces:
                    match piece:
                        case Title():
                            self._titles.append(piece)
                        case NewPart():
                            await self._decoder.new_part()
                        case bytes():
                            self._fed_bytes += len(piece)
                            await self._decoder.feed(piece)
        finally:
            self._decoder.end()

    async def _next(self, pump: asyncio.Task[None]) -> Pcm | None:
        try:
            async with asyncio.timeout(self._mute_s):
                return await self._decoder.read()
        except TimeoutError:
            error = JobError("SOURCE_STALLED", "The source sends no sound any more.")
        except JobError as decoder_error:
            error = decoder_error
        # Why the source has failed says more than what the decoder makes of that.
        raise _error_of(pump) or error

    def _nothing_heard(self) -> JobError:
        if not self._fed_bytes:
            return JobError("EMPTY_MEDIA", "The source sends no bytes.")
        return JobError("LIVE_FORMAT", "The source ends before any sound.")


def _error_of(pump: asyncio.Task[None]) -> JobError | PlatformError | None:
    error = pump.exception() if pump.done() and not pump.cancelled() else None
    return error if isinstance(error, (JobError, PlatformError)) else None
