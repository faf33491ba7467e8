"""From the address of a live source to its bytes: what it is, and where it leads."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from soundhash_server.errors import PlatformError
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live.access import Access
from soundhash_server.fetching.live.answer import Answer, answer_of
from soundhash_server.fetching.live.hls import open_hls
from soundhash_server.fetching.live.icy import IcyStream, interval_of
from soundhash_server.fetching.live.page import resolve_page
from soundhash_server.fetching.live.pieces import Pieces
from soundhash_server.fetching.live.playlists import Kind, entries_of, kind_of
from soundhash_server.fetching.live.rtmp import open_rtmp
from soundhash_server.fetching.live.rtsp import open_rtsp
from soundhash_server.known_sites import is_known_site
from soundhash_server.url_guard import split_url

_MAX_DEPTH = 3
"""Playlists that lead to playlists, and pages that lead to either."""
_MAX_DEEPER_ENTRIES = 3
_SNIFF_S = 30.0
_NO_WAY_IN = frozenset({"HTTP_FORBIDDEN", "EXTRACTOR_FAILED", "NO_MEDIA_ON_PAGE"})
_ICY = {"Icy-MetaData": "1"}


async def open_source(stack: AsyncExitStack, access: Access, url: str, depth: int = 0) -> Pieces:
    """Connects to a source; the connection ends with ``stack``.

    Raises JobError, PlatformError (URL_INVALID, URL_NOT_ALLOWED).
    """
    parts = split_url(url, live=True)
    if depth > _MAX_DEPTH:
        raise JobError("LIVE_FORMAT", "The source's playlists lead to playlists without end.")
    match parts.scheme.lower():
        case "rtmp" | "rtmps":
            return await open_rtmp(stack, access, parts)
        case "rtsp" | "rtsps":
            return await open_rtsp(stack, access, parts)
    if depth == 0 and is_known_site(parts.hostname or ""):
        return await _behind_page(stack, access, url)
    try:
        answer = await stack.enter_async_context(answer_of(access, url, _ICY))
    except JobError as refused:
        # A site that refuses strangers may still have an extractor that knows the way in.
        if depth or refused.failure.reason != "HTTP_FORBIDDEN":
            raise
        try:
            return await _behind_page(stack, access, url)
        except JobError as error:
            raise (refused if error.failure.reason in _NO_WAY_IN else error) from None
    try:
        async with asyncio.timeout(_SNIFF_S):
            kind, text = await kind_of(answer)
    except TimeoutError:
        raise JobError("SOURCE_STALLED", "The source's answer does not arrive.") from None
    match kind:
        case Kind.STREAM:
            return _stream(answer)
        case Kind.HLS:
            return await open_hls(access, answer.url, text)
        case Kind.LIST:
            return await _first_of(stack, access, entries_of(text, answer.url), depth)
        case Kind.PAGE if depth == 0:
            return await _behind_page(stack, access, url)
    raise JobError("LIVE_FORMAT", "The address leads to a page, not to a stream.")


async def _behind_page(stack: AsyncExitStack, access: Access, url: str) -> Pieces:
    found, through = await resolve_page(access, url)
    return await open_source(stack, through, found, depth=1)


async def _first_of(stack: AsyncExitStack, access: Access, urls: list[str], depth: int) -> Pieces:
    """The first source of a playlist that can be opened."""
    last: JobError | PlatformError = JobError("LIVE_FORMAT", "The playlist names no stream.")
    for url in urls[: _MAX_DEEPER_ENTRIES if depth else None]:
        async with AsyncExitStack() as attempt:
            try:
                source = await open_source(attempt, access, url, depth + 1)
            except (JobError, PlatformError) as error:
                last = error
                continue
            stack.push_async_exit(attempt.pop_all())
            return source
    raise last


async def _stream(answer: Answer) -> Pieces:
    icy = IcyStream(interval_of(answer.headers.get("icy-metaint", "")))
    while data := await answer.some():
        for piece in icy.push(data):
            yield piece
