"""What every child that runs yt-dlp needs: its network, its cookies, its options, its failures.

A request is a JSON object with parent_pid, url and allow_private, and where they are wanted with
cookies (a path), browser (name and profile), proxy (url, address, trusted), player_clients,
user_agent, cache_dir and max_bytes_per_s: see `ytdlp.base_request`.
"""

from __future__ import annotations

import io
import json
import re
import socket
import sys
from collections.abc import Callable, Mapping
from http.cookiejar import LoadError
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from yt_dlp.cookies import YoutubeDLCookieJar, extract_cookies_from_browser
from yt_dlp.networking.common import _REQUEST_HANDLERS
from yt_dlp.networking.exceptions import HTTPError, ProxyError
from yt_dlp.socks import sockssocket
from yt_dlp.utils import GeoRestrictedError, UnsupportedError, UserNotLive, YoutubeDLError

from soundhash_server.fetching import guard as _guard
from soundhash_server.fetching.messages import one_line, reason_of, reason_of_status
from soundhash_server.fetching.process import die_with_parent
from soundhash_server.fetching.retry_after import retry_after_s

_SOCKET_TIMEOUT_S = 30
# Those whose connections the guard sees. Others connect below the interpreter.
_HANDLERS = frozenset({"Requests", "Urllib"})
_COOKIES_REFUSED = "cookies are no longer valid"
_COOKIES_TEXT = "cookies_text"
_CONNECTING = frozenset({"NETWORK_ERROR", "FETCH_STALLED", "HOST_UNKNOWN"})
_NO_CONNECTION = re.compile(
    r"failed to establish a new connection|connection refused|no route to host|unreachable"
    r"|connect timeout|name or service not known|failed to resolve",
    re.IGNORECASE,
)


