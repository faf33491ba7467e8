"""The match index with the postings of its large volumes on other servers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Protocol

import structlog

from soundhash_engine.index import Snapshot
from soundhash_engine.postings import RemotePostings
from soundhash_engine.volume import Volume
from soundhash_server.store.posting_rows import content_key
from soundhash_server.store.posting_shard import ShardState
from soundhash_server.store.postings import PostingShards

log = structlog.get_logger(__name__)

POLL_S = 1.0


class Local(Protocol):
    """The index on this server."""

    def snapshot(self) -> Snapshot:
        """The index as it is now."""


class SpreadIndex:
    """Keeps the shards in step with the index and gives snapshots that ask them.

    Volumes of at least ``least_hours`` have their postings on the shards, once these have stored
    them; smaller ones, that come and go while recordings are added, stay in this server's memory.
    Without ``urls`` everything does.
    """

    def __init__(
        self,
        index: Local,
        urls: Sequence[str],
        *,
        deadline_s: float,
        connections: int,
        least_hours: float,
    ) -> None:
        self._index = index
        self._least_hours = least_hours
        self._shards = (
            PostingShards(urls, deadline_s=deadline_s, connections=connections) if urls else None
        )
        self._keys: list[tuple[str, Volume]] = []

    def snapshot(self) -> Snapshot:
        """The index as it is now."""
        local = self._index.snapshot()
        if self._shards is None:
            return local
        return dataclasses.replace(local, postings=RemotePostings(self._shards))

    def states(self) -> tuple[ShardState, ...]:
        """How the shards are."""
        return () if self._shards is None else tuple(self._shards.states())

    async def run(self) -> None:
        """Tells the shards which volumes there are, for ever."""
        while self._shards is not None:
            await self._follow(self._shards)
            await asyncio.sleep(POLL_S)
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Ends the connections."""
        if self._shards is not None:
            await asyncio.to_thread(self._shards.close)

    async def _follow(self, shards: PostingShards) -> None:
        large = [v for v in self._index.snapshot().volumes if v.hours >= self._least_hours]
        known = {id(volume): key for key, volume in self._keys}
        keys = []
        for volume in large:
            key = known.get(id(volume))
            if key is None:
                # Reads what the volume consists of: not on the event loop.
                key = await asyncio.to_thread(content_key, volume)
            keys.append((key, volume))
        self._keys = keys
        shards.keep(keys)
