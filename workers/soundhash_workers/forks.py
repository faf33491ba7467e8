"""The process that decoding children are forked from: the engine loaded, no threads."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["soundhash_workers.extract_child", "soundhash_workers.render_child"]
)


def prepare() -> None:
    """Begins to load the engine in the background; the first extraction waits for the rest.

    Called early, this overlaps with loading the worker itself.
    """
    # Linear algebra of a child on all cores would only be in the way of the others.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    forkserver.ensure_running()
