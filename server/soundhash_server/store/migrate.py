"""Brings a database to the schema that this code expects: forward only, one runner at a time.

A migration is a file ``NNNN_name.sql`` whose statements follow a ``-- migrate:up`` line
(dbmate's marker). Each runs in one transaction together with its row in schema_migrations.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.store.pool import CONNECT_TIMEOUT_S, Connection, database_unavailable

LOCK_KEY = 0x50_55_4E_44  # any constant of our own
LOCK_TIMEOUT_S = 120.0
_LOCK_POLL_S = 0.05
_NAME = re.compile(r"\d{4}_[a-z0-9_]+\.sql")
_MARKER = re.compile(r"^-- migrate:up[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Migration:
    name: str
    sql: str
    checksum: str
    """SHA-256 of the whole file, hexadecimal."""


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """How a database stands to this code's migrations, by name."""

    applied: tuple[str, ...]
    pending: tuple[str, ...]
    changed: tuple[str, ...]
    """Applied once, but their files read differently now."""
    unknown: tuple[str, ...]
    """Applied by newer code."""


def migrations_dir() -> Path:
    """Where the migrations lie: in the installed package, else in the repository."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent.parent / "migrations"


def load(directory: Path | None = None) -> list[Migration]:
    """All migrations in their order. Raises ValueError for a file that is not one."""
    found = []
    for path in sorted((directory or migrations_dir()).glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        parts = _MARKER.split(text)
        if not _NAME.fullmatch(path.name) or len(parts) != 2:
            raise ValueError(f"{path.name} is not a migration: NNNN_name.sql with -- migrate:up")
        found.append(Migration(path.stem, parts[1], hashlib.sha256(text.encode()).hexdigest()))
    if not found:
        raise ValueError("no migrations found")
    return found


async def status(url: str, directory: Path | None = None) -> SchemaStatus:
    """Compares without changing anything. Raises PlatformError DATABASE_UNAVAILABLE."""
    async with _connected(url) as connection:
        if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
            return _compare({}, load(directory))
        return _compare(await _recorded(connection), load(directory))


async def migrate(url: str, directory: Path | None = None) -> list[str]:
    """Applies what is pending; returns the names of what was applied.

    Raises PlatformError: DATABASE_UNAVAILABLE; FAILED_PRECONDITION with SCHEMA_NEWER (the
    database belongs to newer code) or SCHEMA_CHANGED (an applied migration's file was edited);
    ABORTED with MIGRATION_BUSY (another runner did not end in two minutes).
    """
    migrations = load(directory)
    async with _connected(url) as connection, _sole_runner(connection):
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            " name text PRIMARY KEY, checksum text NOT NULL,"
            " apply_time timestamptz NOT NULL DEFAULT now())"
        )
        found = _compare(await _recorded(connection), migrations)
        if found.unknown:
            raise PlatformError(
                ErrorKind.FAILED_PRECONDITION,
                "SCHEMA_NEWER",
                f"The database has migration {found.unknown[-1]}, which this version lacks.",
                "Run the version of SoundHash that made it, or a newer one.",
                metadata={"migration": found.unknown[-1]},
            )
        if found.changed:
            raise PlatformError(
                ErrorKind.FAILED_PRECONDITION,
                "SCHEMA_CHANGED",
                f"Migration {found.changed[0]} was changed after it was applied.",
                "Restore its file and put the change into a new migration.",
                metadata={"migration": found.changed[0]},
            )
        pending = [entry for entry in migrations if entry.name in found.pending]
        for migration in pending:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2)",
                    migration.name,
                    migration.checksum,
                )
        return [entry.name for entry in pending]


def _compare(recorded: dict[str, str], migrations: list[Migration]) -> SchemaStatus:
    known = {entry.name: entry.checksum for entry in migrations}
    return SchemaStatus(
        applied=tuple(sorted(recorded)),
        pending=tuple(name for name in known if name not in recorded),
        changed=tuple(n for n, c in known.items() if n in recorded and recorded[n] != c),
        unknown=tuple(sorted(name for name in recorded if name not in known)),
    )


async def _recorded(connection: Connection) -> dict[str, str]:
    rows = await connection.fetch("SELECT name, checksum FROM schema_migrations")
    return {row["name"]: row["checksum"] for row in rows}


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Connection]:
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise database_unavailable(error) from error
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def _sole_runner(connection: Connection) -> AsyncIterator[None]:
    # Polled: a blocking advisory lock holds a snapshot, which CREATE INDEX CONCURRENTLY of the
    # runner that has the lock would wait for.
    deadline = asyncio.get_running_loop().time() + LOCK_TIMEOUT_S
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK_KEY):
        if asyncio.get_running_loop().time() > deadline:
            raise PlatformError(
                ErrorKind.ABORTED,
                "MIGRATION_BUSY",
                "Another process is migrating this database and does not end.",
                "Wait for it or end it, then run `soundhash migrate` again.",
            )
        await asyncio.sleep(_LOCK_POLL_S)
    try:
        yield
    finally:
        await connection.fetchval("SELECT pg_advisory_unlock($1)", LOCK_KEY)
