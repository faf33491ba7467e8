"""Runs yt-dlp for one page, in a process of its own (``python -m`` and this module's name).

A request comes as one JSON line on stdin; progress and the outcome leave as JSON lines on
stdout. Where the request asks for it, the child says what it has found before it fetches it, and
waits for a line "go". The process can be killed at any time, and it guards its own network.
"""

from __future__ import annotations

import calendar
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import yt_dlp

from soundhash_server.fetching.ytdlp_base import (
    Answer,
    Log,
    StopError,
    base_options,
    failure,
    guard,
    serve,
)

__all__ = ["base_options", "failure", "guard"]

_PROGRESS_S = 0.25
_MAX_DESCRIPTION_CHARS = 20_000
# Their ids are made of the URL's last part, or count the media of a page.
_WITHOUT_IDENTITY = frozenset({"generic", "html5mediaembed", "mms", "rtmp", "viewsource"})
# By these names people and URLs know a service's recordings.
_KNOWN_BY_DISPLAY_ID = frozenset({"twitchclips"})


def main() -> None:
    serve(fetch)


def _options(request: dict[str, Any], log: Log) -> dict[str, Any]:
    return base_options(request, log) | {
        "format": "bestaudio/best",
        "outtmpl": {"default": str(Path(request["folder"]) / "media.%(ext)s")},
        "noplaylist": True,
        # Two are one too many: the rest of a long list need not be asked for.
        "playlistend": 2,
        "fixup": "never",
        "hls_prefer_native": True,
        "nopart": True,
        "overwrites": True,
        "fragment_retries": 3,
        "skip_unavailable_fragments": False,
    }


def fetch(request: dict[str, Any], log: Log, answer: Answer) -> dict[str, object]:
    """Fetches what a request wants, and says what it is.

    Raises StopError, YoutubeDLError, OSError.
    """
    folder = Path(request["folder"])
    max_bytes = int(request["max_bytes"])
    last_s = 0.0

    def on_progress(status: dict[str, Any]) -> None:
        nonlocal last_s
        done = int(status.get("downloaded_bytes") or 0)
        total = int(status.get("total_bytes") or 0)
        if max(done, total) > max_bytes:
            raise StopError("MEDIA_TOO_LARGE", f"The media is larger than {max_bytes} bytes.")
        now_s = time.monotonic()
        if now_s - last_s >= _PROGRESS_S:
            last_s = now_s
            if shutil.disk_usage(folder).free < request["min_free_disk_bytes"]:
                raise StopError("DISK_FULL", "Too little disk space is free.")
            answer("progress", done=done, total=total)

    with yt_dlp.YoutubeDL(_options(request, log) | {"progress_hooks": [on_progress]}) as downloader:
        info = only_entry(
            downloader.extract_info(request["url"], download=False, process=True),
            "NOTHING_FOUND" if request.get("is_search") else "NO_MEDIA_ON_PAGE",
        )
        _check(info, float(request["max_media_s"]), max_bytes)
        found = _found(info, request["url"])
        if request.get("ask"):
            answer("found", **found)
            if sys.stdin.readline().strip() != "go":
                raise StopError("INTERNAL", "The parent does not say whether to go on.")
        downloader.process_ie_result(info, download=True)
    files = [path for path in folder.iterdir() if path.is_file() and path.stat().st_size]
    if len(files) != 1:
        # With `max_filesize` and for some formats yt-dlp stops without an error and a file.
        raise StopError("EXTRACTOR_FAILED", "yt-dlp leaves no single media file.")
    return {"path": str(files[0]), **found}


def _found(info: dict[str, Any], url: str) -> dict[str, object]:
    service = str(info.get("extractor_key") or "").lower()
    known_by = "display_id" if service in _KNOWN_BY_DISPLAY_ID else "id"
    identified = service not in _WITHOUT_IDENTITY
    return {
        "service": service if identified else "",
        "media_id": str(info.get(known_by) or info.get("id") or "") if identified else "",
        "title": info.get("title") or "",
        "channel": info.get("channel") or info.get("uploader") or "",
        "url": info.get("webpage_url") or url,
        "description": str(info.get("description") or "")[:_MAX_DESCRIPTION_CHARS],
        "timestamp": info.get("timestamp") or info.get("release_timestamp") or _day(info),
        "thumbnail_url": info.get("thumbnail") or "",
    }


def _day(info: dict[str, Any]) -> float | None:
    try:
        day = time.strptime(str(info.get("upload_date") or ""), "%Y%m%d")
    except ValueError:
        return None
    return float(calendar.timegm(day))


def only_entry(info: dict[str, Any] | None, none: str) -> dict[str, Any]:
    """The one recording behind a page; ``none``: the reason when there is none."""
    if info is not None and info.get("_type") not in ("playlist", "multi_video"):
        return info
    entries = [entry for entry in (info or {}).get("entries") or () if entry]
    if not entries:
        raise StopError(none, "Nothing that could be fetched is found there.")
    if len(entries) > 1:
        raise StopError("SEVERAL_MEDIA", "The page holds several recordings.")
    return only_entry(entries[0], none)


def _check(info: dict[str, Any], max_media_s: float, max_bytes: int) -> None:
    status = info.get("live_status")
    if status in ("is_upcoming", "post_live"):
        raise StopError("NOT_YET_AVAILABLE", "The recording is not published yet.")
    if info.get("is_live") or status == "is_live":
        raise StopError("LIVE_NOT_SUPPORTED", "This is a live stream.")
    if info.get("_has_drm") or info.get("has_drm") is True:
        raise StopError("DRM_PROTECTED", "The recording is encrypted.")
    if float(info.get("duration") or 0) > max_media_s:
        raise StopError("MEDIA_TOO_LONG", f"The recording is longer than {max_media_s:g} s.")
    if int(info.get("filesize") or 0) > max_bytes:
        raise StopError("MEDIA_TOO_LARGE", f"The media is larger than {max_bytes} bytes.")


if __name__ == "__main__":
    main()
