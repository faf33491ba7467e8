"""Postings on three PostgreSQL servers: the same answers as at home, and no wait for the dead."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil
import pytest
from tests.asking import SONGS, check_same_answers, make_volumes, questions
from tests.conftest import on_database

from soundhash_engine import extract, join
from soundhash_engine.index import Index, Snapshot
from soundhash_engine.matcher import match
from soundhash_engine.postings import LOCAL, Answer, Missing, RemotePostings
from soundhash_engine.volume import Volume
from soundhash_server.embedded_postgres import Postgres
from soundhash_server.store import posting_rows, posting_shard
from soundhash_server.store.migrate import migrate
from soundhash_server.store.postings import PostingShards

DEADLINE_S = 4.0
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Postgres]]:
    made = [
        Postgres(tmp_path_factory.mktemp(f"shard{i}"), {"fsync": "off", "shared_buffers": "16MB"})
        for i in range(3)
    ]
    for server in made:
        server.start()
    yield made
    for server in made:
        server.stop()


@pytest.fixture(scope="module")
def volumes() -> tuple[Volume, ...]:
    return make_volumes()


@pytest.fixture
def shards(servers: list[Postgres]) -> Iterator[PostingShards]:
    for server in servers:
        server.start()
    made = PostingShards([server.url for server in servers], deadline_s=DEADLINE_S, connections=2)
    yield made
    made.close()


def eventually(holds: Callable[[], object]) -> None:
    """Waits until something holds; fails after half a minute."""
    until = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def store(shards: PostingShards, volumes: tuple[Volume, ...]) -> None:
    shards.keep([(posting_rows.content_key(volume), volume) for volume in volumes])
    eventually(lambda: all(shards.holds(volume) for volume in volumes))


def sql(server: Postgres, statement: str) -> list[asyncpg.Record]:
    async def work() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(server.url)
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    return asyncio.run(work())


def names(missing: tuple[Missing, ...]) -> list[tuple[str, str]]:
    return [(one.part, one.reason) for one in missing]


def stop_all(server: Postgres, number: signal.Signals) -> None:
    """A signal to the server and all of its processes."""
    assert server.pid is not None
    main = psutil.Process(server.pid)
    for process in (main, *main.children(recursive=True)):
        process.send_signal(number)


def test_the_same_answers_as_at_home(
    shards: PostingShards, volumes: tuple[Volume, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    store(shards, volumes)
    assert check_same_answers(volumes, shards) > 200
    # A large question in many queries.
    monkeypatch.setattr(posting_shard, "MOST_PIECES", 100)
    assert check_same_answers(volumes, shards) > 200
    states = shards.states()
    assert [(s.name, s.reason, s.volumes) for s in states] == [
        ("1/3", "", 2),
        ("2/3", "", 2),
        ("3/3", "", 2),
    ]
    assert all(s.postings > 1000 for s in states)
    assert all("@" not in s.address and s.address for s in states)


def test_a_volume_is_stored_once_and_dropped_when_nobody_uses_it(
    servers: list[Postgres], shards: PostingShards, volumes: tuple[Volume, ...]
) -> None:
    store(shards, volumes)
    before = [
        sql(server, "SELECT number, key FROM posting_volumes ORDER BY 1") for server in servers
    ]
    again = tuple(Volume.from_arrays(v.meta(), v.arrays()) for v in volumes)
    other = PostingShards([s.url for s in servers], deadline_s=DEADLINE_S, connections=1)
    try:
        store(other, again)
    finally:
        other.close()
    after = [
        sql(server, "SELECT number, key FROM posting_volumes ORDER BY 1") for server in servers
    ]
    assert before == after
    assert [len(rows) for rows in after] == [2, 2, 2]

    sql(
        servers[0],
        "UPDATE posting_volumes SET used_time = now() - interval '1 day' WHERE number = 1",
    )

    async def drop() -> int:
        connection = await asyncpg.connect(servers[0].url)
        try:
            return await posting_rows.drop_unused(connection, 3600.0)
        finally:
            await connection.close()

    assert asyncio.run(drop()) == 1
    assert asyncio.run(drop()) == 0
    assert len(sql(servers[0], "SELECT number FROM posting_volumes")) == 1
    left = sql(servers[0], "SELECT DISTINCT place >> 22 AS number FROM postings")
    assert [row["number"] for row in left] == [2]
    # It is missed until it is back, which it soon is.
    answer = RemotePostings(shards).ask(volumes, questions()[0])
    assert names(answer.missing) in ([("shard 1/3", "NOT_LOADED")], [])
    eventually(lambda: not RemotePostings(shards).ask(volumes, questions()[0]).missing)
    assert check_same_answers(volumes, shards, 2) > 10


def test_a_load_that_is_cut_leaves_nothing(
    servers: list[Postgres], shards: PostingShards, volumes: tuple[Volume, ...]
) -> None:
    store(shards, volumes)

    async def work() -> None:
        connection = await asyncpg.connect(servers[1].url)
        rows = posting_rows._Rows.__iter__

        def some(self: posting_rows._Rows) -> Iterator[tuple[int, bytes]]:
            for i, row in enumerate(rows(self)):
                if i == 5:
                    raise ConnectionAbortedError
                yield row

        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(posting_rows._Rows, "__iter__", some)
                await posting_rows.load(connection, "cut", volumes[1], 1, 3)
        finally:
            await connection.close()

    count = (
        "SELECT (SELECT count(*) FROM postings) AS p, (SELECT count(*) FROM posting_volumes) AS v"
    )
    before = sql(servers[1], count)
    with pytest.raises(ConnectionAbortedError):
        asyncio.run(work())
    assert sql(servers[1], count) == before


def ask_while_held(
    shards: PostingShards,
    server: Postgres,
    volumes: tuple[Volume, ...],
    happens: Callable[[], None],
) -> list[tuple[str, str]]:
    """Asks a question that a server does not get on with, because its table is locked; lets
    something happen to it meanwhile; returns what is missing of the answer."""
    answers: list[Answer] = []
    question = questions()[1]
    remote = RemotePostings(shards)
    asking = threading.Thread(
        target=lambda: answers.append(remote.ask(volumes, question)), daemon=True
    )
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND application_name = 'soundhash-postings' AND query LIKE '%unnest%'"
    )
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(server.url))
        try:
            runner.run(connection.execute("BEGIN; LOCK TABLE postings"))
            asking.start()
            eventually(lambda: sql(server, waiting))
            happens()
            asking.join(PATIENCE_S)
        finally:
            connection.terminate()
    (answer,) = answers
    whole = LOCAL.ask(volumes, question)
    votes = [sum(int(f.votes.sum()) for f in one.found) for one in (whole, answer)]
    assert 0 < votes[1] < votes[0]
    assert sum(one.share for one in answer.missing) == pytest.approx(1 / 3)
    return names(answer.missing)


def test_a_server_that_is_killed_in_mid_question_is_a_named_part_and_comes_back(
    servers: list[Postgres], volumes: tuple[Volume, ...]
) -> None:
    # The answer does not wait for this deadline.
    shards = PostingShards([s.url for s in servers], deadline_s=10 * PATIENCE_S, connections=2)
    try:
        store(shards, volumes)
        pid = servers[2].pid
        assert pid is not None
        missing = ask_while_held(shards, servers[2], volumes, lambda: os.kill(pid, signal.SIGKILL))
        assert missing == [("shard 3/3", "UNREACHABLE")]
        assert shards.states()[2].reason == "UNREACHABLE"
        eventually(lambda: servers[2].pid is None)
        servers[2].start()
        eventually(lambda: not RemotePostings(shards).ask(volumes, questions()[0]).missing)
        assert check_same_answers(volumes, shards, 2) > 10
    finally:
        shards.close()


def test_a_server_that_hangs_in_mid_question_is_not_waited_for(
    servers: list[Postgres], shards: PostingShards, volumes: tuple[Volume, ...]
) -> None:
    store(shards, volumes)
    try:
        missing = ask_while_held(
            shards, servers[0], volumes, lambda: stop_all(servers[0], signal.SIGSTOP)
        )
        assert missing == [("shard 1/3", "TIMED_OUT")]
        # From now on it is not even asked.
        answer = RemotePostings(shards).ask(volumes, questions()[0])
        assert [part for part, _ in names(answer.missing)] == ["shard 1/3"]
    finally:
        stop_all(servers[0], signal.SIGCONT)
    eventually(lambda: not RemotePostings(shards).ask(volumes, questions()[0]).missing)
    assert check_same_answers(volumes, shards, 2) > 10


def test_a_shard_that_lost_its_data_gets_it_again(
    servers: list[Postgres], shards: PostingShards, volumes: tuple[Volume, ...]
) -> None:
    store(shards, volumes)
    sql(servers[1], "DROP TABLE postings, posting_volumes, schema_migrations")
    remote = RemotePostings(shards)
    answer = remote.ask(volumes, questions()[0])
    assert names(answer.missing) == [("shard 2/3", "NOT_LOADED")]
    eventually(lambda: not remote.ask(volumes, questions()[0]).missing)
    assert check_same_answers(volumes, shards, 2) > 10


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    index = Index()
    index.apply([(i, 1, join(extract(pcm))) for i, pcm in SONGS.items()])
    index.seal()
    return index.snapshot()


def test_a_clip_is_found_with_a_server_gone_and_the_answer_says_so(
    servers: list[Postgres], shards: PostingShards, snapshot: Snapshot
) -> None:
    store(shards, snapshot.volumes)
    spread = dataclasses.replace(snapshot, postings=RemotePostings(shards))
    clip = SONGS[2][80_000:120_000]
    assert match(spread, clip).matches == match(snapshot, clip).matches
    pid = servers[1].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: shards.states()[1].reason)
    result = match(spread, clip)
    assert [m.recording_id for m in result.matches] == [2]
    assert names(result.missing) == [("shard 2/3", "UNREACHABLE")]
    servers[1].start()
    eventually(lambda: not match(spread, clip).missing)


async def make_coordinator(servers: list[Postgres]) -> str:
    """A database whose table is hash partitions on all servers, as docs/scaling.md describes."""
    for server in servers:
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE DATABASE part")
        await connection.close()
        await migrate(on_database(server.url, "part"), posting_rows.postings_migrations())
    connection = await asyncpg.connect(servers[0].url)
    await connection.execute("CREATE DATABASE coordinator")
    await connection.close()
    url = on_database(servers[0].url, "coordinator")
    connection = await asyncpg.connect(url)
    await connection.execute(
        "CREATE EXTENSION postgres_fdw;"
        "CREATE TABLE postings (place bigint NOT NULL, data bytea NOT NULL)"
        " PARTITION BY HASH (place)"
    )
    for i, server in enumerate(servers):
        parts = urlsplit(server.url)
        host = parse_qs(parts.query)["host"][0]
        await connection.execute(
            f"CREATE SERVER part{i} FOREIGN DATA WRAPPER postgres_fdw"
            f" OPTIONS (host '{host}', port '5432', dbname 'part', batch_size '500');"
            f"CREATE USER MAPPING FOR CURRENT_USER SERVER part{i}"
            f" OPTIONS (user '{parts.username}', password '{parts.password}');"
            f"CREATE FOREIGN TABLE postings{i} PARTITION OF postings"
            f" FOR VALUES WITH (MODULUS {len(servers)}, REMAINDER {i})"
            f" SERVER part{i} OPTIONS (table_name 'postings')"
        )
    await connection.close()
    return url


def test_one_server_may_spread_its_table_over_others(
    servers: list[Postgres], volumes: tuple[Volume, ...]
) -> None:
    for server in servers:
        server.start()
    url = asyncio.run(make_coordinator(servers))
    shards = PostingShards([url], deadline_s=PATIENCE_S, connections=1)
    try:
        store(shards, volumes)
        assert check_same_answers(volumes, shards, 2) > 10
    finally:
        shards.close()

    async def rows(server: Postgres) -> int:
        connection = await asyncpg.connect(on_database(server.url, "part"))
        try:
            return int(await connection.fetchval("SELECT count(*) FROM postings"))
        finally:
            await connection.close()

    assert all(asyncio.run(rows(server)) > 10 for server in servers)
