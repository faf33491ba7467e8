"""Channels: submitting, describing, scheduling and forgetting them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from soundhash_engine import PARAMS
from soundhash_server.channel_refs import RefKind, parse_channel
from soundhash_server.errors import not_found
from soundhash_server.fetching.ways import check_options
from soundhash_server.model import (
    Channel,
    ChannelParameters,
    ChannelVideo,
    FetchOptions,
    Job,
    JobKind,
    Page,
    Quota,
)
from soundhash_server.queue import JobQueue
from soundhash_server.schedules import next_run
from soundhash_server.settings import Settings
from soundhash_server.store.channel_videos import ChannelVideos
from soundhash_server.store.channels import Channels
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.quota import QuotaUses
from soundhash_server.url_guard import check_url


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """What the caller says about a channel. options: None leaves the channel's own."""

    channel: str
    max_videos: int = 0
    since: datetime | None = None
    dry_run: bool = False
    only_process: bool = False
    options: FetchOptions | None = None


class ChannelAdmin:
    """The channels, and how they are submitted."""

    def __init__(
        self,
        settings: Settings,
        channels: Channels,
        listed: ChannelVideos,
        quota: QuotaUses,
        jobs: Jobs,
        queue: JobQueue,
    ) -> None:
        self._settings = settings
        self._channels = channels
        self._listed = listed
        self._quota = quota
        self._jobs = jobs
        self._queue = queue

    async def submit(self, spec: ChannelSpec) -> Job:
        """The job that lists a channel and has its new videos ingested.

        Raises PlatformError INVALID_ARGUMENT (CHANNEL_INVALID, FETCH_OPTIONS_INVALID, and those
        of url_guard).
        """
        ref = parse_channel(spec.channel)
        if ref.kind is RefKind.PAGE:
            await check_url(ref.url, self._settings.allow_private_urls)
        if spec.options is not None:
            await check_options(spec.options, allow_private=self._settings.allow_private_urls)
        passing = spec.dry_run or spec.only_process
        channel = await self._channels.add(
            ref,
            options=spec.options,
            limits=None if passing else (spec.max_videos, spec.since),
        )
        return await submit_channel(self._jobs, self._queue, channel, spec, self._settings)

    async def get(self, channel_id: UUID) -> Channel:
        """Raises PlatformError NOT_FOUND (CHANNEL_NOT_FOUND)."""
        channel = await self._channels.get(channel_id)
        if channel is None:
            raise not_found("channel", str(channel_id))
        return channel

    async def list(self, page_size: int, page_token: str) -> Page[Channel]:
        """Newest first."""
        return await self._channels.list(page_size, page_token)

    async def update(
        self, channel_id: UUID, *, schedule: str | None = None, options: FetchOptions | None = None
    ) -> Channel:
        """Sets what is not None; an empty schedule ends it.

        Raises PlatformError NOT_FOUND (CHANNEL_NOT_FOUND), INVALID_ARGUMENT (SCHEDULE_INVALID,
        FETCH_OPTIONS_INVALID).
        """
        if options is not None:
            await check_options(options, allow_private=self._settings.allow_private_urls)
        planned: tuple[str, datetime | None] | None = None
        if schedule is not None:
            wanted = " ".join(schedule.split())
            after = await self._channels.now()
            planned = (wanted, next_run(wanted, after) if wanted else None)
        channel = await self._channels.update(channel_id, schedule=planned, options=options)
        if channel is None:
            raise not_found("channel", str(channel_id))
        return channel

    async def delete(self, channel_id: UUID) -> None:
        """Cancels what is under way and forgets the channel; its videos stay.

        Raises PlatformError NOT_FOUND (CHANNEL_NOT_FOUND).
        """
        for job_id in await self._channels.unfinished_jobs(channel_id):
            await self._jobs.cancel(job_id)
        if not await self._channels.delete(channel_id):
            raise not_found("channel", str(channel_id))

    async def videos(self, channel_id: UUID, page_size: int, page_token: str) -> Page[ChannelVideo]:
        """In the source's order, the newest first.

        Raises PlatformError NOT_FOUND (CHANNEL_NOT_FOUND).
        """
        await self.get(channel_id)
        return await self._listed.list(channel_id, page_size, page_token)

    async def quota(self) -> Quota:
        """How much of the YouTube Data API's quota of today is used."""
        used = await self._quota.today()
        settings = self._settings
        return Quota(
            daily_units=settings.youtube_daily_units,
            used_units=used.used_units,
            reset_time=used.reset_time,
            configured=bool(settings.youtube_api_key) or settings.youtube_token_path.exists(),
        )


async def submit_channel(
    jobs: Jobs, queue: JobQueue, channel: Channel, spec: ChannelSpec, settings: Settings
) -> Job:
    """Queues a channel's listing; the same job while one is unfinished. A dry run has a job of
    its own: who asks for videos must not get an answer that only lists them."""
    job, needs_wake = await jobs.submit(
        JobKind.CHANNEL,
        f"channel:{channel.id}" + (":dry" if spec.dry_run else ""),
        ChannelParameters(
            channel_id=channel.id,
            channel=spec.channel,
            max_videos=spec.max_videos,
            since=spec.since,
            dry_run=spec.dry_run,
            only_process=spec.only_process,
        ),
        max_attempts=settings.job_max_attempts,
        params_digest=PARAMS.digest,
        channel_id=channel.id,
    )
    if needs_wake:
        await queue.wake(job.id)
    return job
