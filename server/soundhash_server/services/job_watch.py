"""Tells those who watch a job that it may have changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from uuid import UUID

from soundhash_server.store.listener import Listener

CHANNEL = "soundhash_jobs"
LONGEST_WAIT_S = 1.0
"""Watchers look again after this even if nothing was heard: announcements can be lost."""


class Changes:
    """One watcher's flag; however many changes come, it is one flag."""

    def __init__(self) -> None:
        self._flag = asyncio.Event()

    def clear(self) -> None:
        """Before looking at the job."""
        self._flag.clear()

    def set(self) -> None:
        """The job may have changed."""
        self._flag.set()

    async def wait(self) -> None:
        """Until something may have changed since ``clear``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_WAIT_S):
                await self._flag.wait()


class JobWatch:
    """Hands the announcements of all jobs to those who watch them."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._watchers: dict[UUID, set[Changes]] = {}

    async def run(self) -> None:
        """Listens for ever."""
        async for payloads in self._listener.payloads(CHANNEL):
            for payload in payloads:
                self._announce(payload)

    @contextlib.contextmanager
    def changes_of(self, job_id: UUID) -> Iterator[Changes]:
        """A flag that is set when the job may have changed."""
        changes = Changes()
        self._watchers.setdefault(job_id, set()).add(changes)
        try:
            yield changes
        finally:
            watchers = self._watchers[job_id]
            watchers.discard(changes)
            if not watchers:
                del self._watchers[job_id]

    def _announce(self, payload: str) -> None:
        with contextlib.suppress(ValueError):
            for changes in self._watchers.get(UUID(payload), ()):
                changes.set()
