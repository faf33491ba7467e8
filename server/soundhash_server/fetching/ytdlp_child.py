"""Runs yt-dlp for one page, in a process of its own (``python -m`` and this module's name).

A request comes as one JSON object on stdin; progress and the outcome leave as JSON lines on
stdout. The process can be killed at any time, and it guards its own network: whatever code of
whatever extractor connects to an address that is not public, the interpreter refuses.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import yt_dlp
from yt_dlp.utils import YoutubeDLError

from soundhash_server.addresses import is_public_address
from soundhash_server.fetching.process import die_with_parent

_PROGRESS_S = 0.25
_SOCKET_TIMEOUT_S = 30
# Extractors may ask these to solve a site's puzzles; they run without network rights there.
_JS_RUNTIMES = frozenset({"deno", "node", "bun", "qjs", "quickjs"})
_REFUSED_EVENTS = frozenset({"os.exec", "os.forkpty", "os.system"})

# yt-dlp tells its failures apart by text only. The first that is found counts.
_MESSAGES: tuple[tuple[str, str], ...] = (
    (r"not on the public internet", "URL_NOT_ALLOWED"),
    (r"confirm you.re not a bot|captcha|unusual traffic", "BOT_CHECK"),
    (r"confirm your age|age.restricted|inappropriate for some users", "AGE_RESTRICTED"),
    (r"private video|video is private|this .* is private", "MEDIA_PRIVATE"),
    (r"in your (country|location|region)|geo.?restrict", "GEO_BLOCKED"),
    (r"live event will begin|premieres in|is live|is offline", "LIVE_NOT_SUPPORTED"),
    (r"has been removed|video unavailable|no longer available|been terminated", "MEDIA_REMOVED"),
    (r"unsupported url|no video formats|no media found", "NO_MEDIA_ON_PAGE"),
    (r"requested format is not available", "NO_AUDIO_STREAM"),
    (r"http error 429|too many requests", "HTTP_TOO_MANY_REQUESTS"),
    (r"http error 401|login required|log in|sign in", "HTTP_UNAUTHORIZED"),
    (r"http error 403", "HTTP_FORBIDDEN"),
    (r"http error 404", "HTTP_NOT_FOUND"),
    (r"http error 410", "HTTP_GONE"),
    (r"http error 5\d\d", "HTTP_SERVER_ERROR"),
    (r"no space left on device", "DISK_FULL"),
    (r"certificate verify failed", "TLS_ERROR"),
    (r"timed out|timeout", "FETCH_STALLED"),
    (
        r"unable to download|connection|network|resolve|urlopen|transport|incomplete",
        "NETWORK_ERROR",
    ),
)


class _StopError(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def main() -> None:
    request = json.load(sys.stdin)
    die_with_parent(request["parent_pid"])
    # Whatever a library prints must not mix with the answers.
    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(event: str, **fields: object) -> None:
        print(json.dumps({"event": event, **fields}), file=answers, flush=True)

    guard(allow_private=request["allow_private"])
    try:
        answer("done", **_fetch(request, answer))
    except _StopError as stop:
        answer("failed", reason=stop.reason, message=str(stop))
    except OSError as error:
        reason = reason_of(str(error))
        answer("failed", reason=reason, message=f"{type(error).__name__} while fetching the page.")


def guard(*, allow_private: bool) -> None:
    """From here on this process connects to public addresses only, and starts no programs but
    JavaScript runtimes. An audit hook cannot be taken away again."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and not allow_private:
            address = arguments[1]
            host = address[0] if isinstance(address, tuple) else ""
            if not is_public_address(str(host)):
                raise ConnectionRefusedError(f"{host!s} is not on the public internet")
        elif event == "subprocess.Popen":
            name = Path(str(arguments[0])).name.removesuffix(".exe")
            if name not in _JS_RUNTIMES:
                raise PermissionError(f"{name} must not be started")
        elif event in _REFUSED_EVENTS:
            raise PermissionError(f"{event} is not allowed")

    sys.addaudithook(hook)


def reason_of(text: str) -> str:
    """The reason of the catalogue that an error text of yt-dlp stands for."""
    for pattern, reason in _MESSAGES:
        if re.search(pattern, text, re.IGNORECASE):
            return reason
    return "EXTRACTOR_FAILED"


