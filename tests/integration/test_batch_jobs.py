"""Jobs that start jobs: they wait for them, count them, end with them, and are never lost."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest
from tests.records import DIGEST, make_segments, new_video, sha256_of

from soundhash_server.model import (
    BatchProgress,
    BatchResult,
    ChannelParameters,
    Failure,
    FetchOptions,
    FolderParameters,
    IngestParameters,
    Job,
    JobKind,
    JobProgress,
    JobState,
    JobStep,
    Lease,
    NewJob,
)
from soundhash_server.store.jobs import Jobs, LeaseLost
from soundhash_server.store.pool import Pool

PERMANENT = Failure("NO_AUDIO_STREAM", "There is no audio.", "Send audio.", transient=False)
OWN = BatchProgress(listed=9, known=3, skipped=2, quota_units=5, listing_done=True)


@pytest.fixture
def jobs(pool: Pool) -> Jobs:
    return Jobs(pool)


async def folder(jobs: Jobs, *, dry_run: bool = False) -> Job:
    job, _ = await jobs.submit(
        JobKind.FOLDER,
        "folder:/music",
        FolderParameters("/music", dry_run=dry_run),
        max_attempts=3,
        params_digest=DIGEST,
    )
    return job


def item(number: int, parent: Job | None = None) -> NewJob:
    return NewJob(
        JobKind.INGEST,
        f"url:http://a.example/{number}",
        IngestParameters(url=f"http://a.example/{number}", title=f"song {number}"),
        parent_id=None if parent is None else parent.id,
        source_host="a.example",
    )


async def submit(jobs: Jobs, items: list[NewJob]) -> list[Job]:
    return await jobs.submit_many(items, max_attempts=3, params_digest=DIGEST)


async def take(jobs: Jobs, job: Job) -> Lease:
    lease = await jobs.claim(job.id, 30.0)
    assert lease is not None
    return lease


async def read(jobs: Jobs, job: Job) -> Job:
    found = await jobs.get(job.id)
    assert found is not None
    return found


async def index(jobs: Jobs, job: Job) -> None:
    video = new_video(title=str(job.id), content_sha256=sha256_of(str(job.id)))
    await jobs.complete((await take(jobs, job)).token, video, make_segments(1))


async def started(jobs: Jobs, n: int) -> tuple[Job, list[Job]]:
    """A folder's job that waits for n others."""
    parent = await folder(jobs)
    lease = await take(jobs, parent)
    children = await submit(jobs, [item(number, parent) for number in range(n)])
    await jobs.finish_listing(lease.token, OWN, BatchResult(OWN))
    return parent, children


async def test_it_waits_for_all_and_ends_with_the_last(jobs: Jobs) -> None:
    parent, children = await started(jobs, 3)
    waiting = await read(jobs, parent)
    assert (waiting.state, waiting.result) == (JobState.WAITING, None)
    await index(jobs, children[0])
    await jobs.fail((await take(jobs, children[1])).token, PERMANENT, None)
    last = await take(jobs, children[2])
    await jobs.heartbeat(last.token, JobProgress(JobStep.FETCH, 0.5), 30.0)

    shown = (await read(jobs, parent)).progress.batch
    assert shown is not None
    assert (shown.listed, shown.known, shown.quota_units) == (9, 3, 5), "its own counts stay"
    assert (shown.queued, shown.running, shown.indexed, shown.failed) == (0, 1, 1, 1)
    assert shown.videos_per_minute > 0 and shown.eta_s is not None
    (at_work,) = shown.running_items
    assert (at_work.job_id, at_work.title) == (children[2].id, "song 2")
    assert (at_work.step, at_work.fraction) == (JobStep.FETCH, 0.5)
    (listed,) = (await jobs.list(10, "", kinds=[JobKind.FOLDER])).items
    assert listed.progress.batch is not None and listed.progress.batch.running == 1

    await jobs.complete(last.token, new_video(), make_segments(1))
    done = await read(jobs, parent)
    assert done.state is JobState.SUCCEEDED and done.finish_time is not None
    assert isinstance(done.result, BatchResult)
    assert (done.result.counts.indexed, done.result.counts.failed) == (2, 1)
    assert (done.result.counts.listed, done.result.counts.queued) == (9, 0)
    assert done.progress.step is JobStep.DONE
    assert done.progress.batch is not None and done.progress.batch.indexed == 2


async def test_without_any_it_is_done_at_once(jobs: Jobs) -> None:
    parent, _ = await started(jobs, 0)
    assert (await read(jobs, parent)).state is JobState.SUCCEEDED


