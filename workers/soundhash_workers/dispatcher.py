"""Keeps a worker busy: takes the job whose turn it is whenever there is room for one.

Wake-ups and ended jobs only say that it is worth looking. It also looks by itself from time to
time, so a wake-up that got lost, a retry that has become due, a pause that is over and a dead
worker's job are all found in the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping

import structlog

from soundhash_server.errors import PlatformError
from soundhash_server.model import Lease
from soundhash_server.store.jobs import Jobs
from soundhash_server.store.turns import Bounds, Slot
from soundhash_server.tasks import end

_LOOK_AGAIN_S = 0.5
"""After the database was away."""
_TAKE_S = 5.0
"""How long an answer is waited for when the worker stops: a job that it took is given back."""

log = structlog.get_logger(__name__)


class Dispatcher:
    """Runs jobs, as many at once as there is room for.

    rooms: how many of each kind. look_s: how often it looks by itself, on average. can_take:
    whether jobs of a kind may be begun now at all. run: carries out a job; gives it back when
    cancelled.
    """

    def __init__(
        self,
        jobs: Jobs,
        run: Callable[[Lease], Awaitable[None]],
        *,
        rooms: Mapping[Slot, int],
        bounds: Bounds,
        lease_s: float,
        look_s: float,
        can_take: Callable[[Slot], bool] = lambda _: True,
    ) -> None:
        self._jobs = jobs
        self._run_job = run
        self._rooms = rooms
        self._bounds = bounds
        self._lease_s = lease_s
        self._look_s = look_s
        self._can_take = can_take
        self._running: dict[asyncio.Task[None], Slot] = {}
        self._look = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """Whether a recording could be begun; when not, wake-ups are better left to others."""
        return self._free(Slot.INGEST) > 0

    def wake(self) -> None:
        """There may be something to do."""
        self._look.set()

    async def run(self) -> None:
        """Takes jobs until cancelled; those under way go on until `stop`."""
        away = False
        while True:
            self._look.clear()
            # Workers that started together must not look together.
            pause_s = self._look_s * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
            try:
                for slot in self._rooms:
                    await self._fill(slot)
                away = False
            except PlatformError as error:
                if not away:
                    log.warning("no job can be taken", reason=error.reason)
                away, pause_s = True, _LOOK_AGAIN_S
                self._look.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._look.wait()

    async def stop(self, patience_s: float) -> None:
        """Cancels the jobs under way and waits until each has been given back.

        patience_s: jobs that go on for longer are cancelled once more.
        """
        # One that was cancelled before its first step would not give its job back.
        await asyncio.sleep(0)
        await end(*self._running, again_s=patience_s)

    def _free(self, slot: Slot) -> int:
        return self._rooms.get(slot, 0) - sum(one is slot for one in self._running.values())

    async def _fill(self, slot: Slot) -> None:
        while self._free(slot) > 0 and self._can_take(slot):
            lease = await self._take(slot)
            if lease is None:
                return
            task = asyncio.create_task(self._run(lease), name=f"job {lease.job.id}")
            self._running[task] = slot
            task.add_done_callback(self._ended)

    async def _take(self, slot: Slot) -> Lease | None:
        taking = asyncio.ensure_future(self._jobs.take(slot, self._bounds, self._lease_s))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            with contextlib.suppress(PlatformError, TimeoutError):
                async with asyncio.timeout(_TAKE_S):
                    lease = await taking
                    if lease is not None:
                        await self._jobs.release(lease.token)
            raise

    async def _run(self, lease: Lease) -> None:
        try:
            await self._run_job(lease)
        except Exception:
            # Its lease runs out, and then somebody takes it again.
            log.exception("job was dropped", job_id=str(lease.job.id))

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._look.set()
