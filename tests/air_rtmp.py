"""An RTMP server on loopback that plays one recording."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

import numpy as np
from numpy.typing import NDArray

from tests.media import encode

_CHUNK_BYTES = 4096
_WINDOW_BYTES = 20_000


class Rtmp:
    """name: of the one stream that is there. played: requests to play, by name. acknowledged:
    bytes that the client said it had received. extended: times too large for three bytes.
    """

    def __init__(self, media: bytes, name: str) -> None:
        self.media = media
        self.name = name
        self.extended = False
        self.proper_end = True
        self.played: list[str] = []
        self.acknowledged = 0
        self.port = 0

    def url(self, path: str = "live/radio") -> str:
        return f"rtmp://127.0.0.1:{self.port}/{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await reader.readexactly(1537)
        writer.write(b"\x03" + bytes(1536) + hello[1:])
        await reader.readexactly(1536)
        _send(writer, 2, 1, struct.pack(">I", _CHUNK_BYTES))
        _send(writer, 2, 5, struct.pack(">I", _WINDOW_BYTES))
        await _until(reader, b"tcUrl")
        _send(writer, 3, 20, _text("_result") + _number(1) + b"\x05" + _status("ok", "status"))
        await _until(reader, b"createStream")
        # A ping, while the client waits for an answer.
        _send(writer, 2, 4, struct.pack(">HI", 6, 1234))
        _send(writer, 3, 20, _text("_result") + _number(2) + b"\x05" + _number(1))
        await _until(reader, b"\x00\x04play")
        # A number, nothing, and then the name.
        name = (await _until(reader, struct.pack(">HI", 3, 1)))[10:]
        size = int.from_bytes(name[1:3], "big")
        self.played.append(name[3 : 3 + size].decode())
        if self.played[-1] != self.name:
            status = _status("NetStream.Play.StreamNotFound", "error")
            _send(writer, 3, 20, _text("onStatus") + _number(0) + b"\x05" + status)
            await writer.drain()
            await reader.read(1 << 16)
            return
        status = _status("NetStream.Play.Start", "status")
        _send(writer, 3, 20, _text("onStatus") + _number(0) + b"\x05" + status)
        listening = asyncio.create_task(self._listen(reader))
        for number, (time_ms, body) in enumerate(_tags(self.media)):
            later_ms = time_ms + (0x1000000 if self.extended else 0)
            # Pictures between the sound, in a stream of chunks of their own.
            if number % 10 == 0:
                _send(writer, 6, 9, bytes(9000), later_ms)
            _send(writer, 4, 8, body, later_ms)
            await writer.drain()
        if self.proper_end:
            status = _status("NetStream.Play.UnpublishNotify", "status")
            _send(writer, 3, 20, _text("onStatus") + _number(0) + b"\x05" + status)
            await writer.drain()
            await listening
        listening.cancel()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        held = b""
        while data := await reader.read(1 << 16):
            held += data
            # Acknowledgements: four bytes, kind 3, on the channel of control messages.
            while (at := held.find(b"\x02\0\0\0\0\0\x04\x03\0\0\0\0")) >= 0 and at + 16 <= len(
                held
            ):
                self.acknowledged = int.from_bytes(held[at + 12 : at + 16], "big")
                held = held[at + 16 :]


async def _until(reader: asyncio.StreamReader, text: bytes) -> bytes:
    """Reads until these bytes have come."""
    held = b""
    while text not in held:
        data = await reader.read(1)
        if not data:
            raise ConnectionResetError
        held += data
    return held


def _send(
    writer: asyncio.StreamWriter, course: int, kind: int, body: bytes, time_ms: int = 0
) -> None:
    extended = time_ms >= 0xFFFFFF
    head = (
        bytes([course]) + min(time_ms, 0xFFFFFF).to_bytes(3, "big") + len(body).to_bytes(3, "big")
    )
    head += bytes([kind]) + struct.pack("<I", 1 if kind in (8, 9) else 0)
    more = struct.pack(">I", time_ms) if extended else b""
    parts = [body[at : at + _CHUNK_BYTES] for at in range(0, len(body), _CHUNK_BYTES)]
    writer.write(head + more + (bytes([0xC0 | course]) + more).join(parts))


def _text(text: str) -> bytes:
    return b"\x02" + struct.pack(">H", len(text)) + text.encode()


def _number(value: float) -> bytes:
    return b"\x00" + struct.pack(">d", value)


def _status(code: str, level: str) -> bytes:
    fields = b"".join(
        struct.pack(">H", len(name)) + name.encode() + _text(value)
        for name, value in (("level", level), ("code", code), ("description", "as it is"))
    )
    return b"\x03" + fields + b"\0\0\x09"


def _tags(flv: bytes) -> list[tuple[int, bytes]]:
    """Times and bodies of an FLV file's sound."""
    found, at = [], 13
    while at + 11 <= len(flv):
        size = int.from_bytes(flv[at + 1 : at + 4], "big")
        time_ms = int.from_bytes(flv[at + 4 : at + 7], "big") | flv[at + 7] << 24
        if flv[at] == 8:
            found.append((time_ms, flv[at + 11 : at + 11 + size]))
        at += 11 + size + 4
    return found


@contextlib.asynccontextmanager
async def serving_rtmp(pcm: NDArray[np.float32], name: str = "radio") -> AsyncIterator[Rtmp]:
    """Plays AAC as ``live/NAME`` until the end of the block."""
    rtmp = Rtmp(encode(pcm, "flv", codec="aac", rate_hz=44_100), name)
    server = await asyncio.start_server(rtmp.serve, "127.0.0.1", 0)
    rtmp.port = server.sockets[0].getsockname()[1]
    try:
        yield rtmp
    finally:
        server.close()
