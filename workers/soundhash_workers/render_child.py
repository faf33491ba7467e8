"""Writes one file's audio as plain PCM, in a process of its own (see render)."""

from __future__ import annotations

import contextlib
import shutil
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

import soundhash_workers.render  # noqa: F401 - children start in it
from soundhash_engine import EngineError
from soundhash_engine.decode import decode_file, probe
from soundhash_engine.types import Pcm
from soundhash_server.fetching.process import settle
from soundhash_workers.extract_child import MEMORY_BYTES
from soundhash_workers.loudness import measure, normalise

_PROGRESS_S = 0.2
_DISK_CHECK_BYTES = 16 << 20


def run(
    answers: Connection,
    path: Path,
    target: Path | None,
    rate_hz: int,
    max_media_s: float,
    loudness: bool,
    min_free_disk_bytes: int,
) -> None:
    """Sends ("media", container, s | None), then, with a target, ("progress", s) as it comes and
    ("measured", Loudness | None) if asked for; at last ("done", samples), ("disk full",),
    ("failed", EngineError) or ("error", OSError)."""
    settle(MEMORY_BYTES)
    try:
        info = probe(path)
        answers.send(("media", info.container, info.duration_s))
        samples = 0
        if target is not None:
            audio = _Audio(answers, path, rate_hz, max_media_s)
            chunks = audio.decoded()
            if loudness:
                found = measure(chunks, rate_hz)
                answers.send(("measured", found))
                chunks = normalise(audio.decoded(), rate_hz, found)
            samples = _write(chunks, target, min_free_disk_bytes)
        answers.send(("done", samples))
    except _DiskFullError:
        answers.send(("disk full",))
    except EngineError as error:
        answers.send(("failed", error))
    except (OSError, MemoryError) as error:
        with contextlib.suppress(BrokenPipeError):
            answers.send(("error", error))
    except Exception as error:
        # A mistake of ours, and not for the parent to unpickle.
        traceback.print_exc()
        answers.send(("error", RuntimeError(f"{type(error).__name__} while rendering")))


class _DiskFullError(Exception):
    pass


class _Audio:
    """A file's audio, as often as it is wanted, and how far it has come."""

    def __init__(self, answers: Connection, path: Path, rate_hz: int, max_media_s: float) -> None:
        self._answers = answers
        self._path = path
        self._rate_hz = rate_hz
        self._max_media_s = max_media_s

    def decoded(self) -> Iterator[Pcm]:
        samples, told_s = 0, time.monotonic()
        for pcm in decode_file(self._path, max_duration_s=self._max_media_s, rate_hz=self._rate_hz):
            samples += pcm.size
            now_s = time.monotonic()
            if now_s - told_s >= _PROGRESS_S:
                told_s = now_s
                self._answers.send(("progress", samples / self._rate_hz))
            yield pcm


def _write(chunks: Iterator[Pcm], target: Path, min_free_disk_bytes: int) -> int:
    samples, checked = 0, -_DISK_CHECK_BYTES
    with target.open("wb") as file:
        for pcm in chunks:
            if 2 * samples - checked >= _DISK_CHECK_BYTES:
                checked = 2 * samples
                if shutil.disk_usage(target.parent).free < min_free_disk_bytes:
                    raise _DiskFullError
            scaled = np.clip(np.rint(pcm * 32768.0), -32768, 32767)
            file.write(scaled.astype("<i2").tobytes())
            samples += pcm.size
    return samples