@pytest.mark.parametrize("way", ["index", "fail", "cancel", "lose", "find"])
async def test_the_last_may_end_in_any_way(jobs: Jobs, pool: Pool, way: str) -> None:
    parent, (child,) = await started(jobs, 1)
    match way:
        case "index":
            await index(jobs, child)
        case "fail":
            await jobs.fail((await take(jobs, child)).token, PERMANENT, 5.0)
            await pool.execute("UPDATE processing_jobs SET attempt = 2 WHERE id = $1", child.id)
            await pool.execute(
                "UPDATE processing_jobs SET next_attempt_time = now() WHERE id = $1", child.id
            )
            await jobs.fail((await take(jobs, child)).token, PERMANENT, 5.0)
        case "cancel":
            await jobs.cancel(child.id)
        case "lose":
            await take(jobs, child)
            await pool.execute(
                "UPDATE processing_jobs SET attempt = max_attempts,"
                " lease_expires = now() - interval '1s' WHERE id = $1",
                child.id,
            )
            assert await jobs.claim(child.id, 30.0) is None
        case "find":
            other, _ = await jobs.submit(
                JobKind.INGEST, "x", IngestParameters(), max_attempts=1, params_digest=DIGEST
            )
            lease = await take(jobs, other)
            made = await jobs.complete(lease.token, new_video(), make_segments(1))
            await jobs.complete_existing((await take(jobs, child)).token, made.video_id)
    assert (await read(jobs, parent)).state is JobState.SUCCEEDED


async def test_many_that_end_at_once_leave_none_waiting(jobs: Jobs) -> None:
    for _ in range(5):
        parent = await folder(jobs)
        lease = await take(jobs, parent)
        children = await submit(jobs, [item(number, parent) for number in range(8)])
        leases = [await take(jobs, child) for child in children]
        await asyncio.gather(
            jobs.finish_listing(lease.token, OWN, BatchResult(OWN)),
            *(jobs.fail(one.token, PERMANENT, None) for one in leases),
        )
        assert (await read(jobs, parent)).state is JobState.SUCCEEDED


async def test_a_waiting_one_that_was_passed_over_is_found(jobs: Jobs, pool: Pool) -> None:
    parent, (child,) = await started(jobs, 1)
    assert await jobs.settle_waiting() == 0
    await pool.execute(
        "UPDATE processing_jobs SET state = 'CANCELLED', finish_time = now() WHERE id = $1",
        child.id,
    )
    assert (await read(jobs, parent)).state is JobState.WAITING
    assert await jobs.settle_waiting() == 1
    assert (await read(jobs, parent)).state is JobState.SUCCEEDED


async def test_cancelling_cancels_what_it_has_started(jobs: Jobs) -> None:
    parent, children = await started(jobs, 3)
    await index(jobs, children[0])
    lease = await take(jobs, children[1])
    cancelled = await jobs.cancel(parent.id)
    assert cancelled is not None and cancelled.state is JobState.CANCELLED
    states = [(await read(jobs, child)).state for child in children]
    assert states == [JobState.SUCCEEDED, JobState.CANCELLED, JobState.CANCELLED]
    assert not await jobs.heartbeat(lease.token, JobProgress(), 30.0)
    assert cancelled.progress.batch is not None and cancelled.progress.batch.failed == 2


async def test_a_cancelled_one_starts_nothing_more(jobs: Jobs, pool: Pool) -> None:
    parent = await folder(jobs)
    lease = await take(jobs, parent)
    await jobs.cancel(parent.id)
    with pytest.raises(LeaseLost):
        await submit(jobs, [item(1, parent)])
    with pytest.raises(LeaseLost):
        await jobs.finish_listing(lease.token, OWN, BatchResult(OWN))
    assert await pool.fetchval("SELECT count(*) FROM processing_jobs") == 1


async def test_cancelling_while_it_starts_more_leaves_none(jobs: Jobs, pool: Pool) -> None:
    for round_number in range(5):
        parent = await folder(jobs)
        await take(jobs, parent)

        async def start(first: int, parent: Job = parent) -> None:
            for number in range(first, first + 5):
                await submit(jobs, [item(10 * number + at, parent) for at in range(3)])

        first = 100 * round_number
        await asyncio.gather(
            *(start(first + 10 * at) for at in range(3)), jobs.cancel(parent.id),
            return_exceptions=True,
        )  # fmt: skip
        left = await pool.fetchval(
            "SELECT count(*) FROM processing_jobs WHERE state NOT IN ('CANCELLED')"
        )
        assert left == 0


