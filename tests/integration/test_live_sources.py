"""Live sources over HTTP: what is heard of them, and why they fail."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from tests.air import Air, Page, Station, serving_air
from tests.air_rtmp import serving_rtmp
from tests.air_rtsp import of_law, serving_rtsp
from tests.listening import Heard, hear, make_sources
from tests.media import encode
from tests.sounds import tune

from soundhash_server.errors import PlatformError
from soundhash_server.fetching import http
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live import Audio, LiveSources, raw
from soundhash_server.fetching.live import decoding as live_decoding
from soundhash_server.model import FetchOptions
from soundhash_workers import forks

A, B = tune(5.0, 5), tune(5.0, 6)
MP3 = encode(A, "mp3", rate_hz=22_050, bit_rate=64_000)


@pytest.fixture(scope="module")
async def air() -> AsyncIterator[Air]:
    async with serving_air() as serving:
        yield serving


@pytest.fixture(scope="module")
async def sources() -> AsyncIterator[LiveSources]:
    async with make_sources(stall_s=1.0, mute_s=30.0) as made:
        yield made


async def _fails(sources: LiveSources, url: str, reason: str, heard: Heard | None = None) -> None:
    with pytest.raises((JobError, PlatformError)) as caught:
        await hear(sources, url, into=heard)
    error = caught.value
    assert (error.failure.reason if isinstance(error, JobError) else error.reason) == reason


def _found(heard: Heard, part: NDArray[np.float32]) -> float:
    """How alike the part is to where it is heard best."""
    n = 1 << (heard.pcm.size + part.size).bit_length()
    course = np.fft.irfft(np.fft.rfft(heard.pcm, n) * np.conj(np.fft.rfft(part, n)), n)
    lag = int(np.argmax(course[: heard.pcm.size]))
    there = heard.pcm[lag : lag + part.size]
    return float(there @ part[: there.size] / (np.linalg.norm(there) * np.linalg.norm(part)))


async def test_a_station_is_heard_to_its_end_with_its_titles(
    air: Air, sources: LiveSources
) -> None:
    titles = {0: "First; it's 'quoted'", 20_000: "Zweite \N{LATIN SMALL LETTER U WITH DIAERESIS}"}
    station = air.station("/radio", Station(MP3, titles=titles))
    heard = await hear(sources, air.url("/radio"))
    assert heard.sounds_like(A)
    assert [text for _, text in heard.titles] == list(titles.values())
    asked = station.asked[0].headers
    assert asked["icy-metadata"] == "1"
    # Browsers are shown a page instead.
    assert "mozilla" not in asked["user-agent"].lower()


async def test_shoutcast_redirects_and_playlists_lead_to_the_stream(
    air: Air, sources: LiveSources
) -> None:
    air.station("/old", Station(MP3, shoutcast=True, titles={0: "Old"}))
    air.station("/gone", Station(b"", status=404))
    air.redirect("/moved", "/old")
    url = air.url("/moved")
    air.pages["/a.m3u"] = Page(f"#EXTM3U\n#EXTINF:-1,x\n\n{url}\n".encode(), "audio/x-mpegurl")
    air.pages["/b.pls"] = Page(f"[playlist]\nFile1={url}\n".encode(), "audio/x-scpls")
    # A server that does not say what it sends, relative addresses, and a first one that is off.
    air.pages["/c"] = Page(b"#EXTM3U\r\ngone\r\nmoved\r\n", "application/octet-stream")
    air.pages["/d"] = Page(
        b'<asx version="3.0"><entry><ref href="/moved"/></entry></asx>', "video/x-ms-asf"
    )
    for path in ("/old", "/moved", "/a.m3u", "/b.pls", "/c", "/d"):
        heard = await hear(sources, air.url(path))
        assert heard.sounds_like(A), path
        assert [text for _, text in heard.titles] == ["Old"], path


async def test_why_a_source_cannot_be_opened(air: Air, sources: LiveSources) -> None:
    for status, reason in {
        404: "SOURCE_OFFLINE",
        401: "HTTP_UNAUTHORIZED",
        503: "HTTP_SERVER_ERROR",
    }.items():
        air.station(f"/{status}", Station(b"", status=status))
        await _fails(sources, air.url(f"/{status}"), reason)
    air.station("/empty", Station(b""))
    air.station("/noise", Station(random.Random(7).randbytes(300_000)))
    air.pages["/loop.m3u"] = Page(b"#EXTM3U\nloop.m3u\n", "audio/x-mpegurl")
    air.pages["/dash"] = Page(b'<?xml version="1.0"?><MPD></MPD>', "application/dash+xml")
    air.pages["/words"] = Page(b"Nothing to hear here, nothing at all.", "text/plain")
    air.redirect("/round", "/round")
    await _fails(sources, air.url("/empty"), "EMPTY_MEDIA")
    for path in ("/noise", "/loop.m3u", "/dash", "/words"):
        await _fails(sources, air.url(path), "LIVE_FORMAT")
    await _fails(sources, air.url("/round"), "TOO_MANY_REDIRECTS")
    await _fails(sources, "http://127.0.0.1:1/radio", "SOURCE_OFFLINE")
    await _fails(sources, "http://nowhere.invalid/radio", "HOST_UNKNOWN")
    await _fails(sources, "file:///etc/passwd", "URL_NOT_ALLOWED")


async def test_a_source_that_breaks_or_stalls_gives_what_came_before(
    air: Air, sources: LiveSources
) -> None:
    cut, hung = Heard(), Heard()
    air.station("/cut", Station(MP3, then="cut", headers={"Content-Length": "1000000"}))
    air.station("/hang", Station(MP3, then="hang"))
    await asyncio.gather(
        _fails(sources, air.url("/cut"), "NETWORK_ERROR", cut),
        _fails(sources, air.url("/hang"), "SOURCE_STALLED", hung),
    )
    # A connection that is reset may take with it what was on the way.
    assert cut.duration_s > 1
    assert hung.duration_s > 4.5
    assert _found(hung, A[:32_000]) > 0.9


async def test_bytes_without_sound_are_a_stall(air: Air) -> None:
    # As of a film whose sound is gone: null packets of a transport stream, without end.
    null = b"\x47\x1f\xff\x10" + bytes(184)

    async def serve(asked: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
        writer.write(encode(A[:16_000], "mpegts", rate_hz=16_000))
        while not writer.transport.is_closing():
            writer.write(null)
            await asyncio.sleep(0.05)

    air.handlers["/mute"] = serve
    heard = Heard()
    async with make_sources(stall_s=60.0, mute_s=0.5) as impatient:
        await _fails(impatient, air.url("/mute"), "SOURCE_STALLED", heard)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("mp3", 44_100), ("mp3", 22_050)),
        (("mp3", 44_100), ("adts", 32_000)),
        (("adts", 44_100), ("mp3", 44_100)),
        (("mp3", 22_050), ("ogg", 32_000)),
        (("ogg", 44_100), ("opus", 48_000)),
        (("opus", 48_000), ("mp3", 44_100)),
        (("mpegts", 44_100), ("mp3", 44_100)),
    ],
)
async def test_nothing_is_lost_when_the_format_changes(
    air: Air, sources: LiveSources, first: tuple[str, int], second: tuple[str, int]
) -> None:
    media = encode(A, first[0], rate_hz=first[1]) + encode(B, second[0], rate_hz=second[1])
    air.station("/changes", Station(media))
    heard = await hear(sources, air.url("/changes"))
    assert heard.duration_s == pytest.approx(10.0, abs=0.2)
    assert _found(heard, A) > 0.9
    assert _found(heard, B) > 0.9


async def test_a_stream_in_one_byte_pieces_and_one_joined_in_the_middle(
    air: Air, sources: LiveSources
) -> None:
    async def drip(asked: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: audio/ogg\r\n\r\n")
        for byte in encode(A[:16_000], "ogg", rate_hz=16_000) + encode(
            B[:16_000], "opus", rate_hz=48_000
        ):
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        await writer.drain()

    air.handlers["/drip"] = drip
    heard = await hear(sources, air.url("/drip"))
    assert heard.duration_s == pytest.approx(4.0, abs=0.1)
    air.station("/middle", Station(MP3[12_345:]))
    assert _found(await hear(sources, air.url("/middle")), A[16_000:]) > 0.9


async def test_who_reads_slowly_holds_the_source_back(air: Air, sources: LiveSources) -> None:
    wide = encode(A, "flac", rate_hz=48_000, channels=2)
    station = air.station("/burst", Station(wide, then="again"))
    async with sources.open(air.url("/burst"), FetchOptions()) as events:
        await anext(aiter(events))
        before = -1
        while station.sent_bytes != before:
            before = station.sent_bytes
            await asyncio.sleep(0.5)
        # All buffers are full, those of the sockets, too: it sends on when somebody reads.
        for _ in range(2000):
            await anext(aiter(events))
            if station.sent_bytes > before:
                break
        assert station.sent_bytes > before


async def test_nothing_is_left_behind(air: Air, sources: LiveSources) -> None:
    station = air.station("/endless", Station(MP3, then="again"))
    ours = psutil.Process()

    def decoders() -> set[int]:
        return {child.pid for child in ours.children(recursive=True)}

    async with sources.open(air.url("/endless"), FetchOptions()) as events:
        assert isinstance(await anext(aiter(events)), Audio)
        during = decoders()
    assert len(during - decoders()) == 1
    while station.listening:
        await asyncio.sleep(0.01)

    async def listen() -> None:
        await hear(sources, air.url("/endless"))

    # Cancelled at whatever moment: also while the process is being started.
    for delay_s in (0.0, 0.001, 0.01, 0.05, 0.2):
        task = asyncio.create_task(listen())
        await asyncio.sleep(delay_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert decoders() <= during
    while station.listening:
        await asyncio.sleep(0.01)


async def test_a_decoder_that_dies_or_hangs_costs_its_source_alone(
    air: Air, sources: LiveSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    air.station("/on", Station(MP3, then="again", bytes_per_s=64_000))
    pids: list[int] = []
    start = live_decoding._start

    def remember(process: object, theirs: object) -> None:
        start(process, theirs)
        pids.append(process.pid)

    monkeypatch.setattr(live_decoding, "_start", remember)
    async with sources.open(air.url("/on"), FetchOptions()) as events:
        first = aiter(events)
        await anext(first)
        async with sources.open(air.url("/on"), FetchOptions()) as others:
            second = aiter(others)
            await anext(second)
            os.kill(pids[1], signal.SIGKILL)
            with pytest.raises(JobError) as caught:
                async for _ in second:
                    pass
            assert caught.value.failure.reason == "OUT_OF_MEMORY"
        for _ in range(20):
            assert isinstance(await anext(first), Audio)
    async with make_sources(mute_s=0.5) as impatient:
        async with impatient.open(air.url("/on"), FetchOptions()) as events:
            stopped = aiter(events)
            await anext(stopped)
            os.kill(pids[2], signal.SIGSTOP)
            with pytest.raises(JobError) as caught:
                async for _ in stopped:
                    pass
            assert caught.value.failure.reason == "SOURCE_STALLED"
        assert not psutil.pid_exists(pids[2])


async def test_private_addresses_are_not_listened_to(
    air: Air, monkeypatch: pytest.MonkeyPatch
) -> None:
    air.station("/radio", Station(MP3))
    other = air.base.replace("127.0.0.1", "127.0.0.2")
    air.redirect("/away", f"{other}/radio")
    air.redirect("/named", air.url("/radio").replace("127.0.0.1", "localhost"))
    air.pages["/away.m3u"] = Page(f"#EXTM3U\n{other}/radio\n".encode(), "audio/x-mpegurl")
    before = air.requests.total()
    async with make_sources(stall_s=2.0, allow_private_urls=False) as guarded:
        for url in (air.url("/radio"), "rtmp://127.0.0.1:1/live/x", "rtsp://localhost:1/x"):
            await _fails(guarded, url, "URL_NOT_ALLOWED")
        assert air.requests.total() == before
        # To the guard, this one address is public now; where it leads is not.
        for module in (http, raw):
            monkeypatch.setattr(module, "is_public_address", lambda one: one == "127.0.0.1")
        for path in ("/away", "/away.m3u"):
            await _fails(guarded, air.url(path), "URL_NOT_ALLOWED")
        assert (await hear(guarded, air.url("/radio"))).sounds_like(A)
        async with serving_rtsp(of_law(A)) as rtsp:
            rtsp.redirect = "rtsp://127.0.0.2:1/camera"
            await _fails(guarded, rtsp.url(), "URL_NOT_ALLOWED")


async def test_name_and_password_of_the_url(air: Air, sources: LiveSources) -> None:
    station = air.station("/private", Station(MP3))
    air.redirect("/to-private", "/private")
    air.redirect("/elsewhere", air.url("/private").replace("127.0.0.1", "localhost"))
    with_user = air.base.replace("//", "//me:p%40ss@")
    for path in ("/private", "/to-private"):
        await hear(sources, with_user + path)
    assert [one.headers["authorization"] for one in station.asked] == ["Basic bWU6cEBzcw=="] * 2
    await hear(sources, f"{with_user}/elsewhere")
    # Another host is not told.
    assert "authorization" not in station.asked[-1].headers
    air.station("/old-private", shoutcast := Station(MP3, shoutcast=True))
    await hear(sources, f"{with_user}/old-private")
    assert shoutcast.asked[-1].headers["authorization"] == "Basic bWU6cEBzcw=="


async def test_a_clock_that_drifts_and_silence_are_heard_as_they_are(
    air: Air, sources: LiveSources
) -> None:
    at = np.arange(round(A.size / 1.001)) * 1.001
    faster = np.interp(at, np.arange(A.size), A).astype(np.float32)
    air.station("/drift", Station(encode(faster, "flac")))
    heard = await hear(sources, air.url("/drift"))
    assert heard.duration_s == pytest.approx(5 / 1.001, abs=0.001)
    air.station("/silence", Station(encode(np.zeros(16_000, np.float32), "mp3"), then="again"))
    heard = await hear(sources, air.url("/silence"), most_s=20.0)
    assert heard.duration_s >= 20
    assert np.abs(heard.pcm).max() < 1e-3


async def test_rtmp_is_heard(sources: LiveSources) -> None:
    async with serving_rtmp(A) as rtmp:
        heard = await hear(sources, rtmp.url())
        assert heard.sounds_like(A)
        assert rtmp.acknowledged > 20_000
        rtmp.extended = True
        assert (await hear(sources, rtmp.url())).sounds_like(A)
        await _fails(sources, rtmp.url("live/nothing"), "SOURCE_OFFLINE")
        assert rtmp.played == ["radio", "radio", "nothing"]
        await _fails(sources, f"rtsp://127.0.0.1:{rtmp.port}/x", "SOURCE_STALLED")


async def test_a_decoder_does_not_grow() -> None:
    # What changes its format every few seconds wears a decoder out more than days of one.
    media = encode(A, "mp3", rate_hz=44_100) + encode(B, "adts", rate_hz=44_100)
    forks.prepare()
    async with live_decoding.decoding() as decoder:

        async def feed() -> None:
            for _ in range(60):
                await decoder.feed(media)
            decoder.end()

        feeding = asyncio.create_task(feed())
        sizes: list[int] = []
        samples = 0
        while (pcm := await decoder.read()) is not None:
            samples += pcm.size
            if samples >= (len(sizes) + 1) * 100 * 8000:
                sizes.append(psutil.Process(decoder.pid).memory_full_info().uss)
        await feeding
    assert samples / 8000 == pytest.approx(600, abs=6)
    assert sizes[-1] - sizes[0] < 1 << 20


async def test_a_source_is_closed_in_the_middle_of_everything(
    air: Air, sources: LiveSources
) -> None:
    air.station("/open", Station(MP3, then="again"))
    opened = sources.open(air.url("/open"), FetchOptions())
    events = await opened.__aenter__()
    async with aclosing(events):
        await anext(events)
    await opened.__aexit__(None, None, None)
