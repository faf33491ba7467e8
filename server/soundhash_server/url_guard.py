"""Which URLs may be fetched: http and https to public addresses, so that nobody can make the
platform reach into the network that it runs in (server-side request forgery).

Names are checked when a URL is submitted, for an early answer, and addresses again at the
moment of connecting, redirects included: a name may resolve to something else by then.
"""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import SplitResult, urlsplit

from soundhash_server.addresses import is_public_address
from soundhash_server.errors import ErrorKind, PlatformError

_SCHEMES = frozenset({"http", "https"})
LIVE_PORTS = {"http": 80, "https": 443, "rtmp": 1935, "rtmps": 443, "rtsp": 554, "rtsps": 322}
"""Schemes of live sources, with the ports that they use when none is named."""
_MAX_URL_CHARS = 2048
_RESOLVE_TIMEOUT_S = 10.0


def split_url(url: str, *, live: bool = False) -> SplitResult:
    """The parts of an http(s) URL with a host.

    live: of a live source, which may also be rtmp or rtsp, and hold a name and a password.
    Raises PlatformError INVALID_ARGUMENT: URL_INVALID (not such a URL), URL_NOT_ALLOWED
    (another scheme, or a password in it).
    """
    if not url or len(url) > _MAX_URL_CHARS or any(c.isspace() or ord(c) < 32 for c in url):
        raise _refused("URL_INVALID", "The URL is empty, too long or has spaces in it.")
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        raise _refused("URL_INVALID", "This is not a URL.") from None
    if parts.scheme.lower() not in (LIVE_PORTS if live else _SCHEMES):
        raise _refused(
            "URL_NOT_ALLOWED",
            f"URLs of the scheme {parts.scheme[:32]!r} are not fetched.",
            "Use an http, https, rtmp, rtmps, rtsp or rtsps URL."
            if live
            else "Use an http:// or https:// URL; upload local files.",
        )
    if not host or "\\" in parts.netloc:
        raise _refused("URL_INVALID", "The URL names no host.")
    if not live and (parts.username is not None or parts.password is not None):
        raise _refused("URL_NOT_ALLOWED", "The URL holds a user name or password.")
    return parts


async def resolve(host: str, port: int) -> list[str]:
    """The IP addresses of a host name, as text. Raises socket.gaierror, TimeoutError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_RESOLVE_TIMEOUT_S):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


async def check_url(url: str, allow_private: bool, *, live: bool = False) -> None:
    """Refuses a URL that must not be fetched. live: as of `split_url`.

    Raises PlatformError INVALID_ARGUMENT: URL_INVALID, URL_NOT_ALLOWED (scheme, password, or
    an address that is not public unless ``allow_private``), URL_HOST_UNKNOWN (there is no such
    host). A name service that gives no answer is not held against the URL: whoever fetches it
    checks again.
    """
    parts = split_url(url, live=live)
    port = parts.port or LIVE_PORTS[parts.scheme.lower()]
    assert parts.hostname is not None  # noqa: S101 - split_url has seen to it
    try:
        addresses = await resolve(parts.hostname, port)
    except (socket.gaierror, UnicodeError) as error:
        if isinstance(error, socket.gaierror) and error.errno not in _NO_SUCH_HOST:
            return
        raise _refused(
            "URL_HOST_UNKNOWN",
            f"There is no host {parts.hostname[:253]!r}.",
            "Check the URL's host name.",
        ) from None
    except TimeoutError:
        return
    if not allow_private and not all(map(is_public_address, addresses)):
        raise not_allowed(parts.hostname)


_NO_SUCH_HOST = frozenset(
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)
)


def not_allowed(host: str) -> PlatformError:
    """The error for a host whose address is not public."""
    return _refused(
        "URL_NOT_ALLOWED",
        f"The host {host[:253]!r} is not on the public internet.",
        "Use a public URL or upload the file; an operator can allow private addresses with "
        "SOUNDHASH_ALLOW_PRIVATE_URLS=1.",
    )


def _refused(reason: str, message: str, remedy: str = "Correct the URL.") -> PlatformError:
    return PlatformError(
        ErrorKind.INVALID_ARGUMENT, reason, message, remedy, violations={"url": message}
    )
