"""An RTSP server on loopback that plays one recording over the connection itself."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import ssl
import struct
from collections.abc import AsyncIterator, Iterator

import numpy as np
from numpy.typing import NDArray

from tests.media import encode

_REALM, _NONCE = "loopback", "0123456789abcdef"


class Rtsp:
    """lines: the description of the sound. packets: payloads and their times. user, password:
    asked for (Digest) where there is a user. redirect: sent elsewhere instead.
    """

    def __init__(self, lines: list[str], packets: list[tuple[int, bytes]], payload: int) -> None:
        self.lines = lines
        self.packets = packets
        self.payload = payload
        self.user = self.password = ""
        self.redirect = ""
        self.asked: list[str] = []
        self.port = 0

    def url(self, path: str = "camera", user: str = "") -> str:
        return f"rtsp://{user + '@' if user else ''}127.0.0.1:{self.port}/{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, url, _ = head.split("\r\n")[0].split(" ")
        self.asked.append(f"{method} {url}")
        number = re.search(r"CSeq: (\d+)", head)
        assert number is not None
        path = url.split("/", 3)[3]

        def say(status: str, lines: list[str], body: str = "") -> None:
            more = [f"Content-Length: {len(body)}"] if body else []
            text = "\r\n".join([f"RTSP/1.0 {status}", f"CSeq: {number[1]}", *lines, *more, "", ""])
            writer.write(text.encode() + body.encode())

        if self.user and not self._is_let_in(method, url, head):
            say("401 Unauthorized", [
                f'WWW-Authenticate: Basic realm="{_REALM}"',
                f'WWW-Authenticate: Digest realm="{_REALM}", nonce="{_NONCE}"',
            ])  # fmt: skip
            return True
        if self.redirect:
            say("302 Moved", [f"Location: {self.redirect}"])
            return False
        if not path.startswith("camera"):
            say("404 Not Found", [])
            return False
        match method:
            case "DESCRIBE":
                picture = ["m=video 0 RTP/AVP 97", "a=rtpmap:97 H264/90000", "a=control:track1"]
                body = "\r\n".join(["v=0", "s=-", "t=0 0", *picture, *self.lines, ""])
                base = [f"Content-Base: {url}/", "Content-Type: application/sdp"]
                say("200 OK", base, body)
            case "SETUP":
                assert url.endswith("/track2"), url
                assert "RTP/AVP/TCP" in head
                transport = "Transport: RTP/AVP/TCP;unicast;interleaved=4-5"
                say("200 OK", [transport, "Session: 77;timeout=60"])
            case "PLAY":
                # Packets may overtake the answer.
                self._packet(writer, 0)
                say("200 OK", ["Session: 77"])
                for n in range(1, len(self.packets)):
                    self._packet(writer, n)
                    await writer.drain()
                bye = struct.pack(">BBHI", 0x81, 203, 1, 1)
                writer.write(b"$" + struct.pack(">BH", 5, len(bye)) + bye)
            case "TEARDOWN":
                return False
        await writer.drain()
        return True

    def _packet(self, writer: asyncio.StreamWriter, n: int) -> None:
        time, body = self.packets[n]
        head = struct.pack(">BBHII", 0x80, 0x80 | self.payload, n & 0xFFFF, time & 0xFFFFFFFF, 1)
        writer.write(b"$" + struct.pack(">BH", 4, len(head) + len(body)) + head + body)

    def _is_let_in(self, method: str, url: str, head: str) -> bool:
        def md5(text: str) -> str:
            return hashlib.md5(text.encode()).hexdigest()

        secret = md5(f"{self.user}:{_REALM}:{self.password}")
        expected = md5(f"{secret}:{_NONCE}:{md5(f'{method}:{url}')}")
        return f'response="{expected}"' in head


def of_law(pcm: NDArray[np.float32], kind: str = "PCMU") -> Rtsp:
    """PCMU (µ-law, a payload type that needs no description) or L16, 20 ms a packet."""
    if kind == "PCMU":
        data = encode(pcm, "mulaw", codec="pcm_mulaw")
        lines, payload, width = ["m=audio 0 RTP/AVP 0"], 0, 1
    else:
        data = (np.clip(pcm, -1, 1) * 32767).astype(">i2").tobytes()
        lines, payload, width = ["m=audio 0 RTP/AVP 98", "a=rtpmap:98 L16/8000/1"], 98, 2
    step = 160 * width
    packets = [(at // width, data[at : at + step]) for at in range(0, len(data), step)]
    return Rtsp([*lines, "a=control:track2"], packets, payload)


def of_aac(pcm: NDArray[np.float32], *, fragment_bytes: int = 0) -> Rtsp:
    """AAC, two units a packet; with ``fragment_bytes`` one unit in packets of that size."""
    units = list(_adts_units(encode(pcm, "adts", rate_hz=16_000)))
    lines = [
        "m=audio 0 RTP/AVP 96",
        "a=rtpmap:96 MPEG4-GENERIC/16000/1",
        "a=fmtp:96 profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;"
        "indexdeltalength=3;config=1408",
        "a=control:track2",
    ]
    packets = []
    for n in range(0, len(units), 1 if fragment_bytes else 2):
        pair = units[n : n + (1 if fragment_bytes else 2)]
        heads = b"".join(struct.pack(">H", len(unit) << 3) for unit in pair)
        head = struct.pack(">H", 16 * len(pair)) + heads
        body = b"".join(pair)
        step = fragment_bytes or len(body)
        packets += [(n * 1024, head + body[at : at + step]) for at in range(0, len(body), step)]
    return Rtsp(lines, packets, 96)


def of_opus(pcm: NDArray[np.float32]) -> Rtsp:
    lines = ["m=audio 0 RTP/AVP 111", "a=rtpmap:111 opus/48000/2", "a=control:track2"]
    units = list(_ogg_packets(encode(pcm, "opus", rate_hz=48_000)))[2:]
    return Rtsp(lines, [(n * 960, unit) for n, unit in enumerate(units)], 111)


def _adts_units(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + 7 <= len(data):
        size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        yield data[at + (7 if data[at + 1] & 1 else 9) : at + size]
        at += size


def _ogg_packets(data: bytes) -> Iterator[bytes]:
    at, held = 0, b""
    while at + 27 <= len(data):
        lacing = data[at + 27 : at + 27 + data[at + 26]]
        at += 27 + len(lacing)
        for size in lacing:
            held += data[at : at + size]
            at += size
            if size < 255:
                yield held
                held = b""


@contextlib.asynccontextmanager
async def serving_rtsp(rtsp: Rtsp, tls: ssl.SSLContext | None = None) -> AsyncIterator[Rtsp]:
    """Serves until the end of the block."""
    server = await asyncio.start_server(rtsp.serve, "127.0.0.1", 0, ssl=tls)
    rtsp.port = server.sockets[0].getsockname()[1]
    try:
        yield rtsp
    finally:
        server.close()
