"""One recording is one video, whatever it is called: a worker against a site of our own."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from tests.integration.working import Bench, open_bench, worker_settings, working
from tests.media import encode
from tests.site import Site, extractor, serving_site
from tests.sounds import tune

from soundhash_server.embedded_valkey import Valkey
from soundhash_server.fetching import ytdlp
from soundhash_server.model import FetchOptions, IngestParameters, IngestResult, Job, JobState
from soundhash_server.sources import media_key, search_key, sha256_key, url_key


@pytest.fixture(scope="module", autouse=True)
def _extractor() -> Iterator[None]:
    with extractor():
        yield


@pytest.fixture(scope="module")
async def site() -> AsyncIterator[Site]:
    async with serving_site() as made:
        yield made


@pytest.fixture(scope="module")
async def bench(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Bench]:
    redis_url = valkey_server.url.replace("db=0", "db=2")
    async for database_url in database_factory():
        folder = tmp_path_factory.mktemp("data")
        settings = worker_settings(
            database_url, redis_url, folder, folders=str(folder / "music"), max_host_jobs=4
        )
        (folder / "music").mkdir()
        async with open_bench(settings) as made, working(settings):
            warm = await made.upload(encode(tune(2.0, seed=1), "wav"))
            await made.succeeded(warm, 60.0)
            yield made


@pytest.fixture(autouse=True)
async def _nothing_left(bench: Bench) -> AsyncIterator[None]:
    yield
    async with asyncio.timeout(5):
        while bench.files_left():
            await asyncio.sleep(0.02)


def video_id(job: Job) -> UUID:
    assert isinstance(job.result, IngestResult)
    return job.result.video_id


async def test_the_same_recording_under_two_urls_is_fetched_once(bench: Bench, site: Site) -> None:
    site.media["once"] = encode(tune(8.0, seed=41), "wav")
    site.facts["once"] = {
        "description": "What it is about",
        "timestamp": 1_700_000_000,
        "thumbnail": site.url("/once.jpg"),
        "channel": "Band",
    }
    first = await bench.succeeded(await bench.submit_url(site.url("/watch/once")))
    second = await bench.succeeded(await bench.submit_url(site.url("/w/once?x=1")))
    assert first.id != second.id
    assert video_id(first) == video_id(second)
    assert isinstance(second.result, IngestResult)
    assert second.result.already_indexed
    assert site.requests["/media/once"] == 1
    video = await bench.videos.get(video_id(first))
    assert video is not None
    assert (video.service, video.media_id) == ("loopback", "once")
    assert (video.title, video.channel) == ("Title of once", "Band")
    assert video.description == "What it is about"
    assert video.publish_time is not None
    assert video.publish_time.timestamp() == 1_700_000_000
    assert video.thumbnail_url == site.url("/once.jpg")
    # By its identity, and by every URL that has led to it.
    keys = [media_key("Loopback", "once"), url_key(site.url("/w/once?x=1"))]
    for key in [*keys, url_key(site.url("/watch/once"))]:
        found = await bench.videos.by_source_key(key)
        assert found == video, key
    assert await bench.videos.by_source_key(url_key(site.url("/watch/other"))) is None


async def test_also_when_both_jobs_run_at_once(bench: Bench, site: Site) -> None:
    site.media["twice"] = encode(tune(8.0, seed=42), "wav")
    site.gate.clear()
    paths = ["/watch/twice", "/w/twice", "/w/twice?x=1"]
    jobs = [await bench.submit_url(site.url(path)) for path in paths]
    # Nobody knows yet that they are one: all are being fetched.
    async with asyncio.timeout(30):
        while site.sending < len(paths):
            await asyncio.sleep(0.02)
    site.gate.set()
    done = [await bench.succeeded(job) for job in jobs]
    assert len({video_id(job) for job in done}) == 1
    page = await bench.videos.search("Title of twice", 10, "")
    assert len(page.items) == 1


async def test_a_search_leads_to_the_recording(
    bench: Bench, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ytdlp, "SEARCH", f"loopbacksearch1:{site.base} {{}}")
    site.media["sought"] = encode(tune(8.0, seed=43), "wav")
    site.results = ["sought"]
    text = "Artist  title"
    job = await bench.submit(search_key(text), IngestParameters(search=text))
    done = await bench.succeeded(job)
    again = await bench.submit(search_key("artist TITLE"), IngestParameters(search="artist TITLE"))
    assert again.id == job.id
    by_url = await bench.succeeded(await bench.submit_url(site.url("/watch/sought")))
    assert video_id(done) == video_id(by_url)
    assert site.requests["/media/sought"] == 1


async def test_bytes_that_are_there_get_the_identity(bench: Bench, site: Site) -> None:
    song = encode(tune(8.0, seed=44), "wav")
    uploaded = await bench.succeeded(await bench.upload(song))
    site.media["known"] = song
    fetched = await bench.succeeded(await bench.submit_url(site.url("/watch/known")))
    assert video_id(uploaded) == video_id(fetched)
    video = await bench.videos.get(video_id(uploaded))
    assert video is not None
    assert (video.service, video.media_id) == ("loopback", "known")


async def test_live_streams_point_to_monitors(bench: Bench, site: Site) -> None:
    site.facts["live"] = {"live_status": "is_live"}
    job = await bench.finished(await bench.submit_url(site.url("/watch/live")))
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert job.failure.reason == "LIVE_NOT_SUPPORTED"
    assert "monitor" in job.failure.remedy
    assert job.attempt == 1


async def test_a_waiting_job_uses_the_options_that_it_is_submitted_with(
    bench: Bench, site: Site
) -> None:
    site.media["shy"] = encode(tune(8.0, seed=45), "wav")
    site.facts["shy"] = {"status": 429, "headers": {"Retry-After": "1000"}}
    url = site.url("/watch/shy")
    job = await bench.until(
        await bench.submit_url(url), lambda shown: shown.state is JobState.RETRYING
    )
    assert job.failure is not None
    assert job.failure.reason == "HTTP_TOO_MANY_REQUESTS"
    del site.facts["shy"]
    # The same wish changes nothing, another one is tried at once.
    assert (await bench.submit_url(url)).state is JobState.RETRYING
    again = await bench.submit_url(url, options=FetchOptions(user_agent="Agent/1.0"))
    assert again.id == job.id
    await bench.succeeded(again)
    assert site.headers["/media/shy"][0]["User-Agent"] == "Agent/1.0"


async def test_a_job_never_shows_a_proxy(bench: Bench, site: Site) -> None:
    options = FetchOptions(proxy="http://me:hunter2@127.0.0.1:1")
    job = await bench.submit(
        url_key(site.url("/song.wav")),
        IngestParameters(url=site.url("/song.wav"), options=options),
        max_attempts=1,
    )
    done = await bench.finished(job)
    assert done.failure is not None
    assert done.failure.reason == "PROXY_FAILED"
    assert "hunter2" not in repr(done)
    assert "127.0.0.1:1'" not in repr(done.failure)


class Folder:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.root = bench.settings.folder_roots[0]

    async def run(self, path: Path, digest: str) -> Job:
        job = await self.bench.submit(
            sha256_key(digest), IngestParameters(path=str(path), content_sha256=digest)
        )
        return await self.bench.finished(job)

    async def fails(self, path: Path, digest: str, reason: str) -> None:
        done = await self.run(path, digest)
        assert done.failure is not None, done
        assert (done.state, done.failure.reason) == (JobState.FAILED, reason)


async def test_a_folders_file_is_read_where_it_lies(bench: Bench, tmp_path: Path) -> None:
    folder = Folder(bench)
    song = encode(tune(8.0, seed=46), "wav")
    digest = hashlib.sha256(song).hexdigest()
    path = folder.root / "A song.wav"
    path.write_bytes(song)
    before = path.stat()
    done = await folder.run(path, digest)
    assert done.state is JobState.SUCCEEDED, done.failure
    video = await bench.videos.by_sha256(digest)
    assert video is not None
    assert (video.title, video.service) == ("A song", "")
    assert path.read_bytes() == song
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert not (bench.settings.uploads_dir / digest).exists()


async def test_files_that_are_not_what_was_scanned(bench: Bench, tmp_path: Path) -> None:
    folder = Folder(bench)
    song = encode(tune(4.0, seed=47), "wav")
    outside = tmp_path / "outside.wav"
    outside.write_bytes(song)
    digests = iter(hashlib.sha256(str(n).encode()).hexdigest() for n in range(10))
    changed = folder.root / "changed.wav"
    shutil.copy(outside, changed)
    await folder.fails(changed, next(digests), "FILE_CHANGED")
    await folder.fails(folder.root / "gone.wav", next(digests), "FILE_GONE")
    await folder.fails(outside, next(digests), "FILE_NOT_ALLOWED")
    link = folder.root / "link.wav"
    link.symlink_to(outside)
    await folder.fails(link, next(digests), "FILE_NOT_ALLOWED")
    await folder.fails(folder.root / ".." / "outside.wav", next(digests), "FILE_NOT_ALLOWED")
    await folder.fails(folder.root, next(digests), "FILE_UNREADABLE")
    assert outside.read_bytes() == song
