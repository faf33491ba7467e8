"""Composition root of the server: settings -> resources -> services -> servicers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import structlog
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from soundhash.v1 import (
    admin_pb2_grpc,
    catalog_pb2_grpc,
    channels_pb2_grpc,
    clips_pb2_grpc,
    fingerprint_pb2_grpc,
    ingest_pb2_grpc,
    match_pb2_grpc,
    media_pb2_grpc,
    monitors_pb2_grpc,
)
from soundhash_engine.warm import warm
from soundhash_server.errors import PlatformError
from soundhash_server.fetching.fetcher import Fetcher
from soundhash_server.fetching.http import open_session
from soundhash_server.fetching.scratch import Scratch
from soundhash_server.lean import give_back_memory
from soundhash_server.queue import JobQueue
from soundhash_server.rpc.admin import AdminServicer
from soundhash_server.rpc.catalog import CatalogServicer
from soundhash_server.rpc.channels import ChannelServicer
from soundhash_server.rpc.clips import ClipServicer
from soundhash_server.rpc.fingerprint import FingerprintServicer
from soundhash_server.rpc.health import NEEDS, Health
from soundhash_server.rpc.ingest import IngestServicer
from soundhash_server.rpc.interceptors import CallGuard
from soundhash_server.rpc.match import MatchServicer
from soundhash_server.rpc.media import MediaServicer
from soundhash_server.rpc.monitors import MonitorServicer
from soundhash_server.services.admin import Admin
from soundhash_server.services.air_index import AIR_PARAMS, WithAir
from soundhash_server.services.catalog import Catalog
from soundhash_server.services.channels import ChannelAdmin
from soundhash_server.services.clip_keeping import ClipKeeper
from soundhash_server.services.clips import TwitchClips
from soundhash_server.services.cpu import CpuPool
from soundhash_server.services.duplicates import DuplicateSearches
from soundhash_server.services.explaining import Explaining
from soundhash_server.services.failures import Failures
from soundhash_server.services.fingerprints import Fingerprinting
from soundhash_server.services.folders import FolderScans
from soundhash_server.services.index import IndexService
from soundhash_server.services.ingest import Ingest
from soundhash_server.services.live import LiveMatching
from soundhash_server.services.matching import Matching
from soundhash_server.services.media import Media
from soundhash_server.services.monitors import MonitorAdmin
from soundhash_server.services.partial_uploads import PartialUploads
from soundhash_server.services.postings import SpreadIndex
from soundhash_server.services.readiness import Part, Readiness
from soundhash_server.services.uploads import Spool
from soundhash_server.services.url_clips import ClipFetcher
from soundhash_server.services.url_matching import UrlMatching
from soundhash_server.settings import Settings, SettingsError
from soundhash_server.storage import open_storage
from soundhash_server.store.air import Air
from soundhash_server.store.changes import Changes
from soundhash_server.store.channel_videos import ChannelVideos
from soundhash_server.store.channels import Channels
from soundhash_server.store.clip_parts import ClipParts
from soundhash_server.store.clips import Clips
from soundhash_server.store.detections import Detections
from soundhash_server.store.duplicates import Duplicates
from soundhash_server.store.failed_jobs import FailedJobs
from soundhash_server.store.fingerprints import Fingerprints
from soundhash_server.store.folders import FolderFiles
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.listener import Listener
from soundhash_server.store.matches import Matches
from soundhash_server.store.monitors import Monitors
from soundhash_server.store.objects import Objects
from soundhash_server.store.pauses import Pauses, pause_rule
from soundhash_server.store.pool import create_pool
from soundhash_server.store.proxies import ProxyBenches
from soundhash_server.store.quota import QuotaUses
from soundhash_server.store.videos import Videos
from soundhash_server.tasks import end

log = structlog.get_logger(__name__)

MAX_MESSAGE_BYTES = 34 << 20
"""The largest content is 32 MiB; what is a little larger is refused by name, not by gRPC."""
MAX_CALLS = 2048
_FETCH_READ_TIMEOUT_S = 30.0
_CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A second server on the same port shall fail, not share it.
    ("grpc.so_reuseport", 0),
    # Callers that vanish without a word are noticed within a minute.
    ("grpc.keepalive_time_ms", 40_000),
    ("grpc.keepalive_timeout_ms", 15_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class Server:
    """One gRPC server with everything behind it.

    It listens from the first moment and says NOT_SERVING; the database, the queue and the index
    may come later, and may go and come back.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tasks: list[asyncio.Task[None]] = []
        self._closers = contextlib.AsyncExitStack()
        self.port = 0
        self.failed = asyncio.Event()
        """Set when a part of the server itself has died; it must be started anew."""

    async def start(self) -> None:
        """Listens. Raises SettingsError for settings that cannot work."""
        try:
            await self._start()
        except BaseException:
            await self._closers.aclose()
            raise

    async def _start(self) -> None:
        settings = self._settings
        if not settings.database_url or not settings.redis_url:
            raise SettingsError(
                "SOUNDHASH_DATABASE_URL and SOUNDHASH_REDIS_URL must be set; "
                "`soundhash up` brings its own database and queue."
            )
        closers = self._closers
        pool = await create_pool(
            settings.database_url, settings.database_pool_size, name="soundhash-server"
        )
        closers.callback(pool.terminate)
        queue = JobQueue.connect(settings.redis_url)
        closers.push_async_callback(queue.close)
        listener = Listener(settings.database_url)
        closers.push_async_callback(listener.close)
        videos, changes, jobs, matches = Videos(pool), Changes(pool), Jobs(pool), Matches(pool)

        self._cpu = CpuPool(settings.effective_cpu_threads, settings.max_pending_matches)
        closers.callback(self._cpu.close)
        self._spool = spool = Spool(
            settings.uploads_dir / "tmp",
            max_concurrent=settings.max_uploads,
            wait_s=settings.upload_wait_s,
            min_free_bytes=settings.min_free_disk_bytes,
        )
        await asyncio.to_thread(spool.open)
        closers.callback(spool.close)
        partials = PartialUploads(
            spool,
            settings.partial_uploads_dir,
            keep_s=settings.partial_upload_s,
            max_bytes=settings.max_upload_bytes,
        )
        await asyncio.to_thread(partials.open)
        self._index = index = IndexService(
            changes,
            listener,
            settings.index_dir,
            poll_s=settings.index_poll_s,
            seal_hours=settings.index_seal_hours,
        )
        closers.push_async_callback(index.close)
        self._air = air = IndexService(
            Changes(pool, on_air=True),
            listener,
            settings.air_index_dir,
            poll_s=settings.index_poll_s,
            seal_hours=settings.index_seal_hours,
            params=AIR_PARAMS,
            rolling=True,
        )
        closers.push_async_callback(air.close)
        shards = settings.postings_urls.split()
        if not all(url.startswith(("postgresql://", "postgres://")) for url in shards):
            raise SettingsError(
                "SOUNDHASH_POSTINGS_URLS must be postgresql://user:password@host:port/database "
                "URLs, separated by spaces."
            )
        spread = SpreadIndex(
            index,
            shards,
            deadline_s=settings.postings_deadline_s,
            connections=settings.postings_connections,
            least_hours=settings.postings_least_hours,
        )
        closers.push_async_callback(spread.close)
        both = WithAir(spread, index, air)
        self._readiness = Readiness(
            {
                Part.DATABASE: changes.current_revision,
                Part.QUEUE: queue.ping,
                Part.INDEX: both.probe,
            }
        )
        self._health = Health(self._readiness)
        self._guard = CallGuard(self._readiness, idle_s=settings.stream_idle_s)

        self._server = grpc.aio.server(
            interceptors=(self._guard,),
            options=_CHANNEL_OPTIONS,
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        parts = ClipParts(pool, keep_days=settings.explain_days)
        keeper = ClipKeeper(both, parts, keep_days=settings.explain_days)
        closers.push_async_callback(keeper.close)
        # Threads of their own: a line of clips must not make streams late.
        live_cpu = CpuPool(settings.effective_cpu_threads, settings.max_pending_matches)
        closers.callback(live_cpu.close)
        self._live = LiveMatching(
            live_cpu,
            both,
            videos,
            matches,
            keeper,
            max_streams=settings.max_streams,
            resume_s=settings.stream_resume_s,
        )
        closers.push_async_callback(self._live.close)
        storage = await asyncio.to_thread(open_storage, settings)
        objects = Objects(pool, storage.name if storage else "")
        media = Media(videos, objects, storage)
        media_pb2_grpc.add_MediaServiceServicer_to_server(MediaServicer(media), self._server)
        twitch = TwitchClips(
            Clips(pool),
            jobs,
            objects,
            queue,
            listener,
            media,
            index,
            max_attempts=settings.job_max_attempts,
            allow_private_urls=settings.allow_private_urls,
        )
        clips_pb2_grpc.add_ClipServiceServicer_to_server(ClipServicer(twitch), self._server)
        channels = ChannelAdmin(
            settings, Channels(pool), ChannelVideos(pool), QuotaUses(pool), jobs, queue
        )
        channels_pb2_grpc.add_ChannelServiceServicer_to_server(
            ChannelServicer(channels), self._server
        )
        monitors = MonitorAdmin(
            Monitors(pool),
            Detections(pool),
            listener,
            Air(pool),
            both,
            allow_private_urls=settings.allow_private_urls,
        )
        monitors_pb2_grpc.add_MonitorServiceServicer_to_server(
            MonitorServicer(monitors), self._server
        )
        ingest_pb2_grpc.add_IngestServiceServicer_to_server(
            IngestServicer(
                Ingest(
                    jobs,
                    videos,
                    queue,
                    spool,
                    partials,
                    FolderFiles(pool),
                    listener,
                    uploads_dir=settings.uploads_dir,
                    max_upload_bytes=settings.max_upload_bytes,
                    max_attempts=settings.job_max_attempts,
                    allow_private_urls=settings.allow_private_urls,
                ),
                channels,
                FolderScans(
                    jobs,
                    queue,
                    roots=settings.folder_roots,
                    max_attempts=settings.job_max_attempts,
                ),
                Failures(
                    FailedJobs(pool),
                    Pauses(pool, pause_rule(settings)),
                    queue,
                    settings.uploads_dir,
                ),
            ),
            self._server,
        )
        matching = Matching(
            self._cpu, both, videos, matches, keeper, max_clip_s=settings.max_clip_s
        )
        session = await closers.enter_async_context(
            open_session(
                allow_private=settings.allow_private_urls, read_timeout_s=_FETCH_READ_TIMEOUT_S
            )
        )
        scratch = await asyncio.to_thread(Scratch, settings.scratch_dir)
        closers.callback(scratch.close)
        clips = ClipFetcher(
            settings,
            Fetcher(settings, session, ProxyBenches(pool), most_at_once=settings.max_url_matches),
            scratch,
        )
        closers.callback(clips.close)
        match_pb2_grpc.add_MatchServiceServicer_to_server(
            MatchServicer(
                matching,
                self._live,
                UrlMatching(
                    clips,
                    matching,
                    max_clip_s=settings.max_clip_s,
                    allow_private_urls=settings.allow_private_urls,
                ),
                Explaining(
                    self._cpu,
                    both,
                    videos,
                    matches,
                    Fingerprints(pool),
                    parts,
                    keeper,
                    max_clip_s=settings.max_clip_s,
                ),
                max_clip_s=settings.max_clip_s,
            ),
            self._server,
        )
        fingerprint_pb2_grpc.add_FingerprintServiceServicer_to_server(
            FingerprintServicer(Fingerprinting(self._cpu, spool, videos, Fingerprints(pool))),
            self._server,
        )
        catalog_pb2_grpc.add_CatalogServiceServicer_to_server(
            CatalogServicer(
                Catalog(videos, both),
                DuplicateSearches(
                    jobs, Duplicates(pool), queue, max_attempts=settings.job_max_attempts
                ),
            ),
            self._server,
        )
        admin_pb2_grpc.add_AdminServiceServicer_to_server(
            AdminServicer(Admin(pool, index, spread)), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, self._server)
        reflection.enable_server_reflection(
            (
                *(service for service in NEEDS if service),
                health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
                reflection.SERVICE_NAME,
            ),
            self._server,
        )
        await self._health.start()
        self.port = self._listen()
        await self._server.start()
        log.info("listening", host=settings.host, port=self.port, tls=bool(settings.tls_cert))
        self._spawn(listener.run(), "listener")
        self._spawn(index.run(), "index")
        self._spawn(air.run(), "air index")
        self._spawn(spread.run(), "postings")
        self._spawn(partials.run(), "partial uploads")
        self._spawn(keeper.run(), "kept clips")
        self._spawn(self._health.run(), "health")
        self._spawn(self._readiness.run(), "readiness")
        self._warming = asyncio.create_task(self._warm_up(), name="warm")

    async def wait_ready(self) -> None:
        """Waits until calls are taken."""
        await self._readiness.wait_started()

    async def stop(self) -> None:
        """Drains: no new calls, those under way may finish within ``drain_s``, then closes."""
        log.info("draining")
        await self._readiness.drain()
        await self._health.drain()
        drain_s = self._settings.drain_s
        # Streams may last for ever: what is known of them is told in time to be read.
        await asyncio.gather(self._guard.drain(drain_s), self._live.drain(0.5 * drain_s))
        await self._server.stop(grace=0.2)
        await end(*self._tasks, self._warming)
        await self._closers.aclose()
        log.info("stopped")

    async def _warm_up(self) -> None:
        # Not before: getting ready comes first, and needs but a few of the kernels.
        await self.wait_ready()
        await asyncio.to_thread(_warm_once)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            log.critical(
                "a part of the server died", part=task.get_name(), exc_info=task.exception()
            )
            self.failed.set()

    def _listen(self) -> int:
        settings = self._settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"{host}:{settings.port}"
        try:
            if settings.tls_cert or settings.tls_key:
                return self._server.add_secure_port(address, _credentials(settings))
            return self._server.add_insecure_port(address)
        except RuntimeError:
            raise SettingsError(
                f"Cannot listen on {address}: the port is taken, or the address is not this "
                "machine's. Set SOUNDHASH_PORT or SOUNDHASH_HOST."
            ) from None


@functools.cache
def _warm_once() -> None:
    """Loads the compiled kernels, so that the first caller need not wait for them."""
    warm()
    give_back_memory()


def _credentials(settings: Settings) -> grpc.ServerCredentials:
    def read(path: str) -> bytes:
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise SettingsError(f"Cannot read {path}: {error.strerror}.") from None

    if not (settings.tls_cert and settings.tls_key):
        raise SettingsError("SOUNDHASH_TLS_CERT and SOUNDHASH_TLS_KEY must be set together.")
    client_ca = read(settings.tls_client_ca) if settings.tls_client_ca else None
    return grpc.ssl_server_credentials(
        [(read(settings.tls_key), read(settings.tls_cert))],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )


async def serve(settings: Settings, when_ready: Callable[[int], None] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status.

    when_ready: called once with the port as soon as calls are taken.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(settings)
    await server.start()
    waiting = {asyncio.create_task(event.wait()) for event in (stop, server.failed)}
    ready = asyncio.create_task(server.wait_ready())
    try:
        await asyncio.wait({ready, *waiting}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done() and when_ready is not None:
            when_ready(server.port)
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (ready, *waiting):
            task.cancel()
        await server.stop()
    return 1 if server.failed.is_set() else 0


def main(settings: Settings, when_ready: Callable[[int], None] | None = None) -> int:
    """Runs the server; what cannot work is said in one line. Returns the exit status: 2 for
    settings that cannot work, 1 when the server had to give up."""
    try:
        return uvloop.run(serve(settings, when_ready))
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"soundhash serve: {error}\n")
    except PlatformError as error:
        sys.stderr.write(f"soundhash serve: {error.message} {error.remedy}\n")
    return 2
