"""Proxies that have failed and are left out for a while, shared by all workers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from soundhash_server.store.pool import Pool, connection

_FORGET = timedelta(hours=6)
"""So long after its bench a proxy's earlier failures count no more."""
_CAP = timedelta(hours=6)
_MAX_DOUBLINGS = 16


class ProxyBenches:
    """Proxies by the SHA-256 of their address. Every method raises PlatformError
    DATABASE_UNAVAILABLE when the database is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def waits_s(self, digests: Sequence[str]) -> dict[str, float]:
        """Of those that have failed before: the seconds until they may be used again, 0 or less
        when they may."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                "SELECT proxy_sha256, extract(epoch FROM until - clock_timestamp())::float8 AS wait"
                " FROM proxy_benches WHERE proxy_sha256 = ANY($1::text[])",
                list(digests),
            )
        return {row["proxy_sha256"]: row["wait"] for row in rows}

    async def bench(self, digest: str, bench_s: float) -> None:
        """Leaves a proxy out for ``bench_s``; longer, doubling, when it fails again and again."""
        async with connection(self._pool) as held:
            await held.execute(
                """INSERT INTO proxy_benches AS b (proxy_sha256, until, failures)
                VALUES ($1, clock_timestamp() + $2::interval, 1)
                ON CONFLICT (proxy_sha256) DO UPDATE SET
                    failures = CASE WHEN b.until + $4 < clock_timestamp() THEN 1
                        -- One outage fails many downloads at once: it counts as one.
                        WHEN b.until > clock_timestamp() THEN b.failures
                        ELSE b.failures + 1 END,
                    until = greatest(b.until, clock_timestamp() + least($3::interval,
                        $2::interval * CASE WHEN b.until + $4 < clock_timestamp() THEN 1
                            WHEN b.until > clock_timestamp() THEN 2 ^ (least(b.failures, $5) - 1)
                            ELSE 2 ^ least(b.failures, $5) END))""",
                digest,
                timedelta(seconds=bench_s),
                _CAP,
                _FORGET,
                _MAX_DOUBLINGS,
            )

    async def clear(self, digest: str) -> None:
        """A proxy works again."""
        async with connection(self._pool) as held:
            await held.execute("DELETE FROM proxy_benches WHERE proxy_sha256 = $1", digest)
