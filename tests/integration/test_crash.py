"""kill -9 of anything at any moment loses nothing and doubles nothing.

A whole embedded platform takes in recordings, by upload and by URL, while its processes are
killed one after the other in the middle of their work. SOUNDHASH_CRASH_KILLS (6),
SOUNDHASH_CRASH_RECORDINGS (12) and SOUNDHASH_CRASH_SEED (1) make it harder.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import asyncpg
import psutil
import pytest
from tests.loopback import Loopback, serving
from tests.media import encode
from tests.platforms import RunningPlatform, run_platform
from tests.sounds import tune

import soundhash
from soundhash_server.embedded_platform import Embedded
from soundhash_server.settings import Settings

KILLS = int(os.environ.get("SOUNDHASH_CRASH_KILLS", "6"))
RECORDINGS = int(os.environ.get("SOUNDHASH_CRASH_RECORDINGS", "12"))
SEED = int(os.environ.get("SOUNDHASH_CRASH_SEED", "1"))
DURATION_S = 40.0
CLIP_START_S = 17.0
PATIENCE_S = 90.0 + 2 * KILLS
TARGETS = ("worker", "server", "valkey", "postgres")
WORDS = {
    "worker": ("soundhash_workers",),
    "server": ("soundhash_server", "serve"),
    "valkey": ("valkey-server",),
    "postgres": ("bin/postgres",),
}
SETTINGS = {
    "JOB_LEASE_S": "2",
    "SWEEP_S": "0.2",
    "RETRY_BASE_S": "0.1",
    "RETRY_CAP_S": "1",
    "JOB_MAX_ATTEMPTS": "1000",
    "ALLOW_PRIVATE_URLS": "1",
    "MIN_FREE_DISK_BYTES": "0",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Recording:
    title: str
    content: bytes
    clip: bytes


def _recording(number: int) -> Recording:
    pcm = tune(DURATION_S, seed=500 + number)
    start = int(CLIP_START_S * 8000)
    return Recording(f"recording {number}", encode(pcm), encode(pcm[start : start + 48_000], "mp3"))


class SlowFile(io.BytesIO):
    """Takes about half a second to be read."""

    def read(self, size: int | None = -1, /) -> bytes:
        time.sleep(0.05)
        part = len(self.getbuffer()) // 10
        return super().read(part if size is None or size < 0 else min(size, part))


@pytest.mark.timeout(PATIENCE_S + 120)
async def test_kill_9_of_everything(tmp_path: Path) -> None:
    recordings = [await asyncio.to_thread(_recording, number) for number in range(RECORDINGS)]
    began_s = time.monotonic()
    async with serving(b"") as web:
        with (
            run_platform(tmp_path, SETTINGS) as platform,
            soundhash.Client(platform.address) as client,
        ):
            print(f"ready after {time.monotonic() - began_s:.1f} s")
            submitting = [
                asyncio.create_task(_submit(client, web, number, recording))
                for number, recording in enumerate(recordings)
            ]
            killed = await _kill(platform, client)
            print(f"killed {dict(killed)} by {time.monotonic() - began_s:.1f} s")
            assert killed.total() == KILLS
            job_ids = await asyncio.gather(*submitting)
            assert len(set(job_ids)) == RECORDINGS
            for job_id in job_ids:
                await _patiently(lambda job_id=job_id: client.wait_for_job(job_id, timeout_s=60))
            print(f"all done after {time.monotonic() - began_s:.1f} s")
            jobs = await _patiently(lambda: list(client.jobs()))
            assert {job.id: job.state.value for job in jobs} == dict.fromkeys(job_ids, "SUCCEEDED")
            print(f"attempts {dict(Counter(job.attempt for job in jobs))}")
            videos = {job.video_id for job in jobs}
            await _each_is_indexed_once(platform, recordings, videos)
            await _each_is_found(client, recordings)
            await _nothing_is_left(platform.data_dir)


async def _submit(
    client: soundhash.Client, web: Loopback, number: int, recording: Recording
) -> str:
    """Sends a recording until a job for it is there; the job's id."""
    # Spread over the time of the killing.
    await asyncio.sleep(number * 0.8 * KILLS / RECORDINGS)
    if number % 3:
        job = await _patiently(
            lambda: client.upload(SlowFile(recording.content), title=recording.title)
        )
        return job.id
    name = f"{number}.wav"
    web.slow_media[name] = recording.content
    job = await _patiently(
        lambda: client.submit_url(web.url(f"/slow/{name}"), title=recording.title)
    )
    return job.id


