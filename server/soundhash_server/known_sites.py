"""Sites whose URLs tell without network what they lead to: many addresses of one recording."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs


@dataclass(frozen=True, slots=True)
class Media:
    """A recording by its service (yt-dlp's extractor key, lower case) and its id there."""

    service: str
    media_id: str


@dataclass(frozen=True, slots=True)
class Page:
    """A recording whose id only the service knows; ``url`` is its one canonical address."""

    url: str


_SITES = {
    "youtube.com": "youtube.com",
    "youtube-nocookie.com": "youtube.com",
    "youtubekids.com": "youtube.com",
    "youtu.be": "youtube.com",
    "twitch.tv": "twitch.tv",
    "vimeo.com": "vimeo.com",
    "soundcloud.com": "soundcloud.com",
    "on.soundcloud.com": "soundcloud.com",
    "dailymotion.com": "dailymotion.com",
    "dai.ly": "dailymotion.com",
    "tiktok.com": "tiktok.com",
    "twitter.com": "x.com",
    "x.com": "x.com",
    "instagram.com": "instagram.com",
}
# Names before a site's own that only choose how it is shown.
_FRONTS = frozenset(
    ("www", "m", "mobile", "touch", "geo", "music", "player", "clips", "go", "api", "api-v2")
)

_YOUTUBE_ID = re.compile(r"[0-9A-Za-z_-]{11}")
_YOUTUBE_PATH = re.compile(r"/(?:v|embed|e|shorts|live)/([0-9A-Za-z_-]{11})(?:/|$)")
_CLIP = re.compile(r"(?:/[^/]+)?/clip/([A-Za-z0-9_-]+)/?")
_CLIP_HOST = re.compile(r"/(?:[^/]+/)*([A-Za-z0-9_-]+)/?")
_VOD = re.compile(r"/(?:videos|[^/]+/v(?:ideo)?)/(\d+)/?")
_VIMEO = re.compile(r"/(?:(?:channels|groups)/[^/]+/(?:videos?/)?|videos?/)?(\d+)(?:/[0-9a-f]+)?/?")
_SOUNDCLOUD_TRACK = re.compile(r"/tracks/(?:soundcloud%3Atracks%3A|soundcloud:tracks:)?(\d+)/?")
_SOUNDCLOUD = re.compile(
    r"/([\w-]+)/(?!(?:tracks|albums|sets|reposts|likes|spotlight|comments)(?:/|$))"
    r"([\w-]+)(/s-[\w-]+)?/?"
)
_DAILYMOTION = re.compile(r"/(?:(?:crawler|embed|swf)/)?video/([^/?_&#]+)[^/]*/?")
_TIKTOK = re.compile(r"/(?:embed|(?:share|@[\w.-]*)/video)/(\d+)/?")
_TWEET = re.compile(r"/(?:i/web|[^/]+)/status(?:es)?/(\d+)(/(?:video|photo)/\d+)?/?")
_INSTAGRAM = re.compile(r"(?:/(?!share/)[^/]+)?/(?:p|tv|reels?)/(?!audio/)([\w-]+)/?")
# Instagram appends so many characters to the codes of private posts.
_INSTAGRAM_EXTRA_CHARS = 28


def site_of(host: str) -> str:
    """The one name of a host (lower case): without www and m, all of a known site's together."""
    for name, site in _SITES.items():
        if host == name or host.endswith(f".{name}"):
            return site
    first, _, rest = host.partition(".")
    return rest if first in ("www", "m", "mobile") and "." in rest else host


def is_known_site(host: str) -> bool:
    """Whether a host (lower case) belongs to one of the sites that are known here."""
    return site_of(host) in _FINDERS


def recognise(parts: SplitResult) -> Media | Page | None:
    """What a URL leads to, where its site and form are known; None for all others."""
    host = (parts.hostname or "").lower().rstrip(".")
    own = next((name for name in _SITES if host == name or host.endswith(f".{name}")), None)
    if own is None or parts.port not in (None, 80, 443):
        return None
    front = host.removesuffix(own).rstrip(".")
    if front and front not in _FRONTS:
        return None
    return _FINDERS[_SITES[own]](parts, front, own)


def _youtube(parts: SplitResult, front: str, own: str) -> Media | None:
    found = _YOUTUBE_PATH.match(parts.path)
    media_id = found[1] if found else ""
    if own == "youtu.be":
        media_id = parts.path[1:].split("/", 1)[0]
    elif parts.path in ("", "/", "/watch", "/watch/", "/movie", "/watch_popup", "/watch.php"):
        media_id = parse_qs(parts.query).get("v", [""])[0]
    return Media("youtube", media_id) if _YOUTUBE_ID.fullmatch(media_id) else None


def _twitch(parts: SplitResult, front: str, own: str) -> Media | None:
    query = parse_qs(parts.query)
    if front == "clips":
        if parts.path == "/embed":
            slug = query.get("clip", [""])[0]
            return Media("twitchclips", slug) if re.fullmatch(r"[\w-]+", slug) else None
        found = _CLIP_HOST.fullmatch(parts.path)
        return Media("twitchclips", found[1]) if found else None
    if front == "player":
        video = re.fullmatch(r"v?(\d+)", query.get("video", [""])[0])
        return Media("twitchvod", f"v{video[1]}") if video else None
    if found := _CLIP.fullmatch(parts.path):
        return Media("twitchclips", found[1])
    found = _VOD.fullmatch(parts.path)
    return Media("twitchvod", f"v{found[1]}") if found else None


def _vimeo(parts: SplitResult, front: str, own: str) -> Media | None:
    found = _VIMEO.fullmatch(parts.path)
    return Media("vimeo", found[1]) if found else None


def _soundcloud(parts: SplitResult, front: str, own: str) -> Media | Page | None:
    if front.startswith("api"):
        track = _SOUNDCLOUD_TRACK.fullmatch(parts.path)
        return Media("soundcloud", track[1]) if track else None
    found = _SOUNDCLOUD.fullmatch(parts.path) if front in ("", "www", "m") else None
    return Page(f"https://soundcloud.com/{found[1]}/{found[2]}{found[3] or ''}") if found else None


def _dailymotion(parts: SplitResult, front: str, own: str) -> Media | None:
    if own == "dai.ly":
        media_id = re.fullmatch(r"/([^/?_&#]+)[^/]*/?", parts.path)
        return Media("dailymotion", media_id[1]) if media_id else None
    found = _DAILYMOTION.fullmatch(parts.path)
    return Media("dailymotion", found[1]) if found else None


def _tiktok(parts: SplitResult, front: str, own: str) -> Media | None:
    found = _TIKTOK.fullmatch(parts.path)
    return Media("tiktok", found[1]) if found else None


def _x(parts: SplitResult, front: str, own: str) -> Page | None:
    # A post is not a recording: it may hold several, each with an id of its own.
    found = _TWEET.fullmatch(parts.path)
    return Page(f"https://x.com/i/status/{found[1]}{found[2] or ''}") if found else None


def _instagram(parts: SplitResult, front: str, own: str) -> Media | None:
    found = _INSTAGRAM.fullmatch(parts.path)
    if not found:
        return None
    code = found[1]
    if len(code) > _INSTAGRAM_EXTRA_CHARS:
        code = code[:-_INSTAGRAM_EXTRA_CHARS]
    return Media("instagram", code)


_FINDERS = {
    "youtube.com": _youtube,
    "twitch.tv": _twitch,
    "vimeo.com": _vimeo,
    "soundcloud.com": _soundcloud,
    "dailymotion.com": _dailymotion,
    "tiktok.com": _tiktok,
    "x.com": _x,
    "instagram.com": _instagram,
}
