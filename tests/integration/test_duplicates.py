"""Videos that are alike: asked for, found by a worker, listed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integration.rpc import Running, refused, running
from tests.integration.working import worker_process, worker_settings, working
from tests.media import encode
from tests.songs import SAMPLE_RATE_HZ, cut, song

import soundhash
from soundhash.v1 import catalog_pb2, ingest_pb2
from soundhash_engine.types import Pcm
from soundhash_server.embedded_valkey import Valkey
from soundhash_server.model import DuplicateKind, FoundPair, SharedRange
from soundhash_server.store.duplicates import Duplicates
from soundhash_server.store.jobs import Jobs, LeaseLost
from soundhash_server.store.turns import Bounds, Slot

A, B = song(30.0, 301), song(30.0, 302)
SOUNDS: dict[str, Pcm] = {
    "first": A,
    "second": B,
    "first again": A,
    "part of first": cut(A, 8.0, 14.0),
    "mix": np.concatenate([cut(B, 3.0, 15.0), song(8.0, 303), cut(A, 12.0, 16.0)]),
    "faster": song(30.0 / 1.06, 302, tempo=1.06, pitch=1.06),
    "stranger": song(20.0, 304),
}


@pytest.fixture(scope="module")
async def place(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Running]:
    """A server, and a worker on its data folder."""
    redis_url = valkey_server.url.replace("db=0", "db=3")
    async for url in database_factory():
        folder = tmp_path_factory.mktemp("data")
        async with (
            running(url, redis_url, folder) as made,
            working(worker_settings(url, redis_url, folder, job_lease_s=2.0)),
        ):
            yield made


async def find(place: Running, *video_ids: str, min_shared_s: int = 0) -> ingest_pb2.Job:
    request = catalog_pb2.FindDuplicatesRequest(video_ids=video_ids)
    if min_shared_s:
        request.min_shared.FromSeconds(min_shared_s)
    job: ingest_pb2.Job = await place.catalog.FindDuplicates(request)
    return job


async def finished(place: Running, job: ingest_pb2.Job) -> ingest_pb2.Job:
    watched = place.ingest.WatchJob(ingest_pb2.WatchJobRequest(id=job.id))
    async with asyncio.timeout(60):
        return [now async for now in watched][-1]


async def add(place: Running, pcm: Pcm, name: str) -> str:
    """Uploads a sound and waits until a worker has made its video; the id of that."""
    done = await finished(place, await place.upload(encode(pcm, "wav"), f"{name}.wav"))
    assert done.state == ingest_pb2.JOB_STATE_SUCCEEDED, done.failure
    return done.ingest_result.video_id


async def test_an_empty_catalogue_and_one_video(place: Running) -> None:
    with refused("FAILED_PRECONDITION", "NO_DUPLICATES_JOB"):
        await place.catalog.ListDuplicates(catalog_pb2.ListDuplicatesRequest())
    done = await finished(place, await find(place))
    assert done.state == ingest_pb2.JOB_STATE_SUCCEEDED, done.failure
    assert done.duplicates_result.videos == 0
    await add(place, SOUNDS["first"], "first")
    done = await finished(place, await find(place))
    assert done.duplicates_result.videos == 1
    listed = await place.catalog.ListDuplicates(catalog_pb2.ListDuplicatesRequest())
    assert listed.complete and not listed.pairs and listed.job_id == done.id


@pytest.fixture(scope="module")
async def videos(place: Running) -> dict[str, catalog_pb2.Video]:
    for name, pcm in SOUNDS.items():
        if name != "first":
            # Other bytes of the same sound are another video.
            level = np.float32(0.8 if name == "first again" else 1.0)
            await add(place, level * pcm, name)
    listed = await place.catalog.ListVideos(catalog_pb2.ListVideosRequest())
    return {video.title: video for video in listed.videos}


async def test_what_is_alike_is_found(place: Running, videos: dict[str, catalog_pb2.Video]) -> None:
    done = await finished(place, await find(place))
    assert done.kind == ingest_pb2.JOB_KIND_DUPLICATES
    assert done.state == ingest_pb2.JOB_STATE_SUCCEEDED, done.failure
    result = done.duplicates_result
    assert result.videos == len(SOUNDS)
    seconds = sum(pcm.size for pcm in SOUNDS.values()) / SAMPLE_RATE_HZ
    assert result.duration.ToTimedelta().total_seconds() == pytest.approx(seconds, abs=1.0)
    listed = await place.catalog.ListDuplicates(catalog_pb2.ListDuplicatesRequest(job_id=done.id))
    found = {(pair.first.title, pair.second.title): pair for pair in listed.pairs}
    kinds = {
        pair: catalog_pb2.DuplicateKind.Name(one.kind).removeprefix("DUPLICATE_KIND_")
        for pair, one in found.items()
    }
    assert kinds == {
        ("first", "first again"): "FULL",
        ("second", "faster"): "FULL",
        ("first", "part of first"): "CONTAINS",
        ("first again", "part of first"): "CONTAINS",
        ("mix", "first"): "PARTIAL",
        ("mix", "first again"): "PARTIAL",
        ("mix", "second"): "PARTIAL",
        ("mix", "part of first"): "PARTIAL",
        ("mix", "faster"): "PARTIAL",
    }
    assert (result.full, result.contains, result.partial) == (2, 2, 5)
    (shared,) = found["second", "faster"].ranges
    assert shared.speed == pytest.approx(1 / 1.06, rel=0.003)
    (shared,) = found["mix", "second"].ranges
    assert shared.first_start.ToTimedelta().total_seconds() == pytest.approx(0.0, abs=0.7)
    assert shared.first_end.ToTimedelta().total_seconds() == pytest.approx(15.0, abs=0.7)
    assert shared.second_start.ToTimedelta().total_seconds() == pytest.approx(3.0, abs=0.7)
    assert 0.9 < shared.confidence <= 1.0


async def test_pages_and_choices(place: Running, videos: dict[str, catalog_pb2.Video]) -> None:
    pairs: list[catalog_pb2.DuplicatePair] = []
    token = ""
    while True:
        page = await place.catalog.ListDuplicates(
            catalog_pb2.ListDuplicatesRequest(page_size=4, page_token=token)
        )
        assert len(page.pairs) <= 4
        pairs += page.pairs
        token = page.next_page_token
        if not token:
            break
    assert len({(pair.first.id, pair.second.id) for pair in pairs}) == len(pairs) == 9

    async def chosen(**wanted: Any) -> list[catalog_pb2.DuplicatePair]:
        request = catalog_pb2.ListDuplicatesRequest(**wanted)
        return list((await place.catalog.ListDuplicates(request)).pairs)

    assert len(await chosen(video_id=videos["second"].id)) == 2
    assert len(await chosen(kinds=[catalog_pb2.DUPLICATE_KIND_FULL])) == 2
    assert await chosen(video_id=videos["stranger"].id) == []
    page = await place.catalog.ListDuplicates(catalog_pb2.ListDuplicatesRequest(page_size=4))
    wrong = catalog_pb2.ListDuplicatesRequest(
        page_token=page.next_page_token, kinds=[catalog_pb2.DUPLICATE_KIND_FULL]
    )
    with refused("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID"):
        await place.catalog.ListDuplicates(wrong)


async def test_what_cannot_be_asked(place: Running, videos: dict[str, catalog_pb2.Video]) -> None:
    unknown = str(uuid.uuid4())
    with refused("NOT_FOUND", "VIDEO_NOT_FOUND"):
        await find(place, unknown)
    with refused("NOT_FOUND", "JOB_NOT_FOUND"):
        await place.catalog.ListDuplicates(catalog_pb2.ListDuplicatesRequest(job_id=unknown))
    jobs = await place.ingest.ListJobs(
        ingest_pb2.ListJobsRequest(kinds=[ingest_pb2.JOB_KIND_INGEST])
    )
    with refused("FAILED_PRECONDITION", "NO_DUPLICATES_JOB"):
        await place.catalog.ListDuplicates(
            catalog_pb2.ListDuplicatesRequest(job_id=jobs.jobs[0].id)
        )


async def test_only_pairs_of_chosen_videos(
    place: Running, videos: dict[str, catalog_pb2.Video]
) -> None:
    job = await find(place, videos["part of first"].id, min_shared_s=8)
    assert list(job.duplicates.video_ids) == [videos["part of first"].id]
    done = await finished(place, job)
    listed = await place.catalog.ListDuplicates(catalog_pb2.ListDuplicatesRequest())
    assert listed.job_id == done.id
    assert {
        frozenset((pair.first.title, pair.second.title)) - {"part of first"}
        for pair in listed.pairs
    } == {frozenset({"first"}), frozenset({"first again"}), frozenset({"mix"})}
    assert len(listed.pairs) == 3


async def test_the_same_question_is_the_same_job(
    place: Running, videos: dict[str, catalog_pb2.Video]
) -> None:
    async with place.pool.acquire() as held, held.transaction():
        # The worker cannot begin, so that the job is not finished.
        await held.execute("LOCK TABLE duplicate_pairs IN ACCESS EXCLUSIVE MODE")
        first, second = await find(place), await find(place)
        assert first.id == second.id
        other = await find(place, min_shared_s=20)
        assert other.id != first.id
    for job in (first, other):
        done = await finished(place, job)
        assert done.state == ingest_pb2.JOB_STATE_SUCCEEDED, done.failure


async def test_a_cancelled_comparison_leaves_nothing(
    place: Running, videos: dict[str, catalog_pb2.Video]
) -> None:
    async with place.pool.acquire() as held, held.transaction():
        # The worker waits to know what there is to compare.
        await held.execute("LOCK TABLE catalogue IN ACCESS EXCLUSIVE MODE")
        job = await find(place, min_shared_s=30)
        async with asyncio.timeout(20):
            while job.state != ingest_pb2.JOB_STATE_RUNNING:
                await asyncio.sleep(0.05)
                job = await place.ingest.GetJob(ingest_pb2.GetJobRequest(id=job.id))
        await place.ingest.CancelJob(ingest_pb2.CancelJobRequest(id=job.id))
    assert (await finished(place, job)).state == ingest_pb2.JOB_STATE_CANCELLED
    listed = await place.catalog.ListDuplicates(catalog_pb2.ListDuplicatesRequest(job_id=job.id))
    assert listed.complete and not listed.pairs
    async with asyncio.timeout(10):
        while list(place.settings.scratch_dir.rglob("duplicates-*")):
            await asyncio.sleep(0.05)


async def test_a_video_that_is_deleted_meanwhile_is_left_out(
    place: Running, videos: dict[str, catalog_pb2.Video]
) -> None:
    gone = await add(place, cut(B, 4.0, 20.0), "gone")
    done = await finished(place, await find(place))
    assert done.duplicates_result.videos == len(SOUNDS) + 1

    async def named() -> set[str]:
        listed = await place.catalog.ListDuplicates(catalog_pb2.ListDuplicatesRequest())
        return {video.title for pair in listed.pairs for video in (pair.first, pair.second)}

    assert "gone" in await named()
    await place.catalog.DeleteVideo(catalog_pb2.DeleteVideoRequest(id=gone))
    assert "gone" not in await named()


async def test_writes_after_the_lease_or_of_deleted_videos(
    postgres_url: str, valkey_server: Valkey, tmp_path: Path
) -> None:
    async with running(postgres_url, valkey_server.url, tmp_path) as place:
        one = await place.add(encode(song(6.0, 1), "wav"), "one.wav")
        two = await place.add(encode(song(6.0, 2), "wav"), "two.wav")
        job = await find(place)
        store, jobs = Duplicates(place.pool), Jobs(place.pool)
        known = await store.recordings([uuid.UUID(one.id), uuid.UUID(two.id)])
        keys = list(known.values())
        shared = SharedRange(0.0, 5.0, 1.0, 6.0, 1.0, 1.0, 0.9)

        def pair(first: int, second: int) -> FoundPair:
            return FoundPair(DuplicateKind.PARTIAL, first, second, (shared,), 5.0, 0.8, 0.8)

        lease = await jobs.take(Slot.LISTING, Bounds(1, 1), 60.0)
        assert lease is not None and str(lease.job.id) == job.id
        await store.begin(lease.token)
        await store.put(lease.token, [pair(keys[0], keys[1]), pair(keys[0], 10**9)])
        # More was found of the same pair.
        await store.put(lease.token, [pair(keys[0], keys[1])])
        found = await store.list(lease.job.id, 0, "")
        assert [one.ranges for one in found.items] == [(shared,)]
        await store.begin(lease.token)
        assert (await store.list(lease.job.id, 0, "")).items == ()
        await jobs.release(lease.token)
        with pytest.raises(LeaseLost):
            await store.begin(lease.token)
        with pytest.raises(LeaseLost):
            await store.put(lease.token, [pair(keys[0], keys[1])])
        with pytest.raises(LeaseLost):
            await jobs.complete_comparison(lease.token, 2, 12.0)


async def test_a_killed_worker_s_comparison_is_done_again(
    postgres_url: str, valkey_server: Valkey, tmp_path: Path
) -> None:
    redis_url = valkey_server.url.replace("db=0", "db=4")
    settings = worker_settings(postgres_url, redis_url, tmp_path, job_lease_s=1.0)
    async with running(postgres_url, redis_url, tmp_path) as place:
        await place.add(encode(A, "wav"), "one.wav")
        await place.add(encode(np.float32(0.7) * A, "wav"), "two.wav")
        async with place.pool.acquire() as held, held.transaction():
            await held.execute("LOCK TABLE duplicate_pairs IN ACCESS EXCLUSIVE MODE")
            with worker_process(settings):
                job = await find(place)
                async with asyncio.timeout(60):
                    while job.state != ingest_pb2.JOB_STATE_RUNNING:
                        await asyncio.sleep(0.05)
                        job = await place.ingest.GetJob(ingest_pb2.GetJobRequest(id=job.id))
                        assert job.state != ingest_pb2.JOB_STATE_FAILED
        async with working(settings):
            done = await finished(place, job)
        assert done.state == ingest_pb2.JOB_STATE_SUCCEEDED, done.failure
        assert done.attempt == 2
        assert (done.duplicates_result.full, done.duplicates_result.partial) == (1, 0)


async def test_both_clients_and_the_command(
    place: Running, videos: dict[str, catalog_pb2.Video]
) -> None:
    async with soundhash.AsyncClient(place.address) as client:
        job = await client.find_duplicates(min_shared_s=11.0)
        job = await client.wait_for_job(job.id)
        assert job.duplicates is not None and job.duplicates.min_shared_s == 11.0
        assert job.source == "duplicates"
        result = job.duplicates_result
        assert result is not None and result.videos == len(SOUNDS)
        pairs = [pair async for pair in client.duplicates(job.id)]
        assert len(pairs) == result.full + result.contains + result.partial
        full = [pair async for pair in client.duplicates(kinds=["full"])]
        assert {pair.kind for pair in full} == {soundhash.DuplicateKind.FULL}
        with pytest.raises(ValueError, match="nonsense"):
            client.duplicates(kinds=["nonsense"])

    async def command(*arguments: str) -> str:
        told = await asyncio.to_thread(
            subprocess.run,
            [Path(sys.executable).with_name("soundhash"), "duplicates", *arguments],
            env={**os.environ, "SOUNDHASH_ADDRESS": place.address},
            capture_output=True,
            text=True,
            check=True,
        )
        return str(told.stdout)

    lines = [json.loads(line) for line in (await command("--json")).splitlines()]
    assert lines[0]["state"] == "SUCCEEDED"
    assert {line["kind"] for line in lines[1:]} == {"FULL", "CONTAINS", "PARTIAL"}
    shown = await command("--show", "--video", videos["faster"].id)
    assert "second" in shown and "times as fast" in shown and "stranger" not in shown
