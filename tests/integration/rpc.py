"""A real server in this process, callers for it, and a worker that does its jobs on demand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_status import rpc_status
from tests.media import encode
from tests.sounds import tune

from soundhash.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    fingerprint_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
    match_pb2_grpc,
)
from soundhash_engine import Extractor, decode_file
from soundhash_server.app import Server
from soundhash_server.model import JobState, NewVideo
from soundhash_server.settings import Settings
from soundhash_server.sources import title_from_name
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.pool import Pool, create_pool

CHUNK_BYTES = 64 << 10


class Callers:
    """Stubs of all services on one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.ingest = ingest_pb2_grpc.IngestServiceStub(channel)
        self.match = match_pb2_grpc.MatchServiceStub(channel)
        self.fingerprint = fingerprint_pb2_grpc.FingerprintServiceStub(channel)
        self.catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
        self.admin = admin_pb2_grpc.AdminServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)


class Running(Callers):
    """A running server with what tests need beside it."""

    def __init__(
        self, server: Server, settings: Settings, pool: Pool, channel: grpc.aio.Channel
    ) -> None:
        super().__init__(channel)
        self.server = server
        self.settings = settings
        self.pool = pool
        self.address = f"127.0.0.1:{server.port}"

    @property
    def uploads_dir(self) -> Path:
        return self.settings.uploads_dir

    def files_left(self) -> list[str]:
        """Names of all files under the uploads folder."""
        return sorted(path.name for path in self.uploads_dir.rglob("*") if path.is_file())

    async def upload(
        self,
        content: bytes,
        file_name: str = "song.wav",
        *,
        chunk_bytes: int = CHUNK_BYTES,
        **config: Any,
    ) -> ingest_pb2.Job:
        """Uploads a file in chunks."""
        requests = upload_requests(content, file_name, chunk_bytes=chunk_bytes, **config)
        job: ingest_pb2.Job = await self.ingest.Upload(requests)
        return job

    async def work(self) -> list[str]:
        """Does what a worker does to every upload that waits; returns ids of the videos."""
        jobs = Jobs(self.pool)
        done = []
        waiting = await jobs.list(1000, "", [JobState.QUEUED])
        for job in waiting.items:
            if not job.parameters.content_sha256:
                continue
            lease = await jobs.claim(job.id, 60.0)
            assert lease is not None
            parameters = job.parameters
            path = self.uploads_dir / parameters.content_sha256
            extractor = Extractor()
            segments = []
            for pcm in decode_file(path):
                segments += extractor.push(pcm)
            segments += extractor.finish()
            result = await jobs.complete(
                lease.token,
                NewVideo(
                    title=parameters.title or title_from_name(parameters.file_name),
                    source_url=parameters.source_url,
                    external_id=parameters.external_id,
                    channel=parameters.channel,
                    source_key="",
                    content_sha256=parameters.content_sha256,
                    duration_s=extractor.duration_s,
                ),
                segments,
            )
            path.unlink()
            done.append(str(result.video_id))
        return done

    async def caught_up(self) -> None:
        """Waits until the server's index has taken in everything."""
        async with asyncio.timeout(10):
            while True:
                status = await self.admin.GetIndexStatus(admin_pb2.GetIndexStatusRequest())
                if status.applied_revision == status.catalogue_revision:
                    return
                await asyncio.sleep(0.02)

    async def add(
        self, content: bytes, file_name: str = "song.wav", **config: Any
    ) -> catalog_pb2.Video:
        """Uploads, fingerprints and waits until it can be matched."""
        await self.upload(content, file_name, **config)
        (video_id,) = await self.work()
        await self.caught_up()
        video: catalog_pb2.Video = await self.catalog.GetVideo(
            catalog_pb2.GetVideoRequest(id=video_id)
        )
        return video


