"""The monitors of a worker: takes some, keeps them, gives them back.

Each monitor has one worker at a time, by a lease in the database. A worker that dies lets its
leases run out, and another takes the monitors; one that stops gives them back at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from collections.abc import Awaitable, Sequence
from uuid import UUID

import structlog

from soundhash_engine.matcher import Match
from soundhash_engine.types import Pcm
from soundhash_server.errors import PlatformError
from soundhash_server.model import MonitorLease
from soundhash_server.services.cpu import CpuPool
from soundhash_server.services.live import LiveMatching
from soundhash_server.settings import Settings
from soundhash_server.store.air import Air
from soundhash_server.store.detections import Detections
from soundhash_server.store.jobs import LeaseLost
from soundhash_server.store.listener import MONITOR_ORDERS, Listener
from soundhash_server.store.matches import Matches
from soundhash_server.store.monitors import Monitors
from soundhash_server.store.pool import Pool
from soundhash_server.tasks import end
from soundhash_workers.match_index import MatchIndex
from soundhash_workers.monitors.known_videos import KnownVideos
from soundhash_workers.monitors.parts import NoRoom, Parts, Sources
from soundhash_workers.monitors.session import Session

LOOK_S = 2.0
"""How often it looks for monitors that nobody has, if nothing is announced."""
AT_ONCE = 4
"""So many are taken at a time, then others have their turn: the longer the more there are here."""
LATE_S = 5.0
"""A worker whose searches are this far behind takes no more monitors."""
TOO_LATE_S = 12.0
"""And one that is this far behind gives some back."""
SPARE = 0.9
"""Part of what it managed that it keeps then."""
_LONG_S = 15.0
_FULL_S = 20.0
_MORE_S = 300.0
"""After it had too many, a worker tries one more this often."""
_FIRST_PAUSE_S = 0.02
_LOADED_PAUSE_S = 0.3
_RETRY_S = 1.0
_RELEASE_S = 3.0
_TOGETHER_S = 0.2

log = structlog.get_logger(__name__)


class MonitorHost:
    """Carries up to ``max_monitors`` of the settings."""

    def __init__(
        self,
        settings: Settings,
        monitors: Monitors,
        listener: Listener,
        parts: Parts,
        cpu: CpuPool,
    ) -> None:
        self._most = self._bearable = settings.max_monitors
        self._lease_s = settings.monitor_lease_s
        self._monitors = monitors
        self._listener = listener
        self._parts = parts
        self._cpu = cpu
        self._sessions: dict[UUID, Session] = {}
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._look = asyncio.Event()
        self._beat = asyncio.Event()
        self._late_since_s: float | None = None
        self._searched_by_then_s = 0.0
        self._full_until_s = self._more_at_s = 0.0
        self._beaten_s = 0.0
        self._ready = False
        self._given_back: set[asyncio.Task[None]] = set()

    @property
    def carried(self) -> int:
        """Monitors that this worker listens to now."""
        return len(self._sessions)

    async def run(self) -> None:
        """Takes monitors and keeps them until cancelled; then call `stop`."""
        if self._most <= 0:
            await asyncio.Event().wait()
        loops = [
            asyncio.create_task(loop, name="monitors")
            for loop in (self._take_in(), self._keep(), self._hear_orders())
        ]
        try:
            await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for loop in loops:
                if loop.done():
                    # None ends by itself but by an error that nobody has foreseen.
                    loop.result()
        finally:
            await end(*loops)

    async def stop(self, patience_s: float) -> None:
        """Ends all listening and gives the monitors back, so that others take them at once.

        patience_s: sessions that go on for longer are cancelled once more.
        """
        sessions = dict(self._sessions)
        # One that was cancelled before its first step would not say how far it has come.
        await asyncio.sleep(0)
        await end(*self._tasks.values(), again_s=patience_s)
        with contextlib.suppress(PlatformError, TimeoutError):
            async with asyncio.timeout(_RELEASE_S):
                reports = {token: session.report() for token, session in sessions.items()}
                await self._monitors.heartbeat(reports, self._lease_s)
        await self._release(list(sessions))
        if self._given_back:
            await asyncio.wait(self._given_back, timeout=_RELEASE_S)

    def close(self) -> None:
        """Lets go of the threads; after `stop`."""
        self._cpu.close()

    async def _take_in(self) -> None:
        away = False
        while True:
            self._look.clear()
            pause_s = min(LOOK_S, self._lease_s / 3) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
            try:
                if await self._take():
                    # The more a worker has, the longer it leaves the rest to others.
                    load = self.carried / self._most
                    await asyncio.sleep(_FIRST_PAUSE_S + _LOADED_PAUSE_S * load)
                    continue
                away = False
                await self._stand_by()
            except PlatformError as error:
                if not away:
                    log.warning("no monitor can be taken", reason=error.reason)
                # All workers have missed their renewals alike: each renews its own first.
                away, pause_s = True, _RETRY_S
                self._full_until_s = time.monotonic() + self._lease_s / 2
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._look.wait()

    async def _take(self) -> int:
        """Takes some of those that nobody has; how many."""
        room = min(self._bearable - self.carried, AT_ONCE)
        now_s = time.monotonic()
        if room <= 0 or self._late_since_s or now_s < self._full_until_s:
            return 0
        if self._sessions and now_s - self._beaten_s > self._lease_s / 2:
            # It would take its own: they have to be renewed first.
            return 0
        claiming = asyncio.ensure_future(self._monitors.claim(room, self._lease_s))
        try:
            leases = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with contextlib.suppress(PlatformError, TimeoutError):
                async with asyncio.timeout(_RELEASE_S):
                    await self._release([lease.token for lease in await claiming])
            raise
        if leases and not self._sessions:
            self._beaten_s = now_s
        for lease in leases:
            self._start(lease)
        return len(leases)

    async def _stand_by(self) -> None:
        """Gets ready once there are monitors, though others have them: should they die, this
        worker is not to lose time."""
        if self._sessions or self._ready:
            return
        if (await self._monitors.list(1, "")).items:
            await self._parts.index.prepare()
            self._ready = True

    def _start(self, lease: MonitorLease) -> None:
        session = Session(lease, self._parts, self._beat.set)
        task = asyncio.create_task(session.run(), name=f"monitor {lease.monitor.id}")
        self._sessions[lease.token], self._tasks[lease.token] = session, task
        task.add_done_callback(lambda done: self._ended(lease, done))
        log.info("listens to a monitor", monitor_id=str(lease.monitor.id), carried=self.carried)

    def _ended(self, lease: MonitorLease, task: asyncio.Task[None]) -> None:
        self._sessions.pop(lease.token, None)
        self._tasks.pop(lease.token, None)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, LeaseLost):
            log.info("monitor is another's", monitor_id=str(lease.monitor.id))
            self._look.set()
            return
        if isinstance(error, NoRoom):
            log.warning("no room for a monitor", monitor_id=str(lease.monitor.id))
            self._had_too_many(self.carried)
            self._in_background(self._release([lease.token]))
        else:
            # Its lease runs out, and then somebody takes it again.
            log.error("monitor was dropped", monitor_id=str(lease.monitor.id), exc_info=error)

    async def _keep(self) -> None:
        away = False
        while True:
            self._beat.clear()
            pause_s = self._lease_s / 3
            try:
                await self._report()
                away = False
            except PlatformError as error:
                # They go on: nobody else can take them while the database is away.
                if not away:
                    log.warning("monitors wait for the database", reason=error.reason)
                away, pause_s = True, min(_RETRY_S, pause_s)
            self._unburden()
            # Many that change together are told together.
            await asyncio.sleep(_TOGETHER_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._beat.wait()

    async def _report(self) -> None:
        sessions = dict(self._sessions)
        reports = {token: session.report() for token, session in sessions.items()}
        begun_s = time.monotonic()
        held = await self._monitors.heartbeat(reports, self._lease_s)
        self._beaten_s = begun_s
        for token, session in sessions.items():
            monitor = held.get(token)
            if monitor is not None:
                session.reported(reports[token])
                session.update(monitor)
            elif token in self._tasks:
                log.info("monitor is taken away", carried=self.carried)
                session.lost()
                self._in_background(end(self._tasks.pop(token)))

    def _unburden(self) -> None:
        """Sees whether the searches keep up; gives a monitor back when they do not for long."""
        late_s = statistics.median([s.late_s for s in self._sessions.values()] or [0.0])
        now_s = time.monotonic()
        if late_s < LATE_S:
            self._late_since_s = None
            if self._bearable < self._most and now_s > self._more_at_s:
                self._bearable, self._more_at_s = self._bearable + 1, now_s + _MORE_S
            return
        searched_s = sum(one.searched_in_all_s for one in self._sessions.values())
        if self._late_since_s is None:
            self._late_since_s, self._searched_by_then_s = now_s, searched_s
            log.warning("monitors are late", late_s=round(late_s, 1), carried=self.carried)
        lasted_s = now_s - self._late_since_s
        if late_s > TOO_LATE_S and lasted_s > _LONG_S and self.carried > 1:
            # So many seconds of audio a second are searched: so many sources can be followed.
            followed = int(SPARE * (searched_s - self._searched_by_then_s) / lasted_s)
            self._give_some_back(min(self.carried - 1, max(1, followed)))

    def _give_some_back(self, kept: int) -> None:
        """Keeps so many, those that it has had for longest; then it is seen whether that helps."""
        log.warning("monitors are given back", carried=self.carried, kept=kept)
        self._had_too_many(kept)
        self._late_since_s = None
        for token, task in list(self._tasks.items())[kept:]:
            self._in_background(self._give_back(token, task))

    def _had_too_many(self, bearable: int) -> None:
        now_s = time.monotonic()
        self._bearable = max(1, bearable)
        self._full_until_s, self._more_at_s = now_s + _FULL_S, now_s + _MORE_S

    async def _give_back(self, token: UUID, task: asyncio.Task[None]) -> None:
        await end(task, again_s=_RELEASE_S)
        await self._release([token])

    async def _release(self, tokens: list[UUID]) -> None:
        if not tokens:
            return
        # Else they run out.
        with contextlib.suppress(PlatformError, TimeoutError):
            async with asyncio.timeout(_RELEASE_S):
                await self._monitors.release(tokens)

    async def _hear_orders(self) -> None:
        with self._listener.subscribe(MONITOR_ORDERS) as orders:
            while True:
                await orders.wait()
                self._look.set()
                self._beat.set()
                await asyncio.sleep(_TOGETHER_S)

    def _in_background(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._given_back.add(task)
        task.add_done_callback(self._given_back.discard)


class _KeepsNothing:
    """Detections are the record; there is no clip to explain."""

    def keep(
        self, query_id: UUID, pcm: Pcm, matches: Sequence[Match], *, begin_s: float = 0.0
    ) -> None:
        """Lets it go."""


def open_host(
    settings: Settings, pool: Pool, listener: Listener, index: MatchIndex, sources: Sources
) -> MonitorHost:
    """A host with all that its sessions share."""
    videos = KnownVideos(pool)
    # Streams take turns. A monitor may be late: what it hears has its own time, and one that has
    # to connect again is not to be sent away for what a worker does besides.
    cpu = CpuPool(settings.effective_cpu_threads, settings.max_pending_matches)
    live = LiveMatching(
        cpu,
        index,
        videos,
        Matches(pool),
        _KeepsNothing(),
        max_streams=max(1, settings.max_monitors),
        refuse_late=False,
    )
    parts = Parts(settings, sources, index, live, videos, Detections(pool), Air(pool))
    return MonitorHost(settings, Monitors(pool), listener, parts, cpu)
