"""How one source is fetched: what a job asks for, within what the settings say and allow."""

from __future__ import annotations

import hashlib
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from soundhash_server.addresses import is_public_address
from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.fetching.failures import REASONS, JobError
from soundhash_server.model import FetchOptions
from soundhash_server.settings import Settings, SettingsError
from soundhash_server.url_guard import resolve

_PROXY_SCHEMES = frozenset({"http", "https", "socks4", "socks4a", "socks5", "socks5h"})
_BROWSERS = frozenset(
    ("brave", "chrome", "chromium", "edge", "firefox", "opera", "safari", "vivaldi", "whale")
)
_COOKIES_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
# A profile by its name: as a path it could be any file of the worker.
_PROFILE_NAME = re.compile(r"[^/\\:~]{0,100}")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. Its URL may hold a password: it is shown nowhere.

    trusted: named by the operator, so that it may be inside the network.
    """

    url: str = field(repr=False)
    trusted: bool

    @property
    def is_socks(self) -> bool:
        return self.url.partition("://")[0].lower().startswith("socks")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        default = 1080 if self.is_socks else 443 if parts.scheme.lower() == "https" else 80
        return parts.hostname or "", parts.port or default

    @property
    def digest(self) -> str:
        """Names the proxy where its address must not be seen."""
        return hashlib.sha256(self.url.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Ways:
    """How one source is fetched.

    cookies: a cookies file. browser: a browser's name and profile, or None. proxies: one of
    them, in turn. player_clients: of YouTube. user_agent, cache_dir: empty for none.
    max_bytes_per_s: 0 for no bound.
    """

    max_bytes: int
    max_media_s: float
    cookies: Path | None = None
    browser: tuple[str, str] | None = None
    proxies: tuple[Proxy, ...] = ()
    player_clients: tuple[str, ...] = ()
    user_agent: str = ""
    cache_dir: str = ""
    max_bytes_per_s: int = 0


def ways_of(options: FetchOptions, settings: Settings) -> Ways:
    """What a job's options come to. Bounds can be made tighter by a job, never wider.

    Raises JobError COOKIES_NOT_FOUND, PROXY_NOT_ALLOWED.
    """
    cookies = options.cookies or ("" if options.cookies_from_browser else settings.cookies)
    browser = options.cookies_from_browser or ("" if options.cookies else _browser_of(settings))
    given = parse_proxy(options.proxy, trusted=False) if options.proxy else None
    if options.proxy and given is None:
        raise JobError("PROXY_NOT_ALLOWED", "The job's proxy is no http, https or socks URL.")
    return Ways(
        max_bytes=int(_least(options.max_bytes, settings.max_upload_bytes)),
        max_media_s=_least(options.max_duration_s, settings.max_media_s),
        cookies=_cookies_path(settings.effective_cookies_dir, cookies) if cookies else None,
        browser=_split_browser(browser) if browser else None,
        proxies=(given,) if given else proxies_of(settings),
        player_clients=tuple(
            (options.player_client or settings.player_client).replace(",", " ").split()
        ),
        user_agent=options.user_agent or settings.user_agent,
        cache_dir=settings.ytdlp_cache_dir,
        max_bytes_per_s=int(_least(options.max_bytes_per_s, settings.download_bytes_per_s)),
    )


def proxies_of(settings: Settings) -> tuple[Proxy, ...]:
    """The operator's proxies. Raises SettingsError, without showing what it is about."""
    found = []
    for number, text in enumerate(settings.proxies.split(), 1):
        proxy = parse_proxy(text, trusted=True)
        if proxy is None:
            raise SettingsError(
                f"Number {number} of SOUNDHASH_PROXIES is not a proxy's URL; it must be like "
                "http://host:port, https://... or socks5://..."
            )
        found.append(proxy)
    return tuple(found)


def parse_proxy(url: str, *, trusted: bool) -> Proxy | None:
    """The proxy of a URL; None when it is not the URL of a proxy."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    if parts.scheme.lower() not in _PROXY_SCHEMES or not parts.hostname or "\\" in parts.netloc:
        return None
    if any(c.isspace() or ord(c) < 32 for c in url):
        return None
    return Proxy(url, trusted)


async def check_options(options: FetchOptions, allow_private: bool) -> None:
    """Refuses options that no worker could use, or that nobody may ask for.

    Raises PlatformError INVALID_ARGUMENT: FETCH_OPTIONS_INVALID naming the fields,
    PROXY_NOT_ALLOWED for one whose address is not public unless ``allow_private``.
    """
    wrong = {}
    if options.cookies and not _is_cookies_name(options.cookies):
        wrong["options.cookies"] = "must be the name of a file, without folders"
    if options.cookies_from_browser:
        browser, _, profile = options.cookies_from_browser.partition(":")
        if browser.lower() not in _BROWSERS:
            wrong["options.cookies_from_browser"] = f"must be one of {', '.join(sorted(_BROWSERS))}"
        elif not _PROFILE_NAME.fullmatch(profile):
            wrong["options.cookies_from_browser"] = "must name a profile, not a path"
    if options.proxy and parse_proxy(options.proxy, trusted=False) is None:
        wrong["options.proxy"] = "must be an http, https or socks5 URL"
    if any(ord(c) < 32 or ord(c) > 126 for c in options.user_agent):
        wrong["options.user_agent"] = "must be printable ASCII"
    if options.max_duration_s < 0:
        wrong["options.max_duration"] = "must not be negative"
    if wrong:
        first = next(iter(wrong))
        raise PlatformError(
            ErrorKind.INVALID_ARGUMENT,
            "FETCH_OPTIONS_INVALID",
            f"{first} {wrong[first]}.",
            "Correct the options, or leave them out: the operator's settings then hold.",
            violations=wrong,
        )
    if options.proxy and not allow_private:
        await _check_proxy(options.proxy)


async def _check_proxy(url: str) -> None:
    host, port = Proxy(url, trusted=False).address
    try:
        public = all(map(is_public_address, await resolve(host, port)))
    except (socket.gaierror, UnicodeError, TimeoutError):
        return  # the worker looks again
    if not public:
        raise PlatformError(
            ErrorKind.INVALID_ARGUMENT,
            "PROXY_NOT_ALLOWED",
            "The proxy is not on the public internet.",
            REASONS["PROXY_NOT_ALLOWED"].remedy,
            violations={"options.proxy": "must be on the public internet"},
        )


def _browser_of(settings: Settings) -> str:
    return "" if settings.cookies else settings.cookies_from_browser


def _split_browser(text: str) -> tuple[str, str]:
    name, _, profile = text.partition(":")
    return name.lower(), profile


def _is_cookies_name(name: str) -> bool:
    return _COOKIES_NAME.fullmatch(name) is not None and name not in (".", "..")


def _cookies_path(folder: Path, name: str) -> Path:
    path = folder / name
    if not _is_cookies_name(name) or not path.is_file():
        raise JobError("COOKIES_NOT_FOUND", f"There is no cookies file {name[:100]!r}.")
    return path


def _least(asked: float, most: float) -> float:
    """The tighter of two bounds, of which 0 is none."""
    return min(asked, most) if asked and most else asked or most