@contextlib.asynccontextmanager
async def running(
    database_url: str, redis_url: str, data_dir: Path, **settings: Any
) -> AsyncIterator[Running]:
    """A server on a free port, ready for calls."""
    values: dict[str, Any] = {
        "database_url": database_url,
        "redis_url": redis_url,
        "data_dir": data_dir,
        "port": 0,
        "drain_s": 2.0,
        "min_free_disk_bytes": 0,
        "index_poll_s": 0.2,
        **settings,
    }
    made = Settings.from_env({}, **values)
    server = Server(made)
    await server.start()
    pool = await create_pool(database_url, 4, name="soundhash-test")
    try:
        async with open_channel(server.port) as channel:
            await server.wait_ready()
            yield Running(server, made, pool, channel)
    finally:
        await server.stop()
        await pool.close()


def open_channel(port: int) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(
        f"127.0.0.1:{port}",
        options=[
            ("grpc.max_send_message_length", 64 << 20),
            ("grpc.max_receive_message_length", 64 << 20),
            ("grpc.use_local_subchannel_pool", 1),
        ],
    )


def song(seed: int, duration_s: float = 2.0) -> bytes:
    """A made-up recording as a WAV file; another seed is another recording."""
    return encode(tune(duration_s, seed))


async def eventually(check: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Waits until it is so."""
    async with asyncio.timeout(timeout_s):
        while not check():
            await asyncio.sleep(0.01)


def split(content: bytes, chunk_bytes: int = CHUNK_BYTES) -> list[bytes]:
    """The content in pieces."""
    return [content[at : at + chunk_bytes] for at in range(0, len(content), chunk_bytes)]


async def upload_requests(
    content: bytes | Iterable[bytes],
    file_name: str = "song.wav",
    *,
    chunk_bytes: int = CHUNK_BYTES,
    **config: Any,
) -> AsyncIterator[ingest_pb2.UploadRequest]:
    """The messages of an upload."""
    yield ingest_pb2.UploadRequest(config=ingest_pb2.UploadConfig(file_name=file_name, **config))
    chunks = split(content, chunk_bytes) if isinstance(content, bytes) else content
    for chunk in chunks:
        yield ingest_pb2.UploadRequest(chunk=chunk)


class Refused:
    """A rich error as a caller gets it."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.message = error.details() or ""
        self.details: dict[str, Any] = {}
        status = rpc_status.from_call(error)
        for packed in status.details if status else ():
            for kind in (
                error_details_pb2.ErrorInfo,
                error_details_pb2.BadRequest,
                error_details_pb2.RetryInfo,
                error_details_pb2.QuotaFailure,
                error_details_pb2.ResourceInfo,
            ):
                if packed.Is(kind.DESCRIPTOR):
                    detail = kind()
                    packed.Unpack(detail)
                    assert kind.__name__ not in self.details, "each kind of detail comes once"
                    self.details[kind.__name__] = detail

    @property
    def reason(self) -> str:
        return self.details["ErrorInfo"].reason if "ErrorInfo" in self.details else ""

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self.details["ErrorInfo"].metadata)

    @property
    def fields(self) -> dict[str, str]:
        """Field violations."""
        if "BadRequest" not in self.details:
            return {}
        return {one.field: one.description for one in self.details["BadRequest"].field_violations}


@contextlib.contextmanager
def refused(code: str, reason: str | None = None) -> Iterator[list[Refused]]:
    """Asserts that the call in the block is refused so; the error is in the list afterwards."""
    caught: list[Refused] = []
    try:
        yield caught
    except grpc.aio.AioRpcError as error:
        got = Refused(error)
        caught.append(got)
        assert got.code.name == code, (got.code, got.reason, got.message)
        if reason is not None:
            assert got.reason == reason, (got.reason, got.message)
            assert got.details["ErrorInfo"].domain == "soundhash"
            assert got.metadata["remedy"]
            assert "Traceback" not in got.message
    else:
        raise AssertionError(f"the call was not refused with {code} {reason}")