async def _kill(platform: RunningPlatform, client: soundhash.Client) -> Counter[str]:
    """Kills processes in a random order, each while there is something to do."""
    chance = random.Random(SEED)
    order = [TARGETS[at % len(TARGETS)] for at in range(KILLS)]
    chance.shuffle(order)
    killed: Counter[str] = Counter()
    for target in order:
        await _process(platform, target)
        await _until_something_runs(client)
        await asyncio.sleep(chance.uniform(0.0, 0.5))
        (await _process(platform, target)).kill()
        killed[target] += 1
    return killed


async def _process(platform: RunningPlatform, target: str) -> psutil.Process:
    """The process of this kind, as soon as there is one."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for child in psutil.Process(platform.up.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    line = " ".join(child.cmdline())
                    if all(word in line for word in WORDS[target]):
                        return child
            await asyncio.sleep(0.05)


async def _until_something_runs(client: soundhash.Client) -> None:
    """Waits for a job under way, but not for long: killing the idle is worth a try too."""
    deadline_s = time.monotonic() + 2.0
    while time.monotonic() < deadline_s:
        try:
            if await asyncio.to_thread(
                lambda: list(client.jobs(states=["RUNNING"], limit=1, timeout_s=1.0))
            ):
                return
        except soundhash.SoundHashError:
            pass
        await asyncio.sleep(0.05)


async def _patiently(call: Callable[[], T]) -> T:
    """The call's answer, however often the platform is away meanwhile."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await asyncio.to_thread(call)
        except (soundhash.Unavailable, soundhash.DeadlineExceeded):
            if time.monotonic() > deadline_s:
                raise
        await asyncio.sleep(0.1)


async def _each_is_indexed_once(
    platform: RunningPlatform, recordings: list[Recording], video_ids: set[str]
) -> None:
    settings = Settings.from_env({}, data_dir=platform.data_dir)
    connection = await asyncpg.connect(Embedded(settings).settings.database_url)
    try:
        rows = await connection.fetch(
            "SELECT v.id, v.title, v.duration_s, v.segment_count, v.landmark_count,"
            " count(*) AS segments, sum(a.landmark_count) AS landmarks"
            " FROM videos AS v JOIN audio_fingerprints AS a ON a.video_id = v.id GROUP BY v.id"
        )
        lone = await connection.fetchval(
            "SELECT count(*) FROM audio_fingerprints WHERE video_id NOT IN (SELECT id FROM videos)"
        )
    finally:
        await connection.close()
    assert sorted(row["title"] for row in rows) == sorted(one.title for one in recordings)
    assert {str(row["id"]) for row in rows} == video_ids
    assert lone == 0
    for row in rows:
        assert row["duration_s"] == pytest.approx(DURATION_S, abs=0.01)
        assert row["segments"] == row["segment_count"] == 1
        assert row["landmarks"] == row["landmark_count"] > 100


async def _each_is_found(client: soundhash.Client, recordings: list[Recording]) -> None:
    deadline_s = time.monotonic() + 15.0
    for recording in recordings:
        while True:
            found = await _patiently(lambda clip=recording.clip: client.match(clip))
            if found.matches or time.monotonic() > deadline_s:
                break
            await asyncio.sleep(0.2)
        assert [match.title for match in found.matches] == [recording.title]
        (match,) = found.matches
        start_s = match.video_start_s - match.clip_start_s
        assert start_s == pytest.approx(CLIP_START_S, abs=0.3)


async def _nothing_is_left(data_dir: Path) -> None:
    """No upload, no download: what the killed have left is removed within seconds."""
    async with asyncio.timeout(15):
        while any(
            path.is_file() and path.suffix != ".lock"
            for folder in ("uploads", "scratch")
            for path in (data_dir / folder).rglob("*")
        ):
            await asyncio.sleep(0.1)
