"""Work on untrusted files in processes of its own, which can be killed at any time.

Decoders are native code: one may hang, crash or eat memory. In its own process that costs one
job and no other. Children are forked from a server process that has all loaded and no threads,
in some milliseconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from multiprocessing.connection import Connection
from typing import Any

from soundhash_server.fetching.decoders import crash_of, end_process
from soundhash_server.fetching.failures import JobError
from soundhash_workers.forks import CONTEXT, PROCESSES

STALL_S = 120.0
_POLL_S = 0.1


class ChildCancelled(Exception):  # noqa: N818 - no error
    """`cancel` was set."""


def converse(
    target: Callable[..., None],
    arguments: tuple[object, ...],
    *,
    cancel: threading.Event,
    stall_s: float = STALL_S,
) -> Generator[Any, None, None]:
    """Runs ``target(answers, *arguments)`` in a child and yields what it sends.

    The child is gone when this ends, is closed or raises; it sends something last that tells the
    caller to read no more. stall_s: one that sends nothing for this long is killed. Blocks, so
    that it belongs into a thread.

    Raises ChildCancelled within a fraction of a second after ``cancel`` is set, JobError
    (DECODE_STALLED, DECODE_CRASHED, OUT_OF_MEMORY).
    """
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=target, args=(theirs, *arguments), daemon=True)
    with ours:
        try:
            with theirs, PROCESSES:
                process.start()
            yield from _receive(ours, cancel, stall_s)
        except EOFError:
            raise crash_of(process) from None
        finally:
            end_process(process)


def _receive(answers: Connection, cancel: threading.Event, stall_s: float) -> Iterator[Any]:
    heard_s = time.monotonic()
    while True:
        if cancel.is_set():
            raise ChildCancelled
        if not answers.poll(_POLL_S):
            if time.monotonic() - heard_s > stall_s:
                raise JobError("DECODE_STALLED", f"The decoder brings nothing for {stall_s:g} s.")
            continue
        heard_s = time.monotonic()
        yield answers.recv()
