"""Decodes and fingerprints one file, in a process of its own (see extract).

Importing this loads all that a child needs and the engine's kernels, once, in the process that
the children are forked from; it must stay free of threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import soundhash_workers.extract  # noqa: F401 - children start in it
from soundhash_engine import PARAMS, SAMPLE_RATE_HZ, EngineError, Extractor
from soundhash_engine.decode import decode_file, probe
from soundhash_engine.warm import warm
from soundhash_server.fetching.process import settle

PROGRESS_S = 0.2
MEMORY_BYTES = 3 << 29
"""A file that wants gigabytes is no recording."""

warm()


def run(answers: Connection, path: Path, max_media_s: float, segment_s: int) -> None:
    """Sends ("total", s | None), then ("progress", s) and ("segment", Segment) as they come, and
    at last ("done", duration_s, landmark_count), ("failed", EngineError) or ("error", OSError).
    """
    settle(MEMORY_BYTES)
    try:
        _extract(answers, path, max_media_s, segment_s)
    except EngineError as error:
        answers.send(("failed", error))
    except (OSError, MemoryError) as error:
        with contextlib.suppress(BrokenPipeError):
            answers.send(("error", error))
    except Exception as error:
        # A mistake of ours, and not for the parent to unpickle.
        traceback.print_exc()
        answers.send(("error", RuntimeError(f"{type(error).__name__} while extracting")))


def _extract(answers: Connection, path: Path, max_media_s: float, segment_s: int) -> None:
    answers.send(("total", probe(path).duration_s))
    extractor = Extractor(dataclasses.replace(PARAMS, segment_s=segment_s))
    samples, told_s = 0, time.monotonic()
    for pcm in decode_file(path, max_duration_s=max_media_s):
        samples += pcm.size
        for segment in extractor.push(pcm):
            answers.send(("segment", segment))
        now_s = time.monotonic()
        if now_s - told_s >= PROGRESS_S:
            told_s = now_s
            answers.send(("progress", samples / SAMPLE_RATE_HZ))
    for segment in extractor.finish():
        answers.send(("segment", segment))
    answers.send(("done", extractor.duration_s, extractor.landmarks_count))