class _Silent:
    """yt-dlp's log: nothing of it is for the answers."""

    def debug(self, message: str) -> None: ...
    def info(self, message: str) -> None: ...
    def warning(self, message: str) -> None: ...
    def error(self, message: str) -> None: ...


def _fetch(request: dict[str, Any], answer: Any) -> dict[str, object]:
    folder = Path(request["folder"])
    max_bytes = int(request["max_bytes"])
    last_s = 0.0

    def on_progress(status: dict[str, Any]) -> None:
        nonlocal last_s
        done = int(status.get("downloaded_bytes") or 0)
        total = int(status.get("total_bytes") or 0)
        if max(done, total) > max_bytes:
            raise _StopError("MEDIA_TOO_LARGE", f"The media is larger than {max_bytes} bytes.")
        now_s = time.monotonic()
        if now_s - last_s >= _PROGRESS_S:
            last_s = now_s
            if shutil.disk_usage(folder).free < request["min_free_disk_bytes"]:
                raise _StopError("DISK_FULL", "Too little disk space is free.")
            answer("progress", done=done, total=total)

    options: dict[str, Any] = {
        "format": "bestaudio/best",
        "outtmpl": {"default": str(folder / "media.%(ext)s")},
        "logger": _Silent(),
        "noprogress": True,
        "progress_hooks": [on_progress],
        "noplaylist": True,
        "cachedir": False,
        "fixup": "never",
        "hls_prefer_native": True,
        "nopart": True,
        "overwrites": True,
        "retries": 3,
        "fragment_retries": 3,
        "extractor_retries": 2,
        "skip_unavailable_fragments": False,
        "socket_timeout": _SOCKET_TIMEOUT_S,
        "proxy": "",
        "geo_bypass": False,
        "color": "never",
    }
    try:
        with yt_dlp.YoutubeDL(options) as downloader:
            info = _only_entry(
                downloader.extract_info(request["url"], download=False, process=True)
            )
            _check(info, float(request["max_media_s"]), max_bytes)
            downloader.process_ie_result(info, download=True)
    except YoutubeDLError as error:
        _translate(error)
    found = [path for path in folder.iterdir() if path.is_file() and path.stat().st_size]
    if len(found) != 1:
        # With `max_filesize` and for some formats yt-dlp stops without an error and a file.
        raise _StopError("EXTRACTOR_FAILED", "yt-dlp leaves no single media file.")
    return {
        "path": str(found[0]),
        "title": info.get("title") or "",
        "channel": info.get("channel") or info.get("uploader") or "",
        "url": info.get("webpage_url") or request["url"],
    }


def _only_entry(info: dict[str, Any] | None) -> dict[str, Any]:
    if info is None:
        raise _StopError("NO_MEDIA_ON_PAGE", "There is no media on this page.")
    if info.get("_type") in ("playlist", "multi_video"):
        entries = [entry for entry in info.get("entries") or () if entry]
        if len(entries) != 1:
            reason = "SEVERAL_MEDIA" if entries else "NO_MEDIA_ON_PAGE"
            raise _StopError(reason, f"The page holds {len(entries)} recordings.")
        return _only_entry(entries[0])
    return info


def _check(info: dict[str, Any], max_media_s: float, max_bytes: int) -> None:
    if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming"):
        raise _StopError("LIVE_NOT_SUPPORTED", "This is a live stream.")
    if float(info.get("duration") or 0) > max_media_s:
        raise _StopError("MEDIA_TOO_LONG", f"The recording is longer than {max_media_s:g} s.")
    if int(info.get("filesize") or 0) > max_bytes:
        raise _StopError("MEDIA_TOO_LARGE", f"The media is larger than {max_bytes} bytes.")


def _translate(error: Exception) -> NoReturn:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, _StopError):
            raise seen from None
        inner = getattr(seen, "exc_info", None)
        seen = (inner[1] if inner else None) or getattr(seen, "cause", None) or seen.__cause__
    raise _StopError(reason_of(str(error)), _one_line(str(error))) from error


def _one_line(text: str) -> str:
    # Without yt-dlp's advice on its own bug reports and options.
    text = text.removeprefix("ERROR: ").split("; please report", 1)[0].split(". Use --", 1)[0]
    return " ".join(text.split())[:300]


if __name__ == "__main__":
    main()
