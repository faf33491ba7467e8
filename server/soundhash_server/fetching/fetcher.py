"""Fetching as the settings and a job want it: bounded, over the proxy whose turn it is."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import aiohttp
import structlog

from soundhash_server.fetching.download import Limits, OnBytes
from soundhash_server.fetching.failures import REASONS, JobError
from soundhash_server.fetching.fetch import Fetched, empty, fetch
from soundhash_server.fetching.http import proxy_addresses
from soundhash_server.fetching.listing import list_page
from soundhash_server.fetching.ways import Proxy, Ways, proxies_of, ways_of
from soundhash_server.fetching.ytdlp import NotWantedError, OnFound
from soundhash_server.model import ChannelFacts, FetchOptions, ListedVideo
from soundhash_server.settings import Settings
from soundhash_server.store.proxies import ProxyBenches

__all__ = ["Fetched", "Fetcher", "NotWantedError"]

_TOTAL_S = 6 * 3600.0

log = structlog.get_logger(__name__)


class Fetcher:
    """Fetches what is behind URLs and searches. One for all jobs of a process.

    benches: where proxies that fail are remembered. most_at_once: downloads; None for
    SOUNDHASH_MAX_DOWNLOADS. Raises SettingsError for SOUNDHASH_PROXIES.
    """

    def __init__(
        self,
        settings: Settings,
        session: aiohttp.ClientSession,
        benches: ProxyBenches,
        *,
        most_at_once: int | None = None,
    ) -> None:
        proxies_of(settings)
        self._settings = settings
        self._session = session
        self._turns = _Turns(benches, settings.proxy_bench_s)
        self._slots = asyncio.Semaphore(most_at_once or settings.max_downloads)

    async def fetch(
        self,
        url: str,
        folder: Path,
        on_bytes: OnBytes,
        *,
        search: str = "",
        options: FetchOptions | None = None,
        on_found: OnFound | None = None,
        total_s: float = _TOTAL_S,
    ) -> Fetched:
        """Fetches into ``folder``, whose removal is up to the caller; waits for a free place.

        search: words, of whose results the first is fetched, instead of a URL. on_found: asked
        before a page's recording is fetched; may be asked again. total_s: longest download.
        A proxy that fails is left out for a while, and the next one is tried at once.
        Raises JobError, PlatformError (URL_NOT_ALLOWED), OSError (disk), NotWantedError.
        """
        ways = ways_of(options or FetchOptions(), self._settings)
        async with self._slots:
            for proxy, is_last in await self.proxies(ways):
                try:
                    fetched = await self._through(
                        proxy, ways, url, folder, on_bytes, search, on_found, total_s
                    )
                except JobError as error:
                    await self.failed(proxy, error, is_one_of_many=len(ways.proxies) > 1)
                    if is_last or error.failure.reason != "PROXY_FAILED":
                        raise
                    await asyncio.to_thread(empty, folder)
                else:
                    await self.worked(proxy)
                    return fetched
        raise AssertionError("there is always a way to try")

    async def listing(
        self, url: str, options: FetchOptions, *, skip: int = 0
    ) -> AsyncGenerator[ChannelFacts | ListedVideo, None]:
        """What a list is and its recordings, as `listing.list_page`; close it (``aclosing``).

        A proxy that fails before anything was listed is left out, and the next one is tried.
        """
        ways = ways_of(options, self._settings)
        allow_private = self._settings.allow_private_urls
        for proxy, is_last in await self.proxies(ways):
            begun = False
            try:
                if proxy is not None:
                    await proxy_addresses(proxy, allow_private=allow_private)
                pages = list_page(url, ways, proxy, allow_private=allow_private, skip=skip)
                async with aclosing(pages) as events:
                    async for event in events:
                        begun = True
                        yield event
            except JobError as error:
                await self.failed(proxy, error, is_one_of_many=len(ways.proxies) > 1)
                if begun or is_last or error.failure.reason != "PROXY_FAILED":
                    raise
            else:
                await self.worked(proxy)
                return

    async def proxies(self, ways: Ways) -> list[tuple[Proxy | None, bool]]:
        """The proxies to try one after the other, each with whether it is the last one; None is
        no proxy."""
        if not ways.proxies:
            return [(None, True)]
        if not ways.proxies[0].trusted:
            return [(ways.proxies[0], True)]
        found = await self._turns.order(ways.proxies)
        return [(proxy, proxy is found[-1]) for proxy in found]

    async def failed(
        self, proxy: Proxy | None, error: JobError, *, is_one_of_many: bool = True
    ) -> None:
        """An attempt over this proxy has failed. One of the operator's that does not work, or
        that a source refuses while others may do, is left out for a while."""
        reason = error.failure.reason
        blamed = reason == "PROXY_FAILED" or (is_one_of_many and _refuses(reason))
        if proxy is not None and proxy.trusted and blamed:
            await self._turns.failed(proxy)
            log.warning("proxy left out", proxy_sha256=proxy.digest[:12], reason=reason)

    async def worked(self, proxy: Proxy | None) -> None:
        """An attempt over this proxy has succeeded."""
        if proxy is not None and proxy.trusted:
            await self._turns.worked(proxy)

    async def _through(
        self,
        proxy: Proxy | None,
        ways: Ways,
        url: str,
        folder: Path,
        on_bytes: OnBytes,
        search: str,
        on_found: OnFound | None,
        total_s: float,
    ) -> Fetched:
        if proxy is not None:
            await proxy_addresses(proxy, allow_private=self._settings.allow_private_urls)
        return await fetch(
            self._session,
            url,
            folder,
            Limits(
                ways.max_bytes, self._settings.min_free_disk_bytes, total_s, ways.max_bytes_per_s
            ),
            on_bytes,
            max_media_s=ways.max_media_s,
            allow_private=self._settings.allow_private_urls,
            ways=ways,
            proxy=proxy,
            search=search,
            on_found=on_found,
        )


class _Turns:
    """Whose turn it is among the operator's proxies."""

    def __init__(self, benches: ProxyBenches, bench_s: float) -> None:
        self._benches = benches
        self._bench_s = bench_s
        self._next = itertools.count()
        self._failed_before: set[str] = set()

    async def order(self, proxies: tuple[Proxy, ...]) -> list[Proxy]:
        """Those that may be used, each first in its turn. When all are left out, the one that
        would be back first: to stand still helps nobody."""
        waits = await self._benches.waits_s([proxy.digest for proxy in proxies])
        self._failed_before = set(waits)
        usable = [proxy for proxy in proxies if waits.get(proxy.digest, 0.0) <= 0]
        if not usable:
            return [min(proxies, key=lambda proxy: waits[proxy.digest])]
        start = next(self._next) % len(usable)
        return usable[start:] + usable[:start]

    async def failed(self, proxy: Proxy) -> None:
        self._failed_before.add(proxy.digest)
        await self._benches.bench(proxy.digest, self._bench_s)

    async def worked(self, proxy: Proxy) -> None:
        if proxy.digest in self._failed_before:
            self._failed_before.discard(proxy.digest)
            await self._benches.clear(proxy.digest)


def _refuses(reason: str) -> bool:
    return REASONS[reason].refusal if reason in REASONS else False
