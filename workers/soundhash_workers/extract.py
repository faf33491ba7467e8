"""Files to fingerprints, each decoded in a process of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from soundhash_engine import PARAMS, Segment
from soundhash_server.fetching.failures import JobError
from soundhash_workers.children import STALL_S, ChildCancelled, converse

OnAudio = Callable[[float, float | None], None]
"""Called with the seconds of audio done and the total that the container states, if any."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """What is stored of a recording."""

    segments: tuple[Segment, ...]
    duration_s: float
    landmark_count: int


ExtractionCancelled = ChildCancelled


def extract(
    path: Path,
    *,
    max_media_s: float,
    cancel: threading.Event,
    on_audio: OnAudio,
    stall_s: float = STALL_S,
    segment_s: int = PARAMS.segment_s,
) -> Extracted:
    """Decodes and fingerprints a file; blocks, so that it belongs into a thread.

    segment_s: length of its segments. stall_s: a decoder that brings nothing for this long is
    killed.
    Raises ExtractionCancelled within a fraction of a second after ``cancel`` is set,
    EngineError for media without usable sound, JobError (DECODE_STALLED, DECODE_CRASHED,
    OUT_OF_MEMORY, SILENT_AUDIO, CLIP_TOO_SHORT), OSError.
    """
    found = _receive((path, max_media_s, segment_s), cancel, on_audio, stall_s)
    if found.duration_s < PARAMS.min_clip_s:
        raise JobError("CLIP_TOO_SHORT", f"The recording lasts {found.duration_s:.2f} s only.")
    if found.landmark_count == 0:
        raise JobError("SILENT_AUDIO", "There is nothing to be heard in the recording.")
    return found


def _run_child(answers: Connection, path: Path, max_media_s: float, segment_s: int) -> None:
    # Loaded where the children are forked from, not in the worker itself.
    from soundhash_workers import extract_child  # noqa: PLC0415

    extract_child.run(answers, path, max_media_s, segment_s)


def _receive(
    arguments: tuple[Path, float, int],
    cancel: threading.Event,
    on_audio: OnAudio,
    stall_s: float,
) -> Extracted:
    segments: list[Segment] = []
    total_s: float | None = None
    with closing(converse(_run_child, arguments, cancel=cancel, stall_s=stall_s)) as answers:
        for answer in answers:
            match answer:
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
    raise RuntimeError("a child's answers have no end of their own")
