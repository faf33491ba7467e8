"""The stream behind a page: Twitch, YouTube and what else yt-dlp knows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from urllib.parse import urlsplit

from soundhash_server.fetching.child import running
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live.access import Access
from soundhash_server.fetching.ytdlp import base_request

_CHILD = "soundhash_server.fetching.live.page_child"
_TOTAL_S = 180.0
_KEPT_HEADERS = frozenset(("user-agent", "referer", "origin", "accept", "accept-language"))


async def resolve_page(access: Access, url: str) -> tuple[str, Access]:
    """The address of a page's stream, and how to get at it.

    Raises JobError: SOURCE_OFFLINE, SOURCE_ENDED, NOT_LIVE and those of yt-dlp; PlatformError
    (URL_NOT_ALLOWED).
    """
    request = base_request(url, access.ways, access.proxy, allow_private=access.allow_private)
    try:
        async with (
            access.pages,
            asyncio.timeout(_TOTAL_S),
            running(_CHILD, request) as child,
        ):
            said = await child.hear()
    except TimeoutError:
        raise JobError("SOURCE_STALLED", "The page takes too long.") from None
    found = str(said.get("url") or "")
    headers = {
        str(name): str(value)
        for name, value in dict(said.get("headers") or {}).items()
        if str(name).lower() in _KEPT_HEADERS and str(value).isprintable()
    }
    cookie = str(said.get("cookie") or "")
    host = (urlsplit(found).hostname or "").lower()
    cookies = (host, cookie) if cookie.isprintable() else ("", "")
    return found, replace(access, headers=headers, cookie=cookies)
