"""The answer to an HTTP request for a live source, of HTTP servers and of those that nearly are."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

import aiohttp
import yarl

from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live.access import NETWORK_ERRORS, Access, of_error, of_status
from soundhash_server.fetching.live.raw import Raw, connected
from soundhash_server.fetching.retry_after import retry_after_s

MAX_TEXT_BYTES = 1 << 20
_READ_BYTES = 1 << 16


@dataclass(slots=True)
class Answer:
    """A body that may have no end, and what stands before it.

    url: where it came from in the end. headers: by their names in lower case.
    """

    url: str
    headers: Mapping[str, str]
    _body: aiohttp.StreamReader | Raw
    _unread: bytes = field(default=b"", repr=False)

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def some(self) -> bytes:
        """The next bytes as they come; none at the end. Raises JobError."""
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        try:
            if isinstance(self._body, Raw):
                return await self._body.some(_READ_BYTES)
            return await self._body.readany()
        except NETWORK_ERRORS as error:
            raise of_error(error) from None

    async def peek(self, n_bytes: int) -> bytes:
        """The first bytes, as many as there are at the least; they are read again afterwards."""
        held = b""
        while len(held) < n_bytes and (data := await self.some()):
            held += data
        self._unread = held
        return held

    async def text(self) -> str:
        """The whole body. Raises JobError LIVE_FORMAT when it is larger than a list may be."""
        held = bytearray()
        while data := await self.some():
            held += data
            if len(held) > MAX_TEXT_BYTES:
                raise JobError("LIVE_FORMAT", "The source's playlist is larger than 1 MiB.")
        return held.decode("utf-8-sig", "replace")


@asynccontextmanager
async def answer_of(
    access: Access, url: str, headers: Mapping[str, str] | None = None
) -> AsyncIterator[Answer]:
    """Asks for a URL; redirects are followed, each to a checked address.

    Raises JobError, PlatformError (URL_NOT_ALLOWED).
    """
    asked = access.headers_for(url) | dict(headers or {})
    try:
        response = await access.session.get(url, headers=asked, timeout=access.timeout)
    except aiohttp.ClientResponseError as error:
        if "ICY " not in str(error):
            raise of_error(error) from None
        hop = _with_user(error.request_info.real_url, url)
    except (*NETWORK_ERRORS, ValueError) as error:
        raise of_error(error) from None
    else:
        async with response:
            if response.status not in (200, 206):
                wait_s = retry_after_s(response.headers.get("Retry-After", ""))
                raise of_status(response.status, wait_s)
            found = {name.lower(): value for name, value in response.headers.items()}
            yield Answer(str(response.url), found, response.content)
        return
    async with _icy_answer(access, hop, asked) as answer:
        yield answer


@asynccontextmanager
async def _icy_answer(
    access: Access, url: str, headers: Mapping[str, str]
) -> AsyncIterator[Answer]:
    """As SHOUTcast servers of old answer: ``ICY 200 OK`` in the place of HTTP."""
    parts = urlsplit(url)
    tls = parts.scheme.lower() == "https"
    port = parts.port or (443 if tls else 80)
    async with _raw(access, parts.hostname or "", port, tls=tls) as raw:
        try:
            await raw.write(_request(parts, headers))
            status = (await raw.line()).split(None, 2)
            code = int(status[1]) if len(status) > 1 and status[1].isdigit() else 0
            if code != 200:
                raise of_status(code or 502)
            found = await raw.headers()
        except NETWORK_ERRORS as error:
            raise of_error(error) from None
        yield Answer(url, found, raw)


@asynccontextmanager
async def _raw(access: Access, host: str, port: int, *, tls: bool) -> AsyncIterator[Raw]:
    opened = connected(access, host, port, tls=tls)
    try:
        raw = await opened.__aenter__()
    except NETWORK_ERRORS as error:
        raise of_error(error) from None
    try:
        yield raw
    finally:
        await opened.__aexit__(None, None, None)


def _with_user(hop: yarl.URL, url: str) -> str:
    """Where redirects have led, with the user name of the first address for its own host."""
    first = yarl.URL(url)
    if first.user is not None and hop.host == first.host:
        hop = hop.with_user(first.user).with_password(first.password)
    return str(hop)


def _request(parts: SplitResult, headers: Mapping[str, str]) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"GET {target} HTTP/1.0", f"Host: {parts.netloc.rpartition('@')[2]}"]
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"Authorization: Basic {base64.b64encode(user.encode()).decode()}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("utf-8")
