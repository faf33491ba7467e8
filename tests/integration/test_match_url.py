"""MatchUrl: clips that the server fetches itself, only as much of them as it needs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from aiohttp import web
from google.protobuf.duration_pb2 import Duration
from tests.integration.rpc import Running, eventually, refused, running
from tests.media import encode, video
from tests.sounds import tune

import soundhash
from soundhash.v1 import catalog_pb2, match_pb2
from soundhash_server.embedded_valkey import Valkey
from soundhash_server.fetching.failures import REASONS
from soundhash_server.fetching.scratch import Scratch

REFERENCE_S = 60.0
CHUNK_BYTES = 32 << 10


class Site:
    """A web server with songs; counts the bytes that it sends under each path."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.sent: Counter[str] = Counter()
        self.open = 0
        """Answers that are being sent."""
        self.base = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/file/{name}", self._file)
        app.router.add_get("/slow/{name}", self._slow)
        app.router.add_get("/status/{status}", self._status)
        app.router.add_get("/page/{name}", self._page)
        app.router.add_get("/nothing", self._nothing)
        app.router.add_get("/hls/{name}", self._playlist)
        app.router.add_get("/live/{name}", self._live)
        return app

    async def _file(self, request: web.Request) -> web.StreamResponse:
        # 8 to 16 MB a second: on loopback a file is there before anybody can say that it is enough.
        return await self._send(request, 0.002)

    async def _slow(self, request: web.Request) -> web.StreamResponse:
        # A moment of sound, and then nothing for as long as anybody waits.
        content = self.files[request.match_info["name"]]
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        await response.write(content[:CHUNK_BYTES])
        self.open += 1
        while request.transport is not None and not request.transport.is_closing():
            await asyncio.sleep(0.02)
        self.open -= 1
        return response

    async def _send(self, request: web.Request, pause_s: float) -> web.StreamResponse:
        content = self.files[request.match_info["name"]]
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        self.open += 1
        try:
            # Whoever has enough goes.
            with contextlib.suppress(ConnectionError):
                for at in range(0, len(content), CHUNK_BYTES):
                    await response.write(content[at : at + CHUNK_BYTES])
                    self.sent[request.path] += len(content[at : at + CHUNK_BYTES])
                    await asyncio.sleep(pause_s)
        finally:
            self.open -= 1
        return response

    async def _status(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=int(request.match_info["status"]), headers=dict(request.query))

    async def _page(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        text = f'<html><title>A page</title><audio src="/file/{name}"></audio></html>'
        return web.Response(text=text, content_type="text/html")

    async def _nothing(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html><p>Nothing to hear</p></html>", content_type="text/html")

    async def _playlist(self, request: web.Request) -> web.StreamResponse:
        return self._hls(request, ["#EXT-X-ENDLIST"])

    async def _live(self, request: web.Request) -> web.StreamResponse:
        return self._hls(request, [])

    def _hls(self, request: web.Request, end: list[str]) -> web.Response:
        name = request.match_info["name"].removesuffix(".m3u8")
        parts = [
            line for number in range(6) for line in ("#EXTINF:10,", f"/file/{name}_{number}.ts")
        ]
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:10", *parts, *end, ""]
        return web.Response(text="\n".join(lines), content_type="application/vnd.apple.mpegurl")


@pytest.fixture(scope="module")
async def site() -> AsyncIterator[Site]:
    made = Site()
    runner = web.AppRunner(made.app(), shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    song = tune(REFERENCE_S, 1)
    made.files = {
        "song.mp3": encode(song, "mp3"),
        "song.mp4": video(song[: 20 * 8000]),
        "clip.ogg": encode(song[20 * 8000 : 30 * 8000], "ogg"),
        # The song five times: 29 MB.
        "huge.wav": encode(np.tile(song, 5), "wav", rate_hz=48_000),
        "text.bin": b"This is no media at all. " * 4000,
        "silent.mp4": video(None),
    }
    for number in range(6):
        part = song[number * 80_000 : (number + 1) * 80_000]
        made.files[f"song_{number}.ts"] = encode(part, "mpegts", rate_hz=48_000)
    yield made
    await runner.cleanup()


@pytest.fixture(scope="module")
async def server(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Running]:
    async for url in database_factory():
        async with running(
            url,
            valkey_server.url,
            tmp_path_factory.mktemp("match-url"),
            allow_private_urls=True,
            max_url_matches=2,
            clip_fetch_bytes=20 << 20,
        ) as made:
            yield made


@pytest.fixture(scope="module")
async def song(server: Running) -> catalog_pb2.Video:
    return await server.add(
        encode(tune(REFERENCE_S, 1)),
        "One.wav",
        external_id="one",
        source_url="https://www.youtube.com/watch?v=abc",
    )


@pytest.fixture(autouse=True)
async def nothing_is_left(server: Running, site: Site) -> AsyncIterator[None]:
    """After every test: no file, no process, no connection."""
    yield
    await eventually(lambda: not files_left(server) and not site.open and not children())


def files_left(server: Running) -> list[str]:
    root = server.settings.scratch_dir
    return [path.name for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"]


def children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if any("ytdlp_child" in word for word in child.cmdline())
    ]


class Answer:
    """All that a call has said."""

    def __init__(self, messages: list[match_pb2.MatchUrlResponse]) -> None:
        kinds = [message.WhichOneof("event") for message in messages]
        n_progress = kinds.count("progress")
        assert kinds == ["progress"] * n_progress + ["match"] * kinds.count("match") + ["end"]
        self.progress = [message.progress for message in messages[:n_progress]]
        self.matches = [message.match for message in messages[n_progress:-1]]
        self.end = messages[-1].end
        assert self.end.matches == len(self.matches)
        self.clip_s = self.end.clip_duration.ToNanoseconds() / 1e9


async def ask(
    server: Running, url: str, *, start_s: float = 0.0, length_s: float | None = None
) -> Answer:
    call = server.match.MatchUrl(request(url, start_s, length_s))
    return Answer([message async for message in call])


def request(
    url: str, start_s: float = 0.0, length_s: float | None = None
) -> match_pb2.MatchUrlRequest:
    def duration(value_s: float) -> Duration:
        made = Duration()
        made.FromNanoseconds(round(value_s * 1e9))
        return made

    return match_pb2.MatchUrlRequest(
        url=url,
        start=duration(start_s),
        length=None if length_s is None else duration(length_s),
    )


def begins_at(match: match_pb2.Match) -> float:
    """Where the clip's own start lies in the video."""
    return (match.video_start.ToNanoseconds() - match.clip_start.ToNanoseconds()) / 1e9


async def test_a_file_is_answered_as_a_sent_clip_is(
    server: Running, site: Site, song: catalog_pb2.Video
) -> None:
    answer = await ask(server, f"{site.base}/file/clip.ogg?session=1")
    sent = await server.match.MatchClip(match_pb2.MatchClipRequest(content=site.files["clip.ogg"]))
    (found,), (expected,) = answer.matches, sent.matches
    assert found.video_id == song.id
    assert found.source_url == f"https://www.youtube.com/watch?v=abc&t={found.video_start.seconds}s"
    assert begins_at(found) == pytest.approx(20.0, abs=0.1)
    for field in ("title", "external_id", "confidence", "speed", "parts", "video_start"):
        assert getattr(found, field) == getattr(expected, field), field
    assert answer.end.title == "clip"
    assert answer.clip_s == pytest.approx(10.0, abs=0.2)
    assert answer.end.elapsed.ToNanoseconds() > 0
    # The question is one like any other.
    assert found.query_id == answer.end.query_id
    stored = await server.match.GetMatch(match_pb2.GetMatchRequest(id=found.id))
    assert stored == found


async def test_what_is_not_indexed_has_no_match(server: Running, site: Site) -> None:
    site.files["other.mp3"] = encode(tune(10.0, 77), "mp3")
    answer = await ask(server, f"{site.base}/file/other.mp3")
    assert answer.matches == []
    assert answer.end.query_id


async def test_a_part_is_chosen(server: Running, site: Site, song: catalog_pb2.Video) -> None:
    answer = await ask(server, f"{site.base}/file/song.mp3", start_s=31.0, length_s=6.0)
    (found,) = answer.matches
    assert begins_at(found) == pytest.approx(31.0, abs=0.1)
    assert answer.clip_s == pytest.approx(6.0, abs=0.01)
    # An MP4 with its index at the end cannot be decoded before it is there.
    answer = await ask(server, f"{site.base}/file/song.mp4", start_s=5.0, length_s=8.0)
    (found,) = answer.matches
    assert begins_at(found) == pytest.approx(5.0, abs=0.1)


async def test_only_the_needed_part_of_a_huge_file_is_fetched(
    server: Running, site: Site, song: catalog_pb2.Video
) -> None:
    path = "/file/huge.wav"
    answer = await ask(server, site.base + path, length_s=10.0)
    (found,) = answer.matches
    assert found.video_id == song.id
    assert answer.clip_s == pytest.approx(10.0, abs=0.01)
    total = len(site.files["huge.wav"])
    # 10 s are 0.96 MB; what is under way in sockets and buffers comes on top.
    assert 10 * 96_000 <= site.sent[path] < total // 2
    assert answer.progress[-1].bytes_done < total


async def test_too_far_into_a_huge_file(server: Running, site: Site) -> None:
    with refused("FAILED_PRECONDITION", "MEDIA_TOO_LARGE") as errors:
        await ask(server, f"{site.base}/file/huge.wav", start_s=280.0)
    assert "SOUNDHASH_CLIP_FETCH_BYTES" in errors[0].metadata["remedy"]


async def test_pages_and_playlists(server: Running, site: Site, song: catalog_pb2.Video) -> None:
    # Each starts yt-dlp: two side by side, as many as may be.
    site.sent.clear()
    page, playlist = await asyncio.gather(
        ask(server, f"{site.base}/page/huge.wav", length_s=10.0),
        ask(server, f"{site.base}/hls/song.m3u8", start_s=12.0, length_s=10.0),
    )
    assert [match.video_id for match in page.matches] == [song.id]
    assert [match.video_id for match in playlist.matches] == [song.id]
    assert begins_at(playlist.matches[0]) == pytest.approx(12.0, abs=0.3)
    assert site.sent["/file/huge.wav"] < len(site.files["huge.wav"])
    assert page.end.title.startswith("A page")


async def test_live_and_empty_pages(server: Running, site: Site) -> None:
    async def reason(path: str) -> str:
        with refused("FAILED_PRECONDITION") as errors:
            await ask(server, site.base + path)
        assert errors[0].metadata["remedy"]
        return errors[0].reason

    reasons = await asyncio.gather(reason("/live/song.m3u8"), reason("/nothing"))
    assert reasons == ["LIVE_NOT_SUPPORTED", "NO_MEDIA_ON_PAGE"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/status/403", "HTTP_FORBIDDEN"),
        ("/status/410", "HTTP_GONE"),
        ("/status/429?Retry-After=17", "HTTP_TOO_MANY_REQUESTS"),
        ("/file/text.bin", "NOT_MEDIA"),
        ("/file/silent.mp4", "NO_AUDIO_STREAM"),
    ],
)
async def test_a_source_that_gives_no_clip(
    server: Running, site: Site, path: str, reason: str
) -> None:
    with refused("FAILED_PRECONDITION", reason) as errors:
        await ask(server, site.base + path)
    (error,) = errors
    known = REASONS.get(reason)
    assert error.metadata["transient"] == str(known is not None and known.transient).lower()
    # The engine's own reasons come with its own remedies.
    if known is not None and path.startswith("/status/"):
        assert error.metadata["remedy"] == known.remedy
    if "Retry-After" in path:
        assert error.details["RetryInfo"].retry_delay.seconds == 17
    assert site.base not in error.message


async def test_what_is_no_media_is_given_up_early(server: Running, site: Site) -> None:
    site.files["large.bin"] = b"This is no media at all. " * 800_000
    with refused("FAILED_PRECONDITION", "NOT_MEDIA"):
        await ask(server, f"{site.base}/file/large.bin")
    assert site.sent["/file/large.bin"] < len(site.files["large.bin"])


async def test_what_can_never_be_a_question(server: Running, site: Site) -> None:
    song = f"{site.base}/file/song.mp3"
    with refused("INVALID_ARGUMENT", "CLIP_TOO_LONG"):
        await ask(server, song, length_s=server.settings.max_clip_s + 1)
    with refused("INVALID_ARGUMENT", "CLIP_TOO_SHORT"):
        await ask(server, song, length_s=0.5)
    with refused("INVALID_ARGUMENT", "CLIP_START_INVALID"):
        await ask(server, song, start_s=-1.0)
    with refused("INVALID_ARGUMENT", "FETCH_OPTIONS_INVALID"):
        await server.match.MatchUrl(
            match_pb2.MatchUrlRequest(url=song, fetch={"user_agent": "\N{SNOWMAN}"})
        ).read()
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
        await ask(server, "ftp://example.com/a.mp3")
    with refused("FAILED_PRECONDITION", "CLIP_TOO_SHORT"):
        await ask(server, song, start_s=300.0)
    assert site.sent["/file/song.mp3"] <= 2 * len(site.files["song.mp3"])


async def test_private_addresses_are_not_fetched(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    data_dir: Path,
    site: Site,
) -> None:
    async for url in database_factory():
        async with running(url, valkey_server.url, data_dir) as guarded:
            for host in ("127.0.0.1", "localhost"):
                with refused("INVALID_ARGUMENT", "URL_NOT_ALLOWED"):
                    await ask(guarded, f"{site.base}/file/song.mp3".replace("127.0.0.1", host))


async def test_as_many_at_once_as_may_be_and_nothing_stays(server: Running, site: Site) -> None:
    slow = [
        server.match.MatchUrl(request(f"{site.base}/slow/huge.wav", 0.0, 30.0)) for _ in range(2)
    ]
    for call in slow:
        first = await call.read()
        assert first.WhichOneof("event") == "progress"
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_MATCHES") as errors:
        await ask(server, f"{site.base}/file/clip.ogg")
    assert errors[0].details["RetryInfo"].retry_delay.seconds > 0
    assert site.open == 2
    for call in slow:
        call.cancel()
    await eventually(lambda: site.open == 0 and not files_left(server))
    # Their places are free again.
    assert (await ask(server, f"{site.base}/file/clip.ogg")).matches


async def test_a_dead_server_leaves_what_the_next_one_removes(
    server: Running, tmp_path: Path
) -> None:
    root = tmp_path / "scratch"
    dead = Scratch(root)
    async with contextlib.AsyncExitStack() as stack:
        folder = await stack.enter_async_context(dead.folder())
        (folder / "media").write_bytes(b"half a clip")
        # What the kernel does with the locks of a process that is killed.
        assert dead._lock is not None
        os.close(dead._lock)
        dead._lock = None
        Scratch(root).close()
        assert not list(root.rglob("media"))


async def test_the_client(server: Running, site: Site, song: catalog_pb2.Video) -> None:
    url = f"{site.base}/file/song.mp3"
    async with soundhash.AsyncClient(server.address) as client:
        answer = await client.match_url(url, start_s=20.0, length_s=8.0)
        events = [event async for event in client.stream_url(url, start_s=20.0, length_s=8.0)]
    (found,) = answer.matches
    assert (found.video_id, answer.title) == (song.id, "song")
    assert answer.clip_duration_s == pytest.approx(8.0)
    *_, match, end = events
    assert isinstance(match, soundhash.UrlMatch) and match.match.video_id == song.id
    assert isinstance(end, soundhash.UrlEnd)
    assert (end.match_count, end.title, end.missing) == (1, "song", ())

    def plain() -> soundhash.MatchResult:
        with soundhash.Client(server.address) as client:
            with pytest.raises(soundhash.FailedPrecondition, match="410"):
                client.match_url(f"{site.base}/status/410")
            return client.match_url(url, start_s=20.0, length_s=8.0)

    assert (await asyncio.to_thread(plain)).matches[0].video_id == song.id


async def test_the_program(server: Running, site: Site, song: catalog_pb2.Video) -> None:
    async def run(*words: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from soundhash.cli import main; main()"),
            *("match", "--address", server.address, *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    url = f"{site.base}/file/song.mp3"
    part = ("--start", "20", "--length", "8")
    asked, misused = await asyncio.gather(run(url, *part, "--json"), run("clip.ogg", *part))
    gone = await run(f"{site.base}/status/410", url)
    status, out, _ = asked
    line = json.loads(out)
    assert (status, line["clip"], line.get("title")) == (0, url, "song"), line
    assert line["matches"][0]["video_id"] == song.id
    status, out, err = gone
    assert status == 1 and "One" in out
    assert REASONS["HTTP_GONE"].remedy in err
    status, _, err = misused
    assert status == 2 and "URLs only" in err
