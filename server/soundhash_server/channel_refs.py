"""What people write to name a channel, told apart without network."""

from __future__ import annotations

import enum
import hashlib
import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.sources import clean_text, source_host, split_media_key, url_key
from soundhash_server.url_guard import split_url

YOUTUBE = "youtube"
_MAX_NAME_CHARS = 500
_HOME = "https://www.youtube.com"

_CHANNEL_ID = re.compile(r"UC[0-9A-Za-z_-]{22}")
_PLAYLIST_ID = re.compile(r"(?:PL|UU|FL|OLAK5uy_)[0-9A-Za-z_-]{10,64}")
_HANDLE = re.compile(r"@[^\s/?#@&]{2,60}")
_USER = re.compile(r"[0-9A-Za-z_.-]{1,60}")
# A tab that shows all of a channel, as its page does.
_WHOLE = frozenset({"", "videos", "featured", "about"})
_ORDERED_BY_HAND = re.compile(r"playlist|/sets/|/albums?/|/showcase/|/collections?/")
_HOST_FIRST = re.compile(r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*\.[A-Za-z]{2,}(?:[:/?#].*)?")


class RefKind(enum.Enum):
    """How a channel is named."""

    CHANNEL = "CHANNEL"
    """YouTube's own id, ``UC...``."""
    HANDLE = "HANDLE"
    USER = "USER"
    """A legacy user name of YouTube."""
    PLAYLIST = "PLAYLIST"
    PAGE = "PAGE"
    """Any other page that lists videos: only yt-dlp can tell."""


@dataclass(frozen=True, slots=True)
class ChannelRef:
    """A channel by a name of it.

    service: ``youtube``, or the host. name: unique in the service, in one normal form; of
    YouTube's own names what its API takes. url: the page.
    """

    kind: RefKind
    service: str
    name: str
    url: str

    @property
    def canonical(self) -> bool:
        """Whether the name is the service's own id, which never changes."""
        return self.kind is not RefKind.HANDLE and self.kind is not RefKind.USER

    @property
    def newest_first(self) -> bool:
        """Whether new videos come first: people order playlists as they like, and add at the
        end."""
        if self.kind is RefKind.PAGE:
            return _ORDERED_BY_HAND.search(self.url) is None
        return self.kind is not RefKind.PLAYLIST


def parse_channel(text: str) -> ChannelRef:
    """What a channel id, @handle or URL names.

    Raises PlatformError INVALID_ARGUMENT: CHANNEL_INVALID (none of these, or one recording),
    and as `url_guard.split_url`.
    """
    text = text.strip()
    if _CHANNEL_ID.fullmatch(text):
        return _channel(text)
    if _HANDLE.fullmatch(text):
        return _handle(text)
    if _PLAYLIST_ID.fullmatch(text):
        return _playlist(text)
    if "://" not in text:
        if not _HOST_FIRST.fullmatch(text):
            raise _invalid("This is no channel id, @handle or URL.")
        text = f"https://{text}"
    parts = split_url(text)
    if split_media_key(url_key(text)) != ("", ""):
        raise _invalid("This is one recording, not a channel.")
    host = source_host(text)
    if host == "youtube.com":
        found = _of_youtube(parts.path, parts.query)
        if found is not None:
            return found
    name = url_key(text).removeprefix("url:")
    if len(name) > _MAX_NAME_CHARS:
        name = f"{name[:_MAX_NAME_CHARS]}#{hashlib.sha256(name.encode()).hexdigest()}"
    return ChannelRef(RefKind.PAGE, host, name, text)


def _of_youtube(path: str, query: str) -> ChannelRef | None:
    parts = [unquote(part) for part in path.split("/") if part]
    playlist = parse_qs(query).get("list", [""])[0]
    if parts in (["playlist"], ["watch"]) and _PLAYLIST_ID.fullmatch(playlist):
        return _playlist(playlist)
    if not parts:
        raise _invalid("YouTube's front page is no channel.")
    first, rest = parts[0], parts[1:]
    if _HANDLE.fullmatch(first) and _whole(rest):
        return _handle(first)
    if first == "channel" and rest and _CHANNEL_ID.fullmatch(rest[0]) and _whole(rest[1:]):
        return _channel(rest[0])
    if first == "user" and rest and _USER.fullmatch(rest[0]) and _whole(rest[1:]):
        name = rest[0]
        return ChannelRef(RefKind.USER, YOUTUBE, f"user/{name.lower()}", f"{_HOME}/user/{name}")
    return None


def _whole(tab: list[str]) -> bool:
    return not tab or (len(tab) == 1 and tab[0] in _WHOLE)


def _channel(channel_id: str) -> ChannelRef:
    return ChannelRef(RefKind.CHANNEL, YOUTUBE, channel_id, f"{_HOME}/channel/{channel_id}")


def _handle(handle: str) -> ChannelRef:
    # YouTube's handles are the same in any case.
    return ChannelRef(RefKind.HANDLE, YOUTUBE, handle.lower(), f"{_HOME}/{handle}")


def _playlist(playlist_id: str) -> ChannelRef:
    if playlist_id.startswith("UU") and len(playlist_id) == 24:
        # The list of a channel's uploads is the channel.
        return _channel(f"UC{playlist_id[2:]}")
    url = f"{_HOME}/playlist?list={playlist_id}"
    return ChannelRef(RefKind.PLAYLIST, YOUTUBE, playlist_id, url)


def ref_of(service: str, service_id: str, url: str) -> ChannelRef:
    """The reference of a stored channel, by its service's own id where that is known."""
    if service == YOUTUBE and is_channel_id(service_id):
        return _channel(service_id)
    return parse_channel(url)


def is_channel_id(text: str) -> bool:
    """Whether this is YouTube's own id of a channel (``UC...``)."""
    return _CHANNEL_ID.fullmatch(text) is not None


def uploads_of(channel_id: str) -> str:
    """The page that lists all uploads of a YouTube channel (``UC...``), the newest first."""
    return f"{_HOME}/playlist?list=UU{channel_id[2:]}"


def display_name(ref: ChannelRef) -> str:
    """What a channel is called before its source has said."""
    if ref.kind is RefKind.PAGE:
        return clean_text(ref.url.partition("://")[2])
    return ref.name


def name_suffix(service: str, service_id: str) -> str:
    """What tells channels of the same name apart."""
    return service_id if service == YOUTUBE else service


def _invalid(message: str) -> PlatformError:
    return PlatformError(
        ErrorKind.INVALID_ARGUMENT,
        "CHANNEL_INVALID",
        message,
        "Give a channel id (UC...), an @handle, or the URL of a channel, playlist or user page; "
        "single recordings are submitted by their URL.",
        violations={"channel": message},
    )
