"""TCP connections for protocols that are not quite HTTP, guarded as all others are.

A name is resolved once, its addresses are checked, and it is one of those that is connected to.
Through an HTTP proxy it is the proxy that connects, to the address that was checked here.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote, urlsplit

from soundhash_server.addresses import is_public_address
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.http import proxy_addresses
from soundhash_server.fetching.live.access import CONNECT_S, Access
from soundhash_server.fetching.ways import Proxy
from soundhash_server.url_guard import not_allowed, resolve

_LIMIT_BYTES = 64 << 10


class Raw:
    """A connection; reading fails with TimeoutError when nothing comes for ``stall_s``."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stall_s: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._stall_s = stall_s

    async def write(self, data: bytes) -> None:
        async with asyncio.timeout(self._stall_s):
            self._writer.write(data)
            await self._writer.drain()

    def post(self, data: bytes) -> None:
        """Writes without waiting: what does not fit at once may get lost."""
        self._writer.write(data)

    async def exactly(self, n_bytes: int) -> bytes:
        """Raises asyncio.IncompleteReadError (an EOFError), OSError, TimeoutError."""
        async with asyncio.timeout(self._stall_s):
            return await self._reader.readexactly(n_bytes)

    async def some(self, n_bytes: int = 1 << 16) -> bytes:
        """What has come, at most so much; nothing at the end."""
        async with asyncio.timeout(self._stall_s):
            return await self._reader.read(n_bytes)

    async def line(self) -> bytes:
        """Up to and with a line feed. Raises also JobError LIVE_FORMAT for one without end."""
        async with asyncio.timeout(self._stall_s):
            try:
                return await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError:
                raise JobError("LIVE_FORMAT", "The source's answer has no end.") from None

    async def headers(self) -> dict[str, str]:
        """Header lines up to the empty one, their names in lower case; repeated ones joined.

        Raises JobError LIVE_FORMAT when there are too many.
        """
        found: dict[str, str] = {}
        for _ in range(200):
            line = (await self.line()).strip()
            if not line:
                return found
            name, _, value = line.partition(b":")
            key, text = name.strip().lower().decode("latin-1"), value.decode("utf-8", "replace")
            found[key] = f"{found[key]}, {text.strip()}" if key in found else text.strip()
        raise JobError("LIVE_FORMAT", "The source's answer has no end.")


@asynccontextmanager
async def connected(access: Access, host: str, port: int, *, tls: bool) -> AsyncIterator[Raw]:
    """A connection to a host. Raises JobError, PlatformError (URL_NOT_ALLOWED), OSError,
    TimeoutError."""
    addresses = await _checked(host, port, allow_private=access.allow_private)
    context = ssl.create_default_context() if tls else None
    name = host if tls else None
    async with asyncio.timeout(CONNECT_S):
        if access.proxy is None:
            reader, writer = await _first(addresses, port, context, name)
        else:
            reader, writer = await _through(access.proxy, access, addresses[0], port)
            if context is not None:
                await writer.start_tls(context, server_hostname=name)
    try:
        yield Raw(reader, writer, access.stall_s)
    finally:
        writer.transport.abort()


async def _checked(host: str, port: int, *, allow_private: bool) -> list[str]:
    try:
        found = await resolve(host, port)
    except (socket.gaierror, UnicodeError):
        raise JobError("HOST_UNKNOWN", "The source's host name does not resolve.") from None
    if not found or not (allow_private or all(map(is_public_address, found))):
        raise not_allowed(host)
    return list(dict.fromkeys(found))


async def _first(
    addresses: list[str], port: int, context: ssl.SSLContext | None, name: str | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The first address that answers."""
    last: OSError = ConnectionRefusedError()
    for address in addresses:
        try:
            return await asyncio.open_connection(
                address, port, ssl=context, server_hostname=name, limit=_LIMIT_BYTES
            )
        except ssl.SSLError:
            raise
        except OSError as error:
            last = error
    raise last


async def _through(
    proxy: Proxy, access: Access, address: str, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if proxy.is_socks:
        raise JobError("PROXY_NOT_ALLOWED", "Live sources are not fetched over SOCKS proxies.")
    own = await proxy_addresses(proxy, allow_private=access.allow_private)
    secure = ssl.create_default_context() if proxy.url.lower().startswith("https:") else None
    try:
        reader, writer = await _first(
            own, proxy.address[1], secure, proxy.address[0] if secure else None
        )
    except OSError:
        raise JobError("PROXY_FAILED", "The proxy does not answer.") from None
    try:
        target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        asked = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{_authorization(proxy)}\r\n"
        writer.write(asked.encode())
        answer = Raw(reader, writer, access.stall_s)
        status = (await answer.line()).split(b" ", 2)
        await answer.headers()
        if len(status) < 2 or status[1] != b"200":
            raise JobError("PROXY_FAILED", "The proxy refuses to connect to the source.")
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


def _authorization(proxy: Proxy) -> str:
    parts = urlsplit(proxy.url)
    if parts.username is None:
        return ""
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}\r\n"
