"""Lets go of what was on the air longer ago than its monitor keeps it."""

from __future__ import annotations

from soundhash_server.store.air import Air

BATCH = 50
"""Parts in one transaction: while it lasts nobody else changes the catalogue."""
MOST_BATCHES = 40
"""A monitor that suddenly keeps less frees two days of it in a sweep or two."""
TOMBSTONES = 1000


class AirSweeper:
    """Every server hides what is deleted here as it does with deleted videos."""

    def __init__(self, air: Air) -> None:
        self._air = air

    async def sweep(self) -> int:
        """Deletes what is too old, up to a bound; how many parts it were.

        Raises PlatformError DATABASE_UNAVAILABLE.
        """
        count = 0
        for _ in range(MOST_BATCHES):
            expired = await self._air.expire(BATCH)
            count += expired
            if expired < BATCH:
                break
        await self._air.forget_tombstones(TOMBSTONES)
        return count
