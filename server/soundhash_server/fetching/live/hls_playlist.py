"""Playlists of HTTP Live Streaming (RFC 8216), as far as sound is concerned.

What is not needed is not looked at, so that a slip in it costs nothing.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from urllib.parse import urljoin

from soundhash_server.fetching.failures import JobError

_ATTRIBUTE = re.compile(r'(?:^|,)\s*([A-Z0-9-]+)=("[^"]*"|[^",]*)')
_MAX_SEGMENTS = 10_000
"""More than half a day of them."""
_SOUND_CODECS = ("mp4a", "ac-3", "ec-3", "opus", "flac", "vorbis", "alac", "mp3", "ac-4")
_FEW_BITS_PER_S = 48_000
"""Below this much of the sound is lost."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a file: all of it, or ``size`` of them from ``start`` on."""

    url: str
    start: int | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Key:
    """AES-128 in CBC mode. iv: None for the segment's number."""

    url: str
    iv: bytes | None


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before segments of fragmented MP4 (EXT-X-MAP)."""

    part: Part
    key: Key | None


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the stream. number: counts up over all playlists. breaks: has nothing to do
    with the one before. missing: the server says that it has none (EXT-X-GAP)."""

    number: int
    part: Part
    duration_s: float
    breaks: bool
    missing: bool
    key: Key | None
    header: Header | None


@dataclass(frozen=True, slots=True)
class MediaPlaylist:
    """Segments in order. ended: no more will come."""

    segments: tuple[Segment, ...]
    target_s: float
    ended: bool


@dataclass(frozen=True, slots=True)
class _Variant:
    url: str
    bits_per_s: int
    sound: bool | None
    """Whether it has sound; None when it is not said."""
    film: bool
    group: str


def variants_of(text: str, base: str) -> list[str]:
    """The playlists that a master playlist names, those first that give sound for the fewest
    bytes; none for a playlist of segments. Raises JobError LIVE_FORMAT."""
    variants: list[_Variant] = []
    renditions: dict[str, list[tuple[bool, str]]] = {}
    pending: dict[str, str] | None = None
    _refuse_variables(text)
    for line in _lines(text):
        if line.startswith("#EXT-X-STREAM-INF:"):
            pending = _attributes(line)
        elif line.startswith("#EXT-X-MEDIA:"):
            said = _attributes(line)
            if said.get("TYPE") == "AUDIO" and said.get("URI"):
                entry = (said.get("DEFAULT") == "YES", _join(base, said["URI"]))
                renditions.setdefault(said.get("GROUP-ID", ""), []).append(entry)
        elif not line.startswith("#") and pending is not None:
            variants.append(_variant(pending, _join(base, line)))
            pending = None
    if not variants and renditions:
        return [url for group in renditions.values() for _, url in _default_first(group)]
    found: list[str] = []
    for variant in sorted(variants, key=_price):
        if variant.sound is not False:
            alone = _default_first(renditions.get(variant.group, []))
            found += [url for _, url in alone] or [variant.url]
    return list(dict.fromkeys(found))


def media_playlist(text: str, base: str) -> MediaPlaylist:
    """The segments of a playlist.

    Raises JobError: LIVE_FORMAT, DRM_PROTECTED for encryption with keys that only licensed
    players get.
    """
    _refuse_variables(text)
    segments: list[Segment] = []
    target_s, number, ended = 0.0, 0, False
    key: Key | None = None
    header: Header | None = None
    duration_s, range_text, breaks, missing = 0.0, "", False, False
    last: Part | None = None
    for line in _lines(text):
        name, _, value = line.partition(":")
        match name:
            case "#EXT-X-TARGETDURATION":
                target_s = _number(value)
            case "#EXT-X-MEDIA-SEQUENCE" if not segments:
                number = int(_number(value))
            case "#EXTINF":
                duration_s = _number(value.partition(",")[0])
            case "#EXT-X-BYTERANGE":
                range_text = value
            case "#EXT-X-DISCONTINUITY":
                breaks = True
            case "#EXT-X-GAP":
                missing = True
            case "#EXT-X-KEY":
                key = _key(_attributes(line), base)
            case "#EXT-X-MAP":
                said = _attributes(line)
                if not said.get("URI"):
                    raise JobError("LIVE_FORMAT", "A playlist's EXT-X-MAP names no file.")
                where = _join(base, said["URI"])
                header = Header(_part(where, said.get("BYTERANGE", ""), None), key)
            case "#EXT-X-ENDLIST":
                ended = True
            case _ if not line.startswith("#"):
                last = _part(_join(base, line), range_text, last)
                segments.append(Segment(number, last, duration_s, breaks, missing, key, header))
                number += 1
                duration_s, range_text, breaks, missing = 0.0, "", False, False
                if len(segments) > _MAX_SEGMENTS:
                    raise JobError("LIVE_FORMAT", "A playlist names too many segments.")
    longest_s = max((segment.duration_s for segment in segments), default=0.0)
    # Without it a server would be asked without pause.
    return MediaPlaylist(tuple(segments), min(max(target_s or longest_s, 0.5), 60.0), ended)


