"""The process that decoding children are forked from: the engine loaded, no threads."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing import forkserver

CONTEXT = multiprocessing.get_context("forkserver")

# Starting one process looks after all others, which multiprocessing does not guard.
PROCESSES = threading.Lock()
"""Held while a child is started, joined or closed."""

_preloaded: list[str] = []


def preload(*modules: str) -> None:
    """Has the fork server load these, too; after it has begun, that comes too late."""
    _preloaded.extend(name for name in modules if name not in _preloaded)
    CONTEXT.set_forkserver_preload(_preloaded)


preload("soundhash_server.fetching.live.decoding_child")


def prepare() -> None:
    """Begins to load the engine in the background; the first child waits for the rest.

    Called early, this overlaps with loading the process itself.
    """
    # Linear algebra of a child on all cores would only be in the way of the others.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    forkserver.ensure_running()
