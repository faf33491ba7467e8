"""Wakes workers through arq; the one module of the server that knows about it.

A wake-up is a hint. The job's row in PostgreSQL is the truth, and the workers' sweeper wakes
again whatever was lost here, so nothing waits for the queue and nothing is lost with it.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast
from uuid import UUID

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

QUEUE_NAME = "soundhash:jobs"
TASK_NAME = "process_job"
_IO_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 2.0

QUEUE_ERRORS = (RedisError, OSError, TimeoutError)
"""What a queue that is away, restarting or out of order raises."""

log = structlog.get_logger(__name__)


def serialize(message: dict[str, Any]) -> bytes:
    """An arq message as JSON: nothing that is read from the queue is ever executed, which
    arq's default, pickle, would allow. What JSON cannot say becomes text."""
    return json.dumps(message, default=repr).encode()


def deserialize(data: bytes) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(data))


def open_redis(url: str) -> ArqRedis:
    """A client that connects on first use and again after every loss.

    url: ``redis://``, ``rediss://`` or ``unix://``. Raises ValueError for any other.
    """
    client: ArqRedis = ArqRedis.from_url(
        url,
        socket_timeout=_IO_TIMEOUT_S,
        socket_connect_timeout=_CONNECT_TIMEOUT_S,
        health_check_interval=30,
    )
    client.job_serializer = serialize
    client.job_deserializer = deserialize
    client.default_queue_name = QUEUE_NAME
    return client


class JobQueue:
    """The server's end of the queue."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis

    @classmethod
    def connect(cls, url: str) -> JobQueue:
        """Does no I/O yet: a queue that is away is found by ``ping`` and ``wake``."""
        return cls(open_redis(url))

    async def wake(self, job_id: UUID) -> bool:
        """Asks some worker to look at a job; a wake-up that waits already is not doubled.

        Returns False, after a line in the log, if the queue is away: that only delays the job
        until the workers' sweeper finds it, and is no failure of the caller.
        """
        try:
            await self._redis.enqueue_job(TASK_NAME, str(job_id), _job_id=str(job_id))
        except QUEUE_ERRORS as error:
            log.warning("queue is away", job_id=str(job_id), error=type(error).__name__)
            return False
        return True

    async def ping(self) -> bool:
        """Whether the queue answers, within a few seconds."""
        try:
            async with asyncio.timeout(_IO_TIMEOUT_S):
                return bool(await self._redis.ping())
        except QUEUE_ERRORS:
            return False

    async def close(self) -> None:
        await self._redis.aclose(close_connection_pool=True)
