"""What the process that a worker's children are forked from has loaded."""

from __future__ import annotations

from soundhash_server.forks import CONTEXT, PROCESSES, preload, prepare

__all__ = ["CONTEXT", "PROCESSES", "prepare"]

preload("soundhash_workers.extract_child", "soundhash_workers.render_child")
