"""Submits channels whose schedule is due, once, although every worker looks.

A due run is claimed by moving it a little, by compare-and-set in the database; whoever has
moved it submits the channel and then moves it to its next time. One who dies in between leaves a
run that is due again soon, and a channel that is submitted twice gives one job.
"""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import structlog

from soundhash_server.errors import PlatformError
from soundhash_server.queue import JobQueue
from soundhash_server.schedules import next_run
from soundhash_server.services.channels import ChannelSpec, submit_channel
from soundhash_server.settings import Settings
from soundhash_server.store.channels import Channels
from soundhash_server.store.jobs import Jobs

_CLAIM = timedelta(seconds=60)
_AT_ONCE = 100

log = structlog.get_logger(__name__)


class ChannelSchedule:
    """The workers' side of channels' schedules."""

    def __init__(self, settings: Settings, channels: Channels, jobs: Jobs, queue: JobQueue) -> None:
        self._settings = settings
        self._channels = channels
        self._jobs = jobs
        self._queue = queue

    async def run_due(self) -> int:
        """Submits what is due and returns how many this worker has submitted. Runs that were
        missed while no worker ran are made up for by one.

        Raises PlatformError DATABASE_UNAVAILABLE.
        """
        now, due = await self._channels.due(_AT_ONCE)
        submitted = 0
        for channel in due:
            claimed = now + _CLAIM
            if not await self._channels.put_off(channel, claimed):
                continue
            spec = ChannelSpec(channel.url, channel.max_videos, channel.since)
            job = await submit_channel(self._jobs, self._queue, channel, spec, self._settings)
            try:
                following = next_run(channel.schedule, now)
            except PlatformError as error:
                log.warning("schedule cannot go on", channel=channel.title, reason=error.reason)
                continue
            await self._channels.put_off(
                dataclasses.replace(channel, next_run_time=claimed), following
            )
            submitted += 1
            log.info("channel is due", channel=channel.title, job_id=str(job.id))
        return submitted
