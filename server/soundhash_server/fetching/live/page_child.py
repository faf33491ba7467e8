"""Runs yt-dlp to find the stream behind one page, in a process of its own.

A request comes as one JSON line on stdin (see ytdlp_base), the outcome leaves as one on stdout.
Nothing is fetched but what it takes to find the stream.
"""

from __future__ import annotations

from typing import Any

import yt_dlp

from soundhash_server.fetching.ytdlp_base import (
    Answer,
    Log,
    StopError,
    base_options,
    serve,
)
from soundhash_server.fetching.ytdlp_child import only_entry

# Sound alone where there is such a format, else the smallest film.
_PROTOCOLS = ("[protocol^=m3u8]", "[protocol^=http][protocol!*=dash]", "[protocol^=rt]")
_FORMAT = "/".join(f"{kind}{one}" for kind in ("bestaudio", "worst") for one in _PROTOCOLS)
_OFF_THE_AIR = {
    # Nobody submits here: what yt-dlp calls live is what is wanted, so this means it is not.
    "LIVE_NOT_SUPPORTED": ("SOURCE_OFFLINE", "Nothing is on the air there at the moment."),
    "NOT_YET_AVAILABLE": ("SOURCE_OFFLINE", "The live stream has not begun yet."),
}


def main() -> None:
    serve(_resolve, _told)


def _told(reason: str, message: str) -> tuple[str, str]:
    reason, message = _OFF_THE_AIR.get(reason, (reason, message))
    if reason == "NO_AUDIO_STREAM":
        message = "The page has no stream of a kind that can be listened to."
    return reason, message


def _resolve(request: dict[str, Any], log: Log, _: Answer) -> dict[str, object]:
    """The stream's address, and what it has to be asked with."""
    options = base_options(request, log) | {
        "format": _FORMAT,
        "noplaylist": True,
        "playlistend": 2,
        "ignore_no_formats_error": False,
    }
    with yt_dlp.YoutubeDL(options) as downloader:
        found = downloader.extract_info(request["url"], download=False, process=True)
        info = only_entry(found, "NO_MEDIA_ON_PAGE")
        check(info)
        url = str(info.get("url") or "")
        if not url:
            raise StopError("NO_MEDIA_ON_PAGE", "The page leads to no stream.")
        headers = {
            str(name): str(value) for name, value in (info.get("http_headers") or {}).items()
        }
        return {
            "url": url,
            "headers": headers,
            "cookie": downloader.cookiejar.get_cookie_header(url) or "",
        }


def check(info: dict[str, Any]) -> None:
    """Raises StopError for what is no live stream, or not at the moment."""
    status = info.get("live_status")
    if status == "is_upcoming":
        raise StopError("SOURCE_OFFLINE", "The live stream has not begun yet.")
    if status in ("post_live", "was_live"):
        raise StopError("SOURCE_ENDED", "The live stream is over.")
    if info.get("_has_drm") or info.get("has_drm") is True:
        raise StopError("DRM_PROTECTED", "The stream is encrypted.")
    live = info.get("is_live") or status == "is_live"
    if not live and (info.get("duration") or status == "not_live"):
        raise StopError("NOT_LIVE", "The page is a recording.")


if __name__ == "__main__":
    main()
