"""The worker's end of the queue: an arq worker that outlives its queue.

arq gives up when Redis goes away. Here a wake-up only says that it is worth looking for work,
the truth is in PostgreSQL, and so errors of the queue are simply waited out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from arq.connections import ArqRedis
from arq.worker import Worker, func

from soundhash_server.queue import (
    QUEUE_ERRORS,
    QUEUE_NAME,
    TASK_NAME,
    deserialize,
    serialize,
)

_POLL_S = 0.1
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 3.0
_HEALTH_S = 30
_AT_ONCE = 20
_LONGEST_S = 10
_EVER = 1_000_000_000

log = structlog.get_logger(__name__)


class WakeUps(Worker):
    """Calls ``wake`` for each wake-up.

    has_room: while it says no, wake-ups are left to other workers.
    """

    def __init__(
        self, redis: ArqRedis, wake: Callable[[], None], has_room: Callable[[], bool]
    ) -> None:
        self._on_wake = wake
        self._has_room = has_room
        self._stopped = False
        self._away = False
        super().__init__(
            [func(self._wake, name=TASK_NAME, max_tries=_EVER)],
            redis_pool=redis,
            queue_name=QUEUE_NAME,
            handle_signals=False,
            max_jobs=_AT_ONCE,
            job_timeout=_LONGEST_S,
            keep_result=0,
            poll_delay=_POLL_S,
            health_check_interval=_HEALTH_S,
            job_serializer=serialize,
            job_deserializer=deserialize,
            log_results=False,
        )

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

    async def stop(self) -> None:
        """Takes no more, and waits for those under way."""
        self._stopped = True
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        for job_id in job_ids:
            if job_id.decode() in self.tasks or self.job_counter >= self.max_jobs:
                continue
            try:
                await super().start_jobs([job_id])
            except Exception:
                # arq has taken a place for the job and then lost the connection.
                self._release_sem_dec_counter_on_complete()
                raise

    async def _poll_iteration(self) -> None:
        self.allow_pick_jobs = not self._stopped and self._has_room()
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

    async def _wake(self, ctx: dict[Any, Any], *_args: Any, **_kwargs: Any) -> None:
        self._on_wake()
