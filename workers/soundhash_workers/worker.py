"""One worker process: settings -> resources -> jobs, until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import structlog

from soundhash_engine import PARAMS
from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.fetching.fetcher import Fetcher
from soundhash_server.fetching.http import open_session
from soundhash_server.fetching.live import LiveSources
from soundhash_server.fetching.scratch import Scratch
from soundhash_server.model import JobKind
from soundhash_server.queue import JobQueue, open_redis
from soundhash_server.settings import Settings
from soundhash_server.storage import open_storage
from soundhash_server.store.air import Air
from soundhash_server.store.channel_videos import ChannelVideos
from soundhash_server.store.channels import Channels
from soundhash_server.store.duplicates import Duplicates
from soundhash_server.store.folders import FolderFiles
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.listener import Listener
from soundhash_server.store.migrate import status
from soundhash_server.store.objects import Objects
from soundhash_server.store.pauses import Pauses, pause_rule
from soundhash_server.store.pool import create_pool
from soundhash_server.store.proxies import ProxyBenches
from soundhash_server.store.quota import QuotaUses
from soundhash_server.store.turns import Bounds, Slot
from soundhash_server.store.videos import Videos
from soundhash_server.tasks import end
from soundhash_workers import forks
from soundhash_workers.air_sweep import AirSweeper
from soundhash_workers.channels import ChannelLister
from soundhash_workers.disk import Disk
from soundhash_workers.dispatcher import Dispatcher
from soundhash_workers.duplicates import DuplicateFinder
from soundhash_workers.folders import FolderScanner
from soundhash_workers.keeping import Keeper, KeptSweeper
from soundhash_workers.match_index import MatchIndex
from soundhash_workers.monitors.host import MonitorHost, open_host
from soundhash_workers.pipeline import Pipeline
from soundhash_workers.runner import JobRunner, Lister
from soundhash_workers.schedule import ChannelSchedule
from soundhash_workers.sweeper import Sweeper
from soundhash_workers.uploads import UploadSweeper
from soundhash_workers.wakeups import WakeUps
from soundhash_workers.youtube_api import YouTubeApi

_READ_TIMEOUT_S = 30.0
_MAX_WATCHES = 100
"""Watching a folder takes next to nothing until something changes."""
_WAIT_S = 0.25
_GIVE_BACK_S = 6.0

log = structlog.get_logger(__name__)


async def work(settings: Settings) -> None:
    """Carries out jobs until SIGTERM or SIGINT; jobs under way are then given back.

    Waits for the database, its schema and the queue as long as it takes. Raises OSError when
    the data folder cannot be used.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    stopping = asyncio.create_task(stopped.wait())
    working = asyncio.create_task(serve(settings))
    await asyncio.wait({stopping, working}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
    log.info("worker stops")
    await end(working, again_s=2 * settings.drain_s + 30.0)
    log.info("worker stopped")


async def serve(settings: Settings) -> None:
    """As `work`, until cancelled."""
    forks.prepare()
    await _wait_for_schema(settings.database_url)
    async with _resources(settings) as (dispatcher, wakeups, sweeper, listener, monitors):
        log.info("worker is ready", concurrency=settings.effective_worker_concurrency)
        loops = [
            asyncio.create_task(loop)
            for loop in (
                sweeper.run(),
                dispatcher.run(),
                wakeups.run_forever(),
                listener.run(),
                monitors.run(),
            )
        ]
        try:
            await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for loop in loops:
                if loop.done():
                    # Neither ends by itself but by an error that nobody has foreseen.
                    loop.result()
        finally:
            await end(*loops)
            await asyncio.gather(
                monitors.stop(_GIVE_BACK_S), dispatcher.stop(settings.drain_s + _GIVE_BACK_S)
            )
            await wakeups.stop()


@contextlib.asynccontextmanager
async def _resources(
    settings: Settings,
) -> AsyncIterator[tuple[Dispatcher, WakeUps, Sweeper, Listener, MonitorHost]]:
    async with contextlib.AsyncExitStack() as stack:
        pool = await create_pool(
            settings.database_url, settings.database_pool_size, name="soundhash-worker"
        )
        stack.callback(pool.terminate)
        redis = open_redis(settings.redis_url)
        stack.push_async_callback(redis.aclose, close_connection_pool=True)
        session = await stack.enter_async_context(
            open_session(allow_private=settings.allow_private_urls, read_timeout_s=_READ_TIMEOUT_S)
        )
        settings.uploads_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = Scratch(settings.scratch_dir)
        stack.callback(scratch.close)
        jobs, videos = Jobs(pool), Videos(pool)
        storage = open_storage(settings)
        objects = Objects(pool, storage.name if storage else "")
        keeper = Keeper(settings, storage, objects, scratch, session)
        stack.callback(keeper.close)
        fetcher = Fetcher(settings, session, ProxyBenches(pool))
        pipeline = Pipeline(settings, videos, scratch, fetcher, keeper)
        stack.callback(pipeline.close)
        queue = JobQueue(redis)
        disk = Disk(settings.data_dir, settings.min_free_disk_bytes)
        pauses = Pauses(pool, pause_rule(settings))
        channels, listed = Channels(pool), ChannelVideos(pool)
        youtube = YouTubeApi(settings, QuotaUses(pool))
        stack.callback(youtube.close)
        listener = Listener(settings.database_url, name="soundhash-worker-listener")
        stack.push_async_callback(listener.close)
        index = MatchIndex(settings, pool, listener)
        listers: dict[JobKind, Lister] = {
            JobKind.CHANNEL: ChannelLister(
                settings, jobs, channels, listed, queue, youtube, fetcher
            ),
            JobKind.FOLDER: FolderScanner(settings, jobs, queue, FolderFiles(pool), videos),
            JobKind.DUPLICATES: DuplicateFinder(index, Duplicates(pool), scratch),
        }
        runner = JobRunner(settings, jobs, pauses, pipeline, listers, queue, disk)
        dispatcher = Dispatcher(
            jobs,
            runner.run,
            rooms={
                Slot.LISTING: settings.max_channels if listers else 0,
                Slot.WATCH: _MAX_WATCHES if JobKind.FOLDER in listers else 0,
                Slot.INGEST: settings.effective_worker_concurrency,
            },
            bounds=Bounds(settings.max_channel_jobs, settings.max_host_jobs),
            lease_s=settings.job_lease_s,
            look_s=settings.sweep_s,
            can_take=lambda slot: slot is not Slot.INGEST or disk.has_room(),
        )
        wakeups = WakeUps(redis, dispatcher.wake, lambda: dispatcher.has_room)
        sweeper = Sweeper(
            jobs,
            scratch,
            UploadSweeper(settings.uploads_dir, jobs, videos, PARAMS.digest),
            KeptSweeper(objects, storage),
            ChannelSchedule(settings, channels, jobs, queue),
            AirSweeper(Air(pool)),
            sweep_s=settings.sweep_s,
            grace_s=settings.job_lease_s,
        )
        sources = LiveSources(settings, session, fetcher)
        host = open_host(settings, pool, listener, index, sources)
        stack.callback(host.close)
        yield dispatcher, wakeups, sweeper, listener, host


async def _wait_for_schema(database_url: str) -> None:
    waiting = False
    while True:
        try:
            found = await status(database_url)
            if not found.pending:
                return
            reason = "SCHEMA_PENDING"
        except PlatformError as error:
            if error.kind is not ErrorKind.UNAVAILABLE:
                raise
            reason = error.reason
        if not waiting:
            log.info("waits for the database", reason=reason)
        waiting = True
        await asyncio.sleep(_WAIT_S)
