"""One PostgreSQL server with a part of the postings: its connections, and whether it answers."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import structlog

from soundhash_engine.volume import Volume
from soundhash_server.errors import PlatformError
from soundhash_server.store import posting_rows
from soundhash_server.store.migrate import migrate
from soundhash_server.store.pool import CONNECT_TIMEOUT_S
from soundhash_server.store.posting_rows import LOOK_UP, Held, Pieces, Reply

log = structlog.get_logger(__name__)

MOST_PIECES = 25_000
"""A larger question becomes several queries, over several connections: each is one core there."""
TOUCH_S = 60.0
LEASE_S = 3600.0
"""A volume that no server has said to use for this long is dropped."""
_CHECK_TIMEOUT_S = 10.0
_IDLE_IN_TRANSACTION_S = 60.0
_ONE_PLAN = {
    # For each probe its row by the primary key, whatever the statistics say.
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}


@dataclasses.dataclass(frozen=True, slots=True)
class ShardState:
    """One shard as this server sees it.

    name      "2/3": the second of three
    address   host and database, without credentials
    reason    why it is not asked, UPPER_SNAKE; empty while it is
    volumes   how many of this server's volumes it has
    postings  in these
    """

    name: str
    address: str
    reason: str
    volumes: int
    postings: int


@dataclasses.dataclass(slots=True, eq=False)
class Stored:
    """A volume that is to be on all shards."""

    key: str
    volume: Volume
    held: dict[int, Held] = dataclasses.field(default_factory=dict)
    """Where it is, by the shard's index; what is known of a shard that is down stays."""
    everywhere: bool = False
    """Every shard has had its part: from then on it is asked for there."""
    refused: bool = False
    """It does not fit the rows' form."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What a shard is asked of one volume.

    number  of the volume there; None if it has not been stored
    pieces  for one query each
    """

    number: int | None
    pieces: tuple[Pieces, ...]


