"""Whose turn it is: fair between channels, within bounds, never one of a paused host.

The choice is the database's (function claim_turn of the migrations): only it sees at once what
all workers do.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import timedelta

from soundhash_server.model import Lease
from soundhash_server.store.job_rows import JOB_COLUMNS, to_job
from soundhash_server.store.pool import Connection


class Slot(enum.Enum):
    """What a worker has room for."""

    INGEST = "INGEST"
    """A recording to fetch and fingerprint."""
    LISTING = "LISTING"
    """A channel or a folder to list."""
    WATCH = "WATCH"
    """A folder to watch until that is cancelled."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Jobs at once, over all workers; of listing and watching each worker has its own."""

    channel_jobs: int
    host_jobs: int


async def claim_turn(held: Connection, slot: Slot, bounds: Bounds, lease_s: float) -> Lease | None:
    """Takes the job whose turn it is, or what a vanished worker has left; counts an attempt."""
    row = await held.fetchrow(
        f"SELECT lease_token, {JOB_COLUMNS} FROM claim_turn($1, $2, $3, $4)",  # noqa: S608
        slot.value,
        timedelta(seconds=lease_s),
        bounds.channel_jobs,
        bounds.host_jobs,
    )
    return None if row is None else Lease(to_job(row), row["lease_token"])
