"""Which videos are alike: DUPLICATES jobs, and what they have found."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from uuid import UUID

from soundhash_engine import PARAMS
from soundhash_server.errors import ErrorKind, PlatformError, not_found
from soundhash_server.model import (
    DuplicateKind,
    DuplicatesPage,
    DuplicatesParameters,
    Job,
    JobKind,
    JobState,
    Page,
)
from soundhash_server.queue import JobQueue
from soundhash_server.store.duplicates import Duplicates
from soundhash_server.store.jobs import Jobs

MIN_SHARED_S = 10.0


class DuplicateSearches:
    """Submits comparisons of the catalogue with itself and lists what they find."""

    def __init__(
        self, jobs: Jobs, duplicates: Duplicates, queue: JobQueue, *, max_attempts: int
    ) -> None:
        self._jobs = jobs
        self._duplicates = duplicates
        self._queue = queue
        self._max_attempts = max_attempts

    async def find(self, video_ids: Sequence[UUID], min_shared_s: float) -> Job:
        """The job for this question; the same one while it is not finished, and then anew.

        video_ids: empty for all. min_shared_s: 0 for MIN_SHARED_S. Raises PlatformError NOT_FOUND
        (VIDEO_NOT_FOUND).
        """
        chosen = tuple(sorted(set(video_ids)))
        known = await self._duplicates.recordings(chosen)
        for video_id in chosen:
            if video_id not in known:
                raise not_found("video", str(video_id))
        asked = DuplicatesParameters(chosen, min_shared_s or MIN_SHARED_S)
        job, needs_wake = await self._jobs.submit(
            JobKind.DUPLICATES,
            _key(asked),
            asked,
            max_attempts=self._max_attempts,
            params_digest=PARAMS.digest,
        )
        if needs_wake:
            await self._queue.wake(job.id)
        return job

    async def list(
        self,
        job_id: UUID | None,
        page_size: int,
        page_token: str,
        *,
        video_id: UUID | None,
        kinds: Sequence[DuplicateKind],
    ) -> DuplicatesPage:
        """What a job has found so far; of the one that was submitted last for None.

        Raises PlatformError NOT_FOUND (JOB_NOT_FOUND), FAILED_PRECONDITION (NO_DUPLICATES_JOB).
        """
        if job_id is None:
            job = await self._jobs.latest(JobKind.DUPLICATES)
        else:
            job = await self._jobs.get(job_id)
            if job is None:
                raise not_found("job", str(job_id))
        if job is None or job.kind is not JobKind.DUPLICATES:
            raise PlatformError(
                ErrorKind.FAILED_PRECONDITION,
                "NO_DUPLICATES_JOB",
                "The videos have not been compared with one another."
                if job is None
                else f"Job {job.id} does not compare videos.",
                "Start a comparison with FindDuplicates (soundhash duplicates --find).",
            )
        if job.state is JobState.QUEUED:
            # What an earlier run has found is not this one's.
            return DuplicatesPage(job.id, complete=False, pairs=Page((), ""))
        pairs = await self._duplicates.list(
            job.id, page_size, page_token, video_id=video_id, kinds=kinds
        )
        return DuplicatesPage(job.id, complete=job.state.finished, pairs=pairs)


def _key(asked: DuplicatesParameters) -> str:
    names = " ".join(str(video_id) for video_id in asked.video_ids)
    digest = hashlib.sha256(names.encode()).hexdigest()[:32] if names else "all"
    return f"duplicates:{digest}:{asked.min_shared_s:g}"
