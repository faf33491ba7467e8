"""One CHANNEL job: lists a channel page by page and has its new videos ingested.

Each page and the place where the listing goes on are stored in one transaction, and jobs are
made for what is stored: a lister that dies at any line is followed by one that goes on there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from soundhash_engine import PARAMS
from soundhash_server.channel_refs import (
    YOUTUBE,
    ChannelRef,
    RefKind,
    is_channel_id,
    ref_of,
    uploads_of,
)
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.fetcher import Fetcher
from soundhash_server.model import (
    BatchProgress,
    BatchResult,
    Channel,
    ChannelFacts,
    ChannelParameters,
    IngestParameters,
    JobKind,
    JobProgress,
    JobState,
    JobStep,
    Lease,
    ListedVideo,
    NewJob,
)
from soundhash_server.queue import JobQueue
from soundhash_server.settings import Settings
from soundhash_server.sources import source_host, url_key
from soundhash_server.store.channel_videos import ChannelVideos, ListCursor, Pending
from soundhash_server.store.channels import Channels
from soundhash_server.store.jobs import Jobs
from soundhash_workers.pipeline import Report
from soundhash_workers.youtube_api import PAGE_SIZE, PageGoneError, YouTubeApi

_SUBMIT_AT_ONCE = 100
_NEW_ITEMS = 100
_UNREADY = ("LIVE_NOT_SUPPORTED", "NOT_YET_AVAILABLE")
_MAX_UNREADY = 200
"""Videos a run looks at again because they were not over, or not there yet."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Page:
    """A page of a listing. mark: of the page behind it; empty at the end."""

    videos: tuple[ListedVideo, ...]
    mark: str
    quota_units: int = 0


