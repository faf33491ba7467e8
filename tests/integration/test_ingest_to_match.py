"""The main job, from a recording to the answer, over real processes: two servers, one worker."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.media import encode
from tests.platforms import RunningPlatform
from tests.sounds import hiss, tune

import soundhash

VISIBLE_S = 5.0
"""What is committed is matched everywhere within this time."""


@pytest.fixture(scope="module")
def clients(platform: RunningPlatform) -> Iterator[tuple[soundhash.Client, soundhash.Client]]:
    """Callers of the platform's server and of a second one beside it."""
    with (
        _second_server(platform) as address,
        soundhash.Client(platform.address) as first,
        soundhash.Client(address) as second,
    ):
        yield first, second


@contextlib.contextmanager
def _second_server(platform: RunningPlatform) -> Iterator[str]:
    readable, writable = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "soundhash_server", "serve"],
        env={**platform.environment, "SOUNDHASH_READY_FD": str(writable)},
        pass_fds=(writable,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writable)
    try:
        with os.fdopen(readable) as pipe:
            port = pipe.readline().strip()
        assert port, "the second server did not start"
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(20) == 0


def _within(seconds: float, condition: Callable[[], bool]) -> float:
    """Waits until the condition holds; how long that took."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < seconds, "it took too long"
        time.sleep(0.05)
    return time.monotonic() - began_s


def test_a_clip_finds_its_video_on_every_server(
    clients: tuple[soundhash.Client, soundhash.Client], tmp_path: Path
) -> None:
    first, second = clients
    pcm = tune(120.0, seed=41)
    path = tmp_path / "The song.ogg"
    path.write_bytes(encode(pcm, "ogg", rate_hz=44100))
    # Six seconds over the border between two segments, noisy, at a low bit rate.
    clip = pcm[87 * 8000 : 93 * 8000]
    noise = hiss(clip.size, 7) / 32768 * np.sqrt(np.mean(clip**2)) * 0.3
    degraded = encode((clip + noise).astype(np.float32), "mp3", rate_hz=22050, bit_rate=24_000)
    assert all(client.match(degraded).matches == () for client in clients)

    states = [job.state.value for job in first.watch_job(first.upload(path).id, timeout_s=30)]
    assert states[-1] == "SUCCEEDED"
    for client in clients:
        _within(VISIBLE_S, lambda client=client: client.match(degraded).matches != ())
        (match,) = client.match(degraded).matches
        assert match.title == "The song"
        assert match.video_start_s - match.clip_start_s == pytest.approx(87.0, abs=0.1)
        assert match.video_end_s - match.video_start_s > 4.0
        assert match.speed == pytest.approx(1.0, abs=0.01)
        assert match.confidence > 0.9

    # Deleted on one, it is gone on both; sent again, it is another video.
    first.delete_video(match.video_id)
    for client in clients:
        _within(VISIBLE_S, lambda client=client: client.match(degraded).matches == ())
    job = second.wait_for_job(second.upload(path).id, timeout_s=30)
    assert job.video_id not in ("", match.video_id)
    for client in clients:
        _within(VISIBLE_S, lambda client=client: client.match(degraded).matches != ())
        assert [found.video_id for found in client.match(degraded).matches] == [job.video_id]


def test_a_job_can_be_followed(
    clients: tuple[soundhash.Client, soundhash.Client], tmp_path: Path
) -> None:
    first, second = clients
    path = tmp_path / "long.wav"
    # Long enough to be seen at work: four minutes, ten times over.
    path.write_bytes(encode(np.tile(tune(240.0, seed=42), 10)))
    # Watched on the other server.
    seen = list(second.watch_job(first.upload(path).id, timeout_s=60))
    done = seen[-1]
    assert (done.state.value, done.attempt) == ("SUCCEEDED", 1)
    assert done.progress.audio_done_s == pytest.approx(2400.0, abs=0.1)
    working = [job.progress for job in seen if job.state.value == "RUNNING"]
    assert any(0 < progress.audio_done_s < 2400 for progress in working), working
    assert any(0.0 < progress.fraction < 1.0 for progress in working)
    order = [progress.audio_done_s for progress in working]
    assert order == sorted(order)
