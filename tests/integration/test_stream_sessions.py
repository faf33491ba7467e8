"""Streams that outlive their connection, and how many there are: the contract of MatchStream."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import numpy as np
import pytest
from tests.integration.rpc import Running, eventually, open_channel, refused, running, split
from tests.media import encode
from tests.sounds import tune

from soundhash.v1 import catalog_pb2, match_pb2, match_pb2_grpc
from soundhash_server.embedded_valkey import Valkey
from soundhash_server.services.live.load import LEAST_STEPS

PCM = match_pb2.PcmFormat(encoding=match_pb2.PCM_ENCODING_S16LE, sample_rate_hz=8000, channels=1)
SECOND = 16_000
Events = list[match_pb2.MatchStreamResponse]


@pytest.fixture(scope="module")
async def songs(server: Running) -> list[catalog_pb2.Video]:
    """Two indexed songs of a minute."""
    return [await server.add(encode(tune(60.0, seed)), f"{seed}.wav") for seed in (41, 42)]


@pytest.fixture(scope="module")
async def small(
    database_factory: Callable[[], AsyncIterator[str]],
    valkey_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Running]:
    """A server with room for two streams."""
    async for url in database_factory():
        folder = tmp_path_factory.mktemp("small")
        async with running(url, valkey_server.url, folder, max_streams=2) as made:
            yield made


def mix() -> bytes:
    """5 s of neither, 12 s of one, 6 s of neither, 12 s of the other, 40 s of neither."""
    pieces = [
        tune(5.0, 990),
        tune(60.0, 41)[160_000:256_000],
        tune(6.0, 991),
        tune(60.0, 42)[80_000:176_000],
        tune(40.0, 992),
    ]
    return (np.concatenate(pieces) * 32767).astype("<i2").tobytes()


class Client:
    """One connection that can be cut: its own channel, its own call."""

    def __init__(self, server: Running) -> None:
        self.channel = open_channel(server.server.port)
        self.outbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.events: Events = []

    async def begin(self, **config: Any) -> match_pb2.MatchStreamResponse:
        """Sends the config; returns the first event."""
        stub = match_pb2_grpc.MatchServiceStub(self.channel)
        first = match_pb2.MatchStreamRequest(config=match_pb2.MatchStreamConfig(**config))

        async def requests() -> AsyncIterator[match_pb2.MatchStreamRequest]:
            yield first
            while (data := await self.outbox.get()) is not None:
                yield match_pb2.MatchStreamRequest(audio=data)

        self.call = stub.MatchStream(requests())
        return await self.read()

    async def read(self) -> match_pb2.MatchStreamResponse:
        async with asyncio.timeout(20):
            event = await self.call.read()
        if event is not grpc.aio.EOF:
            self.events.append(event)
        return event

    async def until(self, heard_s: float) -> None:
        """Reads until so much has been searched."""
        while (await self.read()).heard.ToTimedelta().total_seconds() < heard_s:
            pass

    async def rest(self) -> Events:
        while await self.read() is not grpc.aio.EOF:
            pass
        return self.events

    def send(self, content: bytes) -> None:
        for piece in split(content, 4001):
            self.outbox.put_nowait(piece)

    async def cut(self) -> None:
        """Loses the connection without a word."""
        await self.channel.close()


@contextlib.asynccontextmanager
async def client(server: Running) -> AsyncIterator[Client]:
    made = Client(server)
    try:
        yield made
    finally:
        await made.channel.close()


def resume(opened: match_pb2.MatchStreamResponse, last: int) -> dict[str, Any]:
    token = opened.opened.resume_token
    return {"resume": match_pb2.StreamResume(token=token, last_sequence=last)}


def timeline(events: Events) -> list[tuple[str, float, float]]:
    """Finals and gaps by their starts; touching gaps as one."""
    parts: list[tuple[str, float, float]] = []
    for event in events:
        if event.WhichOneof("event") == "final":
            match = event.final
            span = (match.clip_start, match.clip_end)
            parts.append((match.video_id, *(s.ToTimedelta().total_seconds() for s in span)))
        elif event.WhichOneof("event") == "gap":
            span = (event.gap.start, event.gap.end)
            parts.append(("", *(s.ToTimedelta().total_seconds() for s in span)))
    joined: list[tuple[str, float, float]] = []
    for name, start, end in sorted(parts, key=lambda part: part[1]):
        if joined and not name and joined[-1][0] == "" and joined[-1][2] == start:
            joined[-1] = ("", joined[-1][1], end)
        else:
            joined.append((name, start, end))
    return joined


async def whole(server: Running, content: bytes) -> Events:
    async with client(server) as one:
        await one.begin(pcm=PCM)
        one.send(content)
        one.outbox.put_nowait(None)
        return await one.rest()


async def test_finals_and_gaps_are_the_timeline(
    server: Running, songs: list[catalog_pb2.Video]
) -> None:
    events = await whole(server, mix())
    parts = timeline(events)
    assert [name for name, _, _ in parts] == ["", songs[0].id, "", songs[1].id, ""]
    borders = [0.0, 5.0, 17.0, 23.0, 35.0, 75.0]
    for (_, start, end), at in zip(parts, itertools.pairwise(borders), strict=True):
        assert (start, end) == pytest.approx(at, abs=1.2)
    # A gap is told while the stream goes on.
    gaps = [event for event in events if event.WhichOneof("event") == "gap"]
    assert gaps[0].heard.ToTimedelta().total_seconds() < 60.0


@pytest.mark.parametrize("at_s", [3.3, 12.0, 30.0, 74.9])
async def test_a_stream_goes_on_after_a_break(
    server: Running, songs: list[catalog_pb2.Video], at_s: float
) -> None:
    content = mix()
    expected = timeline(await whole(server, content))
    async with client(server) as first, client(server) as second:
        opened = await first.begin(pcm=PCM)
        assert not opened.opened.resumed
        assert opened.opened.resume_within.ToTimedelta().total_seconds() == 60.0
        assert len(opened.opened.resume_token) >= 32
        first.send(content[: round(at_s * SECOND)])
        await first.until(min(at_s - 1.0, 60.0))
        await first.cut()
        last = first.events[-1]
        again = await second.begin(**resume(opened, last.sequence))
        assert again.opened.resumed
        assert again.opened.resume_token == opened.opened.resume_token
        assert last.received_bytes <= again.opened.received_bytes <= round(at_s * SECOND)
        second.send(content[again.opened.received_bytes :])
        second.outbox.put_nowait(None)
        events = first.events + await second.rest()
    assert timeline(events) == expected
    numbers = [event.sequence for event in events if not event.HasField("opened")]
    assert numbers == sorted(set(numbers))
    assert events[-1].summary.match_count == 2
    listed = await server.match.ListMatches(
        match_pb2.ListMatchesRequest(query_id=events[-1].summary.query_id)
    )
    assert len(listed.matches) == 2


async def test_what_was_told_while_nobody_read_is_told_again(
    server: Running, songs: list[catalog_pb2.Video]
) -> None:
    async with client(server) as first, client(server) as second, client(server) as third:
        opened = await first.begin(pcm=PCM)
        first.send(mix())
        first.outbox.put_nowait(None)
        complete = await first.rest()
        # Nobody knows whether the end has arrived: it can be had again, and again.
        for one, last in ((second, 0), (third, complete[-2].sequence)):
            again = await one.begin(**resume(opened, last))
            assert again.opened.received_bytes == len(mix())
            events = await one.rest()
            assert [e for e in events if e.HasField("summary")] == complete[-1:]
        assert timeline(second.events) == timeline(complete)
        assert timeline(third.events) == []


async def test_who_goes_on_with_a_stream_takes_it_over(server: Running) -> None:
    async with client(server) as first, client(server) as second:
        opened = await first.begin(pcm=PCM)
        first.send(bytes(2 * SECOND))
        await first.until(1.0)
        again = await second.begin(**resume(opened, first.events[-1].sequence))
        with refused("ABORTED", "STREAM_TAKEN_OVER") as caught:
            await first.rest()
        assert opened.opened.resume_token not in caught[0].message
        second.send(bytes(4 * SECOND)[again.opened.received_bytes :])
        second.outbox.put_nowait(None)
        events = await second.rest()
        assert events[-1].heard.ToTimedelta().total_seconds() == 4.0


async def test_streams_that_are_not_there(server: Running) -> None:
    async with client(server) as one:
        with refused("NOT_FOUND", "STREAM_NOT_FOUND") as caught:
            await one.begin(resume=match_pb2.StreamResume(token="made-up-token"))
        assert "made-up-token" not in caught[0].message + str(caught[0].details)


async def test_a_stream_that_failed_says_so_again(server: Running) -> None:
    async with client(server) as first, client(server) as second:
        opened = await first.begin()
        first.send(b"no sound, just words. " * 5000)
        first.outbox.put_nowait(None)
        with refused("INVALID_ARGUMENT", "NOT_MEDIA"):
            await first.rest()
        await second.begin(**resume(opened, 1))
        with refused("INVALID_ARGUMENT", "NOT_MEDIA"):
            await second.rest()


async def test_who_waits_for_its_client_makes_room(small: Running) -> None:
    live = small.server._live
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(small)) for _ in range(6)]
        first = await clients[0].begin(pcm=PCM)
        await clients[1].begin(pcm=PCM)
        with refused("RESOURCE_EXHAUSTED", "SERVER_BUSY") as caught:
            await clients[2].begin(pcm=PCM)
        assert caught[0].details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() == 5.0
        await clients[0].cut()
        await eventually(lambda: live.streams == 1)
        await clients[3].begin(pcm=PCM)
        with refused("NOT_FOUND", "STREAM_NOT_FOUND"):
            await clients[4].begin(**resume(first, 1))


async def test_a_late_server_takes_no_more_streams(server: Running) -> None:
    live = server.server._live
    async with client(server) as first, client(server) as second, client(server) as third:
        await first.begin(pcm=PCM)
        live._turns.load._steps.clear()
        for _ in range(LEAST_STEPS):
            live._turns.load.ran(0.01, 2.0)
        with refused("RESOURCE_EXHAUSTED", "SERVER_BUSY"):
            await second.begin(pcm=PCM)
        live._turns.load._steps.clear()
        await third.begin(pcm=PCM)


async def test_a_draining_server_tells_what_it_knows(
    server: Running, songs: list[catalog_pb2.Video]
) -> None:
    async with client(server) as one:
        await one.begin(pcm=PCM)
        one.send(mix()[: 15 * SECOND])
        await one.until(14.0)
        await server.server._live.drain(0.0)
        with refused("UNAVAILABLE", "SERVER_DRAINING"):
            await one.rest()
        assert [name for name, _, _ in timeline(one.events)] == ["", songs[0].id]
        final = next(e.final for e in one.events if e.HasField("final"))
        assert await server.match.GetMatch(match_pb2.GetMatchRequest(id=final.id)) == final
