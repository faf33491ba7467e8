"""An HTTP client that only talks to addresses which may be fetched from.

The addresses of a name are checked when it is resolved, and it is exactly those which are
connected to: a name that resolves to something else a moment later gains nothing. Every
connection goes this way, those of redirects included.
"""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver

from soundhash_server.addresses import is_public_address
from soundhash_server.errors import PlatformError
from soundhash_server.url_guard import not_allowed

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


def _guarded_socket(info: tuple[Any, ...]) -> socket.socket:
    # Addresses that a URL names directly do not pass through the resolver.
    family, kind, protocol, _, address = info
    if not is_public_address(str(address[0])):
        raise AddressRefusedError(str(address[0]))
    return socket.socket(family, kind, protocol)


def open_session(*, allow_private: bool, read_timeout_s: float) -> aiohttp.ClientSession:
    """A session for fetching media. Raises PlatformError URL_NOT_ALLOWED from requests to names
    of private addresses; to such an address itself see `refusal`.

    Proxies of the environment are not used: behind one, no address could be checked.
    """
    connector = (
        aiohttp.TCPConnector(use_dns_cache=False)
        if allow_private
        else aiohttp.TCPConnector(
            use_dns_cache=False, resolver=_GuardedResolver(), socket_factory=_guarded_socket
        )
    )
    return aiohttp.ClientSession(
        connector=connector,
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