def from_live_edge(playlist: MediaPlaylist) -> list[Segment]:
    """The segments to begin with: all of a recording, of a live stream the latest ones, which
    last three times as long as one may (RFC 8216, 6.3.3)."""
    if playlist.ended:
        return list(playlist.segments)
    begin, length_s = len(playlist.segments), 0.0
    while begin > 0 and length_s < 2.5 * playlist.target_s:
        begin -= 1
        length_s += playlist.segments[begin].duration_s or playlist.target_s
    kept = list(playlist.segments[begin:])
    return [replace(kept[0], breaks=False), *kept[1:]] if kept else []


def _refuse_variables(text: str) -> None:
    if "#EXT-X-DEFINE" in text and "{$" in text:
        raise JobError("LIVE_FORMAT", "The source's playlist uses variables (EXT-X-DEFINE).")


def _lines(text: str) -> list[str]:
    return [line for line in map(str.strip, text.splitlines()) if line]


def _attributes(line: str) -> dict[str, str]:
    return {name: value.strip('"') for name, value in _ATTRIBUTE.findall(line.partition(":")[2])}


def _join(base: str, url: str) -> str:
    try:
        return urljoin(base, url)
    except ValueError:
        raise JobError("LIVE_FORMAT", "A playlist's address cannot be read.") from None


def _number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        return 0.0
    return found if math.isfinite(found) and 0 <= found < 2**53 else 0.0


def _part(url: str, text: str, before: Part | None) -> Part:
    """``text``: length, or length@start; without a start it goes on where ``before`` ends."""
    if not text:
        return Part(url)
    size, _, start = text.partition("@")
    if not (size.strip().isdecimal() and (start.strip() or "0").isdecimal()):
        raise JobError("LIVE_FORMAT", "A playlist's byte range cannot be read.")
    if start:
        begin = int(start)
    else:
        begin = before.start + before.size if before and before.start is not None else 0
    return Part(url, begin, int(size))


def _key(said: dict[str, str], base: str) -> Key | None:
    method = said.get("METHOD", "NONE")
    if method == "NONE":
        return None
    if method != "AES-128" or said.get("KEYFORMAT", "identity") != "identity":
        raise JobError("DRM_PROTECTED", f"The source is encrypted for players ({method[:40]}).")
    if not said.get("URI"):
        raise JobError("LIVE_FORMAT", "A playlist's key has no address.")
    iv = None
    if said.get("IV"):
        try:
            iv = int(said["IV"], 16).to_bytes(16, "big")
        except (ValueError, OverflowError):
            raise JobError("LIVE_FORMAT", "A playlist's IV cannot be read.") from None
    return Key(_join(base, said["URI"]), iv)


def _variant(said: dict[str, str], url: str) -> _Variant:
    codecs = said.get("CODECS", "").lower()
    sound = any(name in codecs for name in _SOUND_CODECS) if codecs else None
    film = "RESOLUTION" in said or (
        bool(codecs) and any(not one.strip().startswith(_SOUND_CODECS) for one in codecs.split(","))
    )
    return _Variant(
        url, int(_number(said.get("BANDWIDTH", ""))), sound, film, said.get("AUDIO", "")
    )


def _price(variant: _Variant) -> tuple[bool, bool, int]:
    poor = 0 < variant.bits_per_s < _FEW_BITS_PER_S
    return variant.film, poor, -variant.bits_per_s if poor else variant.bits_per_s


def _default_first(group: list[tuple[bool, str]]) -> list[tuple[bool, str]]:
    return sorted(group, key=lambda entry: not entry[0])
