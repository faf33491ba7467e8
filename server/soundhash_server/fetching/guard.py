"""The network that the child which runs yt-dlp is left with. An audit hook cannot be taken away
again, and it holds for whatever code of whatever extractor."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from soundhash_server.addresses import is_public_address

# Extractors may ask these to solve a site's puzzles; they run without network rights there.
_JS_RUNTIMES = frozenset({"deno", "node", "bun", "qjs", "quickjs"})
_REFUSED_EVENTS = frozenset({"os.exec", "os.forkpty", "os.system"})
_CONNECTING = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_ASKS_PROXY = re.compile(rb"(?:CONNECT ([^ ]+)|[A-Z]+ (https?://[^ ]+)) HTTP/1\.[01]\r\n")
_REFUSED = "is not on the public internet"


def guard(*, allow_private: bool, proxy_addresses: Collection[tuple[str, int]] = ()) -> None:
    """From here on this process connects to public addresses only, and starts no programs but
    JavaScript runtimes.

    proxy_addresses: IP address and port of a proxy, which alone may be private. Through it,
    too, only hosts with public addresses are asked for, as far as this machine can tell.
    """
    proxies = frozenset(proxy_addresses)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CONNECTING and not allow_private:
            address = arguments[1]
            host = str(address[0]) if isinstance(address, tuple) else ""
            if not is_public_address(host) and (host, _port(address)) not in proxies:
                raise ConnectionRefusedError(f"{host} {_REFUSED}")
        elif event == "http.client.send" and not allow_private:
            _check_asked(bytes(arguments[1][:8192]) if _is_bytes(arguments[1]) else b"")
        elif event == "subprocess.Popen":
            name = Path(str(arguments[0])).name.removesuffix(".exe")
            if name not in _JS_RUNTIMES:
                raise PermissionError(f"{name} must not be started")
        elif event in _REFUSED_EVENTS:
            raise PermissionError(f"{event} is not allowed")

    sys.addaudithook(hook)


def guard_socks(make_proxy: Callable[..., Any]) -> Callable[..., Any]:
    """yt-dlp's way through a SOCKS proxy (``sockssocket._make_proxy``), for hosts with public
    addresses only: the proxy is told the address that was checked, not the name."""

    def checked(sock: Any, connect: Any, address: tuple[str, int]) -> Any:
        found = _public_addresses(address[0], address[1])
        plain = [one for one in found if ":" not in one]
        return make_proxy(sock, connect, ((plain or found)[0], address[1]))

    return checked


def _port(address: Any) -> int:
    return int(address[1]) if isinstance(address, tuple) and len(address) > 1 else 0


def _is_bytes(data: object) -> bool:
    return isinstance(data, (bytes, bytearray, memoryview))


def _check_asked(data: bytes) -> None:
    """What a proxy is asked to connect to, or to fetch."""
    asked = _ASKS_PROXY.match(data)
    if asked is None:
        return
    text = (asked[1] or asked[2]).decode("ascii", "replace")
    parts = urlsplit(f"//{text}" if asked[1] else text)
    _public_addresses(parts.hostname or "", parts.port or 80)


def _public_addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        # What cannot be looked up here cannot be checked.
        raise ConnectionAbortedError("the source's host name does not resolve") from None
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(map(is_public_address, addresses)):
        raise ConnectionRefusedError(f"{host} {_REFUSED}")
    return addresses
