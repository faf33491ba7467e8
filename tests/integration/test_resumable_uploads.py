"""Uploads that are cut and go on: at the server, with the client, over a kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.rpc import (
    Callers,
    Running,
    eventually,
    open_channel,
    refused,
    running,
    split,
    upload_requests,
)
from tests.scripted import Caller

import soundhash
from soundhash.v1 import ingest_pb2
from soundhash_server.embedded_valkey import Valkey
from soundhash_server.services import partial_uploads

CHUNK_BYTES = 256 << 10
SIZE_BYTES = 10 << 20


def content(seed: int, size_bytes: int = SIZE_BYTES) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def identity(data: bytes) -> dict[str, Any]:
    """What a config says so that the upload can go on."""
    return {"content_sha256": digest_of(data), "size_bytes": len(data)}


async def received(server: Running, data: bytes) -> int:
    request = ingest_pb2.GetUploadRequest(content_sha256=digest_of(data))
    status = await server.ingest.GetUpload(request)
    assert status.HasField("expire_time") == (0 < status.received_bytes < len(data))
    return status.received_bytes


class Stream:
    """An upload that stays open after the given bytes, until it is closed or cut."""

    def __init__(self, server: Callers, part: bytes, **config: Any) -> None:
        self._all_sent = asyncio.Event()
        self._go_on = asyncio.Event()
        self._rest: Iterable[bytes] = ()
        self.call = server.ingest.Upload(self._requests(part, config))

    async def _requests(self, part: bytes, config: Any) -> AsyncIterator[ingest_pb2.UploadRequest]:
        async for one in upload_requests(part, chunk_bytes=CHUNK_BYTES, **config):
            yield one
        self._all_sent.set()
        await self._go_on.wait()
        for chunk in self._rest:
            yield ingest_pb2.UploadRequest(chunk=chunk)

    async def sent(self) -> None:
        await self._all_sent.wait()

    async def finish(self, rest: bytes) -> ingest_pb2.Job:
        self._rest = split(rest, CHUNK_BYTES)
        self._go_on.set()
        job: ingest_pb2.Job = await self.call
        return job

    async def cut(self) -> None:
        self.call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.call


async def reached(server: Running, data: bytes, n_bytes: int) -> None:
    path = server.settings.partial_uploads_dir / digest_of(data)
    await eventually(lambda: path.exists() and path.stat().st_size >= n_bytes, 30.0)


async def cut_after(server: Running, data: bytes, n_bytes: int) -> int:
    """Sends a beginning and vanishes; how much the server has of it."""
    stream = Stream(server, data[:n_bytes], **identity(data))
    await stream.sent()
    # What lies on the way when a caller vanishes is lost.
    await reached(server, data, n_bytes - (1 << 20))
    await stream.cut()
    got = await received(server, data)
    assert n_bytes - (2 << 20) <= got <= n_bytes
    return got


async def test_an_upload_cut_at_90_percent_goes_on(server: Running) -> None:
    data = content(1)
    assert await received(server, data) == 0
    got = await cut_after(server, data, len(data) * 9 // 10)
    assert got >= len(data) * 7 // 10
    job = await server.upload(data[got:], offset=got, **identity(data))
    assert job.state == ingest_pb2.JOB_STATE_QUEUED
    assert job.ingest.size_bytes == len(data)
    assert (server.uploads_dir / digest_of(data)).read_bytes() == data
    assert server.files_left() == [digest_of(data)]
    # Whole: there is nothing to go on with, and asking again gives the same job.
    assert await received(server, data) == len(data)
    again = await server.upload(b"", offset=len(data), **identity(data))
    assert again.id == job.id
    with refused("INVALID_ARGUMENT", "UPLOAD_SIZE_MISMATCH"):
        await server.upload(b"more", offset=len(data), **identity(data))
    clean(server)


async def test_another_offset_is_told_the_right_one(server: Running) -> None:
    data = content(2)
    with refused("FAILED_PRECONDITION", "UPLOAD_OFFSET_MISMATCH") as caught:
        await server.upload(data[5:], offset=5, **identity(data))
    assert caught[0].metadata["received_bytes"] == "0"
    got = await cut_after(server, data, 5 << 20)
    for offset in (got - 1, got + 1, len(data), len(data) + 1):
        with refused("FAILED_PRECONDITION", "UPLOAD_OFFSET_MISMATCH") as caught:
            await server.upload(data[offset:], offset=offset, **identity(data))
        assert caught[0].metadata["received_bytes"] == str(got)
    assert await received(server, data) == got
    # From the beginning is always right.
    await server.upload(data, **identity(data))
    assert (server.uploads_dir / digest_of(data)).read_bytes() == data
    clean(server)


@pytest.mark.parametrize("missing", ["content_sha256", "size_bytes"])
async def test_an_offset_needs_to_know_the_file(server: Running, missing: str) -> None:
    config = identity(b"abcdef")
    del config[missing]
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
        await server.upload(b"def", offset=3, **config)
    assert list(caught[0].fields) == ["config.offset"]


async def test_wrong_bytes_remove_what_was_kept(server: Running) -> None:
    data, other = content(3), content(4)
    got = await cut_after(server, data, 4 << 20)
    with refused("INVALID_ARGUMENT", "CHECKSUM_MISMATCH"):
        await server.upload(other[got:], offset=got, **identity(data))
    assert await received(server, data) == 0
    got = await cut_after(server, data, 4 << 20)
    with refused("INVALID_ARGUMENT", "UPLOAD_SIZE_MISMATCH"):
        await server.upload(data[got:] + b"more", offset=got, **identity(data))
    assert server.files_left() == []
    # Too few may be a caller that vanished: they are kept.
    with refused("INVALID_ARGUMENT", "UPLOAD_SIZE_MISMATCH"):
        await server.upload(data[:-1], **identity(data))
    assert await received(server, data) == len(data) - 1
    await server.upload(data[-1:], offset=len(data) - 1, **identity(data))
    clean(server)


async def test_streams_of_one_file_never_mix(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_uploads, "BUSY_WAIT_S", 0.2)
    monkeypatch.setattr(partial_uploads, "_STATUS_WAIT_S", 0.05)
    data = content(5)
    half = len(data) // 2
    got = await cut_after(server, data, half)
    first = Stream(server, data[got : got + CHUNK_BYTES], offset=got, **identity(data))
    await first.sent()
    await eventually(lambda: server.server._spool.receiving == 1)
    # Going on where another one goes on is refused; beginning anew is received apart.
    with refused("ABORTED", "UPLOAD_IN_PROGRESS") as caught:
        await server.upload(data[got:], offset=got, **identity(data))
    assert caught[0].details["RetryInfo"].retry_delay.seconds > 0
    jobs = [await server.upload(data, **identity(data))]
    jobs.append(await first.finish(data[got + CHUNK_BYTES :]))
    assert len({job.id for job in jobs}) == 1
    assert (server.uploads_dir / digest_of(data)).read_bytes() == data
    assert server.files_left() == [digest_of(data)]
    clean(server)


async def test_many_streams_of_one_file_at_once(server: Running) -> None:
    data = content(6, 3 << 20)
    jobs = await asyncio.gather(*(server.upload(data, **identity(data)) for _ in range(8)))
    assert len({job.id for job in jobs}) == 1
    assert (server.uploads_dir / digest_of(data)).read_bytes() == data
    assert server.files_left() == [digest_of(data)]
    clean(server)


async def test_a_deadline_and_silence_cut_too(
    database_factory: Callable[[], AsyncIterator[str]], valkey_server: Valkey, data_dir: Path
) -> None:
    async for url in database_factory():
        async with running(url, valkey_server.url, data_dir, stream_idle_s=0.5) as server:
            data = content(7)
            stream = Stream(server, data[: 6 << 20], **identity(data))
            with refused("DEADLINE_EXCEEDED", "STREAM_IDLE"):
                await stream.call
            # All that came before the silence is there.
            assert await received(server, data) == 6 << 20


async def test_a_server_that_stops_keeps_what_it_has(
    database_factory: Callable[[], AsyncIterator[str]], valkey_server: Valkey, data_dir: Path
) -> None:
    data = content(8)
    async for url in database_factory():
        async with contextlib.AsyncExitStack() as channels:
            async with running(url, valkey_server.url, data_dir, drain_s=0.1) as server:
                channel = open_channel(server.server.port)
                caller = Callers(await channels.enter_async_context(channel))
                stream = Stream(caller, data[: 6 << 20], **identity(data))
                await stream.sent()
                await reached(server, data, 5 << 20)
            with refused("UNAVAILABLE", "SERVER_DRAINING"):
                await stream.call
        async with running(url, valkey_server.url, data_dir) as server:
            got = await received(server, data)
            assert got >= 5 << 20
            await server.upload(data[got:], offset=got, **identity(data))
            assert server.files_left() == [digest_of(data)]


async def test_what_nobody_goes_on_with_is_thrown_away(
    database_factory: Callable[[], AsyncIterator[str]], valkey_server: Valkey, data_dir: Path
) -> None:
    data = content(9)
    async for url in database_factory():
        async with running(url, valkey_server.url, data_dir, partial_upload_s=600) as server:
            await cut_after(server, data, 5 << 20)
            partial = server.settings.partial_uploads_dir / digest_of(data)
        os.utime(partial, (1, 1))
        stray = partial.with_name("0" * 64 + ".mark")
        stray.write_text("12")
        # At the start of a server ...
        async with running(url, valkey_server.url, data_dir, partial_upload_s=600) as server:
            assert server.files_left() == []
            await cut_after(server, data, 5 << 20)
        # ... and while it runs, but never one that is being received.
        async with running(url, valkey_server.url, data_dir, partial_upload_s=1) as server:
            stream = Stream(server, data[:CHUNK_BYTES], **identity(data))
            await stream.sent()
            await eventually(lambda: server.server._spool.receiving == 1)
            other = content(10)
            await cut_after(server, other, 5 << 20)
            await eventually(lambda: server.files_left() == [digest_of(data)])
            await stream.finish(data[CHUNK_BYTES:])


async def test_partial_uploads_give_way_when_the_disk_is_full(
    database_factory: Callable[[], AsyncIterator[str]], valkey_server: Valkey, data_dir: Path
) -> None:
    data = content(11)
    async for url in database_factory():
        async with running(url, valkey_server.url, data_dir) as server:
            await cut_after(server, data, 5 << 20)
        async with running(url, valkey_server.url, data_dir, min_free_disk_bytes=1 << 60) as server:
            assert server.files_left() == []
            with refused("RESOURCE_EXHAUSTED", "DISK_FULL"):
                await server.upload(data, **identity(data))
            assert server.files_left() == []


def clean(server: Running) -> None:
    """Leaves nothing to the next test."""
    for path in server.uploads_dir.iterdir():
        if path.is_file():
            path.unlink()
    assert server.files_left() == []


# ---- the client ----


class Line:
    """A connection to the server that breaks after so many bytes, once."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.break_after = 0
        self.arrived: Callable[[], Awaitable[None]]
        """Waits for what is sent before the break."""
        self.carried = [0]
        """Bytes to the server, before and after the break."""

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        back = asyncio.create_task(self._back(up_reader, writer))
        try:
            while part := await reader.read(64 << 10):
                up_writer.write(part)
                await up_writer.drain()
                self.carried[-1] += len(part)
                if 0 < self.break_after <= self.carried[-1]:
                    # What is on its way is lost with the line.
                    await self.arrived()
                    self.break_after = 0
                    self.carried.append(0)
                    break
        except ConnectionError:
            pass
        finally:
            back.cancel()
            for one in (writer, up_writer):
                one.transport.abort()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(64 << 10):
                writer.write(part)
                await writer.drain()