async def test_submitted_together_they_are_as_if_alone(jobs: Jobs) -> None:
    failed, done, queued = await submit(jobs, [item(1), item(2), item(3)])
    await jobs.fail((await take(jobs, failed)).token, PERMANENT, None)
    await index(jobs, done)
    parent = await folder(jobs)
    again = await submit(jobs, [item(n, parent) for n in (5, 1, 4, 2, 3, 1)])
    assert [job.state for job in again] == [
        JobState.QUEUED, JobState.QUEUED, JobState.QUEUED, JobState.SUCCEEDED, JobState.QUEUED,
        JobState.QUEUED,
    ]  # fmt: skip
    assert [again[1].id, again[3].id, again[4].id, again[5].id] == [
        failed.id, done.id, queued.id, failed.id
    ]  # fmt: skip
    assert [job.parent_id for job in again[:5]] == [parent.id] * 3 + [None, parent.id]
    new = sorted((again[0], again[2]), key=lambda job: job.create_time)
    assert [job.id for job in new] == [again[0].id, again[2].id], "in the order given"
    mine = await jobs.list(10, "", parent_id=parent.id)
    assert {job.id for job in mine.items} == {again[n].id for n in (0, 1, 2, 4)}
    assert await submit(jobs, []) == []


async def test_concurrent_submits_of_the_same_many(jobs: Jobs, pool: Pool) -> None:
    items = [item(number) for number in range(40)]
    answers = await asyncio.gather(
        *(submit(jobs, items if at % 2 else items[::-1]) for at in range(8))
    )
    assert len({job.id for answer in answers for job in answer}) == 40
    assert await pool.fetchval("SELECT count(*) FROM processing_jobs") == 40


async def test_a_second_run_counts_only_its_own(jobs: Jobs) -> None:
    parent, (child,) = await started(jobs, 1)
    await index(jobs, child)
    again = await folder(jobs)
    assert (again.id, again.state, again.result) == (parent.id, JobState.QUEUED, None)
    lease = await take(jobs, again)
    await submit(jobs, [item(7, again)])
    await jobs.finish_listing(lease.token, OWN, BatchResult(OWN))
    shown = (await read(jobs, again)).progress.batch
    assert shown is not None and (shown.indexed, shown.queued) == (0, 1)
    # While it is under way, the same request gives the same job.
    assert (await folder(jobs)).state is JobState.WAITING


async def test_a_dry_run_keeps_what_it_would_do(jobs: Jobs) -> None:
    parent = await folder(jobs, dry_run=True)
    counts = BatchProgress(listed=4, queued=4, listing_done=True)
    result = BatchResult(counts, 3, ("a", "b"), ("c: broken",))
    await jobs.finish_listing((await take(jobs, parent)).token, counts, result)
    done = await read(jobs, parent)
    assert (done.state, done.result) == (JobState.SUCCEEDED, result)


async def test_parameters_come_back_as_they_were(jobs: Jobs, pool: Pool) -> None:
    since = datetime(2024, 5, 6, 7, 8, tzinfo=UTC)
    channel_id = await pool.fetchval("INSERT INTO channels (name) VALUES ('c') RETURNING id")
    every = [
        ChannelParameters(UUID(str(channel_id)), "@c", 7, since, dry_run=True),
        FolderParameters("/music", "c", watch=True),
        IngestParameters(search="artist title", options=FetchOptions(proxy="socks5://u:p@h:1")),
        IngestParameters(path="/music/a.wav", content_sha256="0" * 64),
    ]
    kinds = [JobKind.CHANNEL, JobKind.FOLDER, JobKind.INGEST, JobKind.INGEST]
    for number, (kind, parameters) in enumerate(zip(kinds, every, strict=True)):
        job, _ = await jobs.submit(
            kind, str(number), parameters, max_attempts=1, params_digest=DIGEST,
            channel_id=channel_id, source_host="c.example",
        )  # fmt: skip
        shown = await read(jobs, job)
        assert (shown.parameters, shown.channel_id) == (parameters, channel_id)
        assert shown.source_host == "c.example"


async def test_rows_of_earlier_versions_are_read(jobs: Jobs, pool: Pool) -> None:
    row_id = await pool.fetchval(
        "INSERT INTO processing_jobs (kind, dedupe_key, parameters, progress, max_attempts)"
        " VALUES ('INGEST', 'old', $1, $2, 3) RETURNING id",
        {
            "url": "http://a.example/", "file_name": "", "title": "", "external_id": "",
            "channel": "", "source_url": "", "content_sha256": "", "size_bytes": 0,
        },
        {"step": "FETCH", "fraction": 0.5, "audio_done_s": 0.0, "audio_total_s": None,
         "bytes_done": 1, "bytes_total": 2},
    )  # fmt: skip
    old = await jobs.get(row_id)
    assert old is not None
    assert old.parameters == IngestParameters(url="http://a.example/")
    assert old.progress == JobProgress(JobStep.FETCH, 0.5, bytes_done=1, bytes_total=2)
