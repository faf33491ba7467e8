"""What a database that is away, slow or misnamed looks like to callers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from soundhash_server.embedded_postgres import Postgres
from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.store.migrate import migrate
from soundhash_server.store.pool import Pool, connection, create_pool, transaction
from soundhash_server.store.videos import Videos


def assert_unavailable(error: PlatformError) -> None:
    assert (error.kind, error.reason) == (ErrorKind.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    assert error.retry_after_s is not None
    assert "/" not in error.message, "no addresses"


async def test_pool_needs_no_database_until_it_is_used(tmp_path: Path) -> None:
    pool = await create_pool(f"postgresql://u:p@/d?host={tmp_path}", 2)
    with pytest.raises(PlatformError) as refused:
        await Videos(pool).list(10, "")
    assert_unavailable(refused.value)
    await pool.close()


async def test_wrong_password_is_unavailable(postgres_url: str) -> None:
    pool = await create_pool(postgres_url.replace("//soundhash:", "//soundhash:x"), 2)
    with pytest.raises(PlatformError) as refused:
        await Videos(pool).list(10, "")
    assert_unavailable(refused.value)
    await pool.close()


async def test_malformed_url() -> None:
    with pytest.raises(PlatformError) as refused:
        await create_pool("mysql://somewhere/else", 2)
    assert refused.value.reason == "DATABASE_URL_INVALID"
    pool = await create_pool("postgresql://u:p@localhost:port/d", 2)
    with pytest.raises(PlatformError) as refused:
        await Videos(pool).external_id_taken("x")
    assert refused.value.reason == "DATABASE_URL_INVALID"
    await pool.close()


async def test_slow_statement_is_ended(pool: Pool) -> None:
    with pytest.raises(PlatformError) as refused:
        async with transaction(pool) as held:
            await held.execute("SET LOCAL statement_timeout = '50ms'")
            await held.execute("SELECT pg_sleep(30)")
    assert_unavailable(refused.value)
    assert await Videos(pool).external_id_taken("x") is False, "the connection is usable again"


async def test_connection_that_breaks_in_the_middle(pool: Pool) -> None:
    with pytest.raises(PlatformError) as refused:
        async with connection(pool) as held:
            pid = await held.fetchval("SELECT pg_backend_pid()")
            async with connection(pool) as other:
                await other.execute("SELECT pg_terminate_backend($1)", pid)
            await asyncio.sleep(0.05)
            await held.fetchval("SELECT 1")
    assert_unavailable(refused.value)


async def test_pool_outlives_the_database(tmp_path: Path) -> None:
    server = Postgres(tmp_path, {"fsync": "off"})
    server.start()
    try:
        await migrate(server.url)
        pool = await create_pool(server.url, 3)
        assert await Videos(pool).external_id_taken("x") is False
        server.stop()
        with pytest.raises(PlatformError) as refused:
            await Videos(pool).external_id_taken("x")
        assert_unavailable(refused.value)
        server.start()
        assert await Videos(pool).external_id_taken("x") is False
        await pool.close()
    finally:
        server.stop()
