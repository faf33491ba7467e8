"""Where decoding and matching run: a few threads, a bounded line before them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from soundhash_server.errors import ErrorKind, PlatformError

T = TypeVar("T")

MAX_PENDING_BYTES = 256 << 20
"""Most bytes of clips that wait or run: a few large ones fill the line as many small ones do."""


class Abandoned(Exception):  # noqa: N818 - not an error: nobody waits for the result
    """Raised inside a piece of work whose caller has gone."""


class CpuPool:
    """Runs functions that release the GIL for most of their time.

    Work whose caller has gone is not begun; work under way learns of it at its next
    ``check()``. A place in the line is free again when the work has really ended.
    """

    def __init__(self, threads: int, max_pending: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="cpu")
        self.threads = threads
        """Pieces of work that run at once."""
        self._max_pending = max_pending
        self._pending = 0
        self._pending_bytes = 0

    @property
    def pending(self) -> int:
        """Pieces of admitted work that wait or run."""
        return self._pending

    async def run(self, work: Callable[[Callable[[], None]], T], *, held_bytes: int = 0) -> T:
        """Runs ``work(check)`` when a thread is free.

        held_bytes: what waits in memory with it. Raises PlatformError RESOURCE_EXHAUSTED
        (SERVER_BUSY) when the line is full.
        """
        full = self._pending_bytes + held_bytes > MAX_PENDING_BYTES and self._pending > 0
        if full or self._pending >= self._max_pending:
            raise busy("clips", self._pending)
        loop = asyncio.get_running_loop()
        self._pending += 1
        self._pending_bytes += held_bytes
        future, gone = self._submit(work)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release, held_bytes))
        return await _result(future, gone)

    async def run_admitted(self, work: Callable[[Callable[[], None]], T]) -> T:
        """Like ``run`` for work that was admitted by another bound, such as a stream's steps."""
        return await _result(*self._submit(work))

    def close(self) -> None:
        """Forgets what has not begun; waits for what has."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _release(self, held_bytes: int) -> None:
        self._pending -= 1
        self._pending_bytes -= held_bytes

    def _submit(self, work: Callable[[Callable[[], None]], T]) -> tuple[Future[T], threading.Event]:
        gone = threading.Event()

        def check() -> None:
            if gone.is_set():
                raise Abandoned

        return self._threads.submit(work, check), gone


async def _result(future: Future[T], gone: threading.Event) -> T:
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        gone.set()
        raise


def busy(what: str, limit: int) -> PlatformError:
    """RESOURCE_EXHAUSTED: try again in a moment."""
    return PlatformError(
        ErrorKind.RESOURCE_EXHAUSTED,
        "SERVER_BUSY",
        f"The server already works on {limit} {what}.",
        "Try again after the given delay, or send fewer at once.",
        retry_after_s=1.0,
        metadata={"limit": str(limit)},
    )
