"""What is behind a URL, as a local file: media files directly, pages through yt-dlp."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiohttp

from soundhash_server.fetching.download import (
    Limits,
    NotAFileError,
    OnBytes,
    check_free_disk,
    download,
)
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.http import open_session_through
from soundhash_server.fetching.ways import Proxy, Ways
from soundhash_server.fetching.ytdlp import OnFound, fetch_page
from soundhash_server.sources import of_known_site, title_from_name

_READ_TIMEOUT_S = 30.0
# What yt-dlp says where it knows no more than that it was refused, too.
_NO_WAY_IN = frozenset({"HTTP_FORBIDDEN", "EXTRACTOR_FAILED", "NO_MEDIA_ON_PAGE"})


@dataclass(frozen=True, slots=True)
class Fetched:
    """A local file and what its source says about it; texts may be empty."""

    path: Path
    content_sha256: str
    title: str
    channel: str
    url: str
    """The recording's public page, or the media's own address."""
    service: str = ""
    """With ``media_id`` the recording's identity (yt-dlp's names); both empty where it has none."""
    media_id: str = ""
    description: str = ""
    publish_time: datetime | None = None
    thumbnail_url: str = ""


async def fetch(
    session: aiohttp.ClientSession,
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
) -> Fetched:
    """Fetches into ``folder``, whose removal is up to the caller, over one proxy or none.

    search: words, of whose results the first is fetched, instead of a URL. on_found: asked before
    a page's recording is fetched. `fetcher.Fetcher` does this as settings and a job want it.
    Raises JobError, PlatformError (URL_NOT_ALLOWED), OSError (disk), NotWantedError.
    """
    check_free_disk(folder, limits.min_free_disk_bytes)
    if not search and _is_direct(url, ways, proxy):
        path = folder / "media"
        refused = None
        try:
            async with _session_for(session, ways, proxy, allow_private=allow_private) as through:
                found = await download(
                    through,
                    url,
                    path,
                    limits,
                    on_bytes,
                    user_agent="" if ways is None else ways.user_agent,
                )
        except NotAFileError:
            path.unlink(missing_ok=True)
        except JobError as error:
            # A site that refuses strangers may still have an extractor that knows the way in.
            if error.failure.reason != "HTTP_FORBIDDEN":
                raise
            refused = error
            path.unlink(missing_ok=True)
        else:
            return Fetched(path, found.content_sha256, _title(url, found.final_url), "", url)
    else:
        refused = None
    try:
        page = await fetch_page(
            url,
            folder,
            limits,
            on_bytes,
            max_media_s=max_media_s,
            allow_private=allow_private,
            ways=ways,
            proxy=proxy,
            search=search,
            on_found=on_found,
        )
    except JobError as error:
        if refused is not None and error.failure.reason in _NO_WAY_IN:
            raise refused from None
        raise
    digest = await asyncio.to_thread(_sha256, page.path)
    found_there = page.found
    return Fetched(
        path=page.path,
        content_sha256=digest,
        title=found_there.title,
        channel=found_there.channel,
        url=found_there.url,
        service=found_there.service,
        media_id=found_there.media_id,
        description=found_there.description,
        publish_time=found_there.publish_time,
        thumbnail_url=found_there.thumbnail_url,
    )


def _is_direct(url: str, ways: Ways | None, proxy: Proxy | None) -> bool:
    """Whether a URL may be a file that is worth a try without yt-dlp: it alone speaks SOCKS and
    reads browsers' cookies, and the pages of known sites are no files."""
    if of_known_site(url) or (proxy is not None and proxy.is_socks):
        return False
    return ways is None or ways.browser is None


@contextlib.asynccontextmanager
async def _session_for(
    session: aiohttp.ClientSession, ways: Ways | None, proxy: Proxy | None, *, allow_private: bool
) -> AsyncIterator[aiohttp.ClientSession]:
    cookies = None if ways is None else ways.cookies
    if proxy is None and cookies is None:
        yield session
        return
    async with await open_session_through(
        proxy,
        cookies,
        allow_private=allow_private,
        read_timeout_s=session.timeout.sock_read or _READ_TIMEOUT_S,
    ) as made:
        yield made


def empty(folder: Path) -> None:
    """Removes what an attempt has left in a folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _title(url: str, final_url: str) -> str:
    # A redirect leads from a name people chose to one that a storage service made up.
    for candidate in (url, final_url):
        title = title_from_name(candidate.partition("?")[0].partition("://")[2].partition("/")[2])
        if title:
            return title
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
