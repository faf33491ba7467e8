"""Announcements of PostgreSQL (LISTEN) for as many waiters as there are, on one connection."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType

import asyncpg
import structlog

from soundhash_server.store.pool import CONNECT_TIMEOUT_S, Connection

JOBS = "soundhash_jobs"
"""Channel: a job changed; the payload is its id."""
CATALOGUE = "soundhash_catalogue"
"""Channel: what is indexed changed; the payload is the catalogue's revision."""
MONITORS = "soundhash_monitors"
"""Channel: a detection or an alert was stored; the payload is the monitor's id."""
MONITOR_ORDERS = "soundhash_monitor_orders"
"""Channel: somebody added, changed, paused, resumed or deleted a monitor; its id."""

_CHANNELS = (JOBS, CATALOGUE, MONITORS, MONITOR_ORDERS)
_RECONNECT_FIRST_S = 0.1
_RECONNECT_CAP_S = 5.0
_PROBE_S = 10.0
"""A connection that is silent for this long is asked whether it lives."""

log = structlog.get_logger(__name__)


class Subscription:
    """One waiter's flag: raised by an announcement, however many there were.

    An announcement says only that something changed; read the database to learn what. They can
    be lost (a connection that broke), so wait with a timeout and look all the same; after a
    reconnection every flag is raised.
    """

    def __init__(self, listener: Listener, key: tuple[str, str]) -> None:
        self._listener = listener
        self._key = key
        self._flag = asyncio.Event()

    def clear(self) -> None:
        """Forgets what was announced so far; do this before reading the database."""
        self._flag.clear()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Waits for the next announcement and lowers the flag. False: none within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._flag.wait()
        except TimeoutError:
            return False
        self._flag.clear()
        return True

    def announce(self) -> None:
        """Raises the flag."""
        self._flag.set()

    def close(self) -> None:
        """Ends the subscription."""
        self._listener._forget(self._key, self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Listener:
    """Listens on one connection of its own, and reconnects for ever while `run` runs."""

    def __init__(self, url: str, *, name: str = "soundhash-listener") -> None:
        self._url = url
        self._name = name
        self._waiting: dict[tuple[str, str], set[Subscription]] = {}
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    @property
    def connected(self) -> bool:
        """Whether announcements arrive at present."""
        return self._connection is not None and not self._connection.is_closed()

    def subscribe(self, channel: str, payload: str = "") -> Subscription:
        """A flag for a channel's announcements, or for those with this payload alone."""
        if channel not in _CHANNELS:
            raise ValueError(f"no such channel: {channel}")
        subscription = Subscription(self, (channel, payload))
        self._waiting.setdefault((channel, payload), set()).add(subscription)
        return subscription

    async def run(self) -> None:
        """Listens until cancelled; every loss of the database is waited out."""
        delay_s = _RECONNECT_FIRST_S
        complained = False
        while True:
            try:
                await self._listen()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if not complained:
                    log.warning("announcements wait for the database", why=type(error).__name__)
                complained = True
            else:
                delay_s, complained = _RECONNECT_FIRST_S, False
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _RECONNECT_CAP_S)

    async def close(self) -> None:
        """Drops the connection; `run` has to be cancelled by whoever runs it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _listen(self) -> None:
        """Returns when a connection that worked is lost; raises when there is none to get."""
        connection = await asyncpg.connect(
            self._url,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=CONNECT_TIMEOUT_S,
            server_settings={"application_name": self._name},
        )
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            for channel in _CHANNELS:
                await connection.add_listener(channel, self._received)
            self._connection = connection
            self._announce_all()
            with contextlib.suppress(
                OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError
            ):
                while not lost.is_set():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_PROBE_S):
                            await lost.wait()
                    if not lost.is_set():
                        await connection.execute("SELECT 1")
        finally:
            self._connection = None
            connection.terminate()

    def _received(self, _: Connection, pid: int, channel: str, payload: object) -> None:
        for key in ((channel, ""), (channel, str(payload))):
            for subscription in self._waiting.get(key, ()):
                subscription.announce()

    def _announce_all(self) -> None:
        for subscriptions in self._waiting.values():
            for subscription in subscriptions:
                subscription.announce()

    def _forget(self, key: tuple[str, str], subscription: Subscription) -> None:
        subscriptions = self._waiting.get(key)
        if subscriptions is not None:
            subscriptions.discard(subscription)
            if not subscriptions:
                del self._waiting[key]
