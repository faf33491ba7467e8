"""Channels: listed to their end, once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.youtube import CHANNEL_ID, PAGE_SIZE, YouTube, serving_youtube, video

from soundhash_server.errors import PlatformError
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.fetcher import Fetcher
from soundhash_server.fetching.http import open_session
from soundhash_server.model import (
    BatchProgress,
    BatchResult,
    Channel,
    FetchOptions,
    IngestParameters,
    Job,
    JobKind,
    JobState,
)
from soundhash_server.queue import JobQueue
from soundhash_server.services.channels import ChannelAdmin, ChannelSpec
from soundhash_server.settings import Settings
from soundhash_server.store.channel_videos import ChannelVideos
from soundhash_server.store.channels import Channels
from soundhash_server.store.jobs import Jobs, LeaseLost
from soundhash_server.store.pool import Pool
from soundhash_server.store.proxies import ProxyBenches
from soundhash_server.store.quota import QuotaUses
from soundhash_workers.channels import ChannelLister
from soundhash_workers.pipeline import Report
from soundhash_workers.schedule import ChannelSchedule
from soundhash_workers.youtube_api import YouTubeApi

N = 3 * PAGE_SIZE + 7


@pytest.fixture
def youtube() -> Iterator[YouTube]:
    with serving_youtube(YouTube(videos=[video(n) for n in range(N, 0, -1)])) as made:
        yield made


class Desk:
    """Everything about channels but a worker: its lister is called by hand."""

    def __init__(
        self, settings: Settings, pool: Pool, queue: JobQueue, session: aiohttp.ClientSession
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.queue = queue
        self.jobs = Jobs(pool)
        self.channels = Channels(pool)
        self.listed = ChannelVideos(pool)
        self.quota = QuotaUses(pool)
        self.api = YouTubeApi(settings, self.quota)
        self.admin = ChannelAdmin(
            settings, self.channels, self.listed, self.quota, self.jobs, queue
        )
        self.lister = ChannelLister(
            settings,
            self.jobs,
            self.channels,
            self.listed,
            queue,
            self.api,
            Fetcher(settings, session, ProxyBenches(pool)),
        )

    async def submit(self, channel: str = "@somebody", **spec: Any) -> Job:
        return await self.admin.submit(ChannelSpec(channel, **spec))

    async def list(self, job: Job) -> BatchResult:
        """Does a CHANNEL job's own work, as a worker does."""
        lease = await self.jobs.claim(job.id, 60.0)
        assert lease is not None
        counts, result = await self.lister.run(lease, Report())
        await self.jobs.finish_listing(lease.token, counts, result)
        return result

    async def run(self, channel: str = "@somebody", **spec: Any) -> BatchResult:
        return await self.list(await self.submit(channel, **spec))

    async def children(self) -> list[Job]:
        page = await self.jobs.list(1000, "", kinds=[JobKind.INGEST])
        return list(page.items)

    async def finish_children(self, state: JobState = JobState.FAILED) -> None:
        """Ends all jobs of videos without doing them; those that wait for them end, too."""
        await self.pool.execute(
            "UPDATE processing_jobs SET state = $1, finish_time = clock_timestamp(),"
            ' next_attempt_time = NULL, failure = \'{"reason": "X", "message": "",'
            ' "remedy": "", "transient": false}\''
            " WHERE kind = 'INGEST' AND state = 'QUEUED'",
            state.value,
        )
        await self.jobs.settle_waiting()

    async def channel(self) -> Channel:
        (only,) = (await self.channels.list(10, "")).items
        return only

    async def counts_of(self, job: Job) -> BatchProgress:
        shown = await self.jobs.get(job.id)
        assert shown is not None and shown.progress.batch is not None
        return shown.progress.batch


@contextlib.asynccontextmanager
async def open_desk(pool: Pool, redis_url: str, data_dir: Path, **more: Any) -> AsyncIterator[Desk]:
    settings = Settings.from_env({}, data_dir=data_dir, allow_private_urls=True, **more)
    queue = JobQueue.connect(redis_url)
    try:
        async with open_session(allow_private=True, read_timeout_s=5.0) as session:
            desk = Desk(settings, pool, queue, session)
            try:
                yield desk
            finally:
                desk.api.close()
    finally:
        await queue.close()


@pytest.fixture
async def desk(youtube: YouTube, pool: Pool, redis_url: str, data_dir: Path) -> AsyncIterator[Desk]:
    api = {"youtube_api_url": youtube.base, "youtube_api_key": "the-key"}
    async with open_desk(pool, redis_url, data_dir, **api) as made:
        yield made


