"""Media behind web pages and searches, through yt-dlp in a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from soundhash_server.fetching.child import Child, running
from soundhash_server.fetching.download import Limits, OnBytes
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.ways import Proxy, Ways

SEARCH = "ytsearch1:{}"
"""What yt-dlp fetches for a search."""
_CHILD = "soundhash_server.fetching.ytdlp_child"
_MAX_TEXT_CHARS = 500
_MAX_URL_CHARS = 2048
_MAX_DESCRIPTION_CHARS = 20_000
# All but line breaks; surrogates fit into no database.
_UNPRINTABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Found:
    """What a page says about its one recording, before any of it is fetched; texts may be empty.

    service, media_id: its identity (yt-dlp's names, the service in lower case); both empty where
    the page gives it none. url: its public page.
    """

    service: str = ""
    media_id: str = ""
    title: str = ""
    channel: str = ""
    url: str = ""
    description: str = ""
    publish_time: datetime | None = None
    thumbnail_url: str = ""


@dataclass(frozen=True, slots=True)
class PageMedia:
    """What yt-dlp has found and stored."""

    path: Path
    found: Found


class NotWantedError(Exception):
    """`OnFound` has said that the recording need not be fetched."""


OnFound = Callable[[Found], Awaitable[bool]]
"""Called when it is known what a URL leads to; whether it is to be fetched."""


async def fetch_page(
    url: str,
    folder: Path,
    limits: Limits,
    on_bytes: OnBytes,
    *,
    max_media_s: float,
    allow_private: bool,
    ways: Ways | None = None,
    proxy: Proxy | None = None,
    search: str = "",
    on_found: OnFound | None = None,
) -> PageMedia:
    """Stores the best audio of a page's one recording in ``folder``.

    search: words, of whose results the first is fetched, instead of a URL. ways: cookies and
    what else yt-dlp should use; its bounds are those of ``limits``. The child and all that it
    has started are gone when this returns, raises or is cancelled.
    Raises JobError, PlatformError (URL_NOT_ALLOWED), NotWantedError.
    """
    page = SEARCH.format(" ".join(search.split())) if search else url
    request = base_request(page, ways, proxy, allow_private=allow_private) | {
        "folder": str(folder),
        "max_bytes": limits.max_bytes,
        "min_free_disk_bytes": limits.min_free_disk_bytes,
        "max_bytes_per_s": limits.max_bytes_per_s,
        "max_media_s": max_media_s,
        "ask": on_found is not None,
        "is_search": bool(search),
    }
    try:
        async with asyncio.timeout(limits.total_s), running(_CHILD, request) as child:
            return await _fetched(child, on_bytes, on_found)
    except TimeoutError:
        raise JobError("FETCH_STALLED", "The source takes too long.") from None


async def _fetched(child: Child, on_bytes: OnBytes, on_found: OnFound | None) -> PageMedia:
    while True:
        said = await child.hear()
        match said:
            case {"event": "progress", "done": int(done), "total": int(total)}:
                on_bytes(done, total)
            case {"event": "found"}:
                if on_found is not None and not await on_found(_found(said)):
                    raise NotWantedError
                await child.say("go")
            case {"event": "done", "path": path}:
                return PageMedia(Path(path), _found(said))


def base_request(
    url: str, ways: Ways | None, proxy: Proxy | None, *, allow_private: bool
) -> dict[str, Any]:
    """What a child that runs yt-dlp is told in any case. It holds secrets: it goes to the child's
    stdin, and nowhere else."""
    request: dict[str, Any] = {
        "parent_pid": os.getpid(),
        "url": url,
        "allow_private": allow_private,
    }
    if ways is not None:
        request |= {
            "cookies": None if ways.cookies is None else str(ways.cookies),
            "browser": ways.browser,
            "player_clients": ways.player_clients,
            "user_agent": ways.user_agent,
            "cache_dir": ways.cache_dir,
            "max_bytes_per_s": ways.max_bytes_per_s,
        }
    if proxy is not None:
        request["proxy"] = {
            "url": proxy.url,
            "address": proxy.address,
            "trusted": proxy.trusted,
        }
    return request


def _found(said: dict[str, Any]) -> Found:
    def text(name: str, most: int = _MAX_TEXT_CHARS) -> str:
        return _UNPRINTABLE.sub(" ", str(said.get(name) or ""))[:most].strip()

    def url(name: str) -> str:
        found = text(name, _MAX_URL_CHARS + 1)
        return (
            found
            if found.startswith(("http://", "https://")) and len(found) <= _MAX_URL_CHARS
            else ""
        )

    published = said.get("timestamp")
    service, media_id = text("service"), text("media_id")
    return Found(
        service=service if media_id else "",
        media_id=media_id if service else "",
        title=text("title"),
        channel=text("channel"),
        url=url("url"),
        description=text("description", _MAX_DESCRIPTION_CHARS),
        publish_time=_time(published) if isinstance(published, (int, float)) else None,
        thumbnail_url=url("thumbnail_url"),
    )


def _time(timestamp: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(timestamp, UTC)
    except (ValueError, OverflowError, OSError):
        return None
