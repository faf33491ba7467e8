"""Hosts that keep refusing: a circuit breaker for each source.

Refusals in a row are counted by host. From a number of them on, the host is left alone as a
whole, for twice as long after every further one; a success closes the account.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from soundhash_server.model import PausedHost
from soundhash_server.settings import Settings
from soundhash_server.store.pool import Pool, connection

_MAX_DOUBLINGS = 30


@dataclass(frozen=True, slots=True)
class PauseRule:
    """refusals: in a row, from which on a host is paused. first_s, longest_s: for how long."""

    refusals: int
    first_s: float
    longest_s: float


def pause_rule(settings: Settings) -> PauseRule:
    return PauseRule(settings.host_refusals, settings.host_pause_s, settings.host_pause_cap_s)


class Pauses:
    """Raises PlatformError DATABASE_UNAVAILABLE when the database is away."""

    def __init__(self, pool: Pool, rule: PauseRule) -> None:
        self._pool = pool
        self._rule = rule

    async def refused(
        self, host: str, reason: str, retry_after_s: float | None = None
    ) -> PausedHost | None:
        """Counts a refusal; the pause, when the host is paused now.

        What was under way when a pause began says nothing new: while it lasts, nothing is
        counted, and it only becomes longer where the host asks for that (``retry_after_s``).
        """
        rule = self._rule
        async with connection(self._pool) as held:
            row = await held.fetchrow(
                """INSERT INTO source_pauses AS p (host, until, refusals, reason)
                VALUES ($1, clock_timestamp() + CASE WHEN $3::int <= 1
                    THEN greatest($4::interval, $6::interval) ELSE interval '0' END, 1, $2)
                ON CONFLICT (host) DO UPDATE SET reason = $2, update_time = clock_timestamp(),
                    refusals = CASE WHEN p.until > clock_timestamp()
                        THEN p.refusals ELSE p.refusals + 1 END,
                    until = CASE
                        WHEN p.until > clock_timestamp()
                            THEN greatest(p.until, clock_timestamp() + $6)
                        WHEN p.refusals + 1 >= $3 THEN clock_timestamp() + greatest(
                            least($4 * power(2, least(p.refusals + 1 - $3, $7)), $5::interval),
                            $6)
                        ELSE p.until END
                RETURNING host, until, reason, refusals, until > clock_timestamp() AS paused""",
                host,
                reason,
                rule.refusals,
                timedelta(seconds=rule.first_s),
                timedelta(seconds=rule.longest_s),
                timedelta(seconds=min(retry_after_s or 0.0, rule.longest_s)),
                _MAX_DOUBLINGS,
            )
        if row is None or not row["paused"]:
            return None
        return PausedHost(row["host"], row["until"], row["reason"], row["refusals"])

    async def answered(self, host: str) -> None:
        """The host gave what it was asked for: it is not paused any longer."""
        async with connection(self._pool) as held:
            await held.execute("DELETE FROM source_pauses WHERE host = $1", host)

    async def until(self, host: str) -> datetime | None:
        """When a paused host's jobs go on; None when it is not paused."""
        async with connection(self._pool) as held:
            found: datetime | None = await held.fetchval(
                "SELECT until FROM source_pauses WHERE host = $1 AND until > clock_timestamp()",
                host,
            )
        return found

    async def list(self) -> list[PausedHost]:
        """Those that are paused now, the longest first."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                "SELECT host, until, reason, refusals FROM source_pauses"
                " WHERE until > clock_timestamp() ORDER BY until DESC, host"
            )
        return [PausedHost(**row) for row in rows]