async def test_a_channel_is_listed_to_its_end(desk: Desk, youtube: YouTube) -> None:
    youtube.videos[3] = dataclasses.replace(youtube.videos[3], live="live")
    youtube.videos[60] = dataclasses.replace(youtube.videos[60], privacy="private")
    job = await desk.submit(options=FetchOptions(cookies="mine.txt", proxy="http://u:p@host:1"))
    assert (job.kind, job.state) == (JobKind.CHANNEL, JobState.QUEUED)
    assert (await desk.submit()).id == job.id
    assert (await desk.submit("youtube.com/@SomeBody/videos")).id == job.id
    result = await desk.list(job)

    channel = await desk.channel()
    assert (channel.service, channel.service_id) == ("youtube", CHANNEL_ID)
    assert (channel.title, channel.description) == ("Somebody", "About it")
    assert channel.list_time is not None
    assert (channel.listed, channel.indexed, channel.failed) == (N, 0, 0)
    assert channel.job_id == job.id
    children = await desk.children()
    assert len(children) == N - 2
    # In the order of the source: the newest is the first.
    first = min(children, key=lambda one: one.create_time)
    assert isinstance(first.parameters, IngestParameters)
    assert first.parameters.url == f"https://www.youtube.com/watch?v={youtube.videos[0].id}"
    assert first.parameters.title == f"Video {N}"
    assert first.parameters.channel == "Somebody"
    assert first.parameters.options.cookies == "mine.txt"
    assert (first.parent_id, first.channel_id) == (job.id, channel.id)
    assert first.source_host == "youtube.com"
    counts = await desk.counts_of(job)
    assert (counts.listed, counts.known, counts.skipped) == (N, 0, 2)
    assert (counts.queued, counts.listing_done) == (N - 2, True)
    # The channel itself, and two for each of four pages.
    assert result.quota_units == 9 == len(youtube.calls)
    assert (await desk.admin.quota()).used_units == 9

    page = await desk.admin.videos(channel.id, 100, "")
    rest = await desk.admin.videos(channel.id, 100, page.next_page_token)
    listed = [*page.items, *rest.items]
    assert [one.media_id for one in listed] == [one.id for one in youtube.videos]
    assert rest.next_page_token == ""
    assert [one.skip_reason for one in listed if one.skip_reason] == [
        "LIVE_NOT_SUPPORTED",
        "MEDIA_PRIVATE",
    ]
    assert listed[0].publish_time is not None and listed[0].duration_s == 185.0
    assert listed[0].state is JobState.QUEUED


async def test_again_only_what_is_new(desk: Desk, youtube: YouTube) -> None:
    first = await desk.submit()
    await desk.list(first)
    await desk.finish_children()
    done = await desk.jobs.get(first.id)
    assert done is not None and done.state is JobState.SUCCEEDED
    assert isinstance(done.result, BatchResult) and done.result.counts.failed == N
    youtube.calls.clear()
    # Nothing new: one page is looked at, and what has failed for good is left alone.
    result = await desk.run()
    assert (result.quota_units, result.counts.skipped) == (2, N)
    done = await desk.jobs.get(first.id)
    assert done is not None
    assert await desk.counts_of(first) == done.progress.batch
    assert len(await desk.children()) == N
    youtube.videos[:0] = [video(n) for n in (N + 3, N + 2, N + 1)]
    again = await desk.submit("UC" + CHANNEL_ID[2:])
    result = await desk.list(again)
    assert len(await desk.children()) == N + 3
    assert (await desk.counts_of(again)).queued == 3
    # The first page had some that were new, the second none.
    assert youtube.count("playlistItems") == 1 + 2
    page = await desk.admin.videos((await desk.channel()).id, 10, "")
    assert [one.media_id for one in page.items] == [one.id for one in youtube.videos[:10]]


async def test_an_interrupted_listing_goes_on(desk: Desk, youtube: YouTube) -> None:
    job = await desk.submit()
    youtube.fail_after_calls = 5
    with pytest.raises(JobError) as caught:
        await desk.list(job)
    assert caught.value.failure.reason == "HTTP_SERVER_ERROR"
    # What was listed by then is being processed already.
    assert len(await desk.children()) == 2 * PAGE_SIZE
    youtube.fail_after_calls = None
    youtube.calls.clear()
    lease_over = "UPDATE processing_jobs SET lease_expires = now() - interval '1 s' WHERE id = $1"
    await desk.pool.execute(lease_over, job.id)
    youtube.videos.insert(0, video(N + 1))
    result = await desk.list(job)
    assert youtube.count("channels") == 0
    assert [query["pageToken"] for what, query in youtube.calls if what == "playlistItems"] == [
        "at-100",
        "at-150",
    ]
    assert result.quota_units == 9
    assert len(await desk.children()) == N
    # The one that came meanwhile is found the next time.
    await desk.finish_children()
    await desk.run()
    assert len(await desk.children()) == N + 1