class PostingShard:
    """One server. Everything but `state` and `asked` belongs to one event loop."""

    def __init__(
        self, index: int, count: int, url: str, *, deadline_s: float, connections: int
    ) -> None:
        self.name = f"{index + 1}/{count}"
        self._index = index
        self._count = count
        self._url = url
        self._deadline_s = deadline_s
        self._idle: list[asyncpg.Connection[asyncpg.Record]] = []
        self._slots = asyncio.Semaphore(connections)
        self._own: asyncpg.Connection[asyncpg.Record] | None = None
        """For everything but questions."""
        self._reason = "STARTING"
        self._touched_s = 0.0

    @property
    def up(self) -> bool:
        """Whether it is asked."""
        return not self._reason

    def state(self, volumes: Sequence[Stored]) -> ShardState:
        """How it is."""
        held = [one.held[self._index] for one in volumes if self._index in one.held]
        return ShardState(
            name=self.name,
            address=address(self._url),
            reason=self._reason,
            volumes=len(held),
            postings=sum(one.postings for one in held),
        )

    def part(self, stored: Stored | None, volume: Volume, pieces: Pieces) -> Part:
        """This shard's part of what is asked of a volume."""
        held = None if stored is None else stored.held.get(self._index)
        mine = pieces.within(posting_rows.rows_of(volume, self._index, self._count))
        return Part(
            None if held is None else held.number,
            tuple(mine.slice(i, i + MOST_PIECES) for i in range(0, len(mine), MOST_PIECES)),
        )

    async def look_up(self, parts: Sequence[Part], deadline_s: float) -> list[list[Reply]] | str:
        """Replies to each part's pieces in order, or why there are none.

        ``deadline_s``: of the monotonic clock.
        """
        if self._reason:
            return self._reason
        queries = [
            [asyncio.ensure_future(self._ask(part.number, one, deadline_s)) for one in part.pieces]
            for part in parts
            if part.number is not None
        ]
        try:
            return [await asyncio.gather(*some) for some in queries]
        except Exception as error:
            return self.fail(error)
        finally:
            for query in itertools.chain(*queries):
                query.add_done_callback(_seen)
                query.cancel()

    async def _ask(self, number: int, pieces: Pieces, deadline_s: float) -> Reply:
        words = pieces.words(number).tolist()
        async with asyncio.timeout(deadline_s - time.monotonic()), self._slots:
            connection = await self._connected()
            query = asyncio.ensure_future(connection.fetchrow(LOOK_UP, words, number))
            query.add_done_callback(_seen)
            try:
                # Cut, not cancelled: a cancellation is one more connection to a server that may
                # be hanging, and the query ends by its statement_timeout.
                row = await asyncio.shield(query)
            except BaseException:
                connection.terminate()
                raise
            self._idle.append(connection)
            assert row is not None  # noqa: S101 - aggregates give one row
            return Reply.of(row)

    async def _connected(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection for a question; one that the server has ended meanwhile is no failure."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await self._connect(_ONE_PLAN)

    async def settle(self, volumes: Sequence[Stored]) -> None:
        """Connects, stores what is missing of ``volumes``, drops what nobody uses.

        Raises what the database raises; `fail` is to be told.
        """
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            if self._own is None or self._own.is_closed():
                await migrate(self._url, posting_rows.postings_migrations())
                self._own = await self._connect(
                    {
                        "statement_timeout": "0",
                        "idle_in_transaction_session_timeout": f"{_IDLE_IN_TRANSACTION_S:.0f}s",
                    }
                )
                self._touched_s = -TOUCH_S
            await self._see(self._own, volumes)
        if self._reason:
            log.info("postings are up", shard=self.name)
            self._reason = ""
        await self._tend(self._own, volumes)
        for one in volumes:
            if self._index not in one.held and not one.refused:
                await self._store(self._own, one)
                await self._tend(self._own, volumes)

    async def _tend(
        self, connection: asyncpg.Connection[asyncpg.Record], volumes: Sequence[Stored]
    ) -> None:
        """Renews the leases now and then, and drops what nobody renews."""
        if time.monotonic() - self._touched_s > TOUCH_S:
            self._touched_s = time.monotonic()
            used = [one.held[self._index].number for one in volumes if self._index in one.held]
            await posting_rows.touch(connection, used)
            await posting_rows.drop_unused(connection, LEASE_S)

    async def _see(
        self, connection: asyncpg.Connection[asyncpg.Record], volumes: Sequence[Stored]
    ) -> None:
        """Finds out what is there; a shard that was made anew has lost everything."""
        found = await posting_rows.held(connection)
        for one in volumes:
            held = found.get(self._key(one))
            if held is None:
                one.held.pop(self._index, None)
            else:
                one.held[self._index] = held
                one.everywhere |= len(one.held) == self._count

    async def _store(self, connection: asyncpg.Connection[asyncpg.Record], stored: Stored) -> None:
        begun = time.monotonic()
        try:
            await posting_rows.load(
                connection, self._key(stored), stored.volume, self._index, self._count
            )
        except OverflowError as error:
            stored.refused = True
            log.error("a volume is searched here alone", shard=self.name, why=str(error))
            return
        await self._see(connection, [stored])
        log.info(
            "postings were stored",
            shard=self.name,
            hours=round(stored.volume.hours, 2),
            elapsed_s=round(time.monotonic() - begun, 2),
        )

    def fail(self, error: BaseException) -> str:
        """It did not answer: it is not asked until `settle` has succeeded. Returns the reason."""
        reason = _reason(error)
        if not self._reason:
            log.warning("postings are gone", shard=self.name, reason=reason, error=repr(error))
        self._reason = reason
        self.hang_up()
        return reason

    def hang_up(self) -> None:
        """Cuts the connections."""
        for connection in (*self._idle, self._own):
            if connection is not None:
                connection.terminate()
        self._idle, self._own = [], None

    def _key(self, stored: Stored) -> str:
        return f"{stored.key}:{self.name}"

    async def _connect(self, settings: Mapping[str, str]) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(
            self._url,
            timeout=CONNECT_TIMEOUT_S,
            server_settings={
                "application_name": "soundhash-postings",
                "statement_timeout": f"{self._deadline_s * 1000:.0f}",
                **settings,
            },
        )


def address(url: str) -> str:
    """Where a shard is, without credentials."""
    parts = urlsplit(url)
    host = parts.hostname or parse_qs(parts.query).get("host", [""])[0]
    port = f":{parts.port}" if parts.port else ""
    return f"{host}{port}{parts.path}"


def _seen(query: asyncio.Future[Any]) -> None:
    """Nobody waits for a query whose connection was cut."""
    if not query.cancelled():
        query.exception()


def _reason(error: BaseException) -> str:
    if isinstance(error, PlatformError):
        return "UNREACHABLE" if error.reason == "DATABASE_UNAVAILABLE" else error.reason
    if isinstance(error, (TimeoutError, asyncpg.QueryCanceledError)):
        return "TIMED_OUT"
    if isinstance(error, asyncpg.UndefinedTableError):
        return "NOT_LOADED"
    return "UNREACHABLE"
