"""Fetching as settings and jobs want it: cookies, proxies, bounds, and what sources refuse with.

Real yt-dlp and real HTTP on loopback; the site's extractor is a plugin of yt-dlp.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web
from tests.integration.working import worker_settings
from tests.media import encode
from tests.site import LoopbackProxy, Site, extractor, serving_proxy, serving_site
from tests.sounds import tune

from soundhash_server.errors import PlatformError
from soundhash_server.fetching import fetch as fetch_module
from soundhash_server.fetching import ytdlp
from soundhash_server.fetching.failures import REASONS, JobError
from soundhash_server.fetching.fetcher import Fetched, Fetcher
from soundhash_server.fetching.http import open_session
from soundhash_server.fetching.ytdlp import Found, NotWantedError
from soundhash_server.model import FetchOptions
from soundhash_server.settings import Settings
from soundhash_server.store.pool import Pool
from soundhash_server.store.proxies import ProxyBenches

MEDIA = encode(tune(20.0, seed=31), "wav")
SHA256 = hashlib.sha256(MEDIA).hexdigest()
PUBLIC = "http://8.8.8.8"
"""A public address that only the proxies of these tests lead anywhere."""
HEAD = "# Netscape HTTP Cookie File\n"


@pytest.fixture(scope="module", autouse=True)
def _extractor() -> Iterator[None]:
    with extractor():
        yield


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving_site() as made:
        made.media["one"] = MEDIA
        made.pages["/song.wav"] = web.Response(body=MEDIA, content_type="audio/wav")
        made.pages["/page"] = web.Response(
            text='<html><audio src="song.wav"></audio></html>', content_type="text/html"
        )
        yield made


@pytest.fixture
async def proxy(site: Site) -> AsyncIterator[LoopbackProxy]:
    async with serving_proxy(site.base) as made:
        yield made


class Bench:
    """Fetches into folders of its own."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.benches = ProxyBenches(pool)
        self.folder = folder
        self._numbers = itertools.count()

    def settings(self, **more: Any) -> Settings:
        return worker_settings("", "", self.folder, **more)

    async def __call__(
        self,
        url: str,
        options: FetchOptions | None = None,
        *,
        search: str = "",
        on_found: ytdlp.OnFound | None = None,
        **settings: Any,
    ) -> Fetched:
        made = self.settings(**settings)
        folder = self.folder / f"fetch-{next(self._numbers)}"
        folder.mkdir()
        allow = made.allow_private_urls
        async with open_session(allow_private=allow, read_timeout_s=5.0) as session:
            return await Fetcher(made, session, self.benches).fetch(
                url,
                folder,
                lambda done, total: None,
                search=search,
                options=options,
                on_found=on_found,
            )

    async def fails(
        self, reason: str, url: str, options: FetchOptions | None = None, **more: Any
    ) -> JobError:
        with pytest.raises(JobError) as caught:
            await self(url, options, **more)
        assert caught.value.failure.reason == reason, caught.value.failure
        assert caught.value.failure.remedy == REASONS[reason].remedy
        return caught.value

    async def not_allowed(self, url: str, **more: Any) -> None:
        with pytest.raises(PlatformError) as caught:
            await self(url, allow_private_urls=False, **more)
        assert caught.value.reason == "URL_NOT_ALLOWED"


@pytest.fixture
def bench(pool: Pool, tmp_path: Path) -> Bench:
    (tmp_path / "cookies").mkdir()
    return Bench(pool, tmp_path)


def cookie_line(site: Site, name: str, value: str, domain: str = "127.0.0.1") -> str:
    return f"{domain}\tFALSE\t/\tFALSE\t0\t{name}\t{value}\n"


async def test_a_recording_says_who_it_is_before_it_is_fetched(site: Site, bench: Bench) -> None:
    site.facts["one"] = {
        "description": "Two\nlines\u0000",
        "timestamp": 1_700_000_000,
        "thumbnail": site.url("/picture.jpg"),
        "uploader": "Somebody",
    }
    asked: list[Found] = []

    async def want(found: Found) -> bool:
        asked.append(found)
        return site.requests["/media/one"] == 0

    fetched = await bench(site.url("/watch/one"), on_found=want)
    assert (fetched.service, fetched.media_id) == ("loopback", "one")
    assert (fetched.title, fetched.channel) == ("Title of one", "Somebody")
    assert fetched.description == "Two\nlines"
    assert fetched.thumbnail_url == site.url("/picture.jpg")
    assert fetched.publish_time is not None
    assert fetched.publish_time.timestamp() == 1_700_000_000
    assert fetched.content_sha256 == SHA256
    with pytest.raises(NotWantedError):
        await bench(site.url("/w/one"), on_found=want)
    assert [found.media_id for found in asked] == ["one", "one"]
    assert site.requests["/media/one"] == 1


