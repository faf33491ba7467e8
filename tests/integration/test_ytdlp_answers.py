"""What yt-dlp finds and fails with, as the child tells it; the real library, in this process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.media import encode
from tests.site import PLUGINS, Site, serving_proxy, serving_site
from tests.sounds import tune

from soundhash_server.fetching.failures import REASONS
from soundhash_server.fetching.ytdlp_base import (
    Log,
    base_options,
    failure,
    read_cookies,
    wait_of,
)
from soundhash_server.fetching.ytdlp_child import fetch

MEDIA = encode(tune(4.0, seed=32), "wav")


@pytest.fixture(scope="module", autouse=True)
def _extractor() -> Iterator[None]:
    sys.path.insert(0, str(PLUGINS))
    yield
    sys.path.remove(str(PLUGINS))


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving_site() as made:
        made.media["one"] = MEDIA
        yield made


class Child:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[tuple[str, dict[str, Any]]] = []

    def request(self, url: str, **more: Any) -> dict[str, Any]:
        return {
            "url": url,
            "folder": str(self.folder),
            "max_bytes": 1 << 20,
            "min_free_disk_bytes": 0,
            "max_media_s": 60.0,
            "allow_private": True,
            **more,
        }

    async def __call__(self, url: str, **more: Any) -> dict[str, Any]:
        def answer(event: str, **fields: Any) -> None:
            self.said.append((event, fields))

        return await asyncio.to_thread(fetch, self.request(url, **more), Log(), answer)

    async def fails(self, url: str, **more: Any) -> tuple[str, str, float | None]:
        """Reason, message and the seconds to wait."""
        request, log = self.request(url, **more), Log()
        if request.get("cookies"):
            read_cookies(request)
        try:
            found = await asyncio.to_thread(fetch, request, log, lambda *_, **__: None)
        except Exception as error:
            return *failure(error, request, log), wait_of(error)
        raise AssertionError(f"it does not fail: {found}")


@pytest.fixture
def child(tmp_path: Path) -> Child:
    folder = tmp_path / "fetched"
    folder.mkdir()
    return Child(folder)


@pytest.mark.parametrize(
    ("facts", "reason", "wait_s"),
    [
        ({"status": 401}, "HTTP_UNAUTHORIZED", None),
        ({"status": 403}, "HTTP_FORBIDDEN", None),
        ({"status": 404}, "HTTP_NOT_FOUND", None),
        ({"status": 410}, "HTTP_GONE", None),
        ({"status": 451}, "GEO_BLOCKED", None),
        ({"status": 429, "headers": {"Retry-After": "17"}}, "HTTP_TOO_MANY_REQUESTS", 17.0),
        ({"status": 429, "headers": {"Retry-After": "soon"}}, "HTTP_TOO_MANY_REQUESTS", None),
        ({"status": 503, "headers": {"Retry-After": "5"}}, "HTTP_SERVER_ERROR", 5.0),
        ({"status": 302, "headers": {"Location": "/api/one"}}, "TOO_MANY_REDIRECTS", None),
        ({"live_status": "is_live"}, "LIVE_NOT_SUPPORTED", None),
        ({"is_live": True}, "LIVE_NOT_SUPPORTED", None),
        ({"live_status": "is_upcoming"}, "NOT_YET_AVAILABLE", None),
        ({"duration": 61}, "MEDIA_TOO_LONG", None),
        ({"filesize": 1 << 30}, "MEDIA_TOO_LARGE", None),
        ({"geo": True}, "GEO_BLOCKED", None),
        ({"login": True}, "HTTP_UNAUTHORIZED", None),
        ({"formats": []}, "NO_MEDIA_ON_PAGE", None),
        ({"error": "Private video. Sign in if you've been granted access"}, "MEDIA_PRIVATE", None),
        ({"error": "See http://captcha.example/private for this"}, "EXTRACTOR_FAILED", None),
    ],
)
async def test_what_a_source_refuses_with(
    site: Site, child: Child, facts: dict[str, Any], reason: str, wait_s: float | None
) -> None:
    site.facts["one"] = facts
    got, message, waits_s = await child.fails(site.url("/watch/one"))
    assert (got, waits_s) == (reason, wait_s), message
    assert message
    assert "://" not in message
    assert "Use --" not in message
    assert "Traceback" not in message
    assert list(child.folder.iterdir()) == []


async def test_media_larger_than_the_page_says(site: Site, child: Child) -> None:
    reason, _, _ = await child.fails(site.url("/watch/one"), max_bytes=len(MEDIA) - 1)
    assert reason == "MEDIA_TOO_LARGE"


async def test_media_that_are_gone(site: Site, child: Child) -> None:
    del site.media["one"]
    assert (await child.fails(site.url("/watch/one")))[0] == "HTTP_NOT_FOUND"


async def test_searches_lists_and_plain_pages(site: Site, child: Child) -> None:
    search = f"loopbacksearch1:{site.base} words"
    assert (await child.fails(search, is_search=True))[0] == "NOTHING_FOUND"
    site.results = ["one", "gone"]
    assert (await child.fails(search.replace("search1:", "searchall:")))[0] == "SEVERAL_MEDIA"
    found = await child(search, is_search=True)
    assert (found["service"], found["media_id"]) == ("loopback", "one")
    Path(str(found["path"])).unlink()
    site.pages["/page"] = web.Response(
        text='<html><audio src="/media/one"></audio></html>', content_type="text/html"
    )
    found = await child(site.url("/page"))
    # Its id would be that of every page of this name.
    assert (found["service"], found["media_id"]) == ("", "")


async def test_a_playlist_without_an_end_is_live(site: Site, child: Child) -> None:
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:6", "#EXTINF:6,", "media/one", ""]
    site.pages["/live.m3u8"] = web.Response(
        text="\n".join(lines), content_type="application/vnd.apple.mpegurl"
    )
    reason, message, _ = await child.fails(site.url("/live.m3u8"))
    assert reason == "LIVE_NOT_SUPPORTED", message


async def test_cookies_that_the_source_no_longer_takes(
    site: Site, child: Child, tmp_path: Path
) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tkey\tv\n")
    site.facts["one"] = {
        "warning": "The provided YouTube account cookies are no longer valid.",
        "login": True,
    }
    assert (await child.fails(site.url("/watch/one")))[0] == "HTTP_UNAUTHORIZED"
    found = await child.fails(site.url("/watch/one"), cookies=str(cookies))
    assert found[0] == "COOKIES_EXPIRED"
    assert site.headers["/api/one"][-1]["Cookie"] == "key=v"


async def test_a_proxy_that_fails_is_not_shown(site: Site, child: Child) -> None:
    async with serving_proxy(site.base) as proxy:
        proxy.password = "wanted"
        for url in (
            "http://me:hunter2@127.0.0.1:1",
            "socks5://me:hunter2@127.0.0.1:1",
            proxy.url().replace("127.0.0.1", "localhost"),
        ):
            asked = {"url": url, "address": ["127.0.0.1", 1], "trusted": True}
            reason, message, _ = await child.fails(site.url("/watch/one"), proxy=asked)
            assert reason == "PROXY_FAILED", (url, message)
            assert "hunter" not in message
            assert "127.0.0.1" not in message
            assert "localhost" not in message


async def test_the_speed_is_bounded(site: Site, child: Child) -> None:
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    await child(site.url("/watch/one"), max_bytes_per_s=100_000)
    assert loop.time() - start_s > 0.5 * len(MEDIA) / 100_000


def test_options(child: Child) -> None:
    plain = base_options(child.request("http://x"))
    assert plain["proxy"] == ""  # not that of the environment
    assert plain["cachedir"] is False
    assert not {"cookiefile", "ratelimit", "http_headers", "extractor_args"} & plain.keys()
    given = base_options(
        child.request(
            "http://x",
            cache_dir="/cache",
            user_agent="Agent/1.0",
            player_clients=["tv", "web"],
            max_bytes_per_s=1000,
            proxy={"url": "http://p:1", "address": ["p", 1], "trusted": True},
        )
    )
    assert given["cachedir"] == "/cache"
    assert given["http_headers"] == {"User-Agent": "Agent/1.0"}
    assert given["extractor_args"] == {"youtube": {"player_client": ["tv", "web"]}}
    assert (given["ratelimit"], given["proxy"]) == (1000, "http://p:1")


def test_reasons_are_of_the_catalogue() -> None:
    assert {"COOKIES_EXPIRED", "PROXY_FAILED", "NOTHING_FOUND"} <= REASONS.keys()