async def test_a_cancelled_lister_leaves_what_it_has(desk: Desk, youtube: YouTube) -> None:
    job = await desk.submit()
    youtube.delay_s = 0.05
    lease = await desk.jobs.claim(job.id, 60.0)
    assert lease is not None
    task = asyncio.create_task(desk.lister.run(lease, Report()))
    async with asyncio.timeout(20):
        while youtube.count("playlistItems") < 2:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    before = len(await desk.children())
    assert 0 < before < N
    await desk.jobs.release(lease.token)
    youtube.delay_s = 0.0
    await desk.list(job)
    children = await desk.children()
    asked = [one.parameters for one in children]
    urls = {one.url for one in asked if isinstance(one, IngestParameters)}
    assert len(children) == N == len(urls)


LISTER = """
import asyncio, sys
from pathlib import Path
from uuid import UUID
from soundhash_server.store.pool import create_pool
from soundhash_workers.pipeline import Report
from tests.integration.test_channels import open_desk

async def main(database_url, redis_url, data_dir, job_id, api):
    pool = await create_pool(database_url, 4)
    settings = {"youtube_api_url": api, "youtube_api_key": "the-key"}
    async with open_desk(pool, redis_url, Path(data_dir), **settings) as desk:
        lease = await desk.jobs.claim(UUID(job_id), 0.5)
        await desk.lister.run(lease, Report())

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_killed_lister_is_followed_by_another(
    desk: Desk, youtube: YouTube, postgres_url: str, redis_url: str
) -> None:
    job = await desk.submit()
    youtube.delay_s = 0.05
    data_dir = str(desk.settings.data_dir)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LISTER),
        *(postgres_url, redis_url, data_dir, str(job.id), youtube.base),
    )
    async with asyncio.timeout(90):
        while youtube.count("playlistItems") < 3:
            assert child.returncode is None
            await asyncio.sleep(0.01)
    child.kill()
    await child.wait()
    youtube.delay_s = 0.0
    assert len(await desk.children()) < N
    pages = youtube.count("playlistItems")
    async with asyncio.timeout(20):
        while (lease := await desk.jobs.claim(job.id, 60.0)) is None:
            await asyncio.sleep(0.05)
    counts, result = await desk.lister.run(lease, Report())
    await desk.jobs.finish_listing(lease.token, counts, result)
    assert len(await desk.children()) == N
    # The page that was not stored is asked for again, the others are not.
    assert youtube.count("playlistItems") - pages < 3
    page = await desk.admin.videos((await desk.channel()).id, 1000, "")
    assert [one.media_id for one in page.items] == [one.id for one in youtube.videos]
    assert all(one.job_id for one in page.items)


async def test_cancelling_the_job_ends_the_listing(desk: Desk) -> None:
    job = await desk.submit()
    lease = await desk.jobs.claim(job.id, 60.0)
    assert lease is not None
    await desk.jobs.cancel(job.id)
    with pytest.raises(LeaseLost):
        await desk.lister.run(lease, Report())
    # And asked for again, all is done that was not.
    await desk.run()
    assert len(await desk.children()) == N


async def test_a_dry_run_makes_nothing(desk: Desk, youtube: YouTube) -> None:
    youtube.videos[0] = dataclasses.replace(youtube.videos[0], live="live")
    job = await desk.submit(dry_run=True)
    other = await desk.submit()
    assert other.id != job.id
    await desk.jobs.cancel(other.id)
    result = await desk.list(job)
    assert await desk.children() == []
    assert (result.counts.queued, result.counts.listed, result.counts.skipped) == (N - 1, N, 1)
    assert result.quota_units == 9
    assert len(result.new_items) == 100
    assert result.new_items[0] == f"Video {N - 1}"
    shown = await desk.jobs.get(job.id)
    assert shown is not None and shown.state is JobState.SUCCEEDED
    assert shown.result == result
    result = await desk.run(dry_run=True, max_videos=5)
    assert (result.counts.queued, len(result.new_items)) == (5, 5)
    # What a dry run has listed is processed without listing.
    youtube.calls.clear()
    result = await desk.run(only_process=True, max_videos=20)
    assert youtube.calls == []
    assert (len(await desk.children()), result.counts.listed) == (20, N)


async def test_limits(desk: Desk, youtube: YouTube) -> None:
    result = await desk.run(max_videos=10)
    assert len(await desk.children()) == 10
    # One page was enough.
    assert (result.quota_units, result.counts.listed, result.counts.skipped) == (3, 50, 40)
    await desk.finish_children()
    # The rest was never listed, so nothing of it is passed over.
    since = datetime(2000, 3, 1, tzinfo=UTC)
    await desk.run(since=since)
    wanted = [one for one in youtube.videos if one.published >= "2000-03"]
    assert 0 < len(wanted) < N
    assert len(await desk.children()) == len(wanted)
    await desk.finish_children()
    await desk.run()
    assert len(await desk.children()) == N
    assert (await desk.channel()).list_time is not None


async def test_max_videos_holds_over_an_interruption(desk: Desk, youtube: YouTube) -> None:
    job = await desk.submit(max_videos=70)
    youtube.fail_after_calls = 3
    with pytest.raises(JobError):
        await desk.list(job)
    assert len(await desk.children()) == 50
    youtube.fail_after_calls = None
    await desk.pool.execute(
        "UPDATE processing_jobs SET lease_expires = now() - interval '1 s' WHERE id = $1", job.id
    )
    await desk.list(job)
    assert len(await desk.children()) == 70


async def test_a_playlist_is_looked_through_to_its_end(desk: Desk, youtube: YouTube) -> None:
    """People order playlists as they like, and add at the end."""
    name = "PL" + "b" * 20
    youtube.playlists[name] = [video(1000 + n) for n in range(60)]
    await desk.run(name)
    assert len(await desk.children()) == 60
    await desk.finish_children()
    youtube.playlists[name].append(video(2000))
    await desk.run(name)
    assert len(await desk.children()) == 61
    channel = await desk.channel()
    assert (channel.title, channel.service_id) == ("A playlist", name)


async def test_a_live_video_is_taken_when_it_is_over(desk: Desk, youtube: YouTube) -> None:
    youtube.videos[0] = dataclasses.replace(youtube.videos[0], live="live")
    youtube.videos[120] = dataclasses.replace(youtube.videos[120], live="upcoming")
    await desk.run()
    assert len(await desk.children()) == N - 2
    await desk.finish_children()
    youtube.videos[0] = dataclasses.replace(youtube.videos[0], live="none")
    youtube.videos[120] = dataclasses.replace(youtube.videos[120], live="none")
    await desk.run()
    assert len(await desk.children()) == N


async def test_quota_stops_politely(
    youtube: YouTube, pool: Pool, redis_url: str, data_dir: Path
) -> None:
    api = {"youtube_api_url": youtube.base, "youtube_api_key": "the-key"}
    async with open_desk(pool, redis_url, data_dir, youtube_daily_units=5, **api) as desk:
        job = await desk.submit()
        with pytest.raises(JobError) as caught:
            await desk.list(job)
        assert caught.value.failure.reason == "QUOTA_EXCEEDED"
        assert caught.value.retry_after_s is not None
        assert len(youtube.calls) == 5
        assert len(await desk.children()) == 2 * PAGE_SIZE
        # The next day it goes on where it stopped.
        await pool.execute("UPDATE quota_use SET day = day - 1")
        await pool.execute(
            "UPDATE processing_jobs SET lease_expires = now() - interval '1 s' WHERE id = $1",
            job.id,
        )
        await desk.list(job)
        assert len(await desk.children()) == N
        assert (await desk.admin.quota()).used_units == 4


async def test_a_page_that_is_forgotten_is_no_end(desk: Desk, youtube: YouTube) -> None:
    job = await desk.submit()
    youtube.fail_after_calls = 3
    with pytest.raises(JobError):
        await desk.list(job)
    youtube.fail_after_calls = None
    youtube.failures = [(400, "invalidPageToken")]
    await desk.pool.execute(
        "UPDATE processing_jobs SET lease_expires = now() - interval '1 s' WHERE id = $1", job.id
    )
    await desk.list(job)
    assert len(await desk.children()) == N


async def test_two_names_of_one_channel_become_one(desk: Desk) -> None:
    by_handle = await desk.submit("@somebody", dry_run=True)
    by_user = await desk.submit("https://www.youtube.com/user/olduser", dry_run=True)
    assert by_handle.channel_id != by_user.channel_id
    assert by_user.channel_id is not None
    first = await desk.channels.get(by_user.channel_id)
    assert first is not None
    await desk.admin.update(first.id, schedule="0 4 * * *")
    await desk.list(by_handle)
    await desk.list(by_user)
    channel = await desk.channel()
    assert channel.id == by_handle.channel_id
    assert (channel.schedule, channel.listed) == ("0 4 * * *", N)
    for name in ("@Somebody", "youtube.com/user/OldUser", CHANNEL_ID):
        assert (await desk.submit(name, dry_run=True)).channel_id == channel.id


async def test_names_are_unique(desk: Desk, youtube: YouTube) -> None:
    """A collection of the same name becomes the channel's; another channel keeps its own."""
    await desk.pool.execute("INSERT INTO channels (name) VALUES ('Somebody')")
    await desk.run(dry_run=True)
    youtube.channel_id, youtube.handle = "UC" + "c" * 22, "@other"
    await desk.run("@other", dry_run=True)
    titles = sorted(one.title for one in (await desk.channels.list(10, "")).items)
    assert titles == ["Somebody", f"Somebody ({youtube.channel_id})"]


