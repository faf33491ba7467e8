"""How the platform is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from soundhash_server.model import Totals
from soundhash_server.services.index import IndexService, IndexState
from soundhash_server.services.postings import SpreadIndex
from soundhash_server.store.pool import Pool
from soundhash_server.store.posting_shard import ShardState
from soundhash_server.store.stats import totals


@dataclass(frozen=True, slots=True)
class IndexReport:
    """This server's index and the servers that hold postings of it."""

    state: IndexState
    shards: tuple[ShardState, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """What is stored, and this server's state."""

    server_version: str
    start_time: datetime
    totals: Totals
    index: IndexReport


class Admin:
    """For operators."""

    def __init__(self, pool: Pool, index: IndexService, spread: SpreadIndex) -> None:
        self._pool = pool
        self._index = index
        self._spread = spread
        self._start_time = datetime.now(UTC)

    async def stats(self) -> Stats:
        """Counts over the whole platform."""
        return Stats(
            server_version=server_version(),
            start_time=self._start_time,
            totals=await totals(self._pool),
            index=await self.index_state(),
        )

    async def index_state(self) -> IndexReport:
        """This server's index."""
        return IndexReport(await self._index.state(), self._spread.states())

    async def compact(self) -> IndexReport:
        """Merges the index. Raises PlatformError ABORTED (COMPACTION_RUNNING)."""
        return IndexReport(await self._index.compact(), self._spread.states())


def server_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("soundhash")
    except PackageNotFoundError:
        return "0"
