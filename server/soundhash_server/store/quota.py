"""Units of an API's daily quota, counted before they are spent, over all processes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from soundhash_server.store.pool import Connection, Pool, connection

YOUTUBE_API = "youtube"
_ZONE = ZoneInfo("America/Los_Angeles")


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """used_units: spent since the last reset. reset_time: when the API's day ends.
    wait_s: seconds until then, by the database's clock."""

    used_units: int
    reset_time: datetime
    wait_s: float


def day_of(moment: datetime) -> tuple[date, datetime]:
    """The API's day at this time (aware), which begins at midnight in Los Angeles, and when it
    ends, in UTC."""
    day = moment.astimezone(_ZONE).date()
    end = datetime.combine(day + timedelta(days=1), time(), _ZONE)
    return day, end.astimezone(UTC)


class QuotaUses:
    """What was spent. Every method raises PlatformError DATABASE_UNAVAILABLE when the database
    is away."""

    def __init__(self, pool: Pool, api: str = YOUTUBE_API) -> None:
        self._pool = pool
        self._api = api

    async def take(self, units: int, daily_units: int) -> bool:
        """Counts units that are about to be spent. False, with nothing counted, if that would
        exceed the day's quota."""
        async with connection(self._pool) as held:
            day, _, _ = await _today(held)
            taken = await held.fetchval(
                """INSERT INTO quota_use (api, day, units) SELECT $1, $2, $3::integer WHERE $3 <= $4
                ON CONFLICT (api, day) DO UPDATE SET units = quota_use.units + excluded.units
                    WHERE quota_use.units + excluded.units <= $4
                RETURNING units""",
                self._api,
                day,
                units,
                daily_units,
            )
        return taken is not None

    async def exhausted(self, daily_units: int) -> None:
        """The API itself says that nothing is left today."""
        async with connection(self._pool) as held:
            day, _, _ = await _today(held)
            await held.execute(
                """INSERT INTO quota_use (api, day, units) VALUES ($1, $2, $3)
                ON CONFLICT (api, day) DO UPDATE
                    SET units = greatest(quota_use.units, excluded.units)""",
                self._api,
                day,
                daily_units,
            )

    async def today(self) -> QuotaUse:
        """How today stands."""
        async with connection(self._pool) as held:
            day, end, now = await _today(held)
            used = await held.fetchval(
                "SELECT units FROM quota_use WHERE api = $1 AND day = $2", self._api, day
            )
        return QuotaUse(used or 0, end, (end - now).total_seconds())


async def _today(held: Connection) -> tuple[date, datetime, datetime]:
    now: datetime = await held.fetchval("SELECT clock_timestamp()")
    day, end = day_of(now)
    return day, end, now
