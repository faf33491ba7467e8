"""Messages of RTMP in chunks (Adobe, Real-Time Messaging Protocol 1.0, 5.3)."""

from __future__ import annotations

import asyncio
import os
import struct
from dataclasses import dataclass

from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live.raw import Raw

SET_CHUNK_SIZE, ABORT, ACKNOWLEDGEMENT, USER_CONTROL, WINDOW_SIZE, PEER_BANDWIDTH = range(1, 7)
AUDIO, VIDEO, DATA, COMMAND, AGGREGATE = 8, 9, 18, 20, 22

_HANDSHAKE_BYTES = 1536
_MAX_STREAMS = 64
_MAX_MESSAGE_BYTES = 1 << 18
_READ_BYTES = 1 << 16
_WANTED = frozenset((SET_CHUNK_SIZE, ABORT, USER_CONTROL, WINDOW_SIZE, AUDIO, COMMAND, AGGREGATE))
_LATER = 0xFFFFFF
"""Where the time stands after the head."""


@dataclass(frozen=True, slots=True)
class Message:
    """time_ms: since the stream began, modulo 2^32."""

    kind: int
    stream: int
    time_ms: int
    body: bytes


@dataclass(slots=True)
class _Course:
    """What is known of one chunk stream: the latest head and the message so far."""

    time_ms: int = 0
    delta_ms: int = 0
    size: int = 0
    kind: int = 0
    stream: int = 0
    extended: bool = False
    received: int = 0
    body: bytearray | None = None


class Chunks:
    """Messages to and from a server. What nobody wants (pictures) is not kept."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        self._courses: dict[int, _Course] = {}
        self._read_size = 128
        self._received = self._acknowledged = 0
        self._window = 0

    async def shake_hands(self) -> None:
        """Raises JobError LIVE_FORMAT when the other side speaks something else."""
        ours = bytes(8) + os.urandom(_HANDSHAKE_BYTES - 8)
        await self._raw.write(b"\x03" + ours)
        if await self._raw.exactly(1) != b"\x03":
            raise JobError("LIVE_FORMAT", "The source does not speak RTMP.")
        theirs = await self._raw.exactly(_HANDSHAKE_BYTES)
        await self._raw.write(theirs)
        await self._raw.exactly(_HANDSHAKE_BYTES)

    async def send(self, kind: int, body: bytes, *, stream: int = 0, course: int = 3) -> None:
        """Sends a message in chunks of 128 bytes, the size that needs no agreement."""
        head = struct.pack(">B", course) + bytes(3) + len(body).to_bytes(3, "big")
        head += struct.pack(">B", kind) + struct.pack("<I", stream)
        parts = [body[at : at + 128] for at in range(0, len(body), 128)]
        await self._raw.write(head + struct.pack(">B", 0xC0 | course).join(parts))

    async def message(self) -> Message | None:
        """The next message that somebody may want; None when the server has closed the
        connection. Raises JobError, OSError, EOFError."""
        while True:
            received = self._received
            try:
                found = await self._chunk()
            except asyncio.IncompleteReadError as error:
                if error.partial or self._received > received:
                    raise
                return None
            if self._window and self._received - self._acknowledged >= self._window // 2:
                self._acknowledged = self._received
                await self.send(
                    ACKNOWLEDGEMENT, struct.pack(">I", self._received & 0xFFFFFFFF), course=2
                )
            if found is not None and not self._obey(found):
                return found

    def _obey(self, message: Message) -> bool:
        """Whether the message was about the chunks themselves."""
        if message.kind == SET_CHUNK_SIZE and len(message.body) == 4:
            self._read_size = min(max(int.from_bytes(message.body, "big") & 0x7FFFFFFF, 1), 1 << 24)
        elif message.kind == WINDOW_SIZE and len(message.body) == 4:
            self._window = int.from_bytes(message.body, "big")
        elif message.kind == ABORT and len(message.body) == 4:
            self._courses.pop(int.from_bytes(message.body, "big"), None)
        else:
            return False
        return True

    async def _chunk(self) -> Message | None:
        """Reads one chunk; the message that it completes."""
        first = (await self._exactly(1))[0]
        form, number = first >> 6, first & 0x3F
        if number == 0:
            number = 64 + (await self._exactly(1))[0]
        elif number == 1:
            low, high = await self._exactly(2)
            number = 64 + low + 256 * high
        if number not in self._courses and (form or len(self._courses) >= _MAX_STREAMS):
            raise JobError("LIVE_FORMAT", "The source's RTMP is out of order.")
        course = self._courses.setdefault(number, _Course())
        await self._head(course, form)
        left = min(self._read_size, course.size - course.received)
        while left:
            part = await self._exactly(min(left, _READ_BYTES))
            left -= len(part)
            course.received += len(part)
            if course.body is not None:
                course.body += part
        if course.received < course.size:
            return None
        body, course.body, course.received = course.body, None, 0
        if body is None:
            return None
        return Message(course.kind, course.stream, course.time_ms, bytes(body))

    async def _head(self, course: _Course, form: int) -> None:
        head = await self._exactly((11, 7, 3, 0)[form])
        time_ms = int.from_bytes(head[:3], "big")
        if form < 3:
            course.extended = time_ms == _LATER
        if form < 2:
            course.size, course.kind = int.from_bytes(head[3:6], "big"), head[6]
        if form == 0:
            (course.stream,) = struct.unpack("<I", head[7:])
        if course.extended:
            later_ms = int.from_bytes(await self._exactly(4), "big")
            time_ms = later_ms if form < 3 else time_ms
        if course.received:
            return
        if form == 0:
            course.time_ms, course.delta_ms = time_ms, 0
        else:
            course.delta_ms = course.delta_ms if form == 3 else time_ms
            course.time_ms = (course.time_ms + course.delta_ms) & 0xFFFFFFFF
        course.body = None
        if course.kind in _WANTED:
            if course.size > _MAX_MESSAGE_BYTES:
                raise JobError("LIVE_FORMAT", "A message of the source is too long.")
            course.body = bytearray()

    async def _exactly(self, n_bytes: int) -> bytes:
        data = await self._raw.exactly(n_bytes) if n_bytes else b""
        self._received += len(data)
        return data
