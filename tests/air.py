"""Live sources on loopback: radio stations as Icecast and SHOUTcast send them, well or badly.

Sockets, HTTP and timing are real; what they play comes from the test. See air_hls for HLS and
air_rtmp, air_rtsp for the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

Handler = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]
_CHUNK_BYTES = 1000
_TICK_S = 0.02


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. Names of headers in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Page:
    """An answer with an end."""

    body: bytes = b""
    content_type: str = "text/plain"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Station:
    """A radio station.

    media: what it plays; replaced, the new one begins when the old one ends. bytes_per_s: how
    fast; 0 for as fast as it is read. burst_bytes: sent at once to who connects. then: after the
    media ``end`` (properly), ``cut`` (breaks the connection), ``hang`` (sends no more), ``again``
    (from the beginning). titles: by the byte of the media at which they change. interval_bytes:
    between two blocks of ICY metadata for those who ask for it. shoutcast: answers ``ICY 200 OK``.
    status: other than 200, it is off the air. on_air: all hear the same moment, as in the world;
    otherwise each hears the media from its beginning.
    """

    media: bytes
    content_type: str = "audio/mpeg"
    bytes_per_s: float = 0
    burst_bytes: int = 0
    then: str = "end"
    titles: dict[int, str] = field(default_factory=dict)
    interval_bytes: int = 4000
    shoutcast: bool = False
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    on_air: bool = False
    connections: int = 0
    """How many there have been."""
    sent_bytes: int = 0
    """Of media, to all."""
    asked: list[Asked] = field(default_factory=list)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _since_s: float = field(default_factory=time.monotonic)

    @property
    def listening(self) -> int:
        """Who is connected."""
        return len(self._writers)

    def cut(self) -> None:
        """Breaks the connections of all who listen."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        self.asked.append(asked)
        if self.status != 200:
            await answer(writer, Page(b"off the air", status=self.status, headers=self.headers))
            return
        self.connections += 1
        with_titles = bool(self.titles) and asked.headers.get("icy-metadata") == "1"
        lines = ["ICY 200 OK" if self.shoutcast else "HTTP/1.0 200 OK"]
        lines += [f"Content-Type: {self.content_type}", "icy-name: Radio Loopback"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if with_titles:
            lines.append(f"icy-metaint: {self.interval_bytes}")
        writer.write("\r\n".join([*lines, "", ""]).encode())
        self._writers.add(writer)
        try:
            await self._play(writer, self.interval_bytes if with_titles else 0)
        finally:
            self._writers.discard(writer)
        if self.then == "cut":
            writer.transport.abort()

    async def _play(self, writer: asyncio.StreamWriter, interval_bytes: int) -> None:
        at, sent, began_s = 0, 0, time.monotonic()
        if self.on_air:
            at = int((began_s - self._since_s) * self.bytes_per_s) % len(self.media)
        until_block = interval_bytes
        told = ""
        media = self.media
        while True:
            if at >= len(media):
                if self.then == "hang":
                    await writer.drain()
                    await gone(writer)
                if self.then != "again":
                    return
                at, media = 0, self.media
            step = min(_CHUNK_BYTES, len(media) - at, until_block or _CHUNK_BYTES)
            writer.write(media[at : at + step])
            at, sent = at + step, sent + step
            self.sent_bytes += step
            if interval_bytes:
                until_block -= step
                if not until_block:
                    until_block = interval_bytes
                    title = next((self.titles[n] for n in sorted(self.titles)[::-1] if n < at), "")
                    writer.write(_block("" if title == told else title))
                    told = title
            await writer.drain()
            if self.bytes_per_s:
                ahead_s = (sent - self.burst_bytes) / self.bytes_per_s
                early_s = ahead_s - (time.monotonic() - began_s)
                if early_s > 0:
                    await asyncio.sleep(max(early_s, _TICK_S))


class Air:
    """A server with stations, pages and what else a test puts under its paths."""

    def __init__(self) -> None:
        self.base = ""
        self.pages: dict[str, Page] = {}
        self.handlers: dict[str, Handler] = {}
        self.requests: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, path: str) -> str:
        return self.base + path

    def station(self, path: str, station: Station) -> Station:
        """Puts a station on the air."""
        self.handlers[path] = station.serve
        return station

    def redirect(self, path: str, to: str, status: int = 302) -> None:
        self.pages[path] = Page(status=status, headers={"Location": to})

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("utf-8")
        first, *rest = head.split("\r\n")
        method, target, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in rest if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        path, _, query = target.partition("?")
        self.requests[path] += 1
        asked = Asked(method, path, query, headers)
        hanging_up = asyncio.create_task(_hang_up(reader, writer))
        try:
            if path in self.handlers:
                await self.handlers[path](asked, writer)
            else:
                await answer(writer, self.pages.get(path, Page(b"nothing here", status=404)))
        finally:
            hanging_up.cancel()


async def answer(writer: asyncio.StreamWriter, page: Page) -> None:
    lines = [f"HTTP/1.1 {page.status} Whatever", f"Content-Length: {len(page.body)}"]
    lines += [f"Content-Type: {page.content_type}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in page.headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + page.body)
    await writer.drain()


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes when the other side has: it has nothing more to say after its request."""
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.transport.abort()


async def gone(writer: asyncio.StreamWriter) -> None:
    """Waits until whoever listens is gone."""
    while not writer.transport.is_closing():
        await asyncio.sleep(_TICK_S)


def _block(title: str) -> bytes:
    if not title:
        return b"\0"
    text = f"StreamTitle='{title}';".encode()
    text += bytes(-len(text) % 16)
    return bytes([len(text) // 16]) + text


@contextlib.asynccontextmanager
async def serving_air() -> AsyncIterator[Air]:
    """A server on a free port of 127.0.0.1 until the end of the block."""
    air = Air()
    server = await asyncio.start_server(air.serve, "127.0.0.1", 0)
    air.base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield air
    finally:
        server.close()
        await air.close()
