"""kill -9 of the worker at random points while recordings come from a web server.

At the end each is indexed exactly once, the job that waits for them all has ended, and no file
is left. SOUNDHASH_CRASH_WORKER_KILLS (2), SOUNDHASH_CRASH_WORKER_ITEMS (6) and
SOUNDHASH_CRASH_SEED (1) make it harder; `make crash` kills 50 times while 100 come in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import Popen

import pytest
from aiohttp import web
from tests.integration.working import Bench, open_bench, worker_process, worker_settings
from tests.media import encode
from tests.records import DIGEST
from tests.sounds import tune

from soundhash_server.model import (
    BatchProgress,
    BatchResult,
    FolderParameters,
    IngestParameters,
    Job,
    JobKind,
    JobState,
    NewJob,
)
from soundhash_server.settings import Settings
from soundhash_server.sources import source_host, url_key

KILLS = int(os.environ.get("SOUNDHASH_CRASH_WORKER_KILLS", "2"))
ITEMS = int(os.environ.get("SOUNDHASH_CRASH_WORKER_ITEMS", "6"))
SEED = int(os.environ.get("SOUNDHASH_CRASH_SEED", "1"))
DURATION_S = 6.0
PATIENCE_S = 60.0 + 3.0 * ITEMS
PIECES = 10


class Source:
    """Recordings that come in pieces over half a second; those that are not released yet stop
    before their end, so that there is something to do until the last kill."""

    def __init__(self) -> None:
        self.recordings = [encode(tune(DURATION_S, seed=9000 + number)) for number in range(ITEMS)]
        self.released = 0
        self.asked: Counter[int] = Counter()
        self.base = ""

    async def send(self, request: web.Request) -> web.StreamResponse:
        number = int(request.match_info["number"])
        self.asked[number] += 1
        content = self.recordings[number]
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        size = -(-len(content) // PIECES)
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(content), size):
                last = at + size >= len(content)
                while last and number >= self.released:
                    if request.transport is None or request.transport.is_closing():
                        return response
                    await asyncio.sleep(0.02)
                await response.write(content[at : at + size])
                await asyncio.sleep(0.05)
        return response


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Source]:
    source = await asyncio.to_thread(Source)
    app = web.Application()
    app.router.add_get("/{number}.wav", source.send)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    source.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield source
    finally:
        await runner.cleanup()


@pytest.fixture
async def bench(postgres_url: str, redis_url: str, data_dir: Path) -> AsyncIterator[Bench]:
    settings = worker_settings(postgres_url, redis_url, data_dir, job_lease_s=2.0)
    async with open_bench(settings) as made:
        yield made


@pytest.mark.timeout(PATIENCE_S + 30.0 * KILLS + 60.0)
async def test_kill_9_of_the_worker(bench: Bench) -> None:
    began_s = time.monotonic()
    async with serving() as source:
        parent, jobs = await _submit(bench, source)
        points = await _kill(bench.settings, source)
        print(f"{KILLS} kills by {time.monotonic() - began_s:.0f} s, {dict(points)}")
        source.released = ITEMS
        with worker_process(bench.settings) as worker:
            done = await bench.succeeded(parent, PATIENCE_S)
            print(f"all done after {time.monotonic() - began_s:.0f} s")
            await _each_is_indexed_once(bench, source, jobs)
            assert isinstance(done.result, BatchResult)
            assert (done.result.counts.indexed, done.result.counts.failed) == (ITEMS, 0)
            async with asyncio.timeout(15):
                while bench.files_left():
                    await asyncio.sleep(0.1)
            worker.send_signal(signal.SIGTERM)
            await asyncio.to_thread(worker.wait, 20)
        assert list(bench.settings.scratch_dir.iterdir()) == []


async def _submit(bench: Bench, source: Source) -> tuple[Job, list[Job]]:
    """A job for each recording, and one that waits for them all."""
    parent, _ = await bench.jobs.submit(
        JobKind.FOLDER, "batch", FolderParameters("/"), max_attempts=1, params_digest=DIGEST
    )
    lease = await bench.jobs.claim(parent.id, 60.0)
    assert lease is not None
    urls = [f"{source.base}/{number}.wav" for number in range(ITEMS)]
    items = [
        NewJob(
            JobKind.INGEST,
            url_key(url),
            IngestParameters(url=url, title=f"recording {number}"),
            parent_id=parent.id,
            # Of many hosts, as the bound of one host is not what is tried here.
            source_host=f"{number % 7}.{source_host(url)}",
        )
        for number, url in enumerate(urls)
    ]
    jobs = await bench.jobs.submit_many(items, max_attempts=1000, params_digest=DIGEST)
    counts = BatchProgress(listed=ITEMS, listing_done=True)
    await bench.jobs.finish_listing(lease.token, counts, BatchResult(counts))
    return parent, jobs


async def _kill(settings: Settings, source: Source) -> Counter[str]:
    """Kills one worker after the other, most of them in the middle of their work; where."""
    chance = random.Random(SEED)
    points: Counter[str] = Counter()
    for number in range(KILLS):
        source.released = (number + 1) * ITEMS // (KILLS + 1)
        with worker_process(settings) as worker:
            if chance.random() < 0.15:
                await asyncio.sleep(chance.uniform(0.0, 4.0))
                points["at any time"] += 1
            else:
                await _until_it_asks(source, worker)
                await asyncio.sleep(chance.uniform(0.0, 3.0))
                points["at work"] += 1
            assert worker.poll() is None, "it ended by itself"
    return points


async def _until_it_asks(source: Source, worker: Popen[bytes]) -> None:
    asked = source.asked.total()
    async with asyncio.timeout(60):
        while source.asked.total() == asked:
            assert worker.poll() is None, "it ended by itself"
            await asyncio.sleep(0.01)


async def _each_is_indexed_once(bench: Bench, source: Source, jobs: list[Job]) -> None:
    shown = [await bench.get(job.id) for job in jobs]
    assert {job.state for job in shown} == {JobState.SUCCEEDED}
    print(f"attempts {dict(sorted(Counter(job.attempt for job in shown).items()))}")
    print(f"fetches {dict(sorted(Counter(source.asked.values()).items()))}")
    rows = await bench.pool.fetch(
        "SELECT v.title, v.duration_s, v.segment_count, v.landmark_count, count(*) AS segments,"
        " sum(a.landmark_count) AS landmarks FROM videos AS v"
        " JOIN audio_fingerprints AS a ON a.video_id = v.id GROUP BY v.id"
    )
    assert sorted(row["title"] for row in rows) == sorted(
        f"recording {number}" for number in range(ITEMS)
    )
    for row in rows:
        assert row["duration_s"] == pytest.approx(DURATION_S, abs=0.01)
        assert row["segments"] == row["segment_count"] == 1
        assert row["landmarks"] == row["landmark_count"] > 20
    for table in ("videos", "audio_fingerprints"):
        assert await bench.pool.fetchval(f"SELECT count(*) FROM {table}") == ITEMS
