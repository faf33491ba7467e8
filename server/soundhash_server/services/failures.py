"""What failed, why, what can be done about it, and trying it again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from soundhash_server.model import FailureGroup, PausedHost
from soundhash_server.queue import JobQueue
from soundhash_server.store.failed_jobs import FailedJobs, FailedUpload
from soundhash_server.store.pauses import Pauses

_MAX_WAKES = 16
"""Workers that are awake look for more by themselves."""


@dataclass(frozen=True, slots=True)
class FailureSummary:
    """groups: the most frequent first. paused_hosts: the longest paused first."""

    groups: tuple[FailureGroup, ...]
    paused_hosts: tuple[PausedHost, ...]


@dataclass(frozen=True, slots=True)
class RetriedJobs:
    """queued: jobs that were queued again. not_retryable: whose uploaded bytes are gone."""

    queued: int
    not_retryable: int


class Failures:
    """Groups failures and has them tried again in bulk."""

    def __init__(
        self, failed: FailedJobs, pauses: Pauses, queue: JobQueue, uploads_dir: Path
    ) -> None:
        self._failed = failed
        self._pauses = pauses
        self._queue = queue
        self._uploads_dir = uploads_dir

    async def summarize(self, channel_id: UUID | None) -> FailureSummary:
        """Of a channel, or of everything. Raises PlatformError DATABASE_UNAVAILABLE."""
        groups = await self._failed.groups(channel_id)
        return FailureSummary(tuple(groups), tuple(await self._pauses.list()))

    async def retry(self, reason: str, channel_id: UUID | None) -> RetriedJobs:
        """Queues failed jobs again: those of a reason (empty: all), of a channel (None: all).

        Raises PlatformError DATABASE_UNAVAILABLE.
        """
        uploads = await self._failed.uploads(reason, channel_id)
        gone = await asyncio.to_thread(self._gone, uploads)
        queued = await self._failed.retry(reason, channel_id, gone)
        for job_id in queued[:_MAX_WAKES]:
            if not await self._queue.wake(job_id):
                break
        return RetriedJobs(len(queued), len(gone))

    def _gone(self, uploads: list[FailedUpload]) -> list[UUID]:
        return [
            one.job_id for one in uploads if not (self._uploads_dir / one.content_sha256).exists()
        ]
