"""An HTTP client that only talks to addresses which may be fetched from.

The addresses of a name are checked when it is resolved, and it is exactly those which are
connected to: a name that resolves to something else a moment later gains nothing. Every
connection goes this way, those of redirects included.

Behind a proxy it is the proxy that resolves and connects. Then the name of every request, those
of redirects included, is resolved and checked here first, and the only connections are to the
proxy. A name that resolves to something else at the proxy could still reach what the proxy can
reach: a proxy should not be able to reach a private network.
"""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from collections.abc import Sequence
from http.cookiejar import CookieJar, LoadError, MozillaCookieJar
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.client_middlewares import ClientHandlerType
from aiohttp.resolver import ThreadedResolver

from soundhash_server.addresses import is_public_address
from soundhash_server.errors import PlatformError
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.ways import Proxy
from soundhash_server.url_guard import not_allowed, resolve

USER_AGENT = "Mozilla/5.0 (compatible; SoundHash)"
_CONNECT_TIMEOUT_S = 15.0


class AddressRefusedError(OSError):
    """A connection to an address that is not public was about to be made."""


class _GuardedResolver(ThreadedResolver):
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        if not all(is_public_address(entry["host"]) for entry in found):
            raise not_allowed(host)
        return found


class _ProxyResolver(ThreadedResolver):
    """Knows the proxy alone, by the addresses that were looked up and checked before."""

    def __init__(self, host: str, addresses: Sequence[str]) -> None:
        super().__init__()
        self._host = host
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host != self._host:
            raise not_allowed(host)
        found: list[ResolveResult] = []
        for address in self._addresses:
            found += await super().resolve(address, port, family)
        return found


def _socket_to(addresses: frozenset[str]) -> Any:
    def make(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        if str(address[0]) not in addresses:
            raise AddressRefusedError(str(address[0]))
        return socket.socket(family, kind, protocol)

    return make


def _guarded_socket(info: tuple[Any, ...]) -> socket.socket:
    # Addresses that a URL names directly do not pass through the resolver.
    family, kind, protocol, _, address = info
    if not is_public_address(str(address[0])):
        raise AddressRefusedError(str(address[0]))
    return socket.socket(family, kind, protocol)


class _Hops:
    """What is done with every request of a session, those of redirects included."""

    def __init__(self, cookies: CookieJar | None, *, check: bool) -> None:
        self._cookies = cookies
        self._check = check

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if self._check:
            await _check_host(request.url.host or "", request.url.port or 80)
        if self._cookies is not None:
            # The standard library knows which cookies an address may see.
            asked = urllib.request.Request(str(request.url))  # noqa: S310 - nothing is opened
            self._cookies.add_cookie_header(asked)
            cookie = asked.get_header("Cookie")
            if cookie:
                request.headers["Cookie"] = cookie
        return await handler(request)


async def _check_host(host: str, port: int) -> None:
    try:
        addresses = await resolve(host, port)
    except (socket.gaierror, UnicodeError, TimeoutError):
        # What cannot be looked up here cannot be checked.
        raise JobError("HOST_UNKNOWN", "The source's host name does not resolve.") from None
    if not all(map(is_public_address, addresses)):
        raise not_allowed(host)


async def proxy_addresses(proxy: Proxy, *, allow_private: bool) -> list[str]:
    """The IP addresses of a proxy.

    Raises JobError PROXY_FAILED when its name does not resolve, PROXY_NOT_ALLOWED when it is
    private and not the operator's.
    """
    try:
        addresses = await resolve(*proxy.address)
    except (socket.gaierror, UnicodeError, TimeoutError):
        raise JobError("PROXY_FAILED", "The proxy's host name does not resolve.") from None
    if not (allow_private or proxy.trusted or all(map(is_public_address, addresses))):
        raise JobError("PROXY_NOT_ALLOWED", "The job's proxy is not on the public internet.")
    return addresses


def load_cookies(path: Path) -> CookieJar:
    """The cookies of a file. Raises JobError COOKIES_INVALID, COOKIES_NOT_FOUND."""
    jar = MozillaCookieJar(path)
    try:
        jar.load(ignore_discard=True, ignore_expires=True)
    except (LoadError, UnicodeDecodeError):
        raise JobError(
            "COOKIES_INVALID", "The cookies file is not in the Netscape format."
        ) from None
    except OSError:
        raise JobError("COOKIES_NOT_FOUND", "The cookies file cannot be read.") from None
    for cookie in jar:
        if cookie.expires == 0:
            # Browsers' way to write those of a session.
            cookie.expires, cookie.discard = None, True
    return jar


async def open_session_through(
    proxy: Proxy | None, cookies: Path | None, *, allow_private: bool, read_timeout_s: float
) -> aiohttp.ClientSession:
    """As `open_session`, through an http or https proxy and with a file's cookies.

    Raises JobError as `proxy_addresses` and `load_cookies`.
    """
    jar = None if cookies is None else await asyncio.to_thread(load_cookies, cookies)
    addresses = () if proxy is None else await proxy_addresses(proxy, allow_private=allow_private)
    return open_session(
        allow_private=allow_private,
        read_timeout_s=read_timeout_s,
        proxy=proxy,
        proxy_ips=addresses,
        cookies=jar,
    )


def open_session(
    *,
    allow_private: bool,
    read_timeout_s: float,
    proxy: Proxy | None = None,
    proxy_ips: Sequence[str] = (),
    cookies: CookieJar | None = None,
) -> aiohttp.ClientSession:
    """A session for fetching media. Raises PlatformError URL_NOT_ALLOWED from requests to names
    of private addresses; to such an address itself see `refusal`. Connections at once are not
    bounded: whoever fetches is, and live sources hold theirs for days.

    proxy: an http or https proxy, whose addresses ``proxy_ips`` may be private. Proxies of the
    environment are not used: behind one, no address could be checked.
    """
    if allow_private:
        connector = aiohttp.TCPConnector(limit=0, use_dns_cache=False)
    elif proxy is not None:
        connector = aiohttp.TCPConnector(
            limit=0,
            use_dns_cache=False,
            resolver=_ProxyResolver(proxy.address[0], proxy_ips),
            socket_factory=_socket_to(frozenset(proxy_ips)),
        )
    else:
        connector = aiohttp.TCPConnector(
            limit=0,
            use_dns_cache=False,
            resolver=_GuardedResolver(),
            socket_factory=_guarded_socket,
        )
    hops = _Hops(cookies, check=proxy is not None and not allow_private)
    return aiohttp.ClientSession(
        connector=connector,
        proxy=None if proxy is None else proxy.url,
        middlewares=(hops,) if proxy is not None or cookies is not None else (),
        # Ranges and lengths mean the bytes of the file.
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=read_timeout_s
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


def refusal(error: BaseException) -> PlatformError | None:
    """The URL_NOT_ALLOWED behind a request's error, if it is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, PlatformError):
            return seen
        if isinstance(seen, AddressRefusedError):
            return not_allowed(str(seen))
        seen = getattr(seen, "os_error", None) or seen.__cause__ or seen.__context__
    return None
