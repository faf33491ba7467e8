"""Clips as rows: listing by an index of their own, and deleting beside those who submit."""

from __future__ import annotations

import asyncio
from typing import Any

from soundhash_engine import PARAMS
from soundhash_server.model import IngestParameters, Job, JobKind, JobState, NewJob
from soundhash_server.store.clips import Clips
from soundhash_server.store.jobs import Jobs
from soundhash_server.twitch import clip_key, clip_url


def item(clip_id: str, **more: Any) -> NewJob:
    return NewJob(
        JobKind.INGEST, clip_key(clip_id), IngestParameters(url=clip_url(clip_id)), **more
    )


async def submitted(jobs: Jobs, *clip_ids: str, **more: Any) -> list[Job]:
    items = [item(clip_id, **more) for clip_id in clip_ids]
    return await jobs.submit_many(items, max_attempts=3, params_digest=PARAMS.digest)


async def test_pages_of_clips(pool: Any) -> None:
    jobs, clips = Jobs(pool), Clips(pool)
    await submitted(jobs, "A", "B", "C")
    await jobs.submit(
        JobKind.INGEST,
        "media:youtube:A",
        IngestParameters(url="https://youtu.be/A"),
        max_attempts=3,
        params_digest=PARAMS.digest,
    )
    first = await clips.list(2, "")
    assert [row.clip_id for row in first.items] == ["C", "B"]
    second = await clips.list(2, first.next_page_token)
    assert [row.clip_id for row in second.items] == ["A"]
    assert second.next_page_token == ""


async def test_listing_clips_needs_no_look_at_other_jobs(pool: Any) -> None:
    """The plan is asked for with scans made dear: few rows are read faster without an index."""
    async with pool.acquire() as held, held.transaction():
        await held.execute("SET LOCAL enable_seqscan = off")
        rows = await held.fetch(
            "EXPLAIN SELECT id FROM (SELECT dedupe_key, id, create_time FROM processing_jobs) AS j"
            " WHERE starts_with(j.dedupe_key, 'media:twitchclips:')"
            " ORDER BY j.create_time DESC, j.id DESC LIMIT 10"
        )
    assert any("processing_jobs_clips" in row[0] for row in rows), rows


async def test_deleting_while_others_submit(pool: Any) -> None:
    """Every submission gets a job, and at the end nothing is half there."""
    jobs, clips = Jobs(pool), Clips(pool)

    async def submit() -> None:
        for n in range(15):
            if n % 2:
                (job,) = await submitted(jobs, "A")
            else:
                job, _ = await jobs.submit(
                    JobKind.INGEST,
                    clip_key("A"),
                    IngestParameters(url=clip_url("A")),
                    max_attempts=3,
                    params_digest=PARAMS.digest,
                )
            assert job.state is JobState.QUEUED

    async def delete() -> None:
        for _ in range(15):
            await clips.delete("A")

    await asyncio.gather(submit(), submit(), delete(), delete())
    await submitted(jobs, "A")
    assert await clips.delete("A") is not None
    assert await clips.delete("A") is None
    assert await clips.get("A") is None


async def test_deleting_the_last_that_a_job_waits_for_ends_it(pool: Any) -> None:
    jobs, clips = Jobs(pool), Clips(pool)
    (parent,) = await jobs.submit_many(
        [item("parent")], max_attempts=3, params_digest=PARAMS.digest
    )
    await submitted(jobs, "child", parent_id=parent.id)
    # As after listing a channel; how a job comes to wait is not the matter here.
    await pool.execute(
        "UPDATE processing_jobs SET kind = 'FOLDER', state = 'WAITING',"
        ' parameters = \'{"path": "/x"}\', result = \'{"counts": {}}\' WHERE id = $1',
        parent.id,
    )
    await clips.delete("child")
    ended = await jobs.get(parent.id)
    assert ended is not None and ended.state is JobState.SUCCEEDED
