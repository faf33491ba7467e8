"""Files to fingerprints, each decoded in a process of its own.

What comes in is untrusted and decoders are native code: one may hang, crash or eat memory. In
its own process that costs one job and no other, and a cancelled job stops at once. Children are
forked from a server process that has the engine loaded and no threads, in some milliseconds.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from soundhash_engine import PARAMS, Segment
from soundhash_server.fetching.failures import JobError
from soundhash_workers.forks import CONTEXT

_STALL_S = 120.0
_POLL_S = 0.1
_EXIT_S = 5.0
_SERVER_GONE = 255
"""multiprocessing's exit status of a child whose fork server has vanished, and it with that."""

# Starting one process looks after all others, which multiprocessing does not guard.
_processes = threading.Lock()

OnAudio = Callable[[float, float | None], None]
"""Called with the seconds of audio done and the total that the container states, if any."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """What is stored of a recording."""

    segments: tuple[Segment, ...]
    duration_s: float
    landmark_count: int


class ExtractionCancelled(Exception):  # noqa: N818 - no error
    """`cancel` was set."""


def extract(
    path: Path,
    *,
    max_media_s: float,
    cancel: threading.Event,
    on_audio: OnAudio,
    stall_s: float = _STALL_S,
) -> Extracted:
    """Decodes and fingerprints a file; blocks, so that it belongs into a thread.

    stall_s: a decoder that brings nothing for this long is killed.
    Raises ExtractionCancelled within a fraction of a second after ``cancel`` is set,
    EngineError for media without usable sound, JobError (DECODE_STALLED, DECODE_CRASHED,
    OUT_OF_MEMORY, SILENT_AUDIO, CLIP_TOO_SHORT), OSError.
    """
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_run_child, args=(theirs, path, max_media_s), daemon=True)
    with ours:
        try:
            with theirs, _processes:
                process.start()
            found = _receive(ours, cancel, on_audio, stall_s)
        except EOFError:
            raise _crash(process) from None
        finally:
            _end(process)
    if found.duration_s < PARAMS.min_clip_s:
        raise JobError("CLIP_TOO_SHORT", f"The recording lasts {found.duration_s:.2f} s only.")
    if found.landmark_count == 0:
        raise JobError("SILENT_AUDIO", "There is nothing to be heard in the recording.")
    return found


def _run_child(answers: Connection, path: Path, max_media_s: float) -> None:
    # Loaded where the children are forked from, not in the worker itself.
    from soundhash_workers import extract_child  # noqa: PLC0415

    extract_child.run(answers, path, max_media_s)


def _receive(
    answers: Connection, cancel: threading.Event, on_audio: OnAudio, stall_s: float
) -> Extracted:
    segments: list[Segment] = []
    total_s: float | None = None
    heard_s = time.monotonic()
    while True:
        if cancel.is_set():
            raise ExtractionCancelled
        if not answers.poll(_POLL_S):
            if time.monotonic() - heard_s > stall_s:
                raise JobError("DECODE_STALLED", f"The decoder brings nothing for {stall_s:g} s.")
            continue
        heard_s = time.monotonic()
        match answers.recv():
            case ("segment", segment):
                segments.append(segment)
            case ("total", total):
                total_s = total
                on_audio(0.0, total_s)
            case ("progress", done_s):
                on_audio(done_s, total_s)
            case ("done", duration_s, landmark_count):
                on_audio(duration_s, duration_s)
                return Extracted(tuple(segments), duration_s, landmark_count)
            case ("failed" | "error", Exception() as error):
                raise error


def _crash(process: ForkServerProcess) -> JobError:
    status: int | None = _SERVER_GONE
    with _processes:
        if process.pid is not None:
            process.join(_EXIT_S)
            status = process.exitcode
    if status in (-signal.SIGKILL, _SERVER_GONE):
        # What the kernel does when memory runs out; nobody else kills it here.
        return JobError("OUT_OF_MEMORY", "The decoder was killed.")
    return JobError("DECODE_CRASHED", f"The decoder crashed (status {status}).")


def _end(process: ForkServerProcess) -> None:
    with _processes:
        if process.pid is None:
            return
        process.join(0)
        if process.exitcode is None:
            process.kill()
            process.join(_EXIT_S)
        if process.exitcode is not None:
            process.close()
