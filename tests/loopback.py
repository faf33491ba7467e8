"""A web server on loopback that behaves as well or as badly as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from aiohttp import web

CHUNK_BYTES = 64 << 10


class Loopback:
    """Media under ``/media/...`` paths that misbehave by their name; counts requests by path."""

    def __init__(self, media: bytes) -> None:
        self.media = media
        self.requests: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.hanging = 0
        """Requests that are being answered without end."""
        self.slow_media: dict[str, bytes] = {}
        """What ``/slow/NAME`` sends over a second or two."""
        self.failures_left = 0
        """How many times ``/flaky`` still fails."""
        self.base = ""

    def url(self, path: str) -> str:
        return self.base + path

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._count])
        app.router.add_get("/song.wav", self._song)
        app.router.add_get("/song.wav.gz", self._encoded)
        app.router.add_get("/cut.wav", self._cut)
        app.router.add_get("/cut-forgetful.wav", self._cut_forgetful)
        app.router.add_get("/always-cut.wav", self._always_cut)
        app.router.add_get("/endless.wav", self._endless)
        app.router.add_get("/hang.wav", self._hang)
        app.router.add_get("/slow/{name}", self._slow)
        app.router.add_get("/flaky.wav", self._flaky)
        app.router.add_get("/empty.wav", self._empty)
        app.router.add_get("/status/{status}", self._status)
        app.router.add_get("/redirect", self._redirect)
        app.router.add_get("/loop", self._loop)
        app.router.add_get("/page", self._page)
        app.router.add_get("/page-two", self._page_two)
        app.router.add_get("/page-none", self._page_none)
        app.router.add_get("/unlabelled-page", self._unlabelled_page)
        app.router.add_get("/list.m3u8", self._playlist)
        return app

    @web.middleware
    async def _count(self, request: web.Request, handler: web.RequestHandler) -> web.StreamResponse:
        self.requests[request.path] += 1
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _song(self, request: web.Request) -> web.StreamResponse:
        return await self._send(request, len(self.media))

    async def _send(
        self, request: web.Request, stop_at: int, *, validator: bool = True
    ) -> web.StreamResponse:
        """The media, honouring ranges; the connection breaks before byte ``stop_at``."""
        start = 0
        if "Range" in request.headers:
            self.ranges.append(request.headers["Range"])
            if request.headers.get("If-Range") == '"v1"' and validator:
                start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
        size = len(self.media)
        headers = {"Content-Length": str(size - start), "Content-Type": "audio/wav"}
        if validator:
            headers |= {"ETag": '"v1"', "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        for at in range(start, min(stop_at, size), CHUNK_BYTES):
            await response.write(self.media[at : min(at + CHUNK_BYTES, stop_at)])
        if stop_at < size:
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.close()
        return response

    async def _encoded(self, request: web.Request) -> web.StreamResponse:
        response = web.Response(body=self.media, content_type="audio/wav")
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        # Half of what is asked for the first time, all of it afterwards.
        first = self.requests["/cut.wav"] == 1
        return await self._send(request, len(self.media) // 2 if first else len(self.media))

    async def _cut_forgetful(self, request: web.Request) -> web.StreamResponse:
        first = self.requests["/cut-forgetful.wav"] == 1
        stop_at = len(self.media) // 2 if first else len(self.media)
        return await self._send(request, stop_at, validator=False)

    async def _always_cut(self, request: web.Request) -> web.StreamResponse:
        return await self._send(request, 5000, validator=False)

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "audio/wav"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(self.media)
        return response

    async def _hang(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(self.media))})
        await response.prepare(request)
        await response.write(self.media[:10_000])
        self.hanging += 1
        try:
            while request.transport is not None and not request.transport.is_closing():
                await asyncio.sleep(0.02)
        finally:
            self.hanging -= 1
        return response

    async def _slow(self, request: web.Request) -> web.StreamResponse:
        media = self.slow_media[request.match_info["name"]]
        response = web.StreamResponse(headers={"Content-Length": str(len(media))})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(media), len(media) // 15):
                await response.write(media[at : at + len(media) // 15])
                await asyncio.sleep(0.1)
        return response

    async def _flaky(self, request: web.Request) -> web.StreamResponse:
        if self.failures_left > 0:
            self.failures_left -= 1
            raise web.HTTPServiceUnavailable
        return await self._song(request)

    async def _empty(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"", content_type="audio/wav")

    async def _status(self, request: web.Request) -> web.StreamResponse:
        return web.Response(
            status=int(request.match_info["status"]), headers=dict(request.query), body=b"no"
        )

    async def _redirect(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(request.query["to"])

    async def _loop(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/loop")

    async def _page(self, request: web.Request) -> web.StreamResponse:
        text = '<html><head><title>A page</title></head><audio src="song.wav"></audio></html>'
        return web.Response(text=text, content_type="text/html")

    async def _page_two(self, request: web.Request) -> web.StreamResponse:
        text = '<html><audio src="song.wav"></audio><audio src="flaky.wav"></audio></html>'
        return web.Response(text=text, content_type="text/html")

    async def _page_none(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html><p>Nothing to hear</p></html>", content_type="text/html")

    async def _unlabelled_page(self, request: web.Request) -> web.StreamResponse:
        return web.Response(
            body=b"\n<!DOCTYPE html><html><p>Nothing</p></html>",
            content_type="application/octet-stream",
        )

    async def _playlist(self, request: web.Request) -> web.StreamResponse:
        lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:60", "#EXTINF:60,", "song.wav"]
        return web.Response(
            text="\n".join([*lines, "#EXT-X-ENDLIST", ""]),
            content_type="application/vnd.apple.mpegurl",
        )


@contextlib.asynccontextmanager
async def serving(media: bytes) -> AsyncIterator[Loopback]:
    """Serves on a free port of 127.0.0.1 until the end of the block."""
    loopback = Loopback(media)
    runner = web.AppRunner(loopback.app(), shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    loopback.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield loopback
    finally:
        await runner.cleanup()
