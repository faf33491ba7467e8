"""Fetching from a real web server on loopback, good and bad."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import quote

import aiohttp
import psutil
import pytest
from tests.loopback import Loopback, serving
from tests.media import encode
from tests.sounds import tune

from soundhash_server.fetching import download as download_module
from soundhash_server.fetching.download import Limits, NotAFileError, download
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.fetch import Fetched, fetch
from soundhash_server.fetching.http import open_session

MEDIA = encode(tune(40.0, seed=5), "wav")
SHA256 = hashlib.sha256(MEDIA).hexdigest()
LIMITS = Limits(max_bytes=10 << 20, min_free_disk_bytes=0)


@pytest.fixture(scope="module")
async def web() -> AsyncIterator[Loopback]:
    async with serving(MEDIA) as loopback:
        yield loopback


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session(allow_private=True, read_timeout_s=0.5) as made:
        yield made


class Fetcher:
    """Fetches into a folder and remembers the progress."""

    def __init__(self, session: aiohttp.ClientSession, folder: Path) -> None:
        self.session = session
        self.folder = folder
        self.progress: list[tuple[int, int]] = []

    async def __call__(
        self, url: str, limits: Limits = LIMITS, max_media_s: float = 3600.0
    ) -> Fetched:
        return await fetch(
            self.session,
            url,
            self.folder,
            limits,
            lambda done, total: self.progress.append((done, total)),
            max_media_s=max_media_s,
            allow_private=True,
        )

    async def fails(self, url: str, reason: str, limits: Limits = LIMITS) -> JobError:
        with pytest.raises(JobError) as caught:
            await self(url, limits)
        assert caught.value.failure.reason == reason, caught.value.failure
        return caught.value


@pytest.fixture
def fetcher(session: aiohttp.ClientSession, tmp_path: Path) -> Fetcher:
    return Fetcher(session, tmp_path)


async def test_a_file_arrives_whole(web: Loopback, fetcher: Fetcher) -> None:
    found = await fetcher(web.url("/song.wav?session=1"))
    assert found.path.read_bytes() == MEDIA
    assert (found.content_sha256, found.title) == (SHA256, "song")
    assert found.url == web.url("/song.wav?session=1")
    assert fetcher.progress[-1] == (len(MEDIA), len(MEDIA))


async def test_redirects_are_followed(web: Loopback, fetcher: Fetcher) -> None:
    found = await fetcher(web.url("/redirect?to=/song.wav"))
    assert (found.content_sha256, found.title) == (SHA256, "redirect")
    await fetcher.fails(web.url("/loop"), "TOO_MANY_REDIRECTS")
    await fetcher.fails(web.url("/redirect?to=file:///etc/passwd"), "HTTP_CLIENT_ERROR")


async def test_a_cut_connection_is_continued_by_a_range(web: Loopback, fetcher: Fetcher) -> None:
    web.ranges.clear()
    found = await fetcher(web.url("/cut.wav"))
    assert found.content_sha256 == SHA256
    assert found.path.read_bytes() == MEDIA
    (asked,) = web.ranges
    assert int(asked.removeprefix("bytes=").rstrip("-")) > len(MEDIA) // 4


async def test_what_may_have_changed_is_fetched_anew(web: Loopback, fetcher: Fetcher) -> None:
    web.ranges.clear()
    found = await fetcher(web.url("/cut-forgetful.wav"))
    assert found.path.read_bytes() == MEDIA
    assert found.content_sha256 == SHA256
    assert web.ranges == []


async def test_a_source_that_always_cuts_is_given_up(web: Loopback, fetcher: Fetcher) -> None:
    error = await fetcher.fails(web.url("/always-cut.wav"), "NETWORK_ERROR")
    assert error.failure.transient
    assert web.requests["/always-cut.wav"] == 3


async def test_encoded_bodies_are_decoded(web: Loopback, fetcher: Fetcher) -> None:
    assert (await fetcher(web.url("/song.wav.gz"))).content_sha256 == SHA256


@pytest.mark.parametrize(
    ("status", "reason", "transient"),
    [
        (403, "HTTP_FORBIDDEN", True),
        (404, "HTTP_NOT_FOUND", False),
        (410, "HTTP_GONE", False),
        (429, "HTTP_TOO_MANY_REQUESTS", True),
        (500, "HTTP_SERVER_ERROR", True),
        (204, "HTTP_CLIENT_ERROR", False),
    ],
)
async def test_statuses(
    web: Loopback, fetcher: Fetcher, status: int, reason: str, transient: bool
) -> None:
    error = await fetcher.fails(web.url(f"/status/{status}"), reason)
    assert error.failure.transient is transient
    assert error.retry_after_s is None


async def test_retry_after_in_seconds_and_as_a_date(web: Loopback, fetcher: Fetcher) -> None:
    url = web.url("/status/429?Retry-After=")
    assert (await fetcher.fails(url + "17", "HTTP_TOO_MANY_REQUESTS")).retry_after_s == 17.0
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    error = await fetcher.fails(url + quote(when), "HTTP_TOO_MANY_REQUESTS")
    assert error.retry_after_s == pytest.approx(100, abs=5)
    assert (await fetcher.fails(url + "x", "HTTP_TOO_MANY_REQUESTS")).retry_after_s is None


async def test_too_large_by_its_header_and_by_its_bytes(web: Loopback, fetcher: Fetcher) -> None:
    limits = Limits(max_bytes=100_000, min_free_disk_bytes=0)
    await fetcher.fails(web.url("/song.wav"), "MEDIA_TOO_LARGE", limits)
    assert fetcher.progress == []
    await fetcher.fails(web.url("/endless.wav"), "MEDIA_TOO_LARGE", limits)
    assert (fetcher.folder / "media").stat().st_size <= 100_000


async def test_silent_and_slow_sources_are_given_up(
    web: Loopback, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "_CUT_PAUSE_S", 0.0)
    started_s = time.monotonic()
    error = await fetcher.fails(web.url("/hang.wav"), "FETCH_STALLED")
    assert error.failure.transient
    assert time.monotonic() - started_s < 5
    short = Limits(max_bytes=10 << 20, min_free_disk_bytes=0, total_s=0.2)
    await fetcher.fails(web.url("/hang.wav"), "FETCH_STALLED", short)


async def test_no_server_no_name_no_bytes_no_space(web: Loopback, fetcher: Fetcher) -> None:
    await fetcher.fails("http://127.0.0.1:1/x", "NETWORK_ERROR")
    await fetcher.fails(web.url("/empty.wav"), "EMPTY_MEDIA")
    full = Limits(max_bytes=10 << 20, min_free_disk_bytes=1 << 60)
    assert (await fetcher.fails(web.url("/song.wav"), "DISK_FULL", full)).failure.transient


@pytest.mark.parametrize("path", ["/page", "/unlabelled-page", "/list.m3u8"])
async def test_pages_are_told_from_files(
    web: Loopback, session: aiohttp.ClientSession, tmp_path: Path, path: str
) -> None:
    with pytest.raises(NotAFileError):
        await download(session, web.url(path), tmp_path / "media", LIMITS, lambda *_: None)


async def test_pages_and_playlists(
    web: Loopback, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    # Each starts yt-dlp: side by side.
    small = Limits(max_bytes=100_000, min_free_disk_bytes=0)
    paths = ["/page", "/list.m3u8", "/page-two", "/page"]
    fetchers = [Fetcher(session, tmp_path / str(number)) for number in range(len(paths))]
    for fetcher in fetchers:
        fetcher.folder.mkdir()
    page, playlist, two, large = await asyncio.gather(
        *(
            fetcher(web.url(path), limits)
            for fetcher, path, limits in zip(fetchers, paths, [LIMITS] * 3 + [small], strict=True)
        ),
        return_exceptions=True,
    )
    assert isinstance(page, Fetched), page
    assert page.content_sha256 == SHA256
    assert page.title.startswith("A page")
    assert page.url == web.url("/page")
    assert [path.name for path in fetchers[0].folder.iterdir()] == [page.path.name]
    assert isinstance(playlist, Fetched), playlist
    assert playlist.path.read_bytes() == MEDIA
    assert playlist.title == "list"
    for error, reason in ((two, "SEVERAL_MEDIA"), (large, "MEDIA_TOO_LARGE")):
        assert isinstance(error, JobError), error
        assert error.failure.reason == reason
        assert not error.failure.transient


async def test_a_cancelled_page_leaves_no_process(web: Loopback, fetcher: Fetcher) -> None:
    task = asyncio.create_task(fetcher(web.url("/page-none")))
    async with asyncio.timeout(10):
        while not (children := _yt_dlp_children()):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(child.is_running() for child in children)


def _yt_dlp_children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if "soundhash_server.fetching.ytdlp_child" in child.cmdline()
    ]