class StopError(Exception):
    """A failure that is known by its reason."""

    def __init__(self, reason: str, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.wait_s = wait_s


class Log:
    """yt-dlp's log: nothing of it is for the answers."""

    def __init__(self) -> None:
        self.cookies_refused = False
        """Whether the source was seen not to take the cookies."""

    def debug(self, message: str) -> None: ...
    def info(self, message: str) -> None: ...
    def error(self, message: str) -> None: ...

    def warning(self, message: str, only_once: bool = False) -> None:
        if _COOKIES_REFUSED in message:
            self.cookies_refused = True

    def progress_bar(self) -> None:
        """None: no bar, while a browser's cookies are read."""


class Answer(Protocol):
    """Sends an event with its fields to whoever asked."""

    def __call__(self, event: str, **fields: object) -> None: ...


def serve(
    work: Callable[[dict[str, Any], Log, Answer], Mapping[str, object]],
    told: Callable[[str, str], tuple[str, str]] = lambda reason, message: (reason, message),
) -> None:
    """What a child does: reads its request, guards its network, works, and answers ``done`` with
    what the work gives, or ``failed``. told: reason and message as the child's caller wants them.
    """
    request = json.loads(sys.stdin.readline())
    die_with_parent(request["parent_pid"])
    # Whatever a library prints must not mix with the answers.
    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(event: str, **fields: object) -> None:
        print(json.dumps({"event": event, **fields}), file=answers, flush=True)

    log = Log()
    try:
        guard(request)
        answer("done", **work(request, log, answer))
    except (StopError, YoutubeDLError, OSError) as error:
        reason, message = told(*failure(error, request, log))
        answer("failed", reason=reason, message=message, retry_after_s=wait_of(error))


def guard(request: dict[str, Any]) -> None:
    """Leaves this process with the network and the programs that the request needs.

    Raises StopError for its cookies and its proxy.
    """
    # The operator's browser is read with programs and sockets of the system: before the guard,
    # and before anything of the network has been seen.
    read_cookies(request)
    if not request["allow_private"]:
        for name in _REQUEST_HANDLERS.keys() - _HANDLERS:
            del _REQUEST_HANDLERS[name]
    _guard.guard(allow_private=request["allow_private"], proxy_addresses=_proxy_addresses(request))
    if not request["allow_private"]:
        sockssocket._make_proxy = _guard.guard_socks(sockssocket._make_proxy)


def read_cookies(request: dict[str, Any]) -> None:
    """Puts the cookies that a request names into it. Raises StopError."""
    jar = _cookies(request)
    if jar is not None:
        text = io.StringIO()
        jar.save(text, ignore_discard=True, ignore_expires=True)
        request[_COOKIES_TEXT] = text.getvalue()


def base_options(request: dict[str, Any], log: Log | None = None) -> dict[str, Any]:
    """yt-dlp's options for a request, but for what is done with what it finds."""
    options: dict[str, Any] = {
        "logger": log or Log(),
        "noprogress": True,
        "cachedir": request.get("cache_dir") or False,
        "retries": 3,
        "extractor_retries": 2,
        "socket_timeout": _SOCKET_TIMEOUT_S,
        "proxy": request["proxy"]["url"] if request.get("proxy") else "",
        "geo_bypass": False,
        "color": "never",
    }
    if request.get(_COOKIES_TEXT):
        # A stream: yt-dlp writes back a file that it has loaded itself.
        options["cookiefile"] = io.StringIO(request[_COOKIES_TEXT])
    if request.get("max_bytes_per_s"):
        options["ratelimit"] = request["max_bytes_per_s"]
    if request.get("user_agent"):
        options["http_headers"] = {"User-Agent": request["user_agent"]}
    if request.get("player_clients"):
        options["extractor_args"] = {"youtube": {"player_client": list(request["player_clients"])}}
    return options


def failure(error: Exception, request: dict[str, Any], log: Log | None = None) -> tuple[str, str]:
    """The reason of the catalogue behind an error of yt-dlp or the system, and a sentence
    without secrets."""
    if isinstance(error, StopError):
        return error.reason, without_secrets(str(error), request)
    text = str(error)
    reason = reason_of(text)
    message = one_line(text)
    if isinstance(error, OSError):
        message = f"{type(error).__name__} while fetching the page."
    for seen in causes(error):
        match seen:
            case StopError():
                return seen.reason, without_secrets(str(seen), request)
            case HTTPError() if reason in ("EXTRACTOR_FAILED", "NETWORK_ERROR"):
                reason = reason_of_status(seen.status)
            case ProxyError():
                reason, message = "PROXY_FAILED", "The proxy does not answer, or refuses."
            case GeoRestrictedError():
                reason = "GEO_BLOCKED"
            case UserNotLive():
                reason = "LIVE_NOT_SUPPORTED"
            case UnsupportedError():
                reason = "NO_MEDIA_ON_PAGE"
            case ConnectionRefusedError() if "public internet" in str(seen):
                reason = "URL_NOT_ALLOWED"
    if request.get("proxy") and reason in _CONNECTING and _NO_CONNECTION.search(text):
        # Behind a proxy, it is the proxy that one connects to.
        reason, message = "PROXY_FAILED", "The proxy does not answer."
    refused = log is not None and log.cookies_refused and _COOKIES_TEXT in request
    if refused and reason in ("HTTP_UNAUTHORIZED", "BOT_CHECK", "AGE_RESTRICTED"):
        reason = "COOKIES_EXPIRED"
    return reason, without_secrets(message, request)


def wait_of(error: Exception) -> float | None:
    """Seconds that the source has asked to wait, if it has."""
    for seen in causes(error):
        if isinstance(seen, StopError):
            return seen.wait_s
        if isinstance(seen, HTTPError):
            return retry_after_s(seen.response.headers.get("Retry-After") or "")
    return None


def without_secrets(text: str, request: dict[str, Any]) -> str:
    """The text without what a request says about its proxy and folder."""
    if request.get("proxy"):
        url = request["proxy"]["url"]
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        pieces = [url, parts.netloc, user, parts.password, parts.hostname]
        for secret in sorted(filter(None, pieces), key=len, reverse=True):
            text = text.replace(secret, "(proxy)").replace(unquote(secret), "(proxy)")
    if request.get("folder"):
        text = text.replace(request["folder"], "(folder)")
    return text


def causes(error: BaseException) -> list[BaseException]:
    """An error and what led to it, outermost first."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        seen = waiting.pop(0)
        if not isinstance(seen, BaseException) or seen in found:
            continue
        found.append(seen)
        inner = getattr(seen, "exc_info", None)
        cause = getattr(seen, "cause", None)
        waiting += [inner[1] if inner else None, cause, seen.__cause__, seen.__context__]
    return found


def _cookies(request: dict[str, Any]) -> YoutubeDLCookieJar | None:
    """Cookies in memory only: yt-dlp would write a file that it has loaded itself."""
    if request.get("browser"):
        name, profile = request["browser"]
        try:
            jar = extract_cookies_from_browser(name, profile or None, Log())
        except Exception as error:  # of many kinds, down to the browser's own databases
            raise StopError(
                "COOKIES_UNREADABLE",
                f"The cookies of {name} cannot be read ({type(error).__name__}).",
            ) from error
        if not len(jar):
            raise StopError("COOKIES_UNREADABLE", f"There are no readable cookies of {name}.")
        return jar
    if request.get("cookies"):
        jar = YoutubeDLCookieJar(request["cookies"])
        try:
            jar.load(ignore_discard=True, ignore_expires=True)
        except (LoadError, UnicodeDecodeError) as error:
            raise StopError(
                "COOKIES_INVALID", "The cookies file is not in the Netscape format."
            ) from error
        except OSError as error:
            raise StopError("COOKIES_NOT_FOUND", "The cookies file cannot be read.") from error
        return jar
    return None


def _proxy_addresses(request: dict[str, Any]) -> set[tuple[str, int]]:
    """What the guard has to let through for a proxy of the operator."""
    if not request.get("proxy") or not request["proxy"]["trusted"]:
        return set()
    host, port = request["proxy"]["address"]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise StopError("PROXY_FAILED", "The proxy's host name does not resolve.") from error
    return {(str(entry[4][0]), port) for entry in found}