async def test_a_channel_that_is_not_there(desk: Desk) -> None:
    with pytest.raises(JobError) as caught:
        await desk.run("@nobody")
    assert caught.value.failure.reason == "CHANNEL_NOT_FOUND"


@pytest.mark.parametrize(
    "name",
    ["", "  ", "nonsense", "@", "https://", "file:///etc/passwd", "https://youtu.be/dQw4w9WgXcQ"],
)
async def test_what_is_no_channel_is_refused(desk: Desk, name: str) -> None:
    with pytest.raises(PlatformError) as caught:
        await desk.submit(name)
    assert caught.value.kind.value == "INVALID_ARGUMENT"
    assert (await desk.channels.list(10, "")).items == ()


async def test_deleting_ends_and_forgets(desk: Desk) -> None:
    job = await desk.submit()
    await desk.list(job)
    channel = await desk.channel()
    await desk.admin.delete(channel.id)
    assert (await desk.channels.list(10, "")).items == ()
    assert {one.state for one in await desk.children()} == {JobState.CANCELLED}
    with pytest.raises(PlatformError) as caught:
        await desk.admin.delete(channel.id)
    assert caught.value.reason == "CHANNEL_NOT_FOUND"
    # Added again, it is as new.
    await desk.run()
    assert {one.state for one in await desk.children()} == {JobState.QUEUED}


