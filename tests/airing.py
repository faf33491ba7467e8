"""What monitors have heard, for tests: stored as their workers do, without waiting for it."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import datetime, timedelta
from uuid import UUID

from soundhash_engine.types import Pcm
from soundhash_server.model import MonitorConfig
from soundhash_server.store.air import Air
from soundhash_server.store.monitors import Monitors
from soundhash_server.store.pool import Pool
from soundhash_workers.monitors.air_parts import Grown, PartCutter

RATE_HZ = 8000
PIECE = 4000


async def add_monitor(
    pool: Pool, name: str, *, keep_air_s: float = 3600.0, lease_s: float = 600.0
) -> tuple[UUID, UUID]:
    """A monitor and the token of its worker."""
    monitors = Monitors(pool)
    url = f"http://radio.example/{name}"
    made = await monitors.create(
        url,
        hashlib.sha256(url.encode()).hexdigest(),
        MonitorConfig(name=name, keep_air_s=keep_air_s),
        paused=False,
        request_id="",
    )
    (lease,) = [one for one in await monitors.claim(100, lease_s) if one.monitor.id == made.id]
    return made.id, lease.token


def cut_parts(pcm: Pcm, begun: datetime) -> list[Grown]:
    """The parts of audio that began to play at this time, as they are in the end."""
    cutter = PartCutter()
    grown = []
    for at in range(0, pcm.size, PIECE):
        heard_at = begun + timedelta(seconds=at / RATE_HZ)
        grown += cutter.push(pcm[at : at + PIECE], heard_at)
    grown += cutter.end()
    return list({one.part.id: one for one in grown}.values())


async def broadcast(pool: Pool, token: UUID, pcm: Pcm, begun: datetime) -> list[UUID]:
    """Stores what a monitor hears from this time on; ids of the parts."""
    parts = cut_parts(pcm, begun)
    for one in parts:
        await Air(pool).put(token, dataclasses.replace(one.content, kept=0, stored=False))
    return [one.part.id for one in parts]
