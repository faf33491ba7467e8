"""How a live source is got at, and why that fails."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp

from soundhash_server.errors import PlatformError
from soundhash_server.fetching.failures import JobError, from_network, from_status
from soundhash_server.fetching.http import refusal
from soundhash_server.fetching.ways import Proxy, Ways

# SHOUTcast servers show browsers a page instead of the stream.
USER_AGENT = "SoundHash"
CONNECT_S = 15.0

NETWORK_ERRORS = (aiohttp.ClientError, OSError, EOFError)
"""What connections fail with; TimeoutError is one of them."""


@dataclass(frozen=True, slots=True)
class Access:
    """What every connection to a source is made with.

    session: guarded, with the proxy and the cookies of ``ways`` where there are any. stall_s: a
    source that sends nothing for so long has failed. pages: held while one is looked into.
    headers: of every request. cookie: a host, and what it alone is told.
    """

    session: aiohttp.ClientSession
    ways: Ways
    proxy: Proxy | None
    allow_private: bool
    stall_s: float
    pages: asyncio.Semaphore
    headers: Mapping[str, str] = field(default_factory=dict)
    cookie: tuple[str, str] = field(default=("", ""), repr=False)

    def headers_for(self, url: str) -> dict[str, str]:
        """What a request for a URL says."""
        host, cookie = self.cookie
        found = {"User-Agent": self.ways.user_agent or USER_AGENT, **self.headers}
        if cookie and (urlsplit(url).hostname or "").lower() == host:
            found["Cookie"] = cookie
        return found

    @property
    def timeout(self) -> aiohttp.ClientTimeout:
        """Of requests that may last for ever."""
        return aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_S, connect=CONNECT_S, sock_read=self.stall_s
        )


def of_status(status: int, retry_after_s: float | None = None) -> JobError:
    """The failure behind an HTTP status that is no success: what is not there may come back."""
    if status in (404, 410):
        return JobError(
            "SOURCE_OFFLINE", f"The source answers {status}: nothing is on the air there."
        )
    return from_status(status, retry_after_s)


def of_error(error: BaseException) -> JobError | PlatformError:
    """The failure behind an error of a connection."""
    refused = refusal(error)
    if refused is not None:
        return refused
    match error:
        case JobError():
            return error
        case TimeoutError():
            return JobError("SOURCE_STALLED", "The source sends nothing any more.")
        case EOFError():
            return JobError("NETWORK_ERROR", "The connection broke off.")
        case ssl.SSLCertVerificationError():
            return JobError("TLS_ERROR", "The source's certificate is not valid.")
        case aiohttp.ClientConnectionError() | OSError() if _refused(error):
            return JobError("SOURCE_OFFLINE", "The source's server does not answer.")
    return from_network(error if isinstance(error, Exception) else OSError())


def _refused(error: BaseException) -> bool:
    """Whether nobody listens where the connection leads."""
    found = getattr(error, "os_error", None) or error
    return isinstance(found, ConnectionRefusedError) and not isinstance(
        error, aiohttp.ClientProxyConnectionError
    )
