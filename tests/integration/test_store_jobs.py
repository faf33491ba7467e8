"""Jobs: identity, exclusive claims, leases and retries, against a real PostgreSQL."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from tests.records import DIGEST, make_segments, new_video, sha256_of

from soundhash_server.errors import PlatformError
from soundhash_server.model import (
    Failure,
    IngestParameters,
    Job,
    JobKind,
    JobProgress,
    JobState,
    JobStep,
    Lease,
)
from soundhash_server.store.jobs import Jobs, LeaseLost
from soundhash_server.store.pool import Pool
from soundhash_server.store.turns import Bounds, Slot
from soundhash_server.store.videos import Videos

TRANSIENT = Failure("HTTP_UNAVAILABLE", "The site answered 503.", "Wait.", transient=True)
PERMANENT = Failure("NO_AUDIO_STREAM", "There is no audio.", "Send audio.", transient=False)

BOUNDS = Bounds(channel_jobs=4, host_jobs=2)


@pytest.fixture
def jobs(pool: Pool) -> Jobs:
    return Jobs(pool)


async def submit(jobs: Jobs, key: str = "url:http://a.example/", **more: str) -> tuple[Job, bool]:
    return await jobs.submit(
        JobKind.INGEST,
        key,
        IngestParameters(url=key.removeprefix("url:"), title=more.pop("title", "")),
        request_id=more.pop("request_id", ""),
        max_attempts=3,
        params_digest=more.pop("params_digest", DIGEST),
    )


async def take(jobs: Jobs, job: Job, lease_s: float = 30.0) -> Lease:
    lease = await jobs.claim(job.id, lease_s)
    assert lease is not None
    return lease


async def read(jobs: Jobs, job_id: UUID) -> Job:
    job = await jobs.get(job_id)
    assert job is not None
    return job


async def make_due(pool: Pool, job: Job) -> None:
    await pool.execute(
        "UPDATE processing_jobs SET next_attempt_time = now() - interval '1s' WHERE id = $1",
        job.id,
    )


async def expire(pool: Pool, job: Job) -> None:
    await pool.execute(
        "UPDATE processing_jobs SET lease_expires = now() - interval '1s' WHERE id = $1", job.id
    )


async def test_fifty_concurrent_submits_of_one_source_give_one_job(jobs: Jobs, pool: Pool) -> None:
    answers = await asyncio.gather(*(submit(jobs) for _ in range(50)))
    assert len({job.id for job, _ in answers}) == 1
    assert await pool.fetchval("SELECT count(*) FROM processing_jobs") == 1


async def test_fifty_concurrent_submits_with_one_request_id_give_one_job(
    jobs: Jobs, pool: Pool
) -> None:
    answers = await asyncio.gather(
        *(submit(jobs, f"url:http://a.example/{i % 5}", request_id="once") for i in range(50))
    )
    assert len({job.id for job, _ in answers}) == 1
    assert await pool.fetchval("SELECT count(*) FROM processing_jobs") == 1


async def test_concurrent_resubmits_of_a_failed_job_queue_it_once(jobs: Jobs) -> None:
    job, _ = await submit(jobs)
    lease = await take(jobs, job)
    assert await jobs.fail(lease.token, PERMANENT, None)
    answers = await asyncio.gather(*(submit(jobs, title="second") for _ in range(20)))
    assert {answer.id for answer, _ in answers} == {job.id}
    again = await read(jobs, job.id)
    assert (again.state, again.attempt, again.parameters.title) == (JobState.QUEUED, 0, "second")
    assert again.failure == PERMANENT, "kept until the job runs"
    assert (await take(jobs, job)).job.failure is None


async def test_claim_is_exclusive_under_twenty_claimers(jobs: Jobs) -> None:
    for number in range(5):
        job, wake = await submit(jobs, f"url:http://a.example/{number}")
        assert wake
        leases = await asyncio.gather(*(jobs.claim(job.id, 30.0) for _ in range(20)))
        won = [lease for lease in leases if lease is not None]
        assert len(won) == 1
        assert won[0].job.state is JobState.RUNNING
        assert won[0].job.attempt == 1


async def test_expired_lease_is_taken_over_by_one_and_fences_the_first(
    jobs: Jobs, pool: Pool
) -> None:
    job, _ = await submit(jobs)
    first = await take(jobs, job)
    assert await jobs.claim(job.id, 30.0) is None, "not before it expires"
    await expire(pool, job)
    leases = await asyncio.gather(*(jobs.claim(job.id, 30.0) for _ in range(20)))
    (second,) = [lease for lease in leases if lease is not None]
    assert second.job.attempt == 2

    assert not await jobs.heartbeat(first.token, JobProgress(), 30.0)
    assert not await jobs.fail(first.token, PERMANENT, None)
    assert not await jobs.release(first.token)
    with pytest.raises(LeaseLost):
        await jobs.complete(first.token, new_video(), make_segments(2))
    assert (await read(jobs, job.id)).state is JobState.RUNNING
    assert await pool.fetchval("SELECT count(*) FROM videos") == 0
    assert await pool.fetchval("SELECT count(*) FROM audio_fingerprints") == 0

    result = await jobs.complete(second.token, new_video(), make_segments(2))
    done = await read(jobs, job.id)
    assert (done.state, done.result) == (JobState.SUCCEEDED, result)
    assert done.progress.step is JobStep.DONE
    with pytest.raises(LeaseLost):
        await jobs.complete(second.token, new_video(), make_segments(2))


async def test_expired_lease_that_nobody_took_is_extended_by_its_holder(
    jobs: Jobs, pool: Pool
) -> None:
    job, _ = await submit(jobs)
    lease = await take(jobs, job)
    await expire(pool, job)
    assert await jobs.heartbeat(lease.token, JobProgress(JobStep.FETCH, 0.5), 30.0)
    assert await jobs.claim(job.id, 30.0) is None


async def test_worker_lost_after_the_last_attempt(jobs: Jobs, pool: Pool) -> None:
    job, _ = await submit(jobs)
    for _ in range(3):
        await take(jobs, job)
        await expire(pool, job)
    assert await jobs.take(Slot.INGEST, BOUNDS, 30.0) is None
    assert await jobs.fail_lost() == 1
    lost = await read(jobs, job.id)
    assert lost.state is JobState.FAILED
    assert lost.failure is not None and lost.failure.reason == "WORKER_LOST"
    assert lost.finish_time is not None
    assert await jobs.fail_lost() == 0


async def test_heartbeat_tells_the_progress(jobs: Jobs) -> None:
    job, _ = await submit(jobs)
    lease = await take(jobs, job)
    progress = JobProgress(JobStep.FINGERPRINT, 0.25, 30.0, 120.0, 4096, 8192)
    assert await jobs.heartbeat(lease.token, progress, 30.0)
    assert (await read(jobs, job.id)).progress == progress


async def test_transient_failures_retry_until_the_attempts_are_used_up(
    jobs: Jobs, pool: Pool
) -> None:
    job, _ = await submit(jobs)
    for attempt in (1, 2):
        lease = await take(jobs, job)
        assert lease.job.attempt == attempt
        assert await jobs.fail(lease.token, TRANSIENT, 60.0)
        waiting = await read(jobs, job.id)
        assert (waiting.state, waiting.failure) == (JobState.RETRYING, TRANSIENT)
        assert waiting.next_attempt_time is not None
        assert 58 < (waiting.next_attempt_time - waiting.update_time).total_seconds() < 62
        assert await jobs.claim(job.id, 30.0) is None, "not before it is due"
        assert await jobs.take(Slot.INGEST, BOUNDS, 30.0) is None
        await make_due(pool, job)
    lease = await jobs.take(Slot.INGEST, BOUNDS, 30.0)
    assert lease is not None
    assert await jobs.fail(lease.token, TRANSIENT, 60.0)
    final = await read(jobs, job.id)
    assert (final.state, final.next_attempt_time) == (JobState.FAILED, None)
    assert final.finish_time is not None


async def test_release_gives_the_attempt_back(jobs: Jobs) -> None:
    job, _ = await submit(jobs)
    lease = await take(jobs, job)
    assert await jobs.release(lease.token)
    assert (await read(jobs, job.id)).state is JobState.QUEUED
    assert (await take(jobs, job)).job.attempt == 1


async def test_what_could_not_be_tried_is_no_attempt(jobs: Jobs, pool: Pool) -> None:
    job, _ = await submit(jobs)
    for _ in range(5):
        lease = await take(jobs, job)
        assert lease.job.attempt == 1
        assert await jobs.postpone(lease.token, TRANSIENT, 60.0)
        waiting = await read(jobs, job.id)
        assert (waiting.state, waiting.attempt) == (JobState.RETRYING, 0)
        assert waiting.failure == TRANSIENT
        await make_due(pool, job)
    assert not await jobs.postpone(lease.token, TRANSIENT, 60.0)


async def test_cancel_stops_a_running_job(jobs: Jobs) -> None:
    job, _ = await submit(jobs)
    lease = await take(jobs, job)
    cancelled = await jobs.cancel(job.id)
    assert cancelled is not None and cancelled.state is JobState.CANCELLED
    assert not await jobs.heartbeat(lease.token, JobProgress(), 30.0)
    with pytest.raises(LeaseLost):
        await jobs.complete(lease.token, new_video(), make_segments(1))
    assert await jobs.cancel(job.id) == cancelled, "a finished job is returned unchanged"
    assert await jobs.cancel(uuid4()) is None


async def test_retry_only_of_failed_and_cancelled(jobs: Jobs) -> None:
    job, _ = await submit(jobs)
    with pytest.raises(PlatformError) as refused:
        await jobs.retry(job.id)
    assert refused.value.reason == "JOB_NOT_RETRYABLE"
    await jobs.cancel(job.id)
    again = await jobs.retry(job.id)
    assert again is not None and again.state is JobState.QUEUED
    assert again.finish_time is None
    assert await jobs.retry(uuid4()) is None


async def test_resubmitted_success_runs_again_only_when_needed(jobs: Jobs, pool: Pool) -> None:
    job, _ = await submit(jobs)
    result = await jobs.complete((await take(jobs, job)).token, new_video(), make_segments(2))
    same, wake = await submit(jobs)
    assert (same.state, wake) == (JobState.SUCCEEDED, False)

    other, wake = await submit(jobs, params_digest="other-params")
    assert (other.id, other.state, wake) == (job.id, JobState.QUEUED, True)
    made_again = await jobs.complete(
        (await take(jobs, job)).token, new_video(), make_segments(3, digest="other-params")
    )
    assert made_again.video_id == result.video_id
    assert not made_again.already_indexed

    await Videos(pool).delete(result.video_id)
    gone, wake = await submit(jobs, params_digest="other-params")
    assert (gone.state, wake) == (JobState.QUEUED, True)


async def test_same_bytes_from_two_sources_are_one_video(jobs: Jobs, pool: Pool) -> None:
    one, _ = await submit(jobs, "url:http://a.example/1")
    two, _ = await submit(jobs, "url:http://a.example/2")
    leases = [await take(jobs, job) for job in (one, two)]
    results = await asyncio.gather(
        *(
            jobs.complete(lease.token, new_video(source_key=f"url:{i}"), make_segments(2))
            for i, lease in enumerate(leases)
        )
    )
    assert len({result.video_id for result in results}) == 1
    assert sorted(result.already_indexed for result in results) == [False, True]
    assert await pool.fetchval("SELECT count(*) FROM videos") == 1
    assert await pool.fetchval("SELECT count(*) FROM audio_fingerprints") == 2


async def test_source_with_new_bytes_stays_one_video(jobs: Jobs, pool: Pool) -> None:
    job, _ = await submit(jobs)
    first = await jobs.complete(
        (await take(jobs, job)).token, new_video(source_key="url:x"), make_segments(2)
    )
    other_job, _ = await submit(jobs, "url:http://a.example/other")
    second = await jobs.complete(
        (await take(jobs, other_job)).token,
        new_video(source_key="url:x", content_sha256=sha256_of("re-encoded")),
        make_segments(5),
    )
    assert (second.video_id, second.already_indexed) == (first.video_id, False)
    video = await Videos(pool).get(first.video_id)
    assert video is not None
    assert (video.segment_count, video.content_sha256) == (5, sha256_of("re-encoded"))


async def test_complete_existing_remembers_the_source(jobs: Jobs, pool: Pool) -> None:
    job, _ = await submit(jobs)
    made = await jobs.complete((await take(jobs, job)).token, new_video(), make_segments(1))
    other, _ = await submit(jobs, "url:http://b.example/")
    lease = await take(jobs, other)
    result = await jobs.complete_existing(lease.token, made.video_id, source_key="url:b")
    assert (result.video_id, result.already_indexed) == (made.video_id, True)
    found = await Videos(pool).by_source_key("url:b")
    assert found is not None and found.id == made.video_id
    with pytest.raises(LeaseLost):
        await jobs.complete_existing(lease.token, made.video_id)


async def test_taken_external_id_leaves_the_job_running_and_stores_nothing(
    jobs: Jobs, pool: Pool
) -> None:
    job, _ = await submit(jobs)
    await jobs.complete(
        (await take(jobs, job)).token, new_video(external_id="mine"), make_segments(1)
    )
    other, _ = await submit(jobs, "url:http://b.example/")
    lease = await take(jobs, other)
    with pytest.raises(PlatformError) as taken:
        await jobs.complete(
            lease.token,
            new_video(external_id="mine", content_sha256=sha256_of("b")),
            make_segments(1),
        )
    assert taken.value.reason == "EXTERNAL_ID_TAKEN"
    assert await pool.fetchval("SELECT count(*) FROM videos") == 1
    assert await jobs.heartbeat(lease.token, JobProgress(), 30.0)


async def test_list_filters_and_pages(jobs: Jobs) -> None:
    made = [(await submit(jobs, f"url:http://a.example/{i}"))[0] for i in range(7)]
    lease = await take(jobs, made[3])
    await jobs.fail(lease.token, PERMANENT, None)
    await jobs.cancel(made[5].id)

    failed = await jobs.list(10, "", states=[JobState.FAILED])
    assert [job.id for job in failed.items] == [made[3].id]
    by_reason = await jobs.list(10, "", failure_reason="NO_AUDIO_STREAM")
    assert [job.id for job in by_reason.items] == [made[3].id]

    seen, token = [], ""
    while True:
        page = await jobs.list(3, token, states=[JobState.QUEUED, JobState.CANCELLED])
        seen += [job.id for job in page.items]
        token = page.next_page_token
        if not token:
            break
    assert seen == [job.id for job in reversed(made) if job.id != made[3].id]
