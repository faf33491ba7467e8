"""RTSP: cameras and servers, over the one guarded connection."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.air_rtsp import Rtsp, of_aac, of_law, of_opus, serving_rtsp
from tests.certificates import self_signed
from tests.listening import hear, make_sources
from tests.site import serving_proxy
from tests.sounds import tune

from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live import LiveSources, raw

PCM = tune(4.0, 3)


@pytest.fixture(scope="module")
async def sources() -> AsyncIterator[LiveSources]:
    async with make_sources(stall_s=1.0) as made:
        yield made


async def _reason(sources: LiveSources, url: str) -> str:
    with pytest.raises(JobError) as caught:
        await hear(sources, url)
    assert "127.0.0.1" not in str(caught.value)
    return caught.value.failure.reason


@pytest.mark.parametrize(
    "rtsp",
    [
        of_law(PCM),
        of_law(PCM, "L16"),
        of_aac(PCM),
        of_aac(PCM, fragment_bytes=100),
        of_opus(PCM),
    ],
    ids=["law", "pcm", "aac", "aac in fragments", "opus"],
)
async def test_what_cameras_send(sources: LiveSources, rtsp: Rtsp) -> None:
    async with serving_rtsp(rtsp):
        heard = await hear(sources, rtsp.url())
        assert heard.sounds_like(PCM)
        while len(rtsp.asked) < 4:
            await asyncio.sleep(0.01)
    # Pictures are not even asked for.
    assert [one.split()[0] for one in rtsp.asked] == ["DESCRIBE", "SETUP", "PLAY", "TEARDOWN"]


async def test_who_may_listen(sources: LiveSources) -> None:
    rtsp = of_law(PCM)
    rtsp.user, rtsp.password = "me", "p@ss"
    async with serving_rtsp(rtsp), serving_rtsp(of_law(PCM)) as other:
        assert (await hear(sources, rtsp.url(user="me:p%40ss"))).sounds_like(PCM)
        assert all("@" not in one for one in rtsp.asked)
        assert await _reason(sources, rtsp.url(user="me:wrong")) == "HTTP_UNAUTHORIZED"
        assert await _reason(sources, rtsp.url()) == "HTTP_UNAUTHORIZED"
        rtsp.user = ""
        assert await _reason(sources, rtsp.url("nothing")) == "SOURCE_OFFLINE"
        rtsp.redirect = other.url()
        assert (await hear(sources, rtsp.url())).sounds_like(PCM)
        rtsp.redirect = rtsp.url()
        assert await _reason(sources, rtsp.url()) == "TOO_MANY_REDIRECTS"


async def test_only_a_server_that_can_prove_its_name_is_trusted(
    sources: LiveSources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = self_signed("localhost")
    (tmp_path / "server.pem").write_bytes(key + certificate)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.pem")
    rtsp = of_law(PCM)
    rtsp.user, rtsp.password = "me", "secret"
    async with serving_rtsp(rtsp, tls), serving_proxy(f":{rtsp.port}") as proxy:
        url = f"rtsps://me:secret@localhost:{rtsp.port}/camera"
        assert await _reason(sources, url) == "TLS_ERROR"
        assert not rtsp.asked
        trusting = ssl.create_default_context(cadata=certificate.decode())
        monkeypatch.setattr(raw.ssl, "create_default_context", lambda: trusting)
        assert (await hear(sources, url)).sounds_like(PCM)
        assert await _reason(sources, url.replace("localhost", "127.0.0.1")) == "TLS_ERROR"
        async with make_sources(proxies=proxy.url()) as through:
            assert (await hear(through, url)).sounds_like(PCM)
        assert proxy.asked


async def test_what_is_not_known_is_said(sources: LiveSources) -> None:
    odd = of_law(PCM)
    for lines, reason in (
        (["m=audio 0 RTP/AVP 99", "a=rtpmap:99 X-SECRET/8000"], "LIVE_FORMAT"),
        (["m=application 0 RTP/AVP 99"], "NO_AUDIO_STREAM"),
        ([], "NO_AUDIO_STREAM"),
    ):
        odd.lines = lines
        async with serving_rtsp(odd):
            assert await _reason(sources, odd.url()) == reason


async def test_a_camera_that_falls_silent_has_stalled(sources: LiveSources) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await _reason(sources, f"rtsp://127.0.0.1:{port}/x") == "SOURCE_STALLED"
    server.close()
