"""IngestService: uploads, URLs and jobs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from tests.integration.rpc import (
    Running,
    eventually,
    refused,
    running,
    song,
    upload_requests,
)

from soundhash.v1 import catalog_pb2, ingest_pb2
from soundhash_server.embedded_valkey import Valkey


async def test_an_upload_becomes_a_job_with_its_bytes_on_disk(server: Running) -> None:
    content = song(10)
    digest = hashlib.sha256(content).hexdigest()
    job = await server.upload(
        content,
        "folder/My Song.wav",
        title="Title",
        external_id="ext-10",
        channel="Band",
        source_url="https://example.com/10",
        content_sha256=digest,
        size_bytes=len(content),
    )
    assert job.kind == ingest_pb2.JOB_KIND_INGEST
    assert job.state == ingest_pb2.JOB_STATE_QUEUED
    assert job.attempt == 0
    assert job.max_attempts == server.settings.job_max_attempts
    assert job.HasField("create_time") and not job.HasField("finish_time")
    assert not job.HasField("failure") and job.WhichOneof("result") is None
    assert job.ingest == ingest_pb2.IngestParameters(
        file_name="My Song.wav",
        title="Title",
        external_id="ext-10",
        channel="Band",
        source_url="https://example.com/10",
        content_sha256=digest,
        size_bytes=len(content),
    )
    assert (server.uploads_dir / digest).read_bytes() == content
    assert server.files_left() == [digest]

    (video_id,) = await server.work()
    done = await server.ingest.GetJob(ingest_pb2.GetJobRequest(id=job.id))
    assert done.state == ingest_pb2.JOB_STATE_SUCCEEDED
    assert done.ingest_result.video_id == video_id
    assert not done.ingest_result.already_indexed
    assert done.progress.step == ingest_pb2.JOB_STEP_DONE
    again = await server.upload(content)
    assert again == done
    assert server.files_left() == []


async def test_the_same_bytes_in_parallel_give_one_job(server: Running) -> None:
    content = song(11)
    jobs = await asyncio.gather(*(server.upload(content, f"{n}.wav") for n in range(8)))
    assert len({job.id for job in jobs}) == 1
    assert server.files_left() == [hashlib.sha256(content).hexdigest()]
    await server.work()
    assert server.files_left() == []


async def test_a_request_id_makes_an_upload_safe_to_repeat(server: Running) -> None:
    request_id = uuid.uuid4().hex
    first = await server.upload(song(12), request_id=request_id)
    assert (await server.upload(song(12), request_id=request_id)).id == first.id
    await server.work()


async def cut(content: bytes, after: int, waited: asyncio.Event) -> AsyncIterator:
    """An upload that stops in its middle."""
    async for number, request in numbered(upload_requests(content, "cut.wav", chunk_bytes=1000)):
        if number == after:
            waited.set()
            await asyncio.sleep(60)
        yield request


async def numbered(items: AsyncIterator) -> AsyncIterator:
    number = 0
    async for item in items:
        yield number, item
        number += 1


async def test_an_upload_that_is_cut_leaves_nothing(server: Running) -> None:
    waited = asyncio.Event()
    call = server.ingest.Upload(cut(song(13), 10, waited))
    task = asyncio.ensure_future(call.wait_for_connection())
    await waited.wait()
    await eventually(lambda: len(server.files_left()) == 1)
    call.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await eventually(lambda: server.files_left() == [])
    jobs = await server.ingest.ListJobs(ingest_pb2.ListJobsRequest(page_size=1000))
    assert not [job for job in jobs.jobs if job.ingest.file_name == "cut.wav"]


async def test_an_upload_past_its_deadline_leaves_nothing(server: Running) -> None:
    with refused("DEADLINE_EXCEEDED"):
        await server.ingest.Upload(cut(song(14), 10, asyncio.Event()), timeout=0.3)
    await eventually(lambda: server.files_left() == [])


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"content_sha256": "0" * 64}, "CHECKSUM_MISMATCH"),
        ({"size_bytes": 1}, "UPLOAD_SIZE_MISMATCH"),
        ({"size_bytes": 10**6}, "UPLOAD_SIZE_MISMATCH"),
    ],
)
async def test_bytes_that_are_not_as_announced_are_refused(
    server: Running, config: dict, reason: str
) -> None:
    with refused("INVALID_ARGUMENT", reason):
        await server.upload(song(15), **config)
    assert server.files_left() == []


async def test_what_an_upload_must_begin_with(server: Running) -> None:
    async def only_chunks() -> AsyncIterator:
        yield ingest_pb2.UploadRequest(chunk=b"x")

    async def nothing() -> AsyncIterator:
        for request in ():
            yield request

    async def config_twice() -> AsyncIterator:
        yield ingest_pb2.UploadRequest(config=ingest_pb2.UploadConfig(file_name="a"))
        yield ingest_pb2.UploadRequest(config=ingest_pb2.UploadConfig(file_name="a"))

    async def empty_message() -> AsyncIterator:
        yield ingest_pb2.UploadRequest()

    for requests in (only_chunks, nothing):
        with refused("INVALID_ARGUMENT", "UPLOAD_CONFIG_MISSING"):
            await server.ingest.Upload(requests())
    with refused("INVALID_ARGUMENT", "UPLOAD_CONFIG_REPEATED"):
        await server.ingest.Upload(config_twice())
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
        await server.ingest.Upload(empty_message())
    assert caught[0].fields == {"payload": "exactly one field is required in oneof"}
    with refused("INVALID_ARGUMENT", "EMPTY_MEDIA"):
        await server.upload(b"")
    assert server.files_left() == []


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"source_url": "file:///etc/passwd"}, "config.source_url"),
        ({"source_url": "javascript:alert(1)"}, "config.source_url"),
        ({"content_sha256": "ABC"}, "config.content_sha256"),
        ({"size_bytes": -1}, "config.size_bytes"),
        ({"title": "x" * 501}, "config.title"),
        ({"channel": "a\0b"}, "config.channel"),
        ({"request_id": "x" * 129}, "config.request_id"),
    ],
)
async def test_a_bad_config_names_its_field(server: Running, config: dict, field: str) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
        await server.upload(song(16), **config)
    assert list(caught[0].fields) == [field]
    assert server.files_left() == []


async def test_a_chunk_over_its_limit_names_the_field(server: Running) -> None:
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
        await server.upload(bytes((1 << 20) + 1), chunk_bytes=2 << 20)
    assert list(caught[0].fields) == ["chunk"]
    assert server.files_left() == []


async def test_an_external_id_belongs_to_one_recording(server: Running) -> None:
    video = await server.add(song(17), external_id="taken")
    with refused("ALREADY_EXISTS", "EXTERNAL_ID_TAKEN") as caught:
        await server.upload(song(18), external_id="taken")
    assert caught[0].metadata["external_id"] == "taken"
    assert caught[0].details["ResourceInfo"].resource_type == "video"
    # The same recording may be sent again under its id.
    again = await server.upload(song(17), external_id="taken")
    assert again.ingest_result.video_id == video.id
    with refused("ALREADY_EXISTS", "EXTERNAL_ID_TAKEN"):
        await server.ingest.SubmitUrl(
            ingest_pb2.SubmitUrlRequest(url="https://192.0.1.1/a.mp3", external_id="taken")
        )
    assert server.files_left() == []


async def test_a_hundred_uploads_at_once(server: Running) -> None:
    contents = [song(100 + n, 1.0) for n in range(100)]
    jobs = await asyncio.gather(*(server.upload(one, chunk_bytes=4096) for one in contents))
    assert len({job.id for job in jobs}) == 100
    assert server.files_left() == sorted(hashlib.sha256(one).hexdigest() for one in contents)
    for job in jobs:
        await server.ingest.CancelJob(ingest_pb2.CancelJobRequest(id=job.id))
    for path in server.uploads_dir.iterdir():
        if path.is_file():
            path.unlink()


async def test_a_url_becomes_a_job_and_the_same_url_the_same_job(server: Running) -> None:
    request = ingest_pb2.SubmitUrlRequest(
        url="http://192.0.1.1/Song.mp3?utm_source=x", title="T", channel="C"
    )
    job = await server.ingest.SubmitUrl(request)
    assert job.state == ingest_pb2.JOB_STATE_QUEUED
    assert job.ingest.url == request.url
    assert job.ingest.title == "T" and job.ingest.channel == "C"
    request.url = "http://192.0.1.1:80/Song.mp3#t=3"
    assert (await server.ingest.SubmitUrl(request)).id == job.id


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "INVALID_REQUEST"),
        ("", "INVALID_REQUEST"),
        ("http://", "URL_INVALID"),
        ("no url at all", "INVALID_REQUEST"),
        ("http://127.0.0.1/a.mp3", "URL_NOT_ALLOWED"),
        ("http://localhost/a.mp3", "URL_NOT_ALLOWED"),
        ("http://[::1]/a.mp3", "URL_NOT_ALLOWED"),
        ("http://10.0.0.1/a.mp3", "URL_NOT_ALLOWED"),
        ("http://169.254.169.254/latest/meta-data", "URL_NOT_ALLOWED"),
        ("http://user:secret@192.0.1.1/a.mp3", "URL_NOT_ALLOWED"),
        ("http://192.0.1.1/" + "a" * 2048, "INVALID_REQUEST"),
    ],
)
async def test_urls_that_are_not_fetched(server: Running, url: str, reason: str) -> None:
    with refused("INVALID_ARGUMENT", reason) as caught:
        await server.ingest.SubmitUrl(ingest_pb2.SubmitUrlRequest(url=url))
    # Without a URL and without a search, it is no single field that is wrong.
    assert list(caught[0].fields) == ["url" if url else ""]
    assert "secret" not in caught[0].message


async def test_jobs_are_listed_in_pages(server: Running) -> None:
    ids = [(await server.upload(song(30 + n, 1.0))).id for n in range(5)]
    await server.work()
    listed: list[str] = []
    token = ""
    while True:
        page = await server.ingest.ListJobs(
            ingest_pb2.ListJobsRequest(
                page_size=2, page_token=token, states=[ingest_pb2.JOB_STATE_SUCCEEDED]
            )
        )
        assert len(page.jobs) <= 2
        listed += [job.id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert len(listed) == len(set(listed))
    assert [one for one in listed if one in ids] == ids[::-1]
    with refused("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID") as caught:
        await server.ingest.ListJobs(ingest_pb2.ListJobsRequest(page_token="rubbish"))
    assert list(caught[0].fields) == ["page_token"]
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
        await server.ingest.ListJobs(ingest_pb2.ListJobsRequest(page_size=1001))
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
        await server.ingest.ListJobs(ingest_pb2.ListJobsRequest(states=[0, 99]))
    assert list(caught[0].fields) == ["states[0]", "states[1]"]


@pytest.mark.parametrize("method", ["GetJob", "CancelJob", "RetryJob", "WatchJob"])
async def test_unknown_and_malformed_job_ids(server: Running, method: str) -> None:
    request = getattr(ingest_pb2, f"{method}Request")
    call = getattr(server.ingest, method)

    async def ask(job_id: str) -> None:
        if method == "WatchJob":
            async for _ in call(request(id=job_id)):
                pass
        else:
            await call(request(id=job_id))

    unknown = str(uuid.uuid4())
    with refused("NOT_FOUND", "JOB_NOT_FOUND") as caught:
        await ask(unknown)
    assert caught[0].details["ResourceInfo"].resource_name == unknown
    assert caught[0].metadata["job"] == unknown
    for malformed in ("", "1", "x" * 36, "../../etc/passwd"):
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
            await ask(malformed)
        assert list(caught[0].fields) == ["id"]


async def test_watching_a_job_to_its_end(server: Running) -> None:
    job = await server.upload(song(40))
    seen: list[ingest_pb2.Job] = []

    async def watch() -> None:
        states = server.ingest.WatchJob(ingest_pb2.WatchJobRequest(id=job.id))
        while (state := await states.read()) != grpc.aio.EOF:
            seen.append(state)

    watching = asyncio.create_task(watch())
    await eventually(lambda: len(seen) == 1)
    await server.work()
    async with asyncio.timeout(5):
        await watching
    assert seen[0].state == ingest_pb2.JOB_STATE_QUEUED
    assert seen[-1].state == ingest_pb2.JOB_STATE_SUCCEEDED
    assert all(one != other for one, other in itertools.pairwise(seen))
    # A finished job is shown once.
    seen.clear()
    await watch()
    assert [state.state for state in seen] == [ingest_pb2.JOB_STATE_SUCCEEDED]


async def test_a_watcher_that_leaves_is_forgotten(server: Running) -> None:
    job = await server.upload(song(41))
    call = server.ingest.WatchJob(ingest_pb2.WatchJobRequest(id=job.id))
    assert (await call.read()).id == job.id
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.read()
    await server.work()


async def test_cancel_and_retry(server: Running) -> None:
    job = await server.upload(song(42))
    cancelled = await server.ingest.CancelJob(ingest_pb2.CancelJobRequest(id=job.id))
    assert cancelled.state == ingest_pb2.JOB_STATE_CANCELLED
    assert cancelled.HasField("finish_time")
    again = await server.ingest.CancelJob(ingest_pb2.CancelJobRequest(id=job.id))
    assert again == cancelled
    queued = await server.ingest.RetryJob(ingest_pb2.RetryJobRequest(id=job.id))
    assert queued.state == ingest_pb2.JOB_STATE_QUEUED
    assert queued.attempt == 0
    with refused("FAILED_PRECONDITION", "JOB_NOT_RETRYABLE"):
        await server.ingest.RetryJob(ingest_pb2.RetryJobRequest(id=job.id))
    # When the uploaded bytes are gone they have to be sent again.
    await server.ingest.CancelJob(ingest_pb2.CancelJobRequest(id=job.id))
    (server.uploads_dir / job.ingest.content_sha256).unlink()
    with refused("FAILED_PRECONDITION", "JOB_NOT_RETRYABLE") as caught:
        await server.ingest.RetryJob(ingest_pb2.RetryJobRequest(id=job.id))
    assert "gone" in caught[0].message
    sent_again = await server.upload(song(42))
    assert sent_again.id == job.id
    assert sent_again.state == ingest_pb2.JOB_STATE_QUEUED
    await server.work()


async def test_a_deleted_video_can_be_ingested_again(server: Running) -> None:
    video = await server.add(song(43))
    await server.catalog.DeleteVideo(catalog_pb2.DeleteVideoRequest(id=video.id))
    job = await server.upload(song(43))
    assert job.state == ingest_pb2.JOB_STATE_QUEUED
    (new_id,) = await server.work()
    assert new_id != video.id


async def test_a_message_over_the_transport_limit(server: Running) -> None:
    with refused("RESOURCE_EXHAUSTED"):
        await server.upload(bytes(40 << 20), chunk_bytes=40 << 20)
    assert server.files_left() == []


async def test_bytes_that_are_no_message(server: Running) -> None:
    call = server.channel.unary_unary("/soundhash.v1.IngestService/GetJob")
    with refused("INVALID_ARGUMENT", "MALFORMED_MESSAGE"):
        await call(b"\xff\xff\xff")
    with refused("UNIMPLEMENTED"):
        await server.channel.unary_unary("/soundhash.v1.IngestService/Nothing")(b"")
    with pytest.raises(grpc.aio.AioRpcError):
        await server.channel.unary_unary("/soundhash.v1.Nothing/Nothing")(b"")


@contextlib.asynccontextmanager
async def limited(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    data_dir: Path,
    **settings: float,
) -> AsyncIterator[Running]:
    """A server with these limits."""
    async for url in database_factory():
        async with running(url, valkey_server.url, data_dir, **settings) as made:
            yield made


async def test_a_file_over_the_limit_is_refused(
    database_factory: Callable, valkey_server: Valkey, data_dir: Path
) -> None:
    async with limited(
        database_factory, valkey_server, data_dir, max_upload_bytes=100_000
    ) as server:
        with refused("RESOURCE_EXHAUSTED", "UPLOAD_TOO_LARGE") as caught:
            await server.upload(bytes(5 << 20), chunk_bytes=1 << 20)
        assert caught[0].metadata["max_bytes"] == "100000"
        # An announced size is refused before any byte is taken.
        with refused("RESOURCE_EXHAUSTED", "UPLOAD_TOO_LARGE"):
            await server.upload(b"x", size_bytes=100_001)
        assert server.files_left() == []
        job = await server.upload(bytes(100_000), size_bytes=100_000)
        assert job.ingest.size_bytes == 100_000


async def test_a_full_disk_is_told(
    database_factory: Callable, valkey_server: Valkey, data_dir: Path
) -> None:
    async with limited(
        database_factory, valkey_server, data_dir, min_free_disk_bytes=1 << 60
    ) as server:
        with refused("RESOURCE_EXHAUSTED", "DISK_FULL") as caught:
            await server.upload(song(1))
        assert caught[0].details["QuotaFailure"]
        assert server.files_left() == []


async def test_uploads_wait_for_their_turn_but_not_for_ever(
    database_factory: Callable, valkey_server: Valkey, data_dir: Path
) -> None:
    async with limited(
        database_factory, valkey_server, data_dir, max_uploads=2, upload_wait_s=0.5
    ) as server:
        # More than fit at once are no trouble while each is quick.
        jobs = await asyncio.gather(*(server.upload(song(n)) for n in range(10)))
        assert len({job.id for job in jobs}) == 10
        waited = [asyncio.Event(), asyncio.Event()]
        slow = [server.ingest.Upload(cut(song(n), 3, waited[n])) for n in range(2)]
        tasks = [asyncio.ensure_future(one.wait_for_connection()) for one in slow]
        await asyncio.gather(*(one.wait() for one in waited))
        await eventually(lambda: server.server._spool.receiving == 2)
        with refused("RESOURCE_EXHAUSTED", "TOO_MANY_UPLOADS") as caught:
            await server.upload(song(20))
        assert caught[0].details["RetryInfo"].retry_delay.seconds > 0
        for one in slow:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await eventually(lambda: server.server._spool.receiving == 0)
        await server.upload(song(20))


async def test_ending_early_is_told_to_a_caller_that_still_sends(
    database_factory: Callable, valkey_server: Valkey, data_dir: Path
) -> None:
    """The reason arrives, not a broken stream, also in the middle of sending."""
    async with limited(
        database_factory, valkey_server, data_dir, max_upload_bytes=1 << 20
    ) as server:
        for _ in range(5):
            with refused("RESOURCE_EXHAUSTED", "UPLOAD_TOO_LARGE"):
                await server.upload(bytes(30 << 20), chunk_bytes=1 << 18)
