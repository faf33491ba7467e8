"""How the platform is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from soundhash_server.model import Totals
from soundhash_server.services.index import IndexService, IndexState
from soundhash_server.store.pool import Pool
from soundhash_server.store.stats import totals


@dataclass(frozen=True, slots=True)
class Stats:
    """What is stored, and this server's state."""

    server_version: str
    start_time: datetime
    totals: Totals
    index: IndexState


class Admin:
    """For operators."""

    def __init__(self, pool: Pool, index: IndexService) -> None:
        self._pool = pool
        self._index = index
        self._start_time = datetime.now(UTC)

    async def stats(self) -> Stats:
        """Counts over the whole platform."""
        return Stats(
            server_version=server_version(),
            start_time=self._start_time,
            totals=await totals(self._pool),
            index=await self._index.state(),
        )

    async def index_state(self) -> IndexState:
        """This server's index."""
        return await self._index.state()

    async def compact(self) -> IndexState:
        """Merges the index. Raises PlatformError ABORTED (COMPACTION_RUNNING)."""
        return await self._index.compact()


def server_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("soundhash")
    except PackageNotFoundError:
        return "0"