async def test_a_search_is_its_first_result(
    site: Site, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ytdlp.SEARCH == "ytsearch1:{}"
    monkeypatch.setattr(ytdlp, "SEARCH", f"loopbacksearch1:{site.base} {{}}")
    site.results = ["one", "two"]
    fetched = await bench("", search=" some  artist\ttitle")
    assert (fetched.media_id, fetched.content_sha256) == ("one", SHA256)


async def test_cookies_and_user_agent_reach_the_source(site: Site, bench: Bench) -> None:
    file = bench.folder / "cookies" / "mine.txt"
    text = HEAD + cookie_line(site, "key", "v1") + cookie_line(site, "other", "x", "example.org")
    file.write_text(text)
    options = FetchOptions(cookies="mine.txt", user_agent="Agent/1.0")
    await asyncio.gather(
        bench(site.url("/song.wav"), options), bench(site.url("/watch/one"), options)
    )
    for path in ("/song.wav", "/watch/one", "/api/one", "/media/one"):
        for headers in site.headers[path]:
            assert headers["Cookie"] == "key=v1", path
            assert headers["User-Agent"] == "Agent/1.0", path
    assert file.read_text() == text
    # As a setting, too; a job's own choice wins.
    site.headers.clear()
    (bench.folder / "cookies" / "theirs.txt").write_text(HEAD + cookie_line(site, "key", "v2"))
    await bench(site.url("/song.wav"), cookies="theirs.txt")
    await bench(site.url("/song.wav"), options, cookies="theirs.txt")
    assert [one["Cookie"] for one in site.headers["/song.wav"]] == ["key=v2", "key=v1"]


async def test_a_redirect_takes_no_cookies_along(site: Site, bench: Bench) -> None:
    async with serving_site() as other:
        other.pages["/song.wav"] = web.Response(body=MEDIA, content_type="audio/wav")
        there = other.url("/song.wav").replace("127.0.0.1", "localhost")
        site.pages["/away"] = web.Response(status=302, headers={"Location": there})
        (bench.folder / "cookies" / "mine.txt").write_text(HEAD + cookie_line(site, "key", "v1"))
        await bench(site.url("/away"), FetchOptions(cookies="mine.txt"))
        assert "Cookie" in site.headers["/away"][0]
        assert "Cookie" not in other.headers["/song.wav"][0]


async def test_cookies_that_cannot_be_used(site: Site, bench: Bench) -> None:
    url = site.url("/song.wav")
    (bench.folder / "cookies" / "bad.txt").write_text("no cookies at all\n")
    (bench.folder / "secret.txt").write_text(HEAD)
    await bench.fails("COOKIES_NOT_FOUND", url, FetchOptions(cookies="missing.txt"))
    for name in ("../secret.txt", "/etc/passwd", "..", "."):
        await bench.fails("COOKIES_NOT_FOUND", url, FetchOptions(cookies=name))
    await bench.fails("COOKIES_INVALID", url, FetchOptions(cookies="bad.txt"))
    assert site.requests["/song.wav"] == 0


async def test_cookies_of_a_browser(
    site: Site, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(bench.folder))
    profile = bench.folder / ".mozilla/firefox/abc.default"
    profile.mkdir(parents=True)
    with sqlite3.connect(profile / "cookies.sqlite") as database:
        database.execute(
            "CREATE TABLE moz_cookies (id INTEGER PRIMARY KEY, originAttributes TEXT, name TEXT,"
            " value TEXT, host TEXT, path TEXT, expiry INTEGER, isSecure INTEGER)"
        )
        database.execute(
            "INSERT INTO moz_cookies VALUES (1, '', 'key', 'fox', '127.0.0.1', '/', ?, 0)",
            (int(time.time()) + 10_000,),
        )
    database.close()
    options = FetchOptions(cookies_from_browser="firefox")
    fetched = await bench(site.url("/song.wav"), options)
    assert fetched.content_sha256 == SHA256
    assert {one.get("Cookie") for one in site.headers["/song.wav"]} == {"key=fox"}


async def test_a_job_may_tighten_bounds_and_not_widen_them(site: Site, bench: Bench) -> None:
    url = site.url("/song.wav")
    large = FetchOptions(max_bytes=len(MEDIA) + 1)
    await bench.fails("MEDIA_TOO_LARGE", url, FetchOptions(max_bytes=len(MEDIA) - 1))
    await bench.fails("MEDIA_TOO_LARGE", url, large, max_upload_bytes=len(MEDIA) - 1)
    assert (await bench(url, large)).content_sha256 == SHA256


async def test_the_speed_is_bounded(site: Site, bench: Bench) -> None:
    start_s = time.monotonic()
    await bench(site.url("/song.wav"), FetchOptions(max_bytes_per_s=500_000))
    # How much slower it is does not matter.
    assert time.monotonic() - start_s > 0.9 * len(MEDIA) / 500_000


async def test_no_more_downloads_at_once_than_allowed(site: Site, bench: Bench) -> None:
    for name in "abcd":
        site.media[name] = MEDIA
    settings = bench.settings(max_downloads=2)
    async with open_session(allow_private=True, read_timeout_s=5.0) as session:
        fetcher = Fetcher(settings, session, bench.benches)

        async def one(name: str) -> None:
            folder = bench.folder / name
            folder.mkdir()
            await fetcher.fetch(site.url(f"/media/{name}"), folder, lambda done, total: None)

        await asyncio.gather(*map(one, "abcd"))
    assert site.most_sending == 2


async def test_proxies_of_the_operator_may_be_inside_and_lead_outside_only(
    site: Site, bench: Bench, proxy: LoopbackProxy
) -> None:
    private = f"http://127.0.0.1:{proxy.port}/x"
    site.pages["/inside"] = web.Response(status=302, headers={"Location": private})
    site.pages["/page-inside"] = web.Response(
        text=f'<html><audio src="{private}.wav"></audio></html>', content_type="text/html"
    )
    for scheme in ("http", "socks5"):
        proxy.asked.clear()
        settings = {"proxies": proxy.url(scheme), "allow_private_urls": False}
        page, _ = await asyncio.gather(
            bench(f"{PUBLIC}/watch/one", **settings),
            bench.not_allowed(f"{PUBLIC}/page-inside", proxies=proxy.url(scheme)),
        )
        assert (page.media_id, page.content_sha256) == ("one", SHA256)
        if scheme == "http":
            assert (await bench(f"{PUBLIC}/song.wav", **settings)).content_sha256 == SHA256
            await bench.not_allowed(f"{PUBLIC}/inside", proxies=proxy.url())
            await bench.not_allowed(private, proxies=proxy.url())
        assert proxy.asked
        assert all("8.8.8.8" in asked for asked in proxy.asked), proxy.asked


async def test_a_jobs_own_proxy_must_be_public(
    site: Site, bench: Bench, proxy: LoopbackProxy
) -> None:
    options = FetchOptions(proxy=proxy.url())
    await bench.fails("PROXY_NOT_ALLOWED", f"{PUBLIC}/song.wav", options, allow_private_urls=False)
    await bench.fails("PROXY_NOT_ALLOWED", f"{PUBLIC}/song.wav", FetchOptions(proxy="ftp://x"))
    assert proxy.asked == []
    # Where private addresses are allowed, so is it; and it comes before the operator's.
    await bench(site.url("/song.wav"), options, proxies="http://127.0.0.1:1")
    assert proxy.asked == [f"GET {site.url('/song.wav')}"]


async def test_a_failing_proxy_is_left_out_and_the_next_is_tried_at_once(
    site: Site, bench: Bench, proxy: LoopbackProxy, pool: Pool
) -> None:
    dead = "http://me:hunter2@127.0.0.1:1"
    settings = {"proxies": f"{dead} {proxy.url()}"}
    with structlog.testing.capture_logs() as logs:
        await bench(site.url("/song.wav"), **settings)
        await bench(site.url("/song.wav"), **settings)
    assert len(proxy.asked) == 2
    (row,) = await pool.fetch("SELECT * FROM proxy_benches")
    assert row["proxy_sha256"] == hashlib.sha256(dead.encode()).hexdigest()
    # The second time it was not even tried.
    assert [entry["event"] for entry in logs] == ["proxy left out"]
    assert "hunter2" not in repr(logs)
    assert "127.0.0.1" not in repr(logs)


async def test_when_every_proxy_fails(
    site: Site, bench: Bench, proxy: LoopbackProxy, pool: Pool
) -> None:
    proxy.password = "wanted"
    dead, url = "http://me:hunter2@127.0.0.1:1", site.url("/song.wav")
    error = await bench.fails("PROXY_FAILED", url, proxies=f"{dead} {proxy.url()}")
    assert error.failure.transient
    assert "hunter" not in error.failure.message
    assert "127.0.0.1" not in error.failure.message
    assert len(await pool.fetch("SELECT 1 FROM proxy_benches")) == 2
    # All are left out now: one is tried all the same, and when it works it is back.
    proxy.password = ""
    await pool.execute(
        "UPDATE proxy_benches SET until = until + interval '1h' WHERE proxy_sha256 = $1",
        hashlib.sha256(dead.encode()).hexdigest(),
    )
    await bench(url, proxies=f"{dead} {proxy.url()}")
    (left,) = await pool.fetch("SELECT * FROM proxy_benches")
    assert left["proxy_sha256"] == hashlib.sha256(dead.encode()).hexdigest()


async def test_a_proxy_that_a_source_refuses_is_left_out(
    site: Site, bench: Bench, proxy: LoopbackProxy, pool: Pool
) -> None:
    site.pages["/busy"] = web.Response(status=429, headers={"Retry-After": "9"})
    other = proxy.url().replace("127.0.0.1", "localhost")
    error = await bench.fails(
        "HTTP_TOO_MANY_REQUESTS", site.url("/busy"), proxies=f"{proxy.url()} {other}"
    )
    assert error.retry_after_s == 9.0
    assert site.requests["/busy"] == 1
    assert len(await pool.fetch("SELECT 1 FROM proxy_benches")) == 1


async def test_benches_grow_and_end(pool: Pool) -> None:
    benches = ProxyBenches(pool)
    await benches.bench("a", 100.0)
    await benches.bench("a", 100.0)  # the same outage
    waits = await benches.waits_s(["a", "b"])
    assert set(waits) == {"a"}
    assert 90 < waits["a"] <= 100
    for most_s in (200, 400):
        await pool.execute("UPDATE proxy_benches SET until = clock_timestamp() - interval '1s'")
        assert (await benches.waits_s(["a"]))["a"] < 0
        await benches.bench("a", 100.0)
        assert most_s - 10 < (await benches.waits_s(["a"]))["a"] <= most_s
    await pool.execute("UPDATE proxy_benches SET failures = 40, until = clock_timestamp()")
    await benches.bench("a", 100.0)
    assert (await benches.waits_s(["a"]))["a"] <= 6 * 3600
    await pool.execute("UPDATE proxy_benches SET until = clock_timestamp() - interval '7h'")
    await benches.bench("a", 100.0)
    assert (await benches.waits_s(["a"]))["a"] <= 100
    await benches.clear("a")
    assert await benches.waits_s(["a"]) == {}


async def test_radio_does_not_end(site: Site, bench: Bench) -> None:
    error = await bench.fails("LIVE_NOT_SUPPORTED", site.url("/radio"))
    assert "monitor" in error.failure.remedy
    assert not error.failure.transient


async def test_a_site_that_refuses_strangers_is_asked_through_its_extractor(
    site: Site, bench: Bench
) -> None:
    site.pages["/watch/one"] = web.Response(status=403)
    fetched = await bench(site.url("/watch/one"))
    assert fetched.media_id == "one"


async def test_pages_of_known_sites_are_left_to_yt_dlp(
    monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    asked: list[tuple[str, str]] = []

    def noted(name: str) -> Any:
        async def note(*arguments: Any, **more: Any) -> Any:
            asked.append((name, next(one for one in arguments if isinstance(one, str))))
            raise JobError("NETWORK_ERROR", "no internet here")

        return note

    for name in ("download", "fetch_page"):
        monkeypatch.setattr(fetch_module, name, noted(name))
    youtube = "https://www.youtube.com/watch?v=dQw4w9WgXcQ"
    await bench.fails("NETWORK_ERROR", youtube)
    await bench.fails("NETWORK_ERROR", "https://example.org/song.wav")
    assert asked == [("fetch_page", youtube), ("download", "https://example.org/song.wav")]
