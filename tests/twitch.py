"""A stand-in for Twitch on loopback: a forward proxy that is Twitch to those who go through it.

yt-dlp's own extractor asks https://gql.twitch.tv for a clip. Through this proxy the connection
ends here, with a certificate for that name that only the test's trust store knows; everything
else (the extractor, TLS and its checks, the proxy's protocol, the download) is real.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.certificates import self_signed

API = "gql.twitch.tv"
MEDIA = "http://media.twitch.example"


class Twitch:
    """clips: media by clip id; what is not there was removed. requests: by host and path."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.clips: dict[str, bytes] = {}
        self.pictures: dict[str, bytes] = {}
        self.requests: Counter[str] = Counter()
        self.held = asyncio.Event()
        """Media is sent only while this is set."""
        self.held.set()
        self.url = ""
        self._context = context

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = await _head(reader)
        if method == "CONNECT":
            self.requests[target] += 1
            if target != f"{API}:443":
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                return
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.start_tls(self._context)
            _, _, length = await _head(reader)
            asked = json.loads(await reader.readexactly(length))
            answers = [{"data": {"clip": self._clip(one["variables"]["slug"])}} for one in asked]
            await _answer(writer, json.dumps(answers).encode(), "application/json")
            return
        path = urlsplit(target).path
        self.requests[path] += 1
        name = path.strip("/").rpartition(".")[0]
        if path.endswith(".jpg"):
            await _answer(writer, self.pictures[name], "image/jpeg")
            return
        await self.held.wait()
        await _answer(writer, self.clips[name], "video/mp4")

    def _clip(self, slug: str) -> dict[str, Any] | None:
        if slug not in self.clips:
            return None
        return {
            # As at Twitch, this is not the id that people see.
            "id": str(sum(slug.encode())),
            "title": f"Title of {slug}",
            "durationSeconds": 6,
            "createdAt": "2026-01-02T03:04:05Z",
            "broadcaster": {"id": "1", "displayName": "Somebody"},
            "playbackAccessToken": {"signature": "sig", "value": "token"},
            "assets": [
                {
                    "aspectRatio": 1.78,
                    "thumbnailURL": f"{MEDIA}/{slug}.jpg",
                    "videoQualities": [{"quality": "720", "sourceURL": f"{MEDIA}/{slug}.mp4"}],
                }
            ],
        }


async def _head(reader: asyncio.StreamReader) -> tuple[str, str, int]:
    """Method, target and length of the body."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    lengths = [line[15:] for line in lines if line.lower().startswith("content-length:")]
    return method, target, int(lengths[0]) if lengths else 0


async def _answer(writer: asyncio.StreamWriter, body: bytes, kind: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
    await writer.drain()


def trust(folder: Path, certificate: bytes) -> str:
    """A folder for PYTHONPATH under which Python children trust this certificate alone: their
    trust store is certifi's, which no variable moves."""
    package = folder / "certifi"
    package.mkdir(parents=True)
    (package / "ca.pem").write_bytes(certificate)
    (package / "__init__.py").write_text(
        "import pathlib\n\n__version__ = 'test'\n\n\n"
        "def where():\n    return str(pathlib.Path(__file__).with_name('ca.pem'))\n\n\n"
        "def contents():\n    return pathlib.Path(where()).read_text()\n"
    )
    return str(folder)


@contextlib.contextmanager
def names() -> Iterator[None]:
    """As a hosts file for this process: the names of Twitch lead to loopback, where nobody
    listens for them. What connects without the proxy gets nowhere, with or without a network."""
    ask = socket.getaddrinfo

    def answer(host: Any, *arguments: Any, **options: Any) -> Any:
        ours = isinstance(host, str) and host.endswith((".twitch.tv", ".twitch.example"))
        return ask("127.0.0.1" if ours else host, *arguments, **options)

    socket.getaddrinfo = answer
    try:
        yield
    finally:
        socket.getaddrinfo = ask


@contextlib.asynccontextmanager
async def serving_twitch(folder: Path) -> AsyncIterator[tuple[Twitch, str]]:
    """The stand-in, and what PYTHONPATH has to be for children to believe it."""
    folder.mkdir(parents=True, exist_ok=True)
    key, certificate = self_signed(API)
    (folder / "server.pem").write_bytes(key + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    twitch = Twitch(context)
    server = await asyncio.start_server(twitch.serve, "127.0.0.1", 0)
    twitch.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        with names():
            yield twitch, trust(folder / "trust", certificate)
    finally:
        server.close()