class ChannelLister:
    """Does the work of CHANNEL jobs. One for all jobs of a worker."""

    def __init__(
        self,
        settings: Settings,
        jobs: Jobs,
        channels: Channels,
        listed: ChannelVideos,
        queue: JobQueue,
        youtube: YouTubeApi,
        fetcher: Fetcher,
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._channels = channels
        self._listed = listed
        self._queue = queue
        self._youtube = youtube
        self._fetcher = fetcher

    async def run(self, lease: Lease, report: Report) -> tuple[BatchProgress, BatchResult]:
        """Lists what is new and submits it; the job's counts and what it came to.

        Raises JobError, PlatformError, and LeaseLost when the job was cancelled. Leaves no
        process behind.
        """
        parameters = lease.job.parameters
        if not isinstance(parameters, ChannelParameters):
            raise TypeError(f"job {lease.job.id} is not about a channel")
        channel = await self._channels.get(parameters.channel_id)
        if channel is None:
            raise JobError("CHANNEL_GONE", "The channel is not there any more.")
        return await _Run(self, lease, report, parameters, channel).carry_out()


class _Run:
    """One job on its way."""

    def __init__(
        self,
        lister: ChannelLister,
        lease: Lease,
        report: Report,
        parameters: ChannelParameters,
        channel: Channel,
    ) -> None:
        self._settings = lister._settings
        self._jobs = lister._jobs
        self._channels = lister._channels
        self._listed = lister._listed
        self._queue = lister._queue
        self._youtube = lister._youtube
        self._fetcher = lister._fetcher
        self._job_id = lease.job.id
        self._report = report
        self._asked = parameters
        self._channel = channel
        self._units = 0
        self._submitted = 0

    async def carry_out(self) -> tuple[BatchProgress, BatchResult]:
        asked = self._asked
        if asked.max_videos:
            # Of an earlier attempt that did not come to its end.
            self._submitted = await self._listed.count_submitted(self._job_id)
        await self._tell()
        if not asked.only_process:
            await self._list()
        return await self._finish()

    # ---- listing ----

    async def _list(self) -> None:
        ref = self._ref()
        api = ref.service == YOUTUBE and ref.kind is not RefKind.PAGE and self._youtube.configured
        cursor = await self._begin()
        self._units = cursor.quota_units
        if api:
            await self._describe()
            await self._look_again()
        resumed = bool(cursor.page)
        try:
            await self._pages(cursor, api)
        except PageGoneError:
            if not resumed:
                raise JobError("HTTP_SERVER_ERROR", "YouTube forgets its own pages.") from None
            log.info("listing begins anew", channel=str(self._channel.id))
            await self._listed.finish(self._channel.id, to_the_end=False)
            await self._pages(await self._begin(), api)

    async def _begin(self) -> ListCursor:
        cursor = await self._listed.begin(self._channel.id)
        if cursor is None:
            raise JobError("CHANNEL_GONE", "The channel was deleted meanwhile.")
        if not self._ref().newest_first:
            cursor = dataclasses.replace(cursor, full=True)
        return cursor

    async def _pages(self, cursor: ListCursor, api: bool) -> None:
        """Stores pages until the source's end, what is known already, or what was asked for."""
        source = self._from_api(cursor) if api else self._from_page(cursor)
        to_the_end = True
        async with aclosing(source) as pages:
            async for page in pages:
                self._units += page.quota_units
                cursor = dataclasses.replace(
                    cursor,
                    page=page.mark,
                    offset=cursor.offset + len(page.videos),
                    quota_units=self._units,
                )
                stored = await self._listed.store_page(self._channel.id, page.videos, cursor)
                enough = await self._submit_pending()
                await self._tell()
                if not page.mark:
                    break
                if stored.known and not stored.new and not cursor.full:
                    # All behind it was listed before.
                    break
                if enough or self._too_old(page.videos):
                    to_the_end = False
                    break
        await self._listed.finish(self._channel.id, to_the_end=to_the_end)

    def _too_old(self, videos: tuple[ListedVideo, ...]) -> bool:
        """Whether all of a page, and so of what follows, was published before what is wanted."""
        since = self._asked.since
        if not self._ref().newest_first:
            return False
        times = [video.publish_time for video in videos]
        return since is not None and all(time is not None and time < since for time in times)

    async def _describe(self) -> None:
        channel = self._channel
        if not channel.uploads_id:
            self._units += 1
            facts = await self._youtube.describe(self._ref())
            await self._identify(facts)

    async def _identify(self, facts: ChannelFacts) -> None:
        found = await self._channels.identify(self._channel.id, facts)
        if found is None:
            raise JobError("CHANNEL_GONE", "The channel was deleted meanwhile.")
        self._channel = found

    async def _look_again(self) -> None:
        """Videos that were live or to come may be there by now."""
        waiting = [
            video
            for reason in _UNREADY
            for video in await self._listed.unready(self._channel.id, reason, _MAX_UNREADY)
        ]
        for at in range(0, len(waiting), PAGE_SIZE):
            part = waiting[at : at + PAGE_SIZE]
            self._units += 1
            found = await self._youtube.videos([video.media_id for video in part])
            gone = [
                dataclasses.replace(video, skip_reason="MEDIA_REMOVED")
                for video in part
                if video.media_id not in found
            ]
            await self._listed.now_ready(self._channel.id, [*found.values(), *gone])

    async def _from_api(self, cursor: ListCursor) -> AsyncGenerator[_Page, None]:
        mark = cursor.page
        while True:
            page = await self._youtube.page(self._channel.uploads_id, mark)
            mark = page.next_page
            yield _Page(page.videos, mark, page.quota_units)
            if not mark:
                return

    async def _from_page(self, cursor: ListCursor) -> AsyncGenerator[_Page, None]:
        """Through yt-dlp. Marks are numbers of entries."""
        if not self._ref().canonical:
            # What has an id of its own is listed by that from the start: an earlier listing
            # under another name could be in another order.
            await self._identify_page()
        ref = self._ref()
        url = uploads_of(ref.name) if ref.kind is RefKind.CHANNEL else ref.url
        # New videos push the others back, deleted ones pull them: a page more costs nothing.
        done = max(0, int(cursor.page or 0) - PAGE_SIZE)
        listing = self._fetcher.listing(url, self._channel.options, skip=done)
        async with aclosing(listing) as events:
            batch: list[ListedVideo] = []
            async for event in events:
                if isinstance(event, ChannelFacts):
                    await self._identify(dataclasses.replace(event, service_id="", url=""))
                    continue
                batch.append(event)
                if len(batch) == PAGE_SIZE:
                    done += PAGE_SIZE
                    yield _Page(tuple(batch), str(done))
                    batch = []
            yield _Page(tuple(batch), "")

    async def _identify_page(self) -> None:
        listing = self._fetcher.listing(self._ref().url, self._channel.options)
        async with aclosing(listing) as events:
            async for event in events:
                if isinstance(event, ChannelFacts):
                    own_id = event.service_id if is_channel_id(event.service_id) else ""
                    await self._identify(dataclasses.replace(event, service_id=own_id, url=""))
                    return

    def _ref(self) -> ChannelRef:
        channel = self._channel
        return ref_of(channel.service, channel.service_id, channel.url)

    # ---- jobs for what is listed ----

    async def _submit_pending(self) -> bool:
        """Makes jobs for listed videos; whether as many were made, or in a dry run would be, as
        were asked for."""
        asked = self._asked
        if asked.dry_run:
            if not asked.max_videos:
                return False
            return await self._count_pending() >= asked.max_videos
        after = None
        while not asked.max_videos or self._submitted < asked.max_videos:
            most = _SUBMIT_AT_ONCE
            if asked.max_videos:
                most = min(most, asked.max_videos - self._submitted)
            pending = await self._listed.pending(
                self._channel.id, PARAMS.digest, since=asked.since, after=after, limit=most
            )
            if not pending:
                return False
            after = pending[-1].position
            await self._submit(pending)
        return True

    async def _submit(self, pending: tuple[Pending, ...]) -> None:
        jobs = await self._jobs.submit_many(
            [self._new_job(video) for video in pending],
            max_attempts=self._settings.job_max_attempts,
            params_digest=PARAMS.digest,
        )
        await self._listed.submitted(
            self._channel.id, [(video, job.id) for video, job in zip(pending, jobs, strict=True)]
        )
        for job in jobs:
            # One that is done already was brought in by another way.
            self._submitted += job.state is not JobState.SUCCEEDED
            if job.state is JobState.QUEUED and not await self._queue.wake(job.id):
                break
        await self._tell()

    def _new_job(self, video: Pending) -> NewJob:
        return NewJob(
            JobKind.INGEST,
            url_key(video.url),
            IngestParameters(
                url=video.url,
                title=video.title,
                channel=self._channel.title,
                options=self._channel.options,
            ),
            parent_id=self._job_id,
            channel_id=self._channel.id,
            source_host=source_host(video.url),
        )

    async def _count_pending(self) -> int:
        return await self._listed.count_pending(self._channel.id, PARAMS.digest, self._asked.since)

    async def _tell(self, *, listing_done: bool = False) -> BatchProgress:
        counts = await self._listed.counts(self._channel.id, self._job_id)
        counts = dataclasses.replace(counts, quota_units=self._units, listing_done=listing_done)
        self._report.progress = JobProgress(step=JobStep.LIST, batch=counts)
        return counts

    async def _finish(self) -> tuple[BatchProgress, BatchResult]:
        asked = self._asked
        await self._submit_pending()
        new_items: tuple[str, ...] = ()
        queued = 0
        if asked.dry_run:
            queued = await self._count_pending()
            if asked.max_videos:
                queued = min(queued, asked.max_videos)
            pending = await self._listed.pending(
                self._channel.id,
                PARAMS.digest,
                since=asked.since,
                limit=min(queued, _NEW_ITEMS) or 1,
            )
            new_items = tuple(video.title or video.url for video in pending[:queued])
            counts = await self._tell(listing_done=True)
            left_out = counts.listed - counts.known - queued
        else:
            counts = await self._tell(listing_done=True)
            own = await self._listed.count_submitted(self._job_id)
            left_out = counts.listed - counts.known - own
        counts = dataclasses.replace(counts, queued=queued, skipped=max(0, left_out))
        self._report.progress = JobProgress(step=JobStep.LIST, fraction=1.0, batch=counts)
        return counts, BatchResult(counts, quota_units=self._units, new_items=new_items)
