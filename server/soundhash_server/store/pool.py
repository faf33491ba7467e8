"""Connections to PostgreSQL: one pool a process, one place that maps its failures."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

import asyncpg

from soundhash_server.errors import ErrorKind, PlatformError

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Isolation: TypeAlias = Literal["read_committed", "repeatable_read"]

CONNECT_TIMEOUT_S = 5.0
ACQUIRE_TIMEOUT_S = 15.0
"""Longest wait for a free connection of the pool."""
STATEMENT_TIMEOUT_S = 60.0

_UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InsufficientResourcesError,
    asyncpg.QueryCanceledError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InternalClientError,
    asyncpg.InvalidAuthorizationSpecificationError,  # a wrong password among them
    asyncpg.InvalidCatalogNameError,
)


def database_unavailable(cause: BaseException) -> PlatformError:
    """UNAVAILABLE, DATABASE_UNAVAILABLE; the cause's kind is named, its text is not: it may
    hold addresses or statements."""
    return PlatformError(
        ErrorKind.UNAVAILABLE,
        "DATABASE_UNAVAILABLE",
        "The database cannot be reached or did not answer in time.",
        "Try again shortly. Operators: `soundhash doctor` says what is wrong.",
        retry_after_s=1.0,
        metadata={"cause": type(cause).__name__},
    )


def _url_invalid() -> PlatformError:
    return PlatformError(
        ErrorKind.INVALID_ARGUMENT,
        "DATABASE_URL_INVALID",
        "The database URL cannot be read.",
        "Set SOUNDHASH_DATABASE_URL to postgresql://user:password@host:port/database.",
    )


async def prepare(connection: Connection) -> None:
    """Makes jsonb columns plain Python data on this connection."""
    await connection.set_type_codec(
        "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
    )


async def create_pool(url: str, size: int, *, name: str = "soundhash") -> Pool:
    """A pool of at most ``size`` connections, which it makes when they are first needed:
    no database has to be there yet. ``name`` shows up in pg_stat_activity.

    Raises PlatformError INVALID_ARGUMENT (DATABASE_URL_INVALID) for a malformed URL.
    """
    if not url.startswith(("postgresql://", "postgres://")):
        raise _url_invalid()
    return await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=size,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=STATEMENT_TIMEOUT_S + 5.0,
        init=prepare,
        server_settings={
            "application_name": name,
            "statement_timeout": f"{STATEMENT_TIMEOUT_S * 1000:.0f}",
        },
    )


@asynccontextmanager
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    """A connection of the pool.

    Failures of the database become PlatformError UNAVAILABLE (DATABASE_UNAVAILABLE), text that
    PostgreSQL cannot hold (NUL) INVALID_ARGUMENT (TEXT_INVALID), a URL of the wrong form
    INVALID_ARGUMENT (DATABASE_URL_INVALID).
    """
    try:
        try:
            held = await pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
        except ValueError as error:  # of reading the URL, which waits for the first connection
            raise _url_invalid() from error
        try:
            yield held
        finally:
            await pool.release(held)
    except (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError) as error:
        raise PlatformError(
            ErrorKind.INVALID_ARGUMENT,
            "TEXT_INVALID",
            "A text holds a NUL character.",
            "Remove control characters from names, titles and identifiers.",
        ) from error
    except _UNAVAILABLE as error:
        if isinstance(error, ValueError):  # asyncpg's complaint about an argument: our mistake
            raise
        raise database_unavailable(error) from error


@asynccontextmanager
async def transaction(
    pool: Pool, *, isolation: Isolation = "read_committed", readonly: bool = False
) -> AsyncIterator[Connection]:
    """Like `connection`, inside one transaction: committed at the end, rolled back on errors."""
    async with (
        connection(pool) as held,
        held.transaction(isolation=isolation, readonly=readonly),
    ):
        yield held
