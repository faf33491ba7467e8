"""A server whose index has its postings on three databases, one of which goes away."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.conftest import on_database
from tests.integration.rpc import Running, running, song

import soundhash
from soundhash.v1 import admin_pb2, match_pb2
from soundhash_server.doctor import Finding, Level, check_postings
from soundhash_server.embedded_postgres import Postgres
from soundhash_server.embedded_valkey import Valkey
from soundhash_server.settings import SettingsError

PROGRAM = str(Path(sys.executable).with_name("soundhash"))
PATIENCE_S = 30.0


class Shards:
    """Three databases; one can be made to refuse everybody."""

    def __init__(self, urls: list[str], admin: str) -> None:
        self.urls = urls
        self._admin = admin

    async def refuse(self, index: int, refused: bool) -> None:
        """Ends all connections to a database and lets no new one in, or lets them in again."""
        name = urlsplit(self.urls[index]).path[1:]
        connection = await asyncpg.connect(self._admin)
        try:
            await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {not refused}")
            if refused:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
                    name,
                )
        finally:
            await connection.close()


@pytest.fixture(scope="module")
async def shards(postgres_server: Postgres) -> AsyncIterator[Shards]:
    admin = postgres_server.url
    names = [f"shard_{i}" for i in range(3)]
    connection = await asyncpg.connect(admin)
    for name in names:
        await connection.execute(f"CREATE DATABASE {name}")
    yield Shards([on_database(admin, name) for name in names], admin)
    for name in names:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest.fixture(scope="module")
async def server(
    shards: Shards,
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Running]:
    async for url in database_factory():
        async with running(
            url,
            valkey_server.url,
            tmp_path_factory.mktemp("data"),
            postings_urls=" ".join(shards.urls),
            postings_least_hours=0.0,
            postings_deadline_s=5.0,
        ) as made:
            yield made


async def posting_shards(server: Running) -> list[admin_pb2.PostingShard]:
    status = await server.admin.GetIndexStatus(admin_pb2.GetIndexStatusRequest())
    return list(status.posting_shards)


async def until_shards(server: Running, holds: Callable[[admin_pb2.PostingShard], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not all(holds(shard) for shard in await posting_shards(server)):
            await asyncio.sleep(0.05)


async def match(content: bytes, server: Running) -> match_pb2.MatchClipResponse:
    answer: match_pb2.MatchClipResponse = await server.match.MatchClip(
        match_pb2.MatchClipRequest(content=content)
    )
    return answer


async def program(server: Running, *arguments: str) -> tuple[str, str]:
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *arguments,
        env={**os.environ, "SOUNDHASH_ADDRESS": server.address},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode(), err.decode()


async def stream_summary(content: bytes, server: Running) -> soundhash.StreamSummary:
    async with soundhash.AsyncClient(server.address) as client:
        async for event in client.stream([content]):
            if isinstance(event, soundhash.StreamSummary):
                return event
    raise AssertionError("the stream has no summary")


def findings(server: Running) -> list[Finding]:
    return list(check_postings(server.settings))


async def test_what_does_not_answer_is_named_everywhere(
    server: Running, shards: Shards, tmp_path: Path
) -> None:
    indexed, other = song(1, 12.0), song(2, 6.0)
    video = await server.add(indexed)
    clip = tmp_path / "clip.wav"
    clip.write_bytes(other)
    await until_shards(server, lambda shard: shard.volume_count >= 1 and not shard.reason)
    names = [shard.name for shard in await posting_shards(server)]
    assert names == ["1/3", "2/3", "3/3"]
    assert [f.level for f in await asyncio.to_thread(findings, server)] == [Level.OK] * 3
    whole = await match(indexed, server)
    assert [one.video_id for one in whole.matches] == [video.id]
    assert not whole.missing
    assert not (await match(other, server)).matches
    assert (await stream_summary(other, server)).missing == ()

    await shards.refuse(1, True)
    try:
        answer = await match(other, server)
        (missing,) = answer.missing
        assert (missing.part, missing.reason) == ("shard 2/3", "UNREACHABLE")
        assert missing.share == pytest.approx(1 / 3)
        # What is there is still found.
        assert [m.video_id for m in (await match(indexed, server)).matches] == [video.id]
        async with soundhash.AsyncClient(server.address) as client:
            (told,) = (await client.match(other)).missing
        assert told == soundhash.MissingPart("shard 2/3", missing.share, "UNREACHABLE")
        assert (await stream_summary(other, server)).missing == (told,)
        assert [shard.reason for shard in await posting_shards(server)] == ["", "UNREACHABLE", ""]
        (out, err), (line, _), (index, _) = await asyncio.gather(
            program(server, "match", str(clip)),
            program(server, "match", "--json", str(clip)),
            program(server, "index"),
        )
        assert "no match in what answered" in out
        assert "warning" in err and "shard 2/3 (unreachable)" in err and "33%" in err
        assert json.loads(line)["missing"] == [
            {"part": "shard 2/3", "share": missing.share, "reason": "UNREACHABLE"}
        ]
        assert "not asked: unreachable" in index
        levels = [f.level for f in await asyncio.to_thread(findings, server)]
        assert levels == [Level.OK, Level.PROBLEM, Level.OK]
    finally:
        await shards.refuse(1, False)
    await until_shards(server, lambda shard: not shard.reason)
    assert not (await match(other, server)).missing


async def test_urls_of_another_kind_are_refused(
    database_factory: Callable[[], AsyncIterator[str]], valkey_server: Valkey, tmp_path: Path
) -> None:
    async for url in database_factory():
        settings = {"postings_urls": "mysql://there"}
        with pytest.raises(SettingsError, match="SOUNDHASH_POSTINGS_URLS"):
            async with running(url, valkey_server.url, tmp_path, **settings):
                pass
