"""What the first bytes of an answer are: audio, a playlist of addresses, HLS, or a page."""

from __future__ import annotations

import enum
import html
import re
from urllib.parse import urljoin, urlsplit

from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live.answer import Answer

SNIFF_BYTES = 16
MAX_ENTRIES = 10
"""So many addresses of a playlist are tried."""

_M3U_TYPES = frozenset(
    ("audio/x-mpegurl", "audio/mpegurl", "application/x-mpegurl", "application/vnd.apple.mpegurl")
)
_PLS_TYPES = frozenset(("audio/x-scpls", "application/pls+xml", "audio/scpls"))
_XML_TYPES = frozenset(("application/xspf+xml", "video/x-ms-asf", "video/x-ms-asx"))
_TEXT_STARTS = (b"#", b"[", b"<", b"http://", b"https://", b"rtsp://", b"rtmp://")
_PLS_ENTRY = re.compile(r"file\d{1,6}[ \t]*=(.*)", re.IGNORECASE)
_XML_ENTRY = re.compile(
    r"<location[^>]{0,200}>([^<]{1,2048})</location>"
    r"|<(?:ref|entryref)\s[^>]{0,200}?href\s*=\s*[\"']([^\"']{1,2048})[\"']",
    re.IGNORECASE,
)
_MAX_LIST_CHARS = 64 << 10
_STREAM_SCHEMES = frozenset(("http", "https", "rtmp", "rtmps", "rtsp", "rtsps"))


class Kind(enum.Enum):
    """What an answer is."""

    STREAM = enum.auto()
    HLS = enum.auto()
    LIST = enum.auto()
    PAGE = enum.auto()


async def kind_of(answer: Answer) -> tuple[Kind, str]:
    """What an answer is, and its text unless it is a stream.

    Raises JobError LIVE_FORMAT for manifests of another kind.
    """
    kind = answer.content_type
    if kind.startswith(("audio/", "video/")) and kind not in _M3U_TYPES | _PLS_TYPES | _XML_TYPES:
        # Some call their lists audio, too.
        start = (await answer.peek(SNIFF_BYTES)).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        if not start.startswith((b"#extm3u", b"[playlist]")):
            return Kind.STREAM, ""
    elif kind not in _M3U_TYPES | _PLS_TYPES | _XML_TYPES:
        start = (await answer.peek(SNIFF_BYTES)).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        if not start.startswith(_TEXT_STARTS) and not kind.startswith("text/"):
            return Kind.STREAM, ""
    text = await answer.text()
    lowered = text[:2048].lstrip().lower()
    if lowered.startswith("#extm3u") and "#ext-x-" in text.lower():
        return Kind.HLS, text
    if "<mpd" in lowered or "<smoothstreamingmedia" in lowered:
        raise JobError("LIVE_FORMAT", "The source is MPEG-DASH or Smooth Streaming, not HLS.")
    if entries_of(text, answer.url):
        return Kind.LIST, text
    if lowered.startswith("<") or kind.startswith("text/html"):
        return Kind.PAGE, text
    raise JobError("LIVE_FORMAT", "The source answers with text that names no stream.")


def entries_of(text: str, base: str) -> list[str]:
    """The addresses in a playlist (M3U, PLS, XSPF, ASX), in order, each once; pages have none."""
    text = text[:_MAX_LIST_CHARS]
    lowered = text[:2048].lstrip().lower()
    lines = [line.strip() for line in text.splitlines()]
    if lowered.startswith("<"):
        if "<html" in lowered or "<!doctype html" in lowered:
            return []
        found = [html.unescape(a or b) for a, b in _XML_ENTRY.findall(text)]
    elif lowered.startswith("[playlist]"):
        found = [entry[1] for line in lines if (entry := _PLS_ENTRY.match(line))]
    else:
        found = [line for line in lines if line and not line.startswith(("#", "<"))]
        if not lowered.startswith("#extm3u"):
            found = [line for line in found if "://" in line[:10]]
    urls = (_address(base, entry.strip()) for entry in found if len(entry) <= 2048)
    return list(dict.fromkeys(filter(None, urls)))[:MAX_ENTRIES]


def _address(base: str, entry: str) -> str:
    """The address of an entry; empty for none that could be a stream's."""
    try:
        url = urljoin(base, entry)
        return url if urlsplit(url).scheme.lower() in _STREAM_SCHEMES else ""
    except ValueError:
        return ""
