"""Lists what is behind one page with yt-dlp, in a process of its own (``python -m`` and this
module's name).

A request comes as one JSON object on stdin; what the list is, its entries one by one and the
outcome leave as JSON lines on stdout. Entries are made as they are read: a list of any length
needs no more memory than the pipe. The process guards its own network, as the one that fetches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import yt_dlp
from yt_dlp.utils import PagedList, YoutubeDLError, unsmuggle_url

from soundhash_server.fetching.ytdlp_base import (
    Answer,
    Log,
    StopError,
    base_options,
    serve,
)

_MAX_DEPTH = 3
"""Lists in lists that are gone into: the tabs of a channel."""
_CHUNK = 50
_MAX_TEXT_CHARS = 5000
_MAX_URL_CHARS = 2048


def main() -> None:
    serve(_list)


def _list(request: dict[str, Any], log: Log, answer: Answer) -> dict[str, object]:
    options = base_options(request, log)
    # YouTube's lists only say "3 weeks ago": better than nothing.
    arguments = {**options.get("extractor_args", {}), "youtubetab": {"approximate_date": [""]}}
    options |= {"extract_flat": True, "lazy_playlist": True, "extractor_args": arguments}
    with yt_dlp.YoutubeDL(options) as downloader:
        found = _first(downloader, request["url"])
        answer("list", **_head(found))
        skip = int(request["skip"])
        for number, entry in enumerate(_entries(downloader, found, _MAX_DEPTH)):
            if number >= skip:
                answer("entry", **entry)
    return {}


def _first(downloader: Any, url: str) -> dict[str, Any]:
    """What the page itself is, without its entries; redirections followed."""
    ie_key = None
    for _ in range(_MAX_DEPTH):
        found: dict[str, Any] | None = downloader.extract_info(
            url, download=False, process=False, ie_key=ie_key
        )
        if found is None:
            break
        kind = found.get("_type", "video")
        if kind in ("playlist", "multi_video"):
            return found
        if kind not in ("url", "url_transparent"):
            break
        url, ie_key = found["url"], found.get("ie_key")
    raise StopError("NOT_A_LIST", "The page is one recording.")


def _head(found: dict[str, Any]) -> dict[str, object]:
    return {
        "id": _text(found.get("channel_id") or found.get("uploader_id") or found.get("id")),
        "title": _text(found.get("channel") or found.get("uploader") or found.get("title") or ""),
        "list_title": _text(found.get("title")),
        "description": _text(found.get("description")),
        "thumbnail_url": _thumbnail(found),
        "url": _text(found.get("webpage_url"), _MAX_URL_CHARS),
    }


def _entries(downloader: Any, found: dict[str, Any], depth: int) -> Iterator[dict[str, object]]:
    for entry in _lazily(found.get("entries") or ()):
        if not isinstance(entry, dict):
            continue
        kind = entry.get("_type", "video")
        if kind in ("playlist", "multi_video"):
            if depth:
                yield from _entries(downloader, entry, depth - 1)
            continue
        if kind in ("url", "url_transparent") and depth and _is_list(entry):
            nested = None
            with contextlib.suppress(YoutubeDLError):
                # A tab that cannot be read must not take the others along.
                nested = downloader.extract_info(
                    entry["url"], download=False, process=False, ie_key=entry.get("ie_key")
                )
            if nested is not None and nested.get("_type") in ("playlist", "multi_video"):
                yield from _entries(downloader, nested, depth - 1)
            continue
        described = _entry(entry)
        if described is not None:
            yield described


def _lazily(entries: Any) -> Iterator[Any]:
    if not isinstance(entries, PagedList):
        yield from entries
        return
    at = 0
    while chunk := entries.getslice(at, at + _CHUNK):
        yield from chunk
        at += len(chunk)


def _is_list(entry: dict[str, Any]) -> bool:
    """Whether an entry is certainly a list itself."""
    key = entry.get("ie_key")
    return isinstance(key, str) and key.endswith(("Tab", "Playlist", "Channel"))


def _entry(entry: dict[str, Any]) -> dict[str, object] | None:
    """An entry as it is told; None for one without an address."""
    kind = entry.get("_type", "video")
    url = entry.get("webpage_url") or entry.get("original_url") or entry.get("url")
    if kind == "video" and not url:
        formats = entry.get("formats") or ()
        url = formats[-1].get("url") if formats else None
    if not isinstance(url, str):
        return None
    url = unsmuggle_url(url)[0]
    if "://" not in url or len(url) > _MAX_URL_CHARS:
        return None
    duration = entry.get("duration")
    timestamp = entry.get("timestamp") or entry.get("release_timestamp")
    return {
        "service": _text(entry.get("ie_key")),
        "id": _text(entry.get("id")),
        "url": url,
        "title": _text(entry.get("title")),
        "description": _text(entry.get("description")),
        "thumbnail_url": _thumbnail(entry),
        "timestamp": timestamp if isinstance(timestamp, int | float) else None,
        "upload_date": _text(entry.get("upload_date")),
        "duration": duration if isinstance(duration, int | float) else None,
        "live_status": _text(entry.get("live_status"))
        or ("is_live" if entry.get("is_live") else ""),
        "availability": _text(entry.get("availability")),
    }


def _text(value: object, most: int = _MAX_TEXT_CHARS) -> str:
    return str(value)[:most] if value else ""


def _thumbnail(found: dict[str, Any]) -> str:
    pictures = found.get("thumbnails") or ()
    url = found.get("thumbnail") or (pictures[-1].get("url") if pictures else "")
    return _text(url, _MAX_URL_CHARS)


if __name__ == "__main__":
    main()
