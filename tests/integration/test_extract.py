"""Decoding in a process of its own: what hangs, crashes or is unwanted ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.media import encode
from tests.sounds import tune

from soundhash_engine import DecodeError, decode_bytes
from soundhash_engine import extract as extract_pcm
from soundhash_server.fetching.failures import JobError
from soundhash_workers.extract import Extracted, ExtractionCancelled, extract


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A file that no decoder ever gets a byte of."""
    path = tmp_path / "endless.wav"
    os.mkfifo(path)
    return path


def _extract(
    path: Path, cancel: threading.Event | None = None, *, stall_s: float = 60.0, max_s: float = 1e5
) -> Extracted:
    return extract(
        path,
        max_media_s=max_s,
        cancel=cancel or threading.Event(),
        on_audio=lambda done_s, total_s: None,
        stall_s=stall_s,
    )


def _children() -> set[psutil.Process]:
    """The processes that are decoding: children of our children."""
    return {
        child for server in psutil.Process().children() for child in server.children(recursive=True)
    }


@contextmanager
def _hanging(path: Path) -> Iterator[tuple[Future[Extracted], psutil.Process, threading.Event]]:
    """An extraction that has begun and cannot go on, its process, and how to cancel it."""
    before = _children()
    cancel = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(_extract, path, cancel)
        try:
            deadline_s = time.monotonic() + 30
            while not (found := _children() - before):
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
            yield running, found.pop(), cancel
        finally:
            cancel.set()


def test_what_comes_out_is_what_the_engine_says(tmp_path: Path) -> None:
    content = encode(tune(100.0, seed=21), "mp3", rate_hz=44100)
    path = tmp_path / "song.mp3"
    path.write_bytes(content)
    heard: list[tuple[float, float | None]] = []
    found = extract(
        path,
        max_media_s=1e5,
        cancel=threading.Event(),
        on_audio=lambda done_s, total_s: heard.append((done_s, total_s)),
    )
    assert list(found.segments) == extract_pcm(decode_bytes(content))
    assert found.landmark_count == sum(part.landmark_count for part in found.segments)
    assert found.duration_s == pytest.approx(100.0, abs=0.1)
    assert heard[0] == (0.0, pytest.approx(100.0, abs=0.1))
    assert heard[-1] == (found.duration_s, found.duration_s)


def test_errors_of_decoding_come_through(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(encode(tune(10.0), "wav"))
    with pytest.raises(DecodeError) as caught:
        _extract(path, max_s=5.0)
    assert caught.value.reason == "MEDIA_TOO_LONG"
    with pytest.raises(FileNotFoundError):
        _extract(tmp_path / "nothing")


def test_a_decoder_that_hangs_is_killed(fifo: Path) -> None:
    before = _children()
    with pytest.raises(JobError) as caught:
        _extract(fifo, stall_s=0.3)
    assert caught.value.failure.reason == "DECODE_STALLED"
    assert _children() <= before


def test_a_cancelled_decoder_is_gone_at_once(fifo: Path) -> None:
    with _hanging(fifo) as (running, process, cancel):
        cancel.set()
        started_s = time.monotonic()
        assert isinstance(running.exception(timeout=10), ExtractionCancelled)
        assert time.monotonic() - started_s < 1.0
    assert not process.is_running()


@pytest.mark.parametrize(
    ("number", "reason", "transient"),
    [(signal.SIGSEGV, "DECODE_CRASHED", False), (signal.SIGKILL, "OUT_OF_MEMORY", True)],
)
def test_a_decoder_that_dies_fails_its_job_alone(
    fifo: Path, tmp_path: Path, number: signal.Signals, reason: str, transient: bool
) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(encode(tune(3.0), "wav"))
    with _hanging(fifo) as (running, process, _):
        process.send_signal(number)
        error = running.exception(timeout=10)
        assert isinstance(error, JobError)
        assert (error.failure.reason, error.failure.transient) == (reason, transient)
        assert _extract(path).duration_s == pytest.approx(3.0, abs=0.01)


def test_a_fork_server_that_dies_is_replaced(fifo: Path, tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(encode(tune(3.0), "wav"))
    with _hanging(fifo) as (running, process, _):
        server = process.parent()
        assert server is not None and server.pid != os.getpid()
        server.kill()
        error = running.exception(timeout=10)
        assert isinstance(error, JobError)
        assert error.failure.transient
        deadline_s = time.monotonic() + 10
        with contextlib.suppress(psutil.NoSuchProcess):
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
        assert _extract(path).duration_s == pytest.approx(3.0, abs=0.01)


def test_a_header_that_promises_the_absurd(tmp_path: Path) -> None:
    # 60000 channels at 4 GHz.
    path = tmp_path / "wide.wav"
    data = np.zeros(1 << 16, "<i2").tobytes()
    header = struct.pack("<HHIIHH", 1, 60_000, 4_000_000_000, 4_000_000_000, 54_464, 16)
    chunks = b"fmt " + struct.pack("<I", 16) + header + b"data" + struct.pack("<I", len(data))
    path.write_bytes(b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVE" + chunks + data)
    with pytest.raises((DecodeError, MemoryError, JobError)):
        _extract(path)
