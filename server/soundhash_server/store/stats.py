"""What the database holds, in numbers."""

from __future__ import annotations

from soundhash_server.model import JobState, Totals
from soundhash_server.store.pool import Pool, transaction


async def totals(pool: Pool) -> Totals:
    """Counts as of one moment, without what monitors have heard.

    Raises PlatformError DATABASE_UNAVAILABLE.
    """
    async with transaction(pool, isolation="repeatable_read", readonly=True) as held:
        video = await held.fetchrow(
            "SELECT count(*) AS videos, coalesce(sum(duration_s), 0) AS audio_s,"
            " coalesce(sum(segment_count), 0)::bigint AS segments,"
            " coalesce(sum(landmark_count), 0)::bigint AS landmarks FROM videos"
            " WHERE monitor_id IS NULL"
        )
        if video is None:
            raise RuntimeError("an aggregate gave no row")
        matches: int = await held.fetchval("SELECT count(*) FROM match_results")
        jobs = await held.fetch("SELECT state, count(*) FROM processing_jobs GROUP BY state")
    counted = {JobState(row["state"]): row["count"] for row in jobs}
    return Totals(
        videos=video["videos"],
        audio_s=video["audio_s"],
        segments=video["segments"],
        landmarks=video["landmarks"],
        matches=matches,
        jobs={state: counted.get(state, 0) for state in JobState},
    )
