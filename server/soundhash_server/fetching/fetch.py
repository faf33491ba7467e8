"""What is behind a URL, as a local file: media files directly, pages through yt-dlp."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from soundhash_server.fetching.download import (
    Limits,
    NotAFileError,
    OnBytes,
    check_free_disk,
    download,
)
from soundhash_server.fetching.ytdlp import fetch_page
from soundhash_server.sources import title_from_name


@dataclass(frozen=True, slots=True)
class Fetched:
    """A local file and what its source says about it; texts may be empty."""

    path: Path
    content_sha256: str
    title: str
    channel: str
    url: str
    """The recording's public page, or the media's own address."""


async def fetch(
    session: aiohttp.ClientSession,
    url: str,
    folder: Path,
    limits: Limits,
    on_bytes: OnBytes,
    *,
    max_media_s: float,
    allow_private: bool,
) -> Fetched:
    """Fetches into ``folder``, whose removal is up to the caller.

    Raises JobError, PlatformError (URL_NOT_ALLOWED), OSError (disk).
    """
    check_free_disk(folder, limits.min_free_disk_bytes)
    path = folder / "media"
    try:
        found = await download(session, url, path, limits, on_bytes)
    except NotAFileError:
        path.unlink(missing_ok=True)
    else:
        return Fetched(path, found.content_sha256, _title(url, found.final_url), "", url)
    page = await fetch_page(
        url, folder, limits, on_bytes, max_media_s=max_media_s, allow_private=allow_private
    )
    digest = await asyncio.to_thread(_sha256, page.path)
    return Fetched(page.path, digest, page.title, page.channel, page.url)


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