@contextlib.asynccontextmanager
async def line_to(server: Running) -> AsyncIterator[tuple[Line, str]]:
    line = Line(server.server.port)
    listening = await asyncio.start_server(line.carry, "127.0.0.1", 0)
    try:
        yield line, f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


@pytest.mark.parametrize("kind", ["plain", "asyncio"])
async def test_the_client_goes_on_by_itself(server: Running, kind: str, tmp_path: Path) -> None:
    data = content(20 + len(kind))
    path = tmp_path / "long.wav"
    path.write_bytes(data)
    told: list[tuple[int, int | None]] = []
    async with line_to(server) as (line, address):
        line.break_after = len(data) * 9 // 10
        line.arrived = lambda: reached(server, data, line.break_after - (3 << 19))
        call = Caller(kind, address)
        try:
            job = await call(
                "upload", path, progress=lambda sent, total: told.append((sent, total))
            )
            status = await call("get_upload", digest_of(data))
        finally:
            await call.close()
    assert job.parameters.size_bytes == len(data)
    assert (server.uploads_dir / digest_of(data)).read_bytes() == data
    # Little more than the rest has come the second time.
    assert line.carried[0] >= len(data) * 9 // 10
    assert line.carried[1] <= len(data) * 4 // 10, line.carried
    assert told[-1] == (len(data), len(data))
    began_again = [b for (a, _), (b, _) in itertools.pairwise(told) if b < a]
    assert len(began_again) == 1 and began_again[0] >= len(data) * 6 // 10
    assert status.received_bytes == len(data) and status.expire_time is None
    clean(server)


