"""Pages that lead to live streams, through yt-dlp and through proxies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.air import Air, Page, Station, serving_air
from tests.air_hls import Rolling, cut
from tests.air_rtsp import of_law, serving_rtsp
from tests.listening import hear, make_sources
from tests.media import encode
from tests.site import Site, extractor, serving_proxy, serving_site
from tests.sounds import tune

from soundhash_server.errors import PlatformError
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live import LiveSources
from soundhash_server.fetching.live.page_child import check
from soundhash_server.fetching.ytdlp_base import StopError
from soundhash_server.model import FetchOptions

PCM = tune(4.0, 5)


@pytest.fixture(scope="module", autouse=True)
def known() -> Iterator[None]:
    with extractor():
        yield


@pytest.fixture(scope="module")
async def air() -> AsyncIterator[Air]:
    async with serving_air() as serving:
        yield serving


@pytest.fixture(scope="module")
async def site() -> AsyncIterator[Site]:
    async with serving_site() as serving:
        yield serving


@pytest.fixture(scope="module")
async def sources() -> AsyncIterator[LiveSources]:
    async with make_sources(stall_s=2.0) as made:
        yield made


def _live(url: str, **more: Any) -> dict[str, Any]:
    film = {"url": url.replace("/l", "/none"), "ext": "mp4", "protocol": "m3u8_native"}
    sound = {"url": url, "ext": "mp4", "protocol": "m3u8_native", "vcodec": "none", **more}
    return {"is_live": True, "formats": [sound, film]}


async def test_a_page_leads_to_its_stream_with_what_the_site_wants_to_see(
    air: Air, site: Site, sources: LiveSources, tmp_path: Path
) -> None:
    seen: list[dict[str, str]] = []
    url = Rolling(window=100).add(cut(PCM)).put(air, "/l")
    serve = air.handlers["/l/list.m3u8"]

    async def remember(asked: Any, writer: asyncio.StreamWriter) -> None:
        seen.append(asked.headers)
        await serve(asked, writer)

    air.handlers["/l/list.m3u8"] = remember
    site.facts["live"] = _live(url, http_headers={"Referer": "http://site/", "X-Odd": "1"})
    air.station("/song.mp3", Station(encode(PCM, "mp3")))
    air.pages["/page"] = Page(b'<html><audio src="song.mp3"></audio></html>', "text/html")
    cookies = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tsecret\n"
    (tmp_path / "mine.txt").write_text(cookies)
    async with make_sources(cookies_dir=str(tmp_path)) as with_cookies:
        heard, plain = await asyncio.gather(
            hear(with_cookies, site.url("/watch/live"), FetchOptions(cookies="mine.txt")),
            hear(sources, air.url("/page")),
        )
    assert heard.sounds_like(PCM)
    assert plain.sounds_like(PCM)
    assert seen[0]["referer"] == "http://site/"
    assert "x-odd" not in seen[0]
    assert seen[0]["cookie"] == "session=secret"


async def test_why_nothing_is_on_the_air(site: Site, sources: LiveSources) -> None:
    site.facts["off"] = {"error": "The channel is not currently live"}
    dash = {"url": "http://127.0.0.1:1/x", "protocol": "http_dash_segments"}
    site.facts["dash"] = {"is_live": True, "formats": [dash]}

    async def reason(name: str) -> str:
        with pytest.raises(JobError) as caught:
            await hear(sources, site.url(f"/watch/{name}"))
        return caught.value.failure.reason

    found = await asyncio.gather(reason("off"), reason("dash"))
    assert found == ["SOURCE_OFFLINE", "NO_AUDIO_STREAM"]


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({"live_status": "is_upcoming"}, "SOURCE_OFFLINE"),
        ({"live_status": "was_live", "duration": 200}, "SOURCE_ENDED"),
        ({"live_status": "post_live"}, "SOURCE_ENDED"),
        ({"duration": 200}, "NOT_LIVE"),
        ({"live_status": "not_live"}, "NOT_LIVE"),
        ({"is_live": True, "has_drm": True}, "DRM_PROTECTED"),
    ],
)
def test_what_a_page_says_of_its_stream(info: dict[str, Any], reason: str) -> None:
    with pytest.raises(StopError) as caught:
        check(info)
    assert caught.value.reason == reason


def test_streams_that_may_be_listened_to() -> None:
    # Of radio stations' pages nobody says that they are live.
    for info in ({"is_live": True, "duration": 5}, {"live_status": "is_live"}, {}):
        check(info)


async def test_a_page_does_not_open_the_network(site: Site, air: Air) -> None:
    async with make_sources(allow_private_urls=False) as guarded:
        with pytest.raises(PlatformError) as caught:
            await hear(guarded, site.url("/watch/live"))
    assert caught.value.reason == "URL_NOT_ALLOWED"


async def test_everything_goes_through_the_proxy(air: Air) -> None:
    station = air.station("/radio", Station(encode(PCM, "mp3")))
    async with serving_proxy(air.base) as proxy:
        # Behind a proxy the guard looks up names itself; these addresses are public.
        async with make_sources(allow_private_urls=False, proxies=proxy.url()) as through:
            heard = await hear(through, "http://8.8.8.8/radio")
            assert heard.sounds_like(PCM)
            assert proxy.asked == ["GET http://8.8.8.8/radio"]
            with pytest.raises(PlatformError):
                await hear(through, air.url("/radio"))
            station.shoutcast = True
            proxy.asked.clear()
            assert (await hear(through, "http://8.8.8.8/radio")).sounds_like(PCM)
            assert proxy.asked[-1] == "CONNECT 8.8.8.8:80"
        options = FetchOptions(proxy=proxy.url("socks5"))
        async with make_sources() as any_way:
            with pytest.raises(JobError) as caught:
                await hear(any_way, "http://8.8.8.8/radio", options)
            assert caught.value.failure.reason == "PROXY_NOT_ALLOWED"


async def test_cameras_are_reached_through_the_proxy_too() -> None:
    async with serving_rtsp(of_law(PCM)) as rtsp, serving_proxy(f":{rtsp.port}") as proxy:
        settings = {"allow_private_urls": False, "proxies": proxy.url()}
        async with make_sources(**settings) as through:
            assert (await hear(through, "rtsp://8.8.8.8:8554/camera")).sounds_like(PCM)
        assert proxy.asked == ["CONNECT 8.8.8.8:8554"]
        proxy.password = "wanted"
        async with make_sources(**settings) as through:
            with pytest.raises(JobError) as caught:
                await hear(through, "rtsp://8.8.8.8:8554/camera")
            assert caught.value.failure.reason == "PROXY_FAILED"
        settings["proxies"] = proxy.url(user="me:wanted")
        async with make_sources(**settings) as through:
            assert (await hear(through, "rtsp://8.8.8.8:8554/camera")).sounds_like(PCM)
