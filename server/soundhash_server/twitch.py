"""Twitch clips by their ids: how people write them, and what they are here."""

from __future__ import annotations

import re
from collections.abc import Sequence

from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.sources import media_key, split_media_key, url_key

SERVICE = "twitchclips"
"""yt-dlp's name of it."""
MAX_ID_CHARS = 200
_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_ID_CHARS}}}")
_NAMED_CHARS = 60
_HOSTS = ("twitch.tv", "clips.twitch.tv", "www.twitch.tv", "m.twitch.tv", "go.twitch.tv")


def clip_url(clip_id: str) -> str:
    """The one address of a clip that jobs fetch from."""
    return f"https://clips.twitch.tv/{clip_id}"


def clip_key(clip_id: str) -> str:
    """The identity of its job and its video, whatever address it is submitted by."""
    return media_key(SERVICE, clip_id)


def clip_id_of_key(key: str) -> str:
    """The clip's id in a source's key (`sources.url_key`); empty for what is no clip."""
    service, media_id = split_media_key(key)
    return media_id if service == SERVICE else ""


def clip_ids(texts: Sequence[str], field: str = "clips") -> list[str]:
    """The ids in what a caller sends, ids or URLs, each once, in order.

    Known URLs: clips.twitch.tv/ID, twitch.tv/CHANNEL/clip/ID, with www. or m., with or without
    https://. Raises PlatformError INVALID_ARGUMENT (CLIP_ID_INVALID) that names every one that
    is none.
    """
    found: dict[str, None] = {}
    wrong: dict[str, str] = {}
    for n, text in enumerate(texts):
        clip_id = _clip_id(text.strip())
        if clip_id:
            found.setdefault(clip_id)
        else:
            wrong[f"{field}[{n}]" if len(texts) > 1 or field == "clips" else field] = text
    if wrong:
        raise _invalid(wrong)
    return list(found)


def _clip_id(text: str) -> str:
    if _ID.fullmatch(text):
        text = clip_url(text)
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "https", text
    host = rest.partition("/")[0].lower()
    if scheme.lower() not in ("http", "https") or host not in _HOSTS:
        return ""
    try:
        clip_id = clip_id_of_key(url_key(f"https://{rest}"))
    except PlatformError:
        return ""
    return clip_id if _ID.fullmatch(clip_id) else ""


def _invalid(wrong: dict[str, str]) -> PlatformError:
    named = {
        field: text if len(text) <= _NAMED_CHARS else f"{text[: _NAMED_CHARS - 1]}…"
        for field, text in wrong.items()
    }
    listed = ", ".join(repr(text) for text in named.values())
    count = "is no id" if len(named) == 1 else "are no ids"
    return PlatformError(
        ErrorKind.INVALID_ARGUMENT,
        "CLIP_ID_INVALID",
        f"{listed} {count} of Twitch clips.",
        "Send ids (letters, digits, _ and -) or addresses such as https://clips.twitch.tv/ID.",
        metadata=named,
        violations={
            field: f"{text!r} must be a clip's id or address" for field, text in named.items()
        },
    )
