"""A site on loopback whose pages list recordings: what yt-dlp's generic extractor knows."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class Feed:
    """``/feed.xml`` lists the songs, newest first; ``/page`` shows all as players; a song is at
    ``/NAME``. Counts requests by path."""

    songs: dict[str, bytes] = field(default_factory=dict)
    published: dict[str, str] = field(default_factory=dict)
    """When, as feeds write it; others have no date."""
    status: int = 200
    """Of the feed."""
    hang: bool = False
    """Whether the feed never ends."""
    requests: Counter[str] = field(default_factory=Counter)
    base: str = ""

    def url(self, path: str = "/feed.xml") -> str:
        return self.base + path

    def text(self) -> str:
        items = "".join(
            f"<item><title>Title of {name}</title><description>About {name}</description>"
            f'<enclosure url="{self.base}/{name}" type="audio/wav"/><guid>{name}</guid>'
            + (f"<pubDate>{self.published[name]}</pubDate>" if name in self.published else "")
            + "</item>"
            for name in self.songs
        )
        return (
            '<?xml version="1.0"?><rss version="2.0"><channel><title>A feed</title>'
            f"<description>About the feed</description>{items}</channel></rss>"
        )

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests[request.path] += 1
        name = request.path[1:]
        if name == "feed.xml":
            if self.hang:
                await asyncio.sleep(3600)
            if self.status != 200:
                return web.Response(status=self.status)
            return web.Response(text=self.text(), content_type="application/rss+xml")
        if name == "page":
            players = "".join(f'<audio src="{song}"></audio>' for song in self.songs)
            text = f"<html><head><title>A page</title></head>{players}</html>"
            return web.Response(text=text, content_type="text/html")
        if name in self.songs:
            return web.Response(body=self.songs[name], content_type="audio/wav")
        raise web.HTTPNotFound


@contextlib.asynccontextmanager
async def serving_feed(feed: Feed) -> AsyncIterator[Feed]:
    """Serves on a free port of 127.0.0.1 until the end of the block."""
    app = web.Application()
    app.router.add_get("/{name}", feed._answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    feed.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield feed
    finally:
        await runner.cleanup()
