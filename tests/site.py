"""A site with recordings on loopback, and proxies before it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

PLUGINS = Path(__file__).parent / "plugins"


@contextlib.contextmanager
def extractor() -> Iterator[None]:
    """Lets yt-dlp, in processes that are started from here on, know the site."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PLUGINS), before]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


class Site:
    """Recordings under ``/watch/ID`` (and ``/w/ID``), whose facts come from ``/api/ID``; files
    and pages of its own; counts requests by path and remembers their headers."""

    def __init__(self) -> None:
        self.media: dict[str, bytes] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        """What ``/api/ID`` says; ``status`` and ``headers`` make it answer something else."""
        self.results: list[str] = []
        """Ids that a search gives."""
        self.pages: dict[str, web.Response] = {}
        self.requests: Counter[str] = Counter()
        self.headers: dict[str, list[dict[str, str]]] = {}
        self.sending = self.most_sending = 0
        self.gate = asyncio.Event()
        """Media are sent while it is set."""
        self.gate.set()
        self.base = ""

    def url(self, path: str) -> str:
        return self.base + path

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.requests[path] += 1
        self.headers.setdefault(path, []).append(dict(request.headers))
        kind, _, name = path[1:].partition("/")
        if path in self.pages:
            page = self.pages[path]
            return web.Response(body=page.body, status=page.status, headers=page.headers)
        if kind in ("watch", "w"):
            return web.Response(text="<html>watch</html>", content_type="text/html")
        if kind == "search":
            return web.json_response(self.results)
        if kind == "api":
            facts = dict(self.facts.get(name, {}))
            status, headers = facts.pop("status", 200), facts.pop("headers", {})
            return web.json_response(facts, status=status, headers=headers)
        if path == "/radio":
            return await self._radio(request)
        if kind == "media" and name in self.media:
            return await self._send(request, self.media[name])
        raise web.HTTPNotFound

    async def _radio(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"icy-name": "Radio", "Content-Type": "audio/mpeg"})
        await response.prepare(request)
        await response.write(b"x")
        return response

    async def _send(self, request: web.Request, media: bytes) -> web.StreamResponse:
        self.sending += 1
        self.most_sending = max(self.most_sending, self.sending)
        try:
            await self.gate.wait()
            await asyncio.sleep(0.05)
            response = web.StreamResponse(
                headers={"Content-Length": str(len(media)), "Content-Type": "audio/wav"}
            )
            await response.prepare(request)
            await response.write(media)
        finally:
            self.sending -= 1
        return response


@contextlib.asynccontextmanager
async def serving_site() -> AsyncIterator[Site]:
    """A site on a free port of 127.0.0.1 until the end of the block."""
    site = Site()
    runner = web.AppRunner(site.app(), shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield site
    finally:
        await runner.cleanup()


class LoopbackProxy:
    """An HTTP and SOCKS5 proxy on loopback that leads every host to one port of 127.0.0.1, so
    that public addresses can be asked for. Remembers what it was asked for."""

    def __init__(self, target_port: int) -> None:
        self.asked: list[str] = []
        self.password = ""
        """Asked for where it is not empty, of any user."""
        self.port = 0
        self._target_port = target_port

    def url(self, scheme: str = "http", user: str = "") -> str:
        return f"{scheme}://{user + '@' if user else ''}127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            first = await reader.readexactly(1)
            if first == b"\x05":
                await self._socks(reader, writer)
            else:
                await self._http(first, reader, writer)
        writer.close()

    async def _http(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = first + await reader.readuntil(b"\r\n\r\n")
        line, _, rest = head.partition(b"\r\n")
        method, target, version = line.decode().split(" ")
        self.asked.append(f"{method} {target}")
        if self.password and b"proxy-authorization: basic" not in rest.lower():
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        there, out = await asyncio.open_connection("127.0.0.1", self._target_port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            path = "/" + target.split("/", 3)[3] if target.count("/") > 2 else "/"
            lines = [
                one for one in rest.split(b"\r\n") if not one.lower().startswith(b"connection")
            ]
            out.write(f"{method} {path} {version}\r\nConnection: close\r\n".encode())
            out.write(b"\r\n".join(lines))
        await self._both(reader, writer, there, out)

    async def _socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly((await reader.readexactly(1))[0])
        writer.write(b"\x05\x00")
        kind = (await reader.readexactly(4))[3]
        if kind == 1:
            host = ".".join(map(str, await reader.readexactly(4)))
        else:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append(f"SOCKS {host}:{port}")
        there, out = await asyncio.open_connection("127.0.0.1", self._target_port)
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        await self._both(reader, writer, there, out)

    async def _both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        out: asyncio.StreamWriter,
    ) -> None:
        async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pipe(reader, out), pipe(there, writer))


@contextlib.asynccontextmanager
async def serving_proxy(target: str) -> AsyncIterator[LoopbackProxy]:
    """A proxy that leads everything to the port of ``target``, until the end of the block."""
    proxy = LoopbackProxy(int(target.rpartition(":")[2]))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
