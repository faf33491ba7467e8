"""RTMP and RTMPS: the sound of a stream that a server plays to us, as FLV.

FFmpeg's own RTMP would connect by itself. Here the connection is a guarded one, and the decoder
sees bytes only.
"""

from __future__ import annotations

import struct
from contextlib import AsyncExitStack
from urllib.parse import SplitResult, unquote

from soundhash_server.errors import PlatformError
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live.access import NETWORK_ERRORS, Access, of_error
from soundhash_server.fetching.live.amf import AmfError, Value, decode, encode
from soundhash_server.fetching.live.pieces import Pieces
from soundhash_server.fetching.live.raw import connected
from soundhash_server.fetching.live.rtmp_chunks import (
    AGGREGATE,
    AUDIO,
    COMMAND,
    USER_CONTROL,
    WINDOW_SIZE,
    Chunks,
    Message,
)
from soundhash_server.url_guard import LIVE_PORTS

_FLV_HEAD = b"FLV\x01\x04\x00\x00\x00\x09\x00\x00\x00\x00"
_WINDOW_BYTES = 2_500_000
_BUFFER_MS = 1000
_STREAM_EOF, _PING, _PONG, _SET_BUFFER = 1, 6, 7, 3
_MAX_REPLIES = 200
_OVER = frozenset(
    ("NetStream.Play.Stop", "NetStream.Play.Complete", "NetStream.Play.UnpublishNotify")
)
_OFF = frozenset(("NetStream.Play.StreamNotFound", "NetStream.Play.UnpublishNotify"))


async def open_rtmp(stack: AsyncExitStack, access: Access, parts: SplitResult) -> Pieces:
    """Connects, and asks for the stream. Raises JobError, PlatformError (URL_NOT_ALLOWED)."""
    scheme = parts.scheme.lower()
    port = parts.port or LIVE_PORTS[scheme]
    try:
        opened = connected(access, parts.hostname or "", port, tls=scheme == "rtmps")
        chunks = Chunks(await stack.enter_async_context(opened))
        await chunks.shake_hands()
        player = _Player(chunks)
        await player.play(parts)
    except (*NETWORK_ERRORS, AmfError) as error:
        raise _of(error) from None
    return player.pieces()


class _Player:
    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._calls = 0

    async def play(self, parts: SplitResult) -> None:
        app, name = _app_and_name(parts)
        host = parts.netloc.rpartition("@")[2]
        await self._call(
            "connect",
            {
                "app": app,
                "flashVer": "LNX 9,0,124,2",
                "tcUrl": f"{parts.scheme}://{host}/{app}",
                "fpad": False,
                "capabilities": 15.0,
                "audioCodecs": 4071.0,
                "videoCodecs": 252.0,
                "videoFunction": 1.0,
            },
        )
        await self._chunks.send(WINDOW_SIZE, struct.pack(">I", _WINDOW_BYTES), course=2)
        said = await self._call("createStream", None)
        stream = said[-1] if said else None
        number = int(stream) if isinstance(stream, float) and 0 <= stream < 2**31 else 1
        # -2000: what is on the air, or a recording of this name.
        await self._chunks.send(
            COMMAND, encode("play", 0.0, None, name, -2000.0), stream=number, course=8
        )
        buffer = struct.pack(">HII", _SET_BUFFER, number, _BUFFER_MS)
        await self._chunks.send(USER_CONTROL, buffer, course=2)

    async def pieces(self) -> Pieces:
        yield _FLV_HEAD
        try:
            while (message := await self._chunks.message()) is not None:
                if message.kind == AUDIO:
                    yield _tag(message.time_ms, message.body)
                elif message.kind == AGGREGATE:
                    for piece in _aggregated(message.body):
                        yield piece
                elif message.kind == COMMAND:
                    if _is_over(decode(message.body)):
                        return
                elif message.kind == USER_CONTROL and await self._controlled(message):
                    return
        except (*NETWORK_ERRORS, AmfError) as error:
            raise _of(error) from None

    async def _call(self, name: str, *arguments: Value) -> list[Value]:
        """Calls a procedure of the server; what it answers after its number."""
        self._calls += 1
        await self._chunks.send(COMMAND, encode(name, float(self._calls), *arguments))
        for _ in range(_MAX_REPLIES):
            message = await self._chunks.message()
            if message is None:
                raise EOFError
            if message.kind == USER_CONTROL:
                await self._controlled(message)
            if message.kind != COMMAND:
                continue
            match decode(message.body):
                case ["_result", number, *rest] if number == self._calls:
                    return rest
                case ["_error", number, *rest] if number == self._calls:
                    raise _refused(rest)
        raise JobError("LIVE_FORMAT", "The source does not answer as RTMP servers do.")

    async def _controlled(self, message: Message) -> bool:
        """Answers a ping; whether the stream is at its end."""
        event = int.from_bytes(message.body[:2], "big")
        if event == _PING:
            pong = struct.pack(">H", _PONG) + message.body[2:6]
            await self._chunks.send(USER_CONTROL, pong, course=2)
        return event == _STREAM_EOF


def _tag(time_ms: int, body: bytes) -> bytes:
    """A message of sound as it stands in an FLV file."""
    head = bytes([AUDIO]) + len(body).to_bytes(3, "big") + (time_ms & 0xFFFFFF).to_bytes(3, "big")
    head += bytes([time_ms >> 24 & 0xFF, 0, 0, 0])
    return head + body + (11 + len(body)).to_bytes(4, "big")


def _aggregated(body: bytes) -> list[bytes]:
    """The sound in a message that is made of several."""
    found, at = [], 0
    while at + 11 <= len(body):
        size = int.from_bytes(body[at + 1 : at + 4], "big")
        time_ms = int.from_bytes(body[at + 4 : at + 7], "big") | body[at + 7] << 24
        part = body[at + 11 : at + 11 + size]
        if body[at] == AUDIO and len(part) == size:
            found.append(_tag(time_ms, part))
        at += 11 + size + 4
    return found


def _app_and_name(parts: SplitResult) -> tuple[str, str]:
    """rtmp://host/app/name or rtmp://host/app/instance/name, as FFmpeg reads it."""
    path = unquote(parts.path).lstrip("/")
    pieces = path.split("/", 2)
    app, name = ("/".join(pieces[:-1]), pieces[-1]) if len(pieces) > 1 else ("", path)
    return app, f"{name}?{parts.query}" if parts.query else name


def _is_over(command: list[Value]) -> bool:
    """Whether a command says that the stream has ended. Raises JobError when it never began."""
    if not command or command[0] != "onStatus":
        return False
    said = next((one for one in command if isinstance(one, dict)), {})
    code = str(said.get("code") or "")
    if said.get("level") == "error" or code in _OFF - _OVER:
        raise _refused([said])
    return code in _OVER


def _refused(said: list[Value]) -> JobError:
    info = next((one for one in said if isinstance(one, dict) and "code" in one), {})
    code = str(info.get("code") or "")
    told = " ".join(str(info.get("description") or "").split())
    if "NotFound" in code or "InvalidApp" in code:
        return JobError("SOURCE_OFFLINE", "Nothing is on the air at this address.")
    if "auth" in told.lower() or "Rejected" in code:
        return JobError("HTTP_UNAUTHORIZED", "The source refuses: it asks for a login, or a key.")
    return JobError("LIVE_FORMAT", f"The source refuses to play ({code[:60] or 'no reason'}).")


def _of(error: Exception) -> JobError | PlatformError:
    if isinstance(error, AmfError):
        return JobError("LIVE_FORMAT", "The source's RTMP cannot be read.")
    return of_error(error)
