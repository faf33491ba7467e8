"""The index of the videos, and beside it the one of what monitors have heard.

What is on the air comes again and again: the same songs, advertisements and jingles, on several
stations. In one index with the videos it would make their keys so frequent that they find nothing
any more. It has volumes of its own, in which of a frequent key the latest postings stay.
"""

from __future__ import annotations

import dataclasses

from soundhash_engine.index import Snapshot
from soundhash_engine.params import PARAMS
from soundhash_server.services.index import IndexService
from soundhash_server.services.matching import Searchable

AIR_PARAMS = dataclasses.replace(PARAMS, latest_of_a_key=12)


class WithAir:
    """Searches both; ``videos`` is what ``index`` gives, perhaps with postings elsewhere."""

    def __init__(self, videos: Searchable, index: IndexService, air: IndexService) -> None:
        self._videos = videos
        self._index = index
        self._air = air

    def snapshot(self) -> Snapshot:
        """Both as they are now."""
        return self._videos.snapshot().beside(self._air.snapshot())

    async def hide(self, *recording_ids: int) -> None:
        """Leaves recordings out of every answer from now on."""
        await self._index.hide(*recording_ids)
        await self._air.hide(*recording_ids)

    async def probe(self) -> bool:
        """For readiness."""
        return self._index.ready and self._air.ready
