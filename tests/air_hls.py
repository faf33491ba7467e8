"""HTTP Live Streaming on loopback: segments as FFmpeg writes them, lists that roll."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from Cryptodome.Cipher import AES
from Cryptodome.Util.Padding import pad
from numpy.typing import NDArray

from tests.air import Air, Asked, Page, answer
from tests.media import _frames

KEY = bytes(range(16))


@dataclass(frozen=True)
class Cut:
    """A recording in segments. tags: lines that stand before each segment in its list."""

    files: dict[str, bytes]
    names: list[str]
    durations: list[float]
    tags: list[list[str]]


def cut(
    pcm: NDArray[np.float32],
    *,
    segment_s: float = 1.0,
    fragmented: bool = False,
    encrypted: bool = False,
    prefix: str = "a",
    rate_hz: int = 32_000,
) -> Cut:
    """Audio as FFmpeg's own HLS muxer cuts it: MPEG-TS, or fragmented MP4."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = {
            "hls_time": str(segment_s),
            "hls_list_size": "0",
            "hls_segment_type": "fmp4" if fragmented else "mpegts",
            "hls_segment_filename": str(folder / f"{prefix}%d.{'m4s' if fragmented else 'ts'}"),
            "hls_fmp4_init_filename": f"{prefix}-init.mp4",
        }
        if encrypted:
            (folder / "key").write_bytes(KEY)
            (folder / "info").write_text(f"/key\n{folder / 'key'}\n")
            options["hls_key_info_file"] = str(folder / "info")
        with av.open(str(folder / "list.m3u8"), "w", format="hls", options=options) as sink:
            stream = sink.add_stream("aac", rate=rate_hz)
            stream.layout = "mono"
            for frame in _frames(pcm, rate_hz, "mono", "fltp"):
                sink.mux(stream.encode(frame))
            sink.mux(stream.encode(None))
        names, durations, tags, pending = [], [], [], []
        key_line, map_line = [], []
        for line in (folder / "list.m3u8").read_text().splitlines():
            if line.startswith("#EXTINF"):
                durations.append(float(line[8:].rstrip(",")))
            elif line.startswith("#EXT-X-KEY"):
                key_line = [line]
            elif line.startswith("#EXT-X-MAP"):
                map_line = [line]
            elif not line.startswith("#"):
                names.append(line)
                tags.append([*pending, *key_line, *map_line])
        files = {one.name: one.read_bytes() for one in folder.iterdir() if one.suffix != ".m3u8"}
        return Cut(files, names, durations, tags)


@dataclass
class Rolling:
    """A list under ``PATH/list.m3u8`` that shows so many segments at once, and its files.

    step: how many more it shows each time that it is asked for; 0: by the clock, at ``speed``
    times real time. ended: says so after the last one; otherwise it stands still there.
    """

    window: int = 4
    step: int = 0
    speed: float = 1.0
    ended: bool = True
    target_s: float = 1.0
    first_number: int = 0
    segments: list[tuple[str, float, list[str]]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)
    """How many more times a file answers 503."""
    asked: Counter[str] = field(default_factory=Counter)
    _begun_s: float | None = None
    _shown: int = 0

    def add(self, made: Cut, *, breaks: bool = False) -> Rolling:
        """Appends a recording. breaks: as a discontinuity."""
        self.files |= made.files
        for number, (name, duration_s, tags) in enumerate(
            zip(made.names, made.durations, made.tags, strict=True)
        ):
            first = ["#EXT-X-DISCONTINUITY"] if breaks and not number else []
            self.segments.append((name, duration_s, [*first, *tags]))
        return self

    def encrypt(self) -> None:
        """Encrypts the segments with their numbers, and says so as few words as allowed."""
        for n, (name, duration_s, tags) in enumerate(self.segments):
            iv = (self.first_number + n).to_bytes(16, "big")
            padded = pad(self.files[name], 16)
            self.files[name] = AES.new(KEY, AES.MODE_CBC, iv).encrypt(padded)
            tag = '#EXT-X-KEY:METHOD=AES-128,URI="/key"'
            self.segments[n] = (name, duration_s, [*tags, tag])

    def put(self, air: Air, path: str) -> str:
        """Serves it; returns the list's address."""
        air.handlers[f"{path}/list.m3u8"] = self._list
        for name in self.files:
            air.handlers[f"{path}/{name}"] = self._file
        air.pages["/key"] = Page(KEY, "application/octet-stream")
        return air.url(f"{path}/list.m3u8")

    def text(self) -> str:
        """The list as it is now."""
        shown = min(self._now(), len(self.segments))
        first = max(0, shown - self.window)
        lines = ["#EXTM3U", "#EXT-X-VERSION:7", f"#EXT-X-TARGETDURATION:{self.target_s:g}"]
        lines.append(f"#EXT-X-MEDIA-SEQUENCE:{self.first_number + first}")
        for name, duration_s, tags in self.segments[first:shown]:
            lines += [*tags, f"#EXTINF:{duration_s:.6f},", name]
        if self.ended and shown == len(self.segments):
            lines.append("#EXT-X-ENDLIST")
        return "\n".join([*lines, ""])

    def _now(self) -> int:
        now_s = asyncio.get_running_loop().time()
        if self._begun_s is None:
            self._begun_s = now_s
            self._shown = self.window
        elif self.step:
            self._shown += self.step
        if not self.step:
            aired_s, shown = (now_s - self._begun_s) * self.speed, self.window
            for _, duration_s, _ in self.segments[self.window :]:
                aired_s -= duration_s
                if aired_s < 0:
                    break
                shown += 1
            return shown
        return self._shown

    async def _list(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        self.asked["list.m3u8"] += 1
        kind = "application/vnd.apple.mpegurl"
        await answer(writer, Page(self.text().encode(), kind))

    async def _file(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        name = asked.path.rpartition("/")[2]
        self.asked[name] += 1
        if self.broken.get(name, 0):
            self.broken[name] -= 1
            await answer(writer, Page(status=503))
            return
        body = self.files[name]
        wanted = asked.headers.get("range", "").removeprefix("bytes=")
        if not wanted:
            await answer(writer, Page(body, "video/mp2t"))
            return
        start, _, end = wanted.partition("-")
        part = body[int(start) : int(end) + 1]
        headers = {"Content-Range": f"bytes {start}-{end}/{len(body)}"}
        await answer(writer, Page(part, "video/mp2t", 206, headers))
