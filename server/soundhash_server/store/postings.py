"""Postings on several PostgreSQL servers: the match index's look-ups past one machine.

Searches run in threads and wait for an answer; the connections live on an event loop in a thread of
its own, so that neither a large question nor a server that hangs holds up anything else. A question
goes to all shards at once, each has until the deadline, and a shard that fails is not asked again
before it has answered a check: a search meets a dead server once, not once a round.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from soundhash_engine.postings import Given, Missing, Wanted
from soundhash_engine.volume import Volume
from soundhash_server.store.posting_rows import Pieces, Reply, join_given
from soundhash_server.store.posting_shard import Part, PostingShard, ShardState, Stored

T = TypeVar("T")

RETRY_S = 0.5
"""How often a shard that is gone is tried."""
CHECK_S = 5.0
"""How often one that answers is looked at: whether it still has everything."""
_LATE_S = 2.0
"""After the deadline, for what this process itself takes."""


class PostingShards:
    """The postings of volumes on several servers, as `soundhash_engine.postings.Lookup`.

    A volume is asked for here once every shard has stored its part of it; before, it is searched
    in its own arrays. Close it to end its thread.
    """

    def __init__(self, urls: Sequence[str], *, deadline_s: float, connections: int) -> None:
        self._deadline_s = deadline_s
        self._shards = [
            PostingShard(i, len(urls), url, deadline_s=deadline_s, connections=connections)
            for i, url in enumerate(urls)
        ]
        self._volumes: dict[int, Stored] = {}
        """By the object's id, which holding the object makes safe."""
        self._nudged = [asyncio.Event() for _ in urls]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="postings", daemon=True)
        self._thread.start()

    def holds(self, volume: Volume) -> bool:
        """Whether every shard has stored its part of this very volume."""
        stored = self._volumes.get(id(volume))
        return stored is not None and stored.everywhere

    def keep(self, volumes: Sequence[tuple[str, Volume]]) -> None:
        """These volumes, given with their `posting_rows.content_key`, are to be here.

        Returns at once; what is not here yet is stored in the background.
        """
        known = self._volumes
        self._volumes = {
            id(volume): known.get(id(volume)) or Stored(key, volume) for key, volume in volumes
        }
        if self._volumes.keys() != known.keys():
            self._loop.call_soon_threadsafe(self._nudge)

    def states(self) -> list[ShardState]:
        """How the shards are."""
        volumes = list(self._volumes.values())
        return [shard.state(volumes) for shard in self._shards]

    def look_up(self, wanted: Sequence[Wanted]) -> tuple[list[Given], tuple[Missing, ...]]:
        """Asks all shards at once; returns by the deadline. For threads, not for coroutines."""
        deadline_s = time.monotonic() + self._deadline_s
        stored = [self._volumes.get(id(one.volume)) for one in wanted]
        pieces = [Pieces.of(one) for one in wanted]
        asked = [
            [
                shard.part(known, one.volume, some)
                for known, one, some in zip(stored, wanted, pieces, strict=True)
            ]
            for shard in self._shards
        ]
        answers = self._call(self._look_up(asked, deadline_s)).result(self._deadline_s + _LATE_S)
        hours = sum(one.volume.hours for one in wanted) or 1.0
        missing: list[Missing] = []
        given: list[list[Given]] = [[] for _ in wanted]
        for shard, parts, answer, nudged in zip(
            self._shards, asked, answers, self._nudged, strict=True
        ):
            gone = 0.0
            replies = iter(() if isinstance(answer, str) else answer)
            for one, part, buckets in zip(wanted, parts, given, strict=True):
                here = None if part.number is None else next(replies, None)
                if here is None or not all(reply.loaded for reply in here):
                    gone += one.volume.hours / hours
                    continue
                for reply, some in zip(here, part.pieces, strict=True):
                    buckets.append(reply.given(some, one))
            if gone > 0.0:
                reason = answer if isinstance(answer, str) else "NOT_LOADED"
                if reason == "NOT_LOADED":
                    self._loop.call_soon_threadsafe(nudged.set)
                missing.append(Missing(f"shard {shard.name}", gone / len(self._shards), reason))
        return [join_given(some) for some in given], tuple(missing)

    def close(self) -> None:
        """Ends all connections and the thread."""
        self._call(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._keeping = [
            self._loop.create_task(self._keep_up(shard, nudged), name=f"postings-{shard.name}")
            for shard, nudged in zip(self._shards, self._nudged, strict=True)
        ]
        self._loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _nudge(self) -> None:
        for nudged in self._nudged:
            nudged.set()

    async def _close(self) -> None:
        for task in self._keeping:
            task.cancel()
        await asyncio.wait(self._keeping)
        for shard in self._shards:
            shard.hang_up()

    async def _look_up(
        self, asked: Sequence[Sequence[Part]], deadline_s: float
    ) -> list[list[list[Reply]] | str]:
        return await asyncio.gather(
            *(
                shard.look_up(parts, deadline_s)
                for shard, parts in zip(self._shards, asked, strict=True)
            )
        )

    async def _keep_up(self, shard: PostingShard, nudged: asyncio.Event) -> None:
        """Brings a shard to what is wanted, for ever; what fails is tried again."""
        while True:
            nudged.clear()
            try:
                await shard.settle(list(self._volumes.values()))
            except Exception as error:
                shard.fail(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S if shard.up else RETRY_S):
                    await nudged.wait()