# ---- schedules ----


async def test_a_due_channel_is_submitted_once(desk: Desk) -> None:
    job = await desk.submit(max_videos=3)
    await desk.list(job)
    await desk.finish_children()
    channel = await desk.channel()
    planned = await desk.admin.update(channel.id, schedule=" 0  4 * * * ")
    assert planned.schedule == "0 4 * * *"
    assert planned.next_run_time is not None and planned.next_run_time.hour == 4
    schedules = [
        ChannelSchedule(desk.settings, desk.channels, desk.jobs, desk.queue) for _ in range(4)
    ]
    assert [await one.run_due() for one in schedules] == [0] * 4
    # A week was missed: it is made up for by one run, whoever looks.
    late = datetime.now(UTC) - timedelta(days=7)
    await desk.pool.execute("UPDATE channels SET next_run_time = $1", late)
    assert sum(await asyncio.gather(*(one.run_due() for one in schedules))) == 1
    shown = await desk.jobs.get(job.id)
    assert shown is not None and shown.state is JobState.QUEUED
    after = await desk.channel()
    assert after.next_run_time == planned.next_run_time
    # As it was submitted last.
    await desk.list(shown)
    assert len(await desk.children()) == 6
    ended = await desk.admin.update(channel.id, schedule="")
    assert (ended.schedule, ended.next_run_time) == ("", None)


@pytest.mark.parametrize(
    "schedule", ["nonsense", "* * * *", "0 0 0 0 0", "0 0 30 2 *", "* * * * * *", "61 * * * *"]
)
async def test_a_schedule_that_is_none_is_refused(desk: Desk, schedule: str) -> None:
    await desk.submit()
    with pytest.raises(PlatformError) as caught:
        await desk.admin.update((await desk.channel()).id, schedule=schedule)
    assert caught.value.reason == "SCHEDULE_INVALID"
