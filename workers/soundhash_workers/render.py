"""A file's audio as plain PCM on disk, decoded in a process of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from soundhash_server.fetching.failures import JobError
from soundhash_workers.children import STALL_S, converse

if TYPE_CHECKING:  # loads FFmpeg, which only the children need
    from soundhash_workers.loudness import Loudness

RATE_HZ = 16_000
"""Of what is kept: mono, 16 bit, little-endian. Speech recognition takes it as it is."""
SAMPLE_BYTES = 2


@dataclass(frozen=True, slots=True)
class Rendered:
    """container: FFmpeg's name of the media's format. samples: written; 0 without a target.
    loudness: what was measured before it was brought to the target's; None: not measured."""

    container: str
    samples: int
    loudness: Loudness | None


def render(
    path: Path,
    target: Path | None,
    *,
    max_media_s: float,
    loudness: bool,
    min_free_disk_bytes: int,
    cancel: threading.Event,
    on_fraction: Callable[[float], None],
    stall_s: float = STALL_S,
) -> Rendered:
    """Writes a file's audio to ``target`` as PCM without any header; None: only looks at it.

    loudness: brings it to -23 LUFS, which takes two passes. Blocks: it belongs into a thread.
    Raises ChildCancelled within a fraction of a second after ``cancel`` is set, EngineError,
    JobError (DISK_FULL and those of a child that is lost), OSError.
    """
    arguments = (path, target, RATE_HZ, max_media_s, loudness, min_free_disk_bytes)
    container, total_s, measured, passes = "", 0.0, None, 2 if loudness else 1
    passed = 0
    with closing(converse(_run_child, arguments, cancel=cancel, stall_s=stall_s)) as answers:
        for answer in answers:
            match answer:
                case ("media", container_name, duration_s):
                    container, total_s = container_name, duration_s or 0.0
                case ("progress", done_s):
                    if total_s > 0:
                        on_fraction((passed + min(1.0, done_s / total_s)) / passes)
                case ("measured", found):
                    measured, passed = found, 1
                case ("done", samples):
                    return Rendered(container, samples, measured)
                case ("disk full",):
                    raise JobError("DISK_FULL", "Too little disk space is free.")
                case ("failed" | "error", Exception() as error):
                    raise error
    raise RuntimeError("a child's answers have no end of their own")


def _run_child(
    answers: Connection,
    path: Path,
    target: Path | None,
    rate_hz: int,
    max_media_s: float,
    loudness: bool,
    min_free_disk_bytes: int,
) -> None:
    # Loaded where the children are forked from, not in the worker itself.
    from soundhash_workers import render_child  # noqa: PLC0415

    render_child.run(answers, path, target, rate_hz, max_media_s, loudness, min_free_disk_bytes)
