"""RetryJobs, SummarizeFailures and the filters of ListJobs, through a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from uuid import UUID

import pytest
from tests.integration.rpc import Running, refused, running
from tests.records import DIGEST, sha256_of

from soundhash.v1 import ingest_pb2
from soundhash_server.embedded_valkey import Valkey
from soundhash_server.model import (
    BatchProgress,
    BatchResult,
    ChannelParameters,
    Failure,
    FetchOptions,
    IngestParameters,
    Job,
    JobKind,
    NewJob,
)
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.pauses import PauseRule, Pauses

SILENT = Failure("SILENT_AUDIO", "Nothing is heard.", "Check the sound.", transient=False)
AWAY = Failure("NETWORK_ERROR", "The connection failed.", "Check the network.", transient=True)
SECRET = "socks5://user:hidden@proxy.example:1080"


@pytest.fixture
async def server(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Running]:
    """With an empty database of its own."""
    async for url in database_factory():
        async with running(url, valkey_server.url, tmp_path_factory.mktemp("data")) as made:
            yield made


async def add(
    server: Running,
    name: str,
    *,
    parameters: IngestParameters | None = None,
    parent_id: UUID | None = None,
    channel_id: UUID | None = None,
) -> Job:
    parameters = parameters or IngestParameters(
        url=f"http://a.example/{name}", options=FetchOptions(proxy=SECRET)
    )
    item = NewJob(JobKind.INGEST, name, parameters, parent_id, channel_id, "a.example")
    (job,) = await Jobs(server.pool).submit_many([item], max_attempts=3, params_digest=DIGEST)
    return job


async def fail(server: Running, job: Job, failure: Failure, again_s: float | None = None) -> None:
    jobs = Jobs(server.pool)
    lease = await jobs.claim(job.id, 30.0)
    assert lease is not None
    await jobs.fail(lease.token, failure, again_s)


async def add_channel(server: Running) -> UUID:
    made: UUID = await server.pool.fetchval("INSERT INTO channels (name) VALUES ('c') RETURNING id")
    return made


async def summary(server: Running, **request: str) -> ingest_pb2.SummarizeFailuresResponse:
    answer: ingest_pb2.SummarizeFailuresResponse = await server.ingest.SummarizeFailures(
        ingest_pb2.SummarizeFailuresRequest(**request)
    )
    return answer


async def retry(server: Running, **request: str) -> tuple[int, int]:
    answer = await server.ingest.RetryJobs(ingest_pb2.RetryJobsRequest(**request))
    return answer.queued, answer.not_retryable


async def test_failures_are_grouped_by_reason(server: Running) -> None:
    assert not (await summary(server)).groups
    channel_id = await add_channel(server)
    for number in range(3):
        await fail(server, await add(server, f"s{number}", channel_id=channel_id), SILENT)
    await fail(server, await add(server, "n1"), AWAY)
    last = await add(server, "n2")
    await fail(server, last, AWAY, 60.0)
    pauses = Pauses(server.pool, PauseRule(1, 100.0, 100.0))
    await pauses.refused("bad.example", "BOT_CHECK")
    found = await summary(server)
    silent, away = found.groups
    assert (silent.reason, silent.remedy, silent.failed, silent.retrying) == (
        "SILENT_AUDIO", "Check the sound.", 3, 0
    )  # fmt: skip
    assert (away.reason, away.failed, away.retrying) == ("NETWORK_ERROR", 1, 1)
    assert (away.example, away.example_job_id) == ("The connection failed.", str(last.id))
    assert away.HasField("latest_time")
    (paused,) = found.paused_hosts
    assert (paused.host, paused.reason, paused.refusals) == ("bad.example", "BOT_CHECK", 1)
    mine = await summary(server, channel_id=str(channel_id))
    assert [group.reason for group in mine.groups] == ["SILENT_AUDIO"]


async def test_failed_jobs_are_tried_again_in_bulk(server: Running) -> None:
    channel_id = await add_channel(server)
    silent = [await add(server, f"s{n}", channel_id=channel_id if n else None) for n in range(3)]
    away = await add(server, "n", channel_id=channel_id)
    for job in silent:
        await fail(server, job, SILENT)
    await fail(server, away, AWAY)
    cancelled = await add(server, "c", channel_id=channel_id)
    await Jobs(server.pool).cancel(cancelled.id)
    here, gone = sha256_of("here"), sha256_of("gone")
    (server.uploads_dir / here).write_bytes(b"x")
    for digest in (here, gone):
        upload = IngestParameters(content_sha256=digest)
        await fail(server, await add(server, digest, parameters=upload), SILENT)

    assert await retry(server, failure_reason="NO_SUCH_REASON") == (0, 0)
    assert await retry(server, failure_reason="SILENT_AUDIO", channel_id=str(channel_id)) == (2, 0)
    assert await retry(server, failure_reason="SILENT_AUDIO") == (2, 1)
    assert await retry(server, channel_id=str(channel_id)) == (1, 0)
    assert await retry(server, channel_id=str(channel_id)) == (0, 0)
    left = await Jobs(server.pool).list(10, "", failure_reason="SILENT_AUDIO")
    assert [job.state.value for job in left.items].count("FAILED") == 1
    with refused("INVALID_ARGUMENT"):
        await retry(server)
    with refused("INVALID_ARGUMENT"):
        await retry(server, channel_id="-" * 36)


async def test_jobs_of_a_job_are_listed_and_no_proxy_is_shown(server: Running) -> None:
    jobs = Jobs(server.pool)
    channel_id = await add_channel(server)
    parent, _ = await jobs.submit(
        JobKind.CHANNEL, "channel", ChannelParameters(channel_id, "@c", max_videos=7),
        max_attempts=1, params_digest=DIGEST, channel_id=channel_id, source_host="a.example",
    )  # fmt: skip
    lease = await jobs.claim(parent.id, 30.0)
    assert lease is not None
    children = [await add(server, f"v{n}", parent_id=parent.id) for n in range(2)]
    await add(server, "other")
    own = BatchProgress(listed=2, listing_done=True)
    await jobs.finish_listing(lease.token, own, BatchResult(own, new_items=("a", "b")))
    request = ingest_pb2.ListJobsRequest(parent_id=str(parent.id))
    listed = (await server.ingest.ListJobs(request)).jobs
    assert {job.id for job in listed} == {str(child.id) for child in children}
    assert {job.parent_id for job in listed} == {str(parent.id)}
    assert {job.source_host for job in listed} == {"a.example"}
    assert all("hidden" not in str(job) for job in listed)
    request = ingest_pb2.ListJobsRequest(kinds=[ingest_pb2.JOB_KIND_CHANNEL])
    (shown,) = (await server.ingest.ListJobs(request)).jobs
    assert shown.state == ingest_pb2.JOB_STATE_WAITING
    assert (shown.channel.channel, shown.channel.max_videos) == ("@c", 7)
    assert (shown.progress.batch.listed, shown.progress.batch.queued) == (2, 2)
    assert shown.WhichOneof("result") is None

    seen = []
    async for job in server.ingest.WatchJob(ingest_pb2.WatchJobRequest(id=str(parent.id))):
        seen.append(job)
        waiting = [child for child in children if len(seen) == 1]
        for child in waiting:
            await fail(server, child, SILENT)
    assert seen[-1].state == ingest_pb2.JOB_STATE_SUCCEEDED
    assert seen[-1].batch_result.counts.failed == 2
    assert list(seen[-1].batch_result.new_items) == ["a", "b"]
    with refused("INVALID_ARGUMENT"):
        await server.ingest.ListJobs(ingest_pb2.ListJobsRequest(parent_id="-" * 36))