@pytest.mark.parametrize("kind", ["plain", "asyncio"])
async def test_another_call_goes_on_and_a_changed_file_does_not(
    server: Running, kind: str, tmp_path: Path
) -> None:
    data = content(30 + len(kind))
    path = tmp_path / "long.wav"
    path.write_bytes(data)
    told: list[int] = []

    def stop(sent: int, total: int | None) -> None:
        told.append(sent)
        if len(told) > 1 and sent >= len(data) * 9 // 10:
            raise KeyError("stopped")

    call = Caller(kind, server.address)
    try:
        with pytest.raises(KeyError):
            await call("upload", path, progress=stop)
        got = await received(server, data)
        assert got > 0
        # Other bytes are another file: sent whole.
        other = data[:-1] + bytes([data[-1] ^ 1])
        path.write_bytes(other)
        told.clear()
        await call("upload", path, progress=lambda sent, total: told.append(sent))
        assert told[0] < 1 << 20
        assert (server.uploads_dir / digest_of(other)).read_bytes() == other
        assert await received(server, data) == got
        # The same bytes go on, under whatever name.
        told.clear()
        await call("upload", data, progress=lambda sent, total: told.append(sent))
        assert told[0] == got
        assert (server.uploads_dir / digest_of(data)).read_bytes() == data
    finally:
        await call.close()
    clean(server)


