"""What all monitors of a worker use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from soundhash_server.fetching.live import LiveEvent
from soundhash_server.model import FetchOptions
from soundhash_server.services.live import LiveMatching
from soundhash_server.settings import Settings
from soundhash_server.store.air import Air
from soundhash_server.store.detections import Detections
from soundhash_workers.match_index import MatchIndex
from soundhash_workers.monitors.known_videos import KnownVideos


class Sources(Protocol):
    """Opens live sources; see `LiveSources`."""

    def open(
        self, url: str, options: FetchOptions
    ) -> AbstractAsyncContextManager[AsyncIterator[LiveEvent]]:
        """One connection."""


class NoRoom(Exception):  # noqa: N818 - a condition of the worker
    """This worker cannot listen to one more source without being late with the others."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the sessions of a worker share."""

    settings: Settings
    sources: Sources
    index: MatchIndex
    live: LiveMatching
    videos: KnownVideos
    detections: Detections
    air: Air
