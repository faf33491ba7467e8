"""Notices that something in a folder changes."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from watchfiles import Change, awatch

from soundhash_server.tasks import end
from soundhash_workers.folder_walk import EMPTY_MARK, is_ignored

_DEBOUNCE_MS = 500
_TIMEOUT_MS = 1000
_BEGIN_AGAIN_S = 5.0

log = structlog.get_logger(__name__)


class Changes:
    """Tells that there were changes below a folder, as long as the block lasts.

    Where the system tells nothing (network disks, too many folders for its limits) it stays
    silent: who waits looks by himself from time to time.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._listen(), name="folder changes")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            await end(self._task)

    def clear(self) -> None:
        """What happened until now is known."""
        self._changed.clear()

    async def wait(self, timeout_s: float) -> None:
        """Until something has changed since `clear`, or for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    async def _listen(self) -> None:
        complained = False
        while True:
            try:
                async for _ in awatch(
                    self._root,
                    watch_filter=_matters,
                    debounce=_DEBOUNCE_MS,
                    rust_timeout=_TIMEOUT_MS,
                    ignore_permission_denied=True,
                ):
                    self._changed.set()
            except Exception as error:  # of the system's watching, in many forms
                if not complained:
                    log.warning("changes are not noticed at once", why=type(error).__name__)
                complained = True
            await asyncio.sleep(_BEGIN_AGAIN_S)
            # Nobody knows what happened meanwhile.
            self._changed.set()


def _matters(change: Change, path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name == EMPTY_MARK or not is_ignored(name)
