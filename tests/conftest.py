"""Real servers for every test: an embedded PostgreSQL and Valkey a session, fresh data a test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from redis.asyncio import Redis

from soundhash_server.embedded_postgres import Postgres
from soundhash_server.embedded_valkey import Valkey
from soundhash_server.store.migrate import migrate
from soundhash_server.store.pool import Pool, create_pool
from tests.platforms import RunningPlatform, run_platform

TEMPLATE = "migrated"


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The session's database server; it need not survive a power failure."""
    server = Postgres(
        tmp_path_factory.mktemp("postgres"),
        {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"},
    )
    server.start()
    yield server
    server.stop()


def on_database(url: str, name: str) -> str:
    """The same server's URL for another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
async def database_factory(postgres_server: Postgres) -> Callable[[], AsyncIterator[str]]:
    """Gives URLs of fresh, migrated databases; iterate once, close to drop."""
    admin = postgres_server.url
    await _execute(admin, f"CREATE DATABASE {TEMPLATE}")
    await migrate(on_database(admin, TEMPLATE))
    numbers = itertools.count()

    async def make() -> AsyncIterator[str]:
        name = f"test_{next(numbers)}"
        await _execute(admin, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        # A copy is another catalogue.
        await _execute(
            on_database(admin, name), "UPDATE catalogue SET identity = gen_random_uuid()"
        )
        try:
            yield on_database(admin, name)
        finally:
            await _execute(admin, f"DROP DATABASE {name} WITH (FORCE)")

    return make


@pytest.fixture
async def empty_database_url(postgres_server: Postgres) -> AsyncIterator[str]:
    """A database without any table."""
    admin = postgres_server.url
    await _execute(admin, "CREATE DATABASE empty")
    yield on_database(admin, "empty")
    await _execute(admin, "DROP DATABASE empty WITH (FORCE)")


@pytest.fixture
async def postgres_url(
    database_factory: Callable[[], AsyncIterator[str]],
) -> AsyncIterator[str]:
    """A fresh, migrated database for this test."""
    async for url in database_factory():
        yield url


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    """Connections to this test's database."""
    made = await create_pool(postgres_url, 10, name="soundhash-test")
    yield made
    await made.close()


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """The session's queue server."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def redis_url(valkey_server: Valkey) -> AsyncIterator[str]:
    """An empty queue for this test (database 0; the `platform` fixture uses another)."""
    client = Redis.from_url(valkey_server.url)
    await client.flushdb()
    yield valkey_server.url
    await client.flushdb()
    await client.aclose()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data folder for this test."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
async def platform(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[RunningPlatform]:
    """A server and a worker as processes, on a database and a queue of their own, for the whole
    session: tests share what they ingest, so they look only for their own."""
    async for url in database_factory():
        settings = {
            "DATABASE_URL": url,
            "REDIS_URL": valkey_server.url.replace("db=0", "db=1"),
            "FOLDERS": str(tmp_path_factory.getbasetemp()),
        }
        with run_platform(tmp_path_factory.mktemp("platform"), settings) as running:
            yield running
