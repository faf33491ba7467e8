"""Health, readiness, draining, faults: how the server comes, stays and goes."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from unittest import mock

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2
from tests.integration.rpc import (
    Callers,
    Running,
    open_channel,
    refused,
    running,
    song,
    split,
    upload_requests,
)
from tests.media import encode
from tests.sounds import tune

from soundhash.v1 import admin_pb2, catalog_pb2, ingest_pb2, match_pb2
from soundhash_server.app import Server
from soundhash_server.embedded_postgres import Postgres
from soundhash_server.embedded_valkey import Valkey
from soundhash_server.rpc.health import LIVENESS, NEEDS
from soundhash_server.settings import Settings, SettingsError
from soundhash_server.store.migrate import migrate
from soundhash_server.store.videos import Videos

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = tuple(NEEDS)


async def health(callers: Callers, service: str = "") -> health_pb2.HealthCheckResponse:
    return await callers.health.Check(health_pb2.HealthCheckRequest(service=service))


async def all_health(callers: Callers) -> dict[str, int]:
    return {service: (await health(callers, service)).status for service in SERVICES}


async def until(check: Callable, timeout_s: float = 15.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await check():
            await asyncio.sleep(0.02)


async def test_every_service_is_serving_when_ready(server: Running) -> None:
    assert set((await all_health(server)).values()) == {SERVING}
    with refused("NOT_FOUND"):
        await health(server, "soundhash.v1.Nothing")


async def test_a_fault_is_told_without_its_traceback(
    server: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    with mock.patch.object(
        Videos, "get", autospec=True, side_effect=ZeroDivisionError("secret /etc/passwd")
    ):
        with refused("INTERNAL", "INTERNAL") as caught:
            await server.catalog.GetVideo(
                catalog_pb2.GetVideoRequest(id="123e4567-e89b-12d3-a456-426614174000")
            )
        told = caught[0]
        everything = told.message + repr(told.details)
        for leak in ("secret", "passwd", "ZeroDivision", "Traceback", ".py"):
            assert leak not in everything
        error_id = told.metadata["error_id"]
        assert re.fullmatch(r"[0-9a-f]{32}", error_id)
        assert error_id in told.message
    logged = capfd.readouterr()
    assert error_id in logged.out + logged.err
    assert "ZeroDivisionError" in logged.out + logged.err


async def test_a_request_id_is_kept_for_errors(server: Running) -> None:
    request = catalog_pb2.GetVideoRequest(id="123e4567-e89b-12d3-a456-426614174000")
    for sent, kept in (("abc-123", True), ("with space", False), ("x" * 200, False)):
        with refused("NOT_FOUND", "VIDEO_NOT_FOUND") as caught:
            await server.catalog.GetVideo(request, metadata=(("x-request-id", sent),))
        assert (caught[0].metadata["request_id"] == sent) is kept
        assert caught[0].metadata["request_id"]


@pytest.fixture
async def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Postgres]:
    """A database server that the test may stop and start."""
    server = Postgres(
        tmp_path_factory.mktemp("own-postgres"), {"fsync": "off", "full_page_writes": "off"}
    )
    server.start()
    server.stop()
    yield server
    await asyncio.to_thread(server.stop)


@pytest.fixture
async def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Valkey]:
    """A queue server that the test may stop and start."""
    server = Valkey(tmp_path_factory.mktemp("own-valkey"))
    yield server
    await asyncio.to_thread(server.stop)


async def test_health_follows_the_database_and_the_queue(
    own_postgres: Postgres, own_valkey: Valkey, data_dir: Path
) -> None:
    # The server may come before everything it stands on.
    server = Server(
        Settings.from_env(
            {},
            database_url=own_postgres.url,
            redis_url=own_valkey.url,
            data_dir=data_dir,
            port=0,
            index_poll_s=0.2,
            min_free_disk_bytes=0,
        )
    )
    await server.start()
    try:
        async with open_channel(server.port) as channel:
            callers = Callers(channel)
            assert set((await all_health(callers)).values()) == {NOT_SERVING}
            assert (await health(callers, LIVENESS)).status == SERVING
            with refused("UNAVAILABLE", "SERVER_NOT_READY") as caught:
                await callers.admin.GetStats(admin_pb2.GetStatsRequest())
            assert caught[0].details["RetryInfo"].retry_delay.ToMilliseconds() > 0
            with refused("UNAVAILABLE", "SERVER_NOT_READY"):
                await callers.ingest.Upload(upload_requests(song(1)))

            own_postgres.start()
            await asyncio.sleep(0.3)
            assert (await health(callers)).status == NOT_SERVING  # not migrated, no queue
            await migrate(own_postgres.url)
            own_valkey.start()
            async with asyncio.timeout(15):
                await server.wait_ready()

            async def serving() -> bool:
                return set((await all_health(callers)).values()) == {SERVING}

            await until(serving)
            stats = await callers.admin.GetStats(admin_pb2.GetStatsRequest())
            assert stats.video_count == 0

            # Without the queue jobs are only delayed; everything else goes on.
            await asyncio.to_thread(own_valkey.stop)

            async def queue_missed() -> bool:
                return (await health(callers)).status == NOT_SERVING

            await until(queue_missed)
            states = await all_health(callers)
            assert states["soundhash.v1.IngestService"] == NOT_SERVING
            assert states["soundhash.v1.MatchService"] == SERVING
            job = await callers.ingest.Upload(upload_requests(song(1)))
            assert job.state == ingest_pb2.JOB_STATE_QUEUED
            own_valkey.start()
            await until(serving)

            # Without the database calls fail with a reason, and work again when it is back.
            await asyncio.to_thread(own_postgres.stop)

            async def database_missed() -> bool:
                return set((await all_health(callers)).values()) == {NOT_SERVING}

            await until(database_missed)
            assert (await health(callers, LIVENESS)).status == SERVING
            with refused("UNAVAILABLE", "DATABASE_UNAVAILABLE") as caught:
                await callers.admin.GetStats(admin_pb2.GetStatsRequest())
            assert caught[0].details["RetryInfo"]
            assert "postgres" not in caught[0].message.lower()
            own_postgres.start()
            await until(serving)
            assert (await callers.ingest.GetJob(ingest_pb2.GetJobRequest(id=job.id))).id == job.id
    finally:
        await server.stop()


class Process:
    """``python -m soundhash_server serve`` as it really runs."""

    def __init__(self, database_url: str, redis_url: str, data_dir: Path, **more: str) -> None:
        environment = {
            **os.environ,
            "SOUNDHASH_DATABASE_URL": database_url,
            "SOUNDHASH_REDIS_URL": redis_url,
            "SOUNDHASH_DATA_DIR": str(data_dir),
            "SOUNDHASH_PORT": "0",
            "SOUNDHASH_LOG_FORMAT": "json",
            "SOUNDHASH_MIN_FREE_DISK_BYTES": "0",
            **more,
        }
        self.begun = time.monotonic()
        self.log = data_dir / "test.log"
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "soundhash_server", "serve"],
                env=environment,
                stdout=log,
                stderr=log,
            )

    async def port(self) -> int:
        async with asyncio.timeout(30):
            while True:
                found = re.findall(r'"port": (\d+)', self.log.read_text())
                if found:
                    return int(found[-1])
                assert self.popen.poll() is None, self.log.read_text()
                await asyncio.sleep(0.02)

    async def ended(self, timeout_s: float = 15.0) -> int:
        return await asyncio.to_thread(self.popen.wait, timeout_s)


@pytest.fixture
async def database_url(database_factory: Callable[[], AsyncIterator[str]]) -> AsyncIterator[str]:
    async for url in database_factory():
        yield url


async def test_sigterm_drains(database_url: str, valkey_server: Valkey, data_dir: Path) -> None:
    process = Process(database_url, valkey_server.url, data_dir, SOUNDHASH_DRAIN_S="5")
    try:
        async with open_channel(await process.port()) as channel:
            callers = Callers(channel)

            async def serving() -> bool:
                return (await health(callers)).status == SERVING

            await until(serving)
            watch = callers.health.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == SERVING

            release = asyncio.Event()

            async def slowly() -> AsyncIterator:
                requests = upload_requests(song(5), chunk_bytes=8000)
                yield await anext(requests)
                yield await anext(requests)
                await release.wait()
                async for request in requests:
                    yield request

            uploading = asyncio.ensure_future(_await(callers.ingest.Upload(slowly())))
            waiting = callers.ingest.Upload(upload_requests(song(6)))
            job = await waiting
            watching = callers.ingest.WatchJob(ingest_pb2.WatchJobRequest(id=job.id))
            await watching.read()
            async with asyncio.timeout(5):
                while not list((data_dir / "uploads" / "tmp").iterdir()):
                    await asyncio.sleep(0.01)

            process.popen.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == NOT_SERVING
            assert set((await all_health(callers)).values()) == {NOT_SERVING}
            with refused("UNAVAILABLE", "SERVER_DRAINING"):
                await callers.admin.GetStats(admin_pb2.GetStatsRequest())
            with refused("UNAVAILABLE", "SERVER_DRAINING"):
                await watching.read()
            assert process.popen.poll() is None
            # What was under way is finished.
            release.set()
            assert (await uploading).state == ingest_pb2.JOB_STATE_QUEUED
            assert await process.ended() == 0
    finally:
        process.popen.kill()
        process.popen.wait()
    assert "Traceback" not in process.log.read_text()


async def _await(call: grpc.aio.StreamUnaryCall) -> ingest_pb2.Job:
    return await call


async def test_calls_that_outlast_draining_are_cut(
    database_url: str, valkey_server: Valkey, data_dir: Path
) -> None:
    process = Process(database_url, valkey_server.url, data_dir, SOUNDHASH_DRAIN_S="0.3")
    try:
        async with open_channel(await process.port()) as channel:
            callers = Callers(channel)

            async def serving() -> bool:
                return (await health(callers)).status == SERVING

            await until(serving)

            async def endless() -> AsyncIterator:
                pcm = match_pb2.PcmFormat(
                    encoding=match_pb2.PCM_ENCODING_S16LE, sample_rate_hz=8000, channels=1
                )
                yield match_pb2.MatchStreamRequest(config=match_pb2.MatchStreamConfig(pcm=pcm))
                while True:
                    await asyncio.sleep(0.05)
                    yield match_pb2.MatchStreamRequest(audio=bytes(1600))

            call = callers.match.MatchStream(endless())
            assert (await call.read()).HasField("opened")
            assert (await call.read()).heard_so_far.level_db == -120.0
            process.popen.send_signal(signal.SIGINT)
            with refused("UNAVAILABLE", "SERVER_DRAINING"):
                while await call.read() != grpc.aio.EOF:
                    pass
            assert await process.ended() == 0
    finally:
        process.popen.kill()
        process.popen.wait()


async def test_kill_9_in_an_upload_leaves_no_file_after_the_next_start(
    database_url: str, valkey_server: Valkey, data_dir: Path
) -> None:
    process = Process(database_url, valkey_server.url, data_dir)
    spool = data_dir / "uploads" / "tmp"
    try:
        async with open_channel(await process.port()) as channel:
            callers = Callers(channel)

            async def serving() -> bool:
                return (await health(callers)).status == SERVING

            await until(serving)

            async def stalled() -> AsyncIterator:
                for n, chunk in enumerate(split(song(7), 8000)):
                    if n == 0:
                        yield ingest_pb2.UploadRequest(
                            config=ingest_pb2.UploadConfig(file_name="a")
                        )
                    yield ingest_pb2.UploadRequest(chunk=chunk)
                await asyncio.sleep(60)

            call = callers.ingest.Upload(stalled())
            async with asyncio.timeout(5):
                while not spool.is_dir() or not list(spool.iterdir()):
                    await asyncio.sleep(0.01)
            process.popen.kill()
            await process.ended()
            assert list(spool.iterdir())
            call.cancel()
    finally:
        process.popen.kill()
        process.popen.wait()
    async with running(database_url, valkey_server.url, data_dir) as again:
        assert not list(spool.iterdir())
        jobs = await again.ingest.ListJobs(ingest_pb2.ListJobsRequest())
        assert not jobs.jobs


async def test_settings_that_cannot_work_are_refused(server: Running, tmp_path: Path) -> None:
    taken = Settings.from_env(
        {},
        database_url=server.settings.database_url,
        redis_url=server.settings.redis_url,
        data_dir=tmp_path,
        port=server.server.port,
    )
    with pytest.raises(SettingsError, match="port is taken"):
        await Server(taken).start()
    with pytest.raises(SettingsError, match="SOUNDHASH_DATABASE_URL"):
        await Server(Settings.from_env({}, data_dir=tmp_path)).start()
    no_key = Settings.from_env(
        {"SOUNDHASH_TLS_CERT": "/nowhere.pem"},
        database_url=server.settings.database_url,
        redis_url=server.settings.redis_url,
        data_dir=tmp_path,
        port=0,
    )
    with pytest.raises(SettingsError, match="TLS_KEY"):
        await Server(no_key).start()


async def test_matching_goes_on_while_much_is_uploaded(server: Running) -> None:
    """The event loop is never blocked for long."""
    content = encode(tune(8.0, 3))
    uploads = asyncio.gather(
        *(server.upload(bytes([n]) * (4 << 20), f"{n}.bin", chunk_bytes=1 << 20) for n in range(8))
    )
    slowest = 0.0
    while not uploads.done():
        begun = time.monotonic()
        await health(server)
        slowest = max(slowest, time.monotonic() - begun)
    jobs = await uploads
    assert slowest < 0.5
    assert (await server.match.MatchClip(match_pb2.MatchClipRequest(content=content))).query_id
    for job in jobs:
        await server.ingest.CancelJob(ingest_pb2.CancelJobRequest(id=job.id))


async def settled_rss(process: psutil.Process) -> int:
    """Bytes in memory once the kernels that are loaded after the start are there."""
    last, now = 0, process.memory_info().rss
    while now > last + (1 << 20):
        await asyncio.sleep(1.5)
        last, now = now, process.memory_info().rss
    return now


async def test_a_large_upload_in_flat_memory(
    database_url: str, valkey_server: Valkey, data_dir: Path
) -> None:
    process = Process(database_url, valkey_server.url, data_dir)
    try:
        async with open_channel(await process.port()) as channel:
            callers = Callers(channel)

            async def serving() -> bool:
                return (await health(callers)).status == SERVING

            await until(serving)
            # What is loaded on first use does not count.
            await callers.ingest.Upload(upload_requests(song(1)))
            content = encode(tune(8.0, 3))
            await callers.match.MatchClip(match_pb2.MatchClipRequest(content=content))
            me = psutil.Process(process.popen.pid)
            before = await settled_rss(me)
            chunk = os.urandom(1 << 20)
            largest = 0

            async def chunks() -> AsyncIterator:
                nonlocal largest
                yield ingest_pb2.UploadRequest(config=ingest_pb2.UploadConfig(file_name="a.wav"))
                for n in range(300):
                    yield ingest_pb2.UploadRequest(chunk=chunk)
                    if n % 10 == 0:
                        largest = max(largest, me.memory_info().rss)

            job = await callers.ingest.Upload(chunks())
            assert job.ingest.size_bytes == 300 << 20
            assert largest - before < 50 << 20
    finally:
        process.popen.kill()
        process.popen.wait()
        shutil.rmtree(data_dir / "uploads", ignore_errors=True)
