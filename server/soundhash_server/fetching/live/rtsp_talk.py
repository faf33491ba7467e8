"""Requests and answers of RTSP (RFC 2326) on a connection that carries packets, too."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections import deque
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote

from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live.access import USER_AGENT
from soundhash_server.fetching.live.raw import Raw

_MAX_BODY_BYTES = 1 << 18
_MAX_CHALLENGE_CHARS = 2000
_MAX_WAITING = 500
"""Packets that may come before the answer that they belong to."""
_QUOTED = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]+))')


@dataclass(frozen=True, slots=True)
class Packet:
    """What came on one of the channels between the answers."""

    channel: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """status: 0 for a request that the server makes; ``first`` is its line."""

    status: int
    headers: dict[str, str]
    body: str
    first: str = ""


class Talk:
    """A connection to an RTSP server, with the name and the password of its URL."""

    def __init__(self, raw: Raw, parts: SplitResult) -> None:
        self._raw = raw
        self._user = unquote(parts.username) if parts.username is not None else None
        self._password = unquote(parts.password or "")
        self._number = 0
        self._challenge = ""
        self._session = ""
        self._waiting: deque[Packet] = deque(maxlen=_MAX_WAITING)

    async def ask(self, method: str, url: str, headers: dict[str, str] | None = None) -> Reply:
        """Sends a request and returns its answer; one that asks for a login gets it, once."""
        for attempt in range(2):
            await self.tell(method, url, headers)
            reply = await self._reply()
            if reply.status != 401 or self._user is None or attempt:
                return reply
            self._challenge = reply.headers.get("www-authenticate", "")[:_MAX_CHALLENGE_CHARS]
        raise AssertionError("the second answer is returned")

    async def tell(self, method: str, url: str, headers: dict[str, str] | None = None) -> None:
        """Sends a request whose answer is not waited for."""
        await self._raw.write(self._request(method, url, headers))

    def leave(self, url: str) -> None:
        """Says that we go, if that can be said at once."""
        self._raw.post(self._request("TEARDOWN", url, None))

    def _request(self, method: str, url: str, headers: dict[str, str] | None) -> bytes:
        self._number += 1
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self._number}", f"User-Agent: {USER_AGENT}"]
        if self._session:
            lines.append(f"Session: {self._session}")
        if self._challenge:
            lines.append(f"Authorization: {self._login(method, url)}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        return "\r\n".join([*lines, "", ""]).encode()

    async def next(self) -> Packet | Reply | None:
        """What comes next; None when the server has closed the connection.

        Raises JobError LIVE_FORMAT, OSError, EOFError, TimeoutError.
        """
        return self._waiting.popleft() if self._waiting else await self._next()

    async def _reply(self) -> Reply:
        for _ in range(10_000):
            found = await self._next()
            if found is None:
                raise EOFError
            if isinstance(found, Packet):
                self._waiting.append(found)
            elif found.status and found.headers.get("cseq", "") in ("", str(self._number)):
                session = found.headers.get("session", "").partition(";")[0].strip()
                self._session = session or self._session
                return found
        raise JobError("LIVE_FORMAT", "The source does not answer as RTSP servers do.")

    async def _next(self) -> Packet | Reply | None:
        first = await self._raw.some(1)
        if not first:
            return None
        if first == b"$":
            channel, high, low = await self._raw.exactly(3)
            return Packet(channel, await self._raw.exactly(high << 8 | low))
        line = (first + await self._raw.line()).decode("latin-1").strip()
        if not line:
            return Reply(0, {}, "")
        if "RTSP/1" not in line:
            raise JobError("LIVE_FORMAT", "The source does not speak RTSP.")
        headers = await self._raw.headers()
        length = headers.get("content-length", "0")
        size = int(length) if length.isascii() and length.isdecimal() else 0
        if size > _MAX_BODY_BYTES:
            raise JobError("LIVE_FORMAT", "The source's description is too long.")
        body = (await self._raw.exactly(size)).decode("utf-8", "replace") if size else ""
        words = line.split(None, 2)
        is_reply = words[0].startswith("RTSP/") and len(words) > 1 and words[1].isdecimal()
        return Reply(int(words[1]) if is_reply else 0, headers, body, line)

    def _login(self, method: str, url: str) -> str:
        """Basic or Digest (RFC 7616, MD5), as the server asks for."""
        at = self._challenge.lower().find("digest")
        user = self._user or ""
        if at < 0:
            return "Basic " + base64.b64encode(f"{user}:{self._password}".encode()).decode()
        asked = {name: a or b for name, a, b in _QUOTED.findall(self._challenge[at + 6 :])}
        realm, nonce = asked.get("realm", ""), asked.get("nonce", "")
        secret = _md5(f"{user}:{realm}:{self._password}")
        wanted = _md5(f"{method}:{url}")
        said = {"username": user, "realm": realm, "nonce": nonce, "uri": url}
        more = ""
        if "auth" in asked.get("qop", "").split(","):
            ours = secrets.token_hex(8)
            said["response"] = _md5(f"{secret}:{nonce}:00000001:{ours}:auth:{wanted}")
            said["cnonce"] = ours
            more = ", qop=auth, nc=00000001"
        else:
            said["response"] = _md5(f"{secret}:{nonce}:{wanted}")
        if asked.get("opaque"):
            said["opaque"] = asked["opaque"]
        return "Digest " + ", ".join(f'{name}="{value}"' for name, value in said.items()) + more


def _md5(text: str) -> str:
    # The protocol's choice; nothing is kept secret by it here.
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
