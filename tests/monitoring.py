"""Monitors in tests: songs to be found, stations that play them, and who listens."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from soundhash_engine import extract
from soundhash_server.model import Detection, FetchOptions, Monitor, MonitorAlert, MonitorConfig
from soundhash_server.store.detections import Detections
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.monitors import Monitors
from soundhash_server.store.pool import Pool
from tests.media import encode
from tests.records import add_video, new_video
from tests.sounds import hiss, tune

SONG_S = 40.0
BYTES_PER_S = 4000
"""Of `broadcast`."""
WAIT_S = 60.0


def song(number: int, start_s: float = 0.0, end_s: float = SONG_S) -> NDArray[np.float32]:
    """A part of a song of the catalogue, or of one that is not in it."""
    return tune(SONG_S, seed=700 + number)[round(start_s * 8000) : round(end_s * 8000)]


def noise(length_s: float) -> NDArray[np.float32]:
    return (hiss(round(length_s * 8000), 5) / 327680).astype(np.float32)


def silence(length_s: float) -> NDArray[np.float32]:
    return np.zeros(round(length_s * 8000), np.float32)


def broadcast(*parts: NDArray[np.float32]) -> bytes:
    """MP3 of constant rate, as stations send it; may be joined in at any byte."""
    return encode(np.concatenate(parts), "mp3", bit_rate=8 * BYTES_PER_S)


class Watch:
    """The database's side of monitors: songs, monitors, and what became of them."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.monitors = Monitors(pool)
        self.detections = Detections(pool)

    async def songs(self, *numbers: int) -> dict[int, UUID]:
        """Puts songs into the catalogue; their videos' ids."""
        return {
            number: await add_video(
                Jobs(self.pool),
                new_video(
                    title=f"Song {number}",
                    source_url=f"https://www.youtube.com/watch?v=0000000000{number}",
                    external_id=f"song-{number}",
                ),
                await asyncio.to_thread(extract, song(number)),
            )
            for number in numbers
        }

    async def monitor(self, url: str, name: str = "Radio", **config: float | FetchOptions) -> UUID:
        """Adds a monitor."""
        key = hashlib.sha256(url.encode()).hexdigest()
        made = await self.monitors.create(
            url, key, MonitorConfig(name=name, **config), paused=False, request_id=""
        )
        return made.id

    async def get(self, monitor_id: UUID) -> Monitor:
        found = await self.monitors.get(monitor_id)
        assert found is not None
        return found

    async def heard(self, monitor_id: UUID) -> list[Detection]:
        """All its detections, the first first."""
        page = await self.detections.list(100, "", monitor_id=monitor_id)
        return list(page.items)[::-1]

    async def alerts(self, monitor_id: UUID) -> list[MonitorAlert]:
        """All its alerts, the first first."""
        page = await self.detections.alerts(100, "", monitor_id=monitor_id)
        return list(page.items)[::-1]

    async def until(
        self, monitor_id: UUID, check: Callable[[Monitor], bool], timeout_s: float = WAIT_S
    ) -> Monitor:
        """The monitor as soon as it is like this."""
        shown = await self.get(monitor_id)
        try:
            async with asyncio.timeout(timeout_s):
                while not check(shown):
                    await asyncio.sleep(0.03)
                    shown = await self.get(monitor_id)
        except TimeoutError:
            raise AssertionError(f"the monitor stays {shown}") from None
        return shown

    async def until_heard(
        self,
        monitor_id: UUID,
        check: Callable[[list[Detection]], bool],
        timeout_s: float = WAIT_S,
    ) -> list[Detection]:
        """Its detections as soon as they are like this."""
        heard = await self.heard(monitor_id)
        try:
            async with asyncio.timeout(timeout_s):
                while not check(heard):
                    await asyncio.sleep(0.03)
                    heard = await self.heard(monitor_id)
        except TimeoutError:
            raise AssertionError(f"it has heard {heard}") from None
        return heard

    async def until_alerts(
        self, monitor_id: UUID, check: Callable[[list[MonitorAlert]], bool]
    ) -> list[MonitorAlert]:
        """Its alerts as soon as they are like this."""
        alerts = await self.alerts(monitor_id)
        try:
            async with asyncio.timeout(WAIT_S):
                while not check(alerts):
                    await asyncio.sleep(0.03)
                    alerts = await self.alerts(monitor_id)
        except TimeoutError:
            raise AssertionError(f"its alerts are {alerts}") from None
        return alerts
