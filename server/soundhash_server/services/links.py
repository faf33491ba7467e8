"""Links that open a recording at the matching second."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

_MEDIA_ENDINGS = (
    ".mp3",
    ".mp4",
    ".m4a",
    ".m4v",
    ".aac",
    ".ogg",
    ".oga",
    ".ogv",
    ".opus",
    ".flac",
    ".wav",
    ".webm",
    ".mov",
)


def deep_link(url: str, at_s: float) -> str:
    """``url`` made to start at ``at_s`` seconds, where the form of such links is known.

    Known: YouTube, Twitch, Vimeo, Dailymotion, Bilibili, SoundCloud, and media files (W3C media
    fragments). Any other URL comes back as it is. Links start at whole seconds, never later than
    asked for.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").removeprefix("www.").removeprefix("m.")
    except ValueError:
        return url
    seconds = max(0, int(at_s))
    for hosts, rewrite in _SITES:
        if host in hosts:
            return rewrite(parts, seconds)
    if parts.scheme in ("http", "https") and parts.path.lower().endswith(_MEDIA_ENDINGS):
        return _fragment(parts, seconds)
    return url


def _query(parts: SplitResult, name: str, value: str, drop: tuple[str, ...] = ()) -> str:
    kept = [
        pair
        for pair in parse_qsl(parts.query, keep_blank_values=True)
        if pair[0] != name and pair[0] not in drop
    ]
    return parts._replace(query=urlencode([*kept, (name, value)])).geturl()


def _fragment(parts: SplitResult, seconds: int) -> str:
    return parts._replace(fragment=f"t={seconds}").geturl()


def _youtube(parts: SplitResult, seconds: int) -> str:
    if parts.path.startswith("/embed/"):
        return _query(parts, "start", str(seconds), ("t",))
    if shorts := re.fullmatch(r"/shorts/([\w-]+)/?", parts.path):
        # The page of a short takes no start; the same video's page does.
        parts = parts._replace(path="/watch", query=f"v={shorts[1]}")
    return _query(parts, "t", f"{seconds}s", ("start", "time_continue"))


def _twitch(parts: SplitResult, seconds: int) -> str:
    if not re.search(r"/(videos|v)/\d+", parts.path):
        return parts.geturl()
    hours, rest = divmod(seconds, 3600)
    return _query(parts, "t", f"{hours}h{rest // 60}m{rest % 60}s")


def _vimeo(parts: SplitResult, seconds: int) -> str:
    return parts._replace(fragment=f"t={seconds}s").geturl()


def _dailymotion(parts: SplitResult, seconds: int) -> str:
    return _query(parts, "start", str(seconds))


def _bilibili(parts: SplitResult, seconds: int) -> str:
    return _query(parts, "t", str(seconds))


_SITES: tuple[tuple[frozenset[str], Callable[[SplitResult, int], str]], ...] = (
    (
        frozenset({"youtube.com", "youtu.be", "music.youtube.com", "youtube-nocookie.com"}),
        _youtube,
    ),
    (frozenset({"twitch.tv"}), _twitch),
    (frozenset({"vimeo.com", "player.vimeo.com"}), _vimeo),
    (frozenset({"dailymotion.com"}), _dailymotion),
    (frozenset({"bilibili.com"}), _bilibili),
    (frozenset({"soundcloud.com"}), _fragment),
)
