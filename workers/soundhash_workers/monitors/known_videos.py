"""The videos that monitors hear, remembered for a while."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from uuid import UUID

import structlog

from soundhash_server.errors import PlatformError
from soundhash_server.model import Video
from soundhash_server.store.pool import Pool
from soundhash_server.store.videos import Videos

FRESH_S = 30.0
_MOST = 4096

log = structlog.get_logger(__name__)


class KnownVideos(Videos):
    """As `Videos`, but asks for one at most every 30 s: each monitor asks twice a second for what
    it hears. While the database is away, what is known is good enough, and what is not is left
    out: it will be asked for again half a second later."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self._known: OrderedDict[int, tuple[Video, float]] = OrderedDict()
        self._by_id: dict[UUID, Video] = {}

    def by_id(self, video_id: UUID) -> Video | None:
        """A video that was asked for before."""
        return self._by_id.get(video_id)

    async def by_recording_ids(self, recording_ids: Sequence[int]) -> dict[int, Video]:
        now_s = time.monotonic()
        stale = [one for one in recording_ids if now_s - self._asked_s(one) >= FRESH_S]
        if stale:
            try:
                found = await super().by_recording_ids(stale)
            except PlatformError as error:
                log.debug("videos wait for the database", reason=error.reason)
            else:
                for one in stale:
                    self._forget(one)
                for one, video in found.items():
                    self._known[one] = (video, now_s)
                    self._by_id[video.id] = video
                while len(self._known) > _MOST:
                    self._forget(next(iter(self._known)))
        return {one: self._known[one][0] for one in recording_ids if one in self._known}

    def _asked_s(self, recording_id: int) -> float:
        known = self._known.get(recording_id)
        return float("-inf") if known is None else known[1]

    def _forget(self, recording_id: int) -> None:
        known = self._known.pop(recording_id, None)
        if known is not None:
            self._by_id.pop(known[0].id, None)