async def test_a_file_that_changes_while_it_is_sent_is_refused(
    server: Running, tmp_path: Path
) -> None:
    data = content(40)
    path = tmp_path / "changing.wav"
    path.write_bytes(data)

    def change(sent: int, total: int | None) -> None:
        if sent < len(data) // 2:
            with path.open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"?")

    call = Caller("plain", server.address)
    try:
        with pytest.raises(soundhash.InvalidArgument) as caught:
            await call("upload", path, progress=change)
    finally:
        await call.close()
    assert caught.value.reason == "CHECKSUM_MISMATCH"
    assert server.files_left() == []


RECEIVE = """
import asyncio, sys
from pathlib import Path
from soundhash_server.services import partial_uploads
from soundhash_server.services.partial_uploads import PartialUploads
from soundhash_server.services.uploads import Spool

partial_uploads.SYNC_BYTES = 4 << 20

async def main(folder, digest, size_bytes):
    folder.joinpath("tmp").mkdir(parents=True)
    spool = Spool(folder / "tmp", max_concurrent=1, wait_s=1, min_free_bytes=0)
    partials = PartialUploads(spool, folder / "partial", keep_s=600, max_bytes=1 << 30)
    partials.open()
    async with partials.receive(digest, size_bytes, 0) as receiver:
        while chunk := await asyncio.to_thread(sys.stdin.buffer.read, 100_000):
            await receiver.write(chunk)
    raise SystemExit("was not killed")

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
"""


async def test_what_was_written_outlives_a_kill(
    database_factory: Callable[[], AsyncIterator[str]], valkey_server: Valkey, data_dir: Path
) -> None:
    """kill -9 of a process that receives; a server goes on with what it had on disk."""
    data = content(50, 24 << 20)
    partial = data_dir / "uploads" / "partial" / digest_of(data)
    arguments = (str(data_dir / "uploads"), digest_of(data), str(len(data)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RECEIVE, *arguments, stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(data[: 15 << 20])
    await eventually(lambda: partial.exists() and partial.stat().st_size >= 13 << 20, 60.0)
    process.kill()
    assert await process.wait() == -signal.SIGKILL
    # The power may go too, and take with it what was not synced.
    synced = int(partial.with_name(f"{partial.name}.mark").read_text())
    assert synced >= 8 << 20
    with partial.open("r+b") as file:
        file.seek(synced)
        file.write(bytes(partial.stat().st_size - synced))
    async for url in database_factory():
        async with running(url, valkey_server.url, data_dir) as server:
            got = await received(server, data)
            assert got == synced
            await server.upload(data[got:], offset=got, **identity(data))
            assert (server.uploads_dir / digest_of(data)).read_bytes() == data
            assert server.files_left() == [digest_of(data)]
