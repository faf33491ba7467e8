"""Pages that list recordings, through yt-dlp: listed, resumed, and ingested as a whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.feeds import Feed, serving_feed
from tests.integration.test_channels import open_desk
from tests.integration.working import open_bench, worker_settings, working
from tests.media import encode
from tests.site import serving_proxy
from tests.sounds import tune

from soundhash_server.errors import PlatformError
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.listing import list_page
from soundhash_server.fetching.ways import ways_of
from soundhash_server.model import BatchResult, ChannelFacts, FetchOptions, JobState, ListedVideo
from soundhash_server.services.channels import ChannelAdmin, ChannelSpec
from soundhash_server.settings import Settings
from soundhash_server.store.channel_videos import ChannelVideos, ListCursor
from soundhash_server.store.channels import Channels
from soundhash_server.store.pool import Pool
from soundhash_server.store.quota import QuotaUses

SONGS = {f"song{n}.wav": encode(tune(4.0, seed=700 + n)) for n in range(4)}
DATES = {f"song{n}.wav": f"{20 - n:02} Mar 2026 12:00:00 +0000" for n in range(4)}


async def listed(url: str, *, skip: int = 0, **settings: Any) -> list[Any]:
    made = Settings.from_env({}, **{"allow_private_urls": True, **settings})
    async with aclosing(
        list_page(
            url,
            ways_of(FetchOptions(), made),
            None,
            allow_private=made.allow_private_urls,
            skip=skip,
        )
    ) as events:
        return [event async for event in events]


async def test_a_feed_is_a_list() -> None:
    async with serving_feed(Feed(SONGS, DATES)) as feed:
        facts, *videos = await listed(feed.url())
        assert isinstance(facts, ChannelFacts)
        assert (facts.title, facts.description) == ("A feed", "About the feed")
        assert videos[0] == ListedVideo(
            service="url",
            media_id=feed.url("/song0.wav"),
            url=feed.url("/song0.wav"),
            title="Title of song0.wav",
            description="About song0.wav",
            publish_time=datetime(2026, 3, 20, 12, tzinfo=UTC),
        )
        assert [video.url for video in videos] == [feed.url(f"/{name}") for name in SONGS]
        _, *players = await listed(feed.url("/page"), skip=1)
        assert [video.url for video in players] == [video.url for video in videos[1:]]


async def test_failures_have_reasons() -> None:
    async with serving_feed(Feed(SONGS, status=403)) as feed:
        for path, reason in (
            ("/feed.xml", "HTTP_FORBIDDEN"),
            ("/song0.wav", "NOT_A_LIST"),
        ):
            with pytest.raises(JobError) as caught:
                await listed(feed.url(path))
            assert caught.value.failure.reason == reason
        with pytest.raises(PlatformError) as refused:
            await listed(feed.url(), allow_private_urls=False)
        assert refused.value.reason == "URL_NOT_ALLOWED"
        assert feed.requests["/feed.xml"] == 1


async def test_nothing_is_left_running() -> None:
    async with serving_feed(Feed(SONGS, hang=True)) as feed:
        task = asyncio.create_task(listed(feed.url()))
        async with asyncio.timeout(30):
            while not feed.requests["/feed.xml"]:
                await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        children = psutil.Process(os.getpid()).children(recursive=True)
        assert not [child for child in children if "listing_child" in " ".join(child.cmdline())]


async def test_a_listing_by_pages_goes_on(pool: Pool, redis_url: str, data_dir: Path) -> None:
    names = {f"v{n}.wav": b"" for n in range(180)}
    async with (
        serving_feed(Feed(names)) as feed,
        open_desk(pool, redis_url, data_dir) as desk,
    ):
        job = await desk.submit(feed.url())
        assert job.channel_id is not None
        # As one leaves it that died after its second page.
        _, *videos = await listed(feed.url())
        start = await desk.listed.begin(job.channel_id)
        assert start == ListCursor(full=True)
        for done in (50, 100):
            after = ListCursor(page=str(done), full=True, offset=done)
            await desk.listed.store_page(job.channel_id, videos[done - 50 : done], after)
        result = await desk.list(job)
        assert (result.counts.listed, result.quota_units) == (180, 0)
        children = await desk.children()
        assert len(children) == 180
        assert {child.source_host for child in children} == {"127.0.0.1"}
        channel = await desk.channel()
        assert (channel.title, channel.url) == ("A feed", feed.url())
        # Again: one page is enough to see that there is nothing new.
        await desk.finish_children()
        await desk.run(feed.url())
        assert len(await desk.children()) == 180
        page = await desk.admin.videos(channel.id, 1000, "")
        assert [one.title for one in page.items] == [f"Title of {name}" for name in names]


async def test_a_failing_proxy_is_left_out_and_the_next_one_lists(
    pool: Pool, redis_url: str, data_dir: Path
) -> None:
    dead = "http://me:hunter2@127.0.0.1:1"
    async with (
        serving_feed(Feed({"v.wav": b""})) as feed,
        serving_proxy(feed.base) as proxy,
        open_desk(pool, redis_url, data_dir, proxies=f"{dead} {proxy.url()}") as desk,
    ):
        for _ in range(2):
            result = await desk.run(feed.url())
            assert result.counts.listed == 1
            await desk.finish_children()
        assert proxy.asked
        (row,) = await pool.fetch("SELECT * FROM proxy_benches")
        assert row["proxy_sha256"] == hashlib.sha256(dead.encode()).hexdigest()


async def test_a_whole_channel_is_ingested(
    postgres_url: str, redis_url: str, data_dir: Path
) -> None:
    settings = worker_settings(postgres_url, redis_url, data_dir)
    feed = Feed(dict(SONGS), DATES)
    feed.songs["broken.wav"] = b"no audio at all"
    async with (
        serving_feed(feed),
        open_bench(settings) as bench,
        working(settings),
    ):
        channels = Channels(bench.pool)
        admin = ChannelAdmin(
            settings,
            channels,
            ChannelVideos(bench.pool),
            QuotaUses(bench.pool),
            bench.jobs,
            bench.queue,
        )
        job = await bench.succeeded(await admin.submit(ChannelSpec(feed.url())), 60)
        assert isinstance(job.result, BatchResult)
        counts = job.result.counts
        assert (counts.listed, counts.indexed, counts.failed, counts.known) == (5, 4, 1, 0)
        (channel,) = (await channels.list(10, "")).items
        assert (channel.listed, channel.indexed, channel.failed) == (5, 4, 1)
        videos = (await bench.videos.list(10, "", channel="A feed")).items
        assert sorted(video.title for video in videos) == [f"Title of {name}" for name in SONGS]
        page = await admin.videos(channel.id, 10, "")
        assert {one.video_id for one in page.items[:4]} == {video.id for video in videos}
        assert (page.items[4].state, page.items[4].video_id) == (JobState.FAILED, None)
        # Again, with one more: only that is fetched.
        feed.songs = {"new.wav": encode(tune(4.0, seed=750)), **feed.songs}
        again = await bench.succeeded(await admin.submit(ChannelSpec(feed.url())), 60)
        assert isinstance(again.result, BatchResult)
        counts = again.result.counts
        assert (counts.listed, counts.indexed, counts.known, counts.skipped) == (6, 1, 4, 1)
        assert feed.requests["/song0.wav"] == feed.requests["/new.wav"] == 1
        # Forgotten, its videos stay under its name.
        await admin.delete(channel.id)
        assert (await channels.list(10, "")).items == ()
        assert len((await bench.videos.list(10, "", channel="A feed")).items) == 5
    assert bench.files_left() == []
