"""A live source's bytes to audio, in a process of its own that can be killed at any time.

Decoders are native code on hostile bytes: one may hang, crash or eat memory. In its own process
that costs one source and no other. It is forked from a process that has all loaded.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from multiprocessing.context import ForkServerProcess

import numpy as np

from soundhash_engine.types import Pcm
from soundhash_server.fetching.decoders import crash_of, end_process
from soundhash_server.fetching.failures import REASONS, JobError
from soundhash_server.forks import CONTEXT, PROCESSES

_BUFFER_BYTES = 128 << 10
_FRAME_BYTES = 64 << 10
_MAX_ANSWER_BYTES = 1 << 20
_NO_SOUND = frozenset({"NOT_MEDIA", "TRUNCATED_MEDIA", "DECODE_FAILED", "MOOV_AT_END"})


class Decoder:
    """The running process: one side feeds it, one side reads from it."""

    def __init__(
        self,
        process: ForkServerProcess,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return self._process.pid

    async def feed(self, data: bytes) -> None:
        """Gives the next bytes; waits until there is room.

        What a decoder that has ended is given is lost: `read` says why it has.
        """
        with suppress(ConnectionError):
            for at in range(0, len(data), _FRAME_BYTES):
                part = data[at : at + _FRAME_BYTES]
                self._writer.write(len(part).to_bytes(4, "big"))
                self._writer.write(part)
                await self._writer.drain()

    async def new_part(self) -> None:
        """What comes next has nothing to do with what came before."""
        with suppress(ConnectionError):
            self._writer.write(bytes(4))
            await self._writer.drain()

    def end(self) -> None:
        """No more bytes will come; what was fed is decoded to its end."""
        with suppress(OSError):
            if self._writer.can_write_eof():
                self._writer.write_eof()

    async def read(self) -> Pcm | None:
        """The next audio; None once all is decoded.

        Raises JobError: LIVE_FORMAT, NO_AUDIO_STREAM, EMPTY_MEDIA, OUT_OF_MEMORY,
        DECODE_CRASHED.
        """
        try:
            head = await self._reader.readexactly(5)
            size = int.from_bytes(head[1:], "big")
            if size > _MAX_ANSWER_BYTES or size % 4 * (head[:1] == b"A"):
                raise JobError("DECODE_CRASHED", "The decoder's answers are out of order.")
            body = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await asyncio.to_thread(crash_of, self._process) from None
        match head[:1]:
            case b"A":
                return np.frombuffer(body, np.float32)
            case b"D":
                return None
        raise _failure(body)


@asynccontextmanager
async def decoding() -> AsyncIterator[Decoder]:
    """A decoder whose process is gone when the block ends."""
    ours, theirs = socket.socketpair()
    process = CONTEXT.Process(target=_run, args=(theirs,), daemon=True)
    starting = asyncio.ensure_future(asyncio.to_thread(_start, process, theirs))
    try:
        with ours:
            await asyncio.shield(starting)
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_BUFFER_BYTES)
            writer.transport.set_write_buffer_limits(high=_BUFFER_BYTES)
            try:
                yield Decoder(process, reader, writer)
            finally:
                writer.transport.abort()
    finally:
        await asyncio.shield(_gone(starting, process))


async def _gone(starting: asyncio.Future[None], process: ForkServerProcess) -> None:
    # One that is still being started cannot be killed yet.
    await asyncio.wait([starting])
    await asyncio.to_thread(end_process, process)


def _run(link: socket.socket) -> None:
    # Loaded where the children are forked from, not in the parent itself.
    from soundhash_server.fetching.live import decoding_child  # noqa: PLC0415

    decoding_child.run(link)


def _start(process: ForkServerProcess, theirs: socket.socket) -> None:
    with theirs, PROCESSES:
        process.start()


def _failure(answer: bytes) -> JobError:
    try:
        said = json.loads(answer)
        reason, message = str(said["reason"]), str(said["message"])
    except (ValueError, TypeError, KeyError):
        return JobError("DECODE_CRASHED", "The decoder's answers are out of order.")
    if reason in _NO_SOUND:
        return JobError("LIVE_FORMAT", f"What the source sends is no audio: {message}.")
    return JobError(reason if reason in REASONS else "LIVE_FORMAT", message)
