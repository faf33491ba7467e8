"""The worker's end of the queue: an arq worker that outlives its queue.

arq gives up when Redis goes away, and runs a job again that takes longer than its timeout. Here
the queue only carries wake-ups, the truth is in PostgreSQL, and so both can be mended simply:
errors of the queue are waited out, and the mark of a running job is short but kept alive.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix
from arq.worker import Retry, Worker, func

from soundhash_server.errors import PlatformError
from soundhash_server.queue import (
    QUEUE_ERRORS,
    QUEUE_NAME,
    TASK_NAME,
    deserialize,
    serialize,
)
from soundhash_server.tasks import end
from soundhash_workers.runner import KeepAlive

_POLL_S = 0.1
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 3.0
_HEALTH_S = 30
_CLAIM_AGAIN_S = 0.5
_LONGEST_JOB = timedelta(days=30)
"""arq wants a bound; the real ones are those of fetching and decoding."""
_EVER = 1_000_000_000
"""As many tries as it takes: PostgreSQL counts the attempts."""

RunJob = Callable[[UUID, KeepAlive], Awaitable[None]]

log = structlog.get_logger(__name__)


class WakeUps(Worker):
    """Runs a job for each wake-up, ``concurrency`` at once.

    run_job: raises PlatformError when the job could not even be claimed.
    mark_s: how long another worker waits before it looks at a job whose worker has died.
    """

    def __init__(
        self, redis: ArqRedis, run_job: RunJob, *, concurrency: int, mark_s: float
    ) -> None:
        self._run_job = run_job
        self._mark_ms = round(mark_s * 1000)
        self._away = False
        super().__init__(
            [func(self._wake, name=TASK_NAME, max_tries=_EVER)],
            redis_pool=redis,
            queue_name=QUEUE_NAME,
            handle_signals=False,
            max_jobs=concurrency,
            job_timeout=_LONGEST_JOB,
            keep_result=0,
            poll_delay=_POLL_S,
            health_check_interval=_HEALTH_S,
            job_serializer=serialize,
            job_deserializer=deserialize,
            log_results=False,
        )
        self.in_progress_timeout_s = mark_s

    async def run_forever(self) -> None:
        """Takes wake-ups until cancelled, also over losses of the queue."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self.main()
            except QUEUE_ERRORS as error:
                self._lost(error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def stop(self, patience_s: float) -> None:
        """Cancels the running jobs and waits until each has been given back.

        patience_s: jobs that go on for longer are cancelled once more.
        """
        self.allow_pick_jobs = False
        await end(*self.job_tasks.values(), again_s=patience_s)
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        for job_id in job_ids:
            # A mark that was lost with the queue must not start what is running here.
            if job_id.decode() in self.tasks or self.job_counter >= self.max_jobs:
                continue
            try:
                await super().start_jobs([job_id])
            except Exception:
                # arq has taken a place for the job and then lost the connection.
                self._release_sem_dec_counter_on_complete()
                raise

    async def _poll_iteration(self) -> None:
        try:
            await super()._poll_iteration()
        except QUEUE_ERRORS as error:
            self._lost(error)
            await asyncio.sleep(_FIRST_PAUSE_S)
        except Exception:
            log.exception("wake-up failed")
        else:
            if self._away:
                log.info("queue is back")
            self._away = False

    def _lost(self, error: BaseException) -> None:
        if not self._away:
            log.warning("queue is away", error=type(error).__name__)
        self._away = True

    async def _wake(self, ctx: dict[Any, Any], *args: Any, **_kwargs: Any) -> None:
        if not self.allow_pick_jobs:
            # Picked while stopping: arq puts back what is cancelled.
            raise asyncio.CancelledError
        job_id = str(args[0])

        async def keep_alive() -> None:
            with contextlib.suppress(*QUEUE_ERRORS):
                await self.pool.pexpire(in_progress_key_prefix + job_id, self._mark_ms)

        try:
            await self._run_job(UUID(job_id), keep_alive)
        except PlatformError as error:
            # The claim did not get through: the wake-up stays for when the database is back.
            log.warning("job not claimed", job_id=job_id, reason=error.reason)
            raise Retry(_CLAIM_AGAIN_S) from None
