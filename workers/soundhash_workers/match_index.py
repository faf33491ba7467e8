"""The match index in a worker, for as long as something there searches.

It maps the volumes that the server on the same data folder writes, and holds in memory only what
is in none of them yet; without a server on this folder that is everything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog

from soundhash_engine.index import Snapshot
from soundhash_engine.warm import warm
from soundhash_server.lean import give_back_memory
from soundhash_server.services.index import IndexService
from soundhash_server.services.matching import Searchable
from soundhash_server.settings import Settings
from soundhash_server.store.changes import Changes
from soundhash_server.store.listener import Listener
from soundhash_server.store.pool import Pool
from soundhash_server.tasks import end

_FOLLOW_S = 0.1

log = structlog.get_logger(__name__)


class MatchIndex:
    """One index for all who search in this process: it starts with the first of them, and stops
    with the last."""

    def __init__(self, settings: Settings, pool: Pool, listener: Listener) -> None:
        self._settings = settings
        self._pool = pool
        self._changes = Changes(pool)
        self._listener = listener
        self._users = 0
        self._index: IndexService | None = None
        self._following: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._warm = False

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Searchable]:
        """The index, once everything that is in the database can be found in it.

        Waits for that as long as it takes.
        """
        self._users += 1
        try:
            async with self._changing:
                index = await self._start()
            await index.wait_ready()
            yield index
        finally:
            self._users -= 1
            await asyncio.shield(self._stop_unless_used())

    def snapshot(self) -> Snapshot:
        """The index as it is now, for those who `use` it."""
        if self._index is None:
            raise RuntimeError("the match index is not in use")
        return self._index.snapshot()

    async def current(self) -> Snapshot:
        """As `snapshot`, with everything that is in the database when this is called."""
        wanted = await self._changes.current_revision()
        while True:
            if self._index is None or self._index.applied_revision >= wanted:
                return self.snapshot()
            await asyncio.sleep(_FOLLOW_S)

    async def prepare(self) -> None:
        """Loads what searching needs, so that who comes later need not wait for that."""
        async with self._changing:
            await self._warm_up()

    async def _warm_up(self) -> None:
        if not self._warm:
            await asyncio.to_thread(warm)
            self._warm = True

    async def _start(self) -> IndexService:
        if self._index is None:
            await self._warm_up()
            self._index = index = IndexService(
                Changes(self._pool),
                self._listener,
                self._settings.index_dir,
                poll_s=self._settings.index_poll_s,
                seal_hours=self._settings.index_seal_hours,
                may_write=False,
            )
            self._following = asyncio.create_task(index.run(), name="match-index")
        return self._index

    async def _stop_unless_used(self) -> None:
        async with self._changing:
            if self._users or self._index is None or self._following is None:
                return
            index, following = self._index, self._following
            self._index = self._following = None
            await end(following)
            await index.close()
            give_back_memory()
            log.info("match index is let go")
