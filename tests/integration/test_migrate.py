"""The migration runner: forward only, one at a time, all or nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from soundhash_server.errors import PlatformError
from soundhash_server.store.migrate import load, migrate, migrations_dir, status

FIRST = "-- migrate:up\nCREATE TABLE one (id int);\n"
SECOND = (
    "-- Why it exists.\n-- migrate:up\nCREATE TABLE two (id int);\nINSERT INTO two VALUES (1);\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_one.sql").write_text(FIRST)
    (tmp_path / "0002_two.sql").write_text(SECOND)
    return tmp_path


async def count(url: str, query: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()


async def test_our_migrations_apply_once(empty_database_url: str) -> None:
    names = [path.stem for path in sorted(migrations_dir().glob("*.sql"))]
    assert (await status(empty_database_url)).pending == tuple(names)
    assert await migrate(empty_database_url) == names
    assert await migrate(empty_database_url) == []
    found = await status(empty_database_url)
    assert (found.applied, found.pending) == (tuple(names), ())


async def test_ten_runners_at_once_apply_each_once(empty_database_url: str, folder: Path) -> None:
    answers = await asyncio.gather(*(migrate(empty_database_url, folder) for _ in range(10)))
    assert sorted(answers, key=len)[-1] == ["0001_one", "0002_two"]
    assert sum(map(len, answers)) == 2
    assert await count(empty_database_url, "SELECT count(*) FROM two") == 1


async def test_only_what_is_new_is_applied(empty_database_url: str, folder: Path) -> None:
    (folder / "0002_two.sql").unlink()
    assert await migrate(empty_database_url, folder) == ["0001_one"]
    (folder / "0002_two.sql").write_text(SECOND)
    assert (await status(empty_database_url, folder)).pending == ("0002_two",)
    assert await migrate(empty_database_url, folder) == ["0002_two"]


async def test_failing_migration_leaves_nothing_of_itself(
    empty_database_url: str, folder: Path
) -> None:
    (folder / "0002_two.sql").write_text(SECOND + "SELECT no_such_function();\n")
    with pytest.raises(asyncpg.UndefinedFunctionError):
        await migrate(empty_database_url, folder)
    assert (await status(empty_database_url, folder)).applied == ("0001_one",)
    assert await count(empty_database_url, "SELECT (to_regclass('two') IS NULL)::int") == 1
    (folder / "0002_two.sql").write_text(SECOND)
    assert await migrate(empty_database_url, folder) == ["0002_two"], "the lock was given back"


async def test_changed_history_is_refused(empty_database_url: str, folder: Path) -> None:
    await migrate(empty_database_url, folder)
    (folder / "0001_one.sql").write_text(FIRST + "-- edited\n")
    (folder / "0003_three.sql").write_text("-- migrate:up\nCREATE TABLE three (id int);\n")
    with pytest.raises(PlatformError) as refused:
        await migrate(empty_database_url, folder)
    assert refused.value.reason == "SCHEMA_CHANGED"
    assert refused.value.metadata == {"migration": "0001_one"}
    found = await status(empty_database_url, folder)
    assert (found.changed, found.pending) == (("0001_one",), ("0003_three",))


async def test_database_of_newer_code_is_refused(empty_database_url: str, folder: Path) -> None:
    await migrate(empty_database_url, folder)
    (folder / "0002_two.sql").unlink()
    with pytest.raises(PlatformError) as refused:
        await migrate(empty_database_url, folder)
    assert refused.value.reason == "SCHEMA_NEWER"
    assert (await status(empty_database_url, folder)).unknown == ("0002_two",)


async def test_unreachable_database(tmp_path: Path) -> None:
    url = f"postgresql://nobody@/none?host={tmp_path}"
    for ask in (migrate, status):
        with pytest.raises(PlatformError) as refused:
            await ask(url)
        assert refused.value.reason == "DATABASE_UNAVAILABLE"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("0003_three.sql", "CREATE TABLE three (id int);"),
        ("three.sql", "-- migrate:up\n"),
        ("0003_Three.sql", "-- migrate:up\n"),
        ("0003_three.sql", "-- migrate:up\n-- migrate:up\n"),
    ],
)
def test_file_that_is_no_migration_is_refused(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match="not a migration"):
        load(folder)


def test_folder_without_migrations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no migrations"):
        load(tmp_path)
