"""What is behind pages that list recordings, through yt-dlp in a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from soundhash_server.errors import PlatformError
from soundhash_server.fetching.child import running
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.ways import Proxy, Ways
from soundhash_server.fetching.ytdlp import base_request
from soundhash_server.model import ChannelFacts, ListedVideo
from soundhash_server.sources import clean_text, split_media_key, url_key

_TOTAL_S = 2 * 3600.0
"""Longest listing; the next one goes on where it ended."""
_CHILD = "soundhash_server.fetching.listing_child"
_MAX_DESCRIPTION_CHARS = 5000
_MAX_KEY_CHARS = 2000
"""An index's rows have 2,700 bytes at most."""
MAX_ENTRIES = 100_000
"""Of a list that has no end."""
_PRIVATE_TITLES = frozenset({"[private video]", "[private track]"})
_DELETED_TITLES = frozenset({"[deleted video]", "[unavailable video]"})
_NOT_PUBLIC = frozenset({"private", "needs_auth"})
URL_SERVICE = "url"
"""Service of recordings that are known by their address alone."""


async def list_page(
    url: str, ways: Ways, proxy: Proxy | None, *, allow_private: bool, skip: int = 0
) -> AsyncGenerator[ChannelFacts | ListedVideo, None]:
    """What a list is, then its recordings in its order, as they are found.

    skip: so many of the first are left out. The child and all that it has started are gone when
    the generator ends, is closed or raises; close it (``aclosing``). Raises JobError (NOT_A_LIST,
    those of fetching), PlatformError (URL_NOT_ALLOWED).
    """
    request = base_request(url, ways, proxy, allow_private=allow_private) | {"skip": skip}
    give_up_s = asyncio.get_running_loop().time() + _TOTAL_S
    async with running(_CHILD, request) as child:
        seen = 0
        while True:
            try:
                async with asyncio.timeout_at(give_up_s):
                    said = await child.hear()
            except TimeoutError:
                raise JobError("FETCH_STALLED", "The list takes too long.") from None
            match said["event"]:
                case "list":
                    yield to_facts(said)
                case "entry":
                    video = to_listed(said)
                    if video is not None:
                        yield video
                    seen += 1
                    if seen + skip >= MAX_ENTRIES:
                        return
                case "done":
                    return


def to_listed(values: dict[str, Any]) -> ListedVideo | None:
    """An entry of the child as a video; None for one that could not be fetched anyway."""
    url = str(values["url"])
    try:
        key = url_key(url)
    except PlatformError:
        return None
    if len(key) > _MAX_KEY_CHARS:
        return None
    service, media_id = split_media_key(key)
    if not service:
        service, media_id = URL_SERVICE, key.partition(":")[2]
    duration = values.get("duration")
    return ListedVideo(
        service=service,
        media_id=media_id,
        url=url,
        title=clean_text(str(values.get("title") or "")),
        description=long_text(values.get("description")),
        thumbnail_url=clean_text(str(values.get("thumbnail_url") or "")),
        publish_time=_publish_time(values),
        duration_s=float(duration) if duration and duration > 0 else None,
        skip_reason=_skip_reason(values),
    )


def to_facts(values: dict[str, Any]) -> ChannelFacts:
    """What the child says about the list."""
    return ChannelFacts(
        service_id=clean_text(str(values.get("id") or "")),
        title=clean_text(str(values.get("title") or "")),
        url=str(values.get("url") or ""),
        description=long_text(values.get("description")),
        thumbnail_url=clean_text(str(values.get("thumbnail_url") or "")),
    )


def long_text(value: object) -> str:
    """A description from outside, as the database can hold it."""
    text = str(value or "").encode("utf-8", "ignore").decode()
    return text.replace("\0", "").strip()[:_MAX_DESCRIPTION_CHARS]


def _skip_reason(values: dict[str, Any]) -> str:
    title = str(values.get("title") or "").lower()
    if values.get("live_status") == "is_live":
        return "LIVE_NOT_SUPPORTED"
    if values.get("live_status") == "is_upcoming":
        return "NOT_YET_AVAILABLE"
    if values.get("availability") in _NOT_PUBLIC or title in _PRIVATE_TITLES:
        return "MEDIA_PRIVATE"
    if title in _DELETED_TITLES:
        return "MEDIA_REMOVED"
    return ""


def _publish_time(values: dict[str, Any]) -> datetime | None:
    with suppress(ValueError, OverflowError, OSError):
        if values.get("timestamp"):
            return datetime.fromtimestamp(values["timestamp"], UTC)
        if values.get("upload_date"):
            return datetime.strptime(values["upload_date"], "%Y%m%d").replace(tzinfo=UTC)
    return None
