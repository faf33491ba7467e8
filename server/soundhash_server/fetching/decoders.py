"""How decoders that were forked end: by themselves, killed, or with their fork server."""

from __future__ import annotations

import signal
from multiprocessing.context import ForkServerProcess

from soundhash_server.fetching.failures import JobError
from soundhash_server.forks import PROCESSES

_EXIT_S = 5.0
_SERVER_GONE = 255
"""multiprocessing's exit status of a child whose fork server has vanished, and it with that."""


def crash_of(process: ForkServerProcess) -> JobError:
    """Why a decoder has ended without an answer: OUT_OF_MEMORY or DECODE_CRASHED."""
    status: int | None = _SERVER_GONE
    with PROCESSES:
        if process.pid is not None:
            process.join(_EXIT_S)
            status = process.exitcode
    if status in (-signal.SIGKILL, _SERVER_GONE):
        # What the kernel does when memory runs out; nobody else kills it here.
        return JobError("OUT_OF_MEMORY", "The decoder was killed.")
    return JobError("DECODE_CRASHED", f"The decoder crashed (status {status}).")


def end_process(process: ForkServerProcess) -> None:
    """Kills it if it still runs, and frees it; may block for some seconds."""
    with PROCESSES:
        if process.pid is None:
            return
        process.join(0)
        if process.exitcode is None:
            process.kill()
            process.join(_EXIT_S)
        if process.exitcode is not None:
            process.close()
