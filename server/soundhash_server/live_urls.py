"""Addresses of live sources: which are the same, and what of them people may see.

They hold secrets in many places: name and password, keys in the query, tokens in the path. What
is shown keeps what tells a source from others and nothing that could be a secret.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import SplitResult, unquote, unquote_plus, urlsplit

from soundhash_server.known_sites import is_known_site, site_of
from soundhash_server.sources import url_key
from soundhash_server.url_guard import LIVE_PORTS, split_url

HIDDEN = "***"
# Parts of a query that say what is played, not who may.
_PLAIN_NAMES = frozenset(
    ("v", "list", "format", "fmt", "type", "codec", "bitrate", "br", "quality", "rate", "icy")
) | frozenset(("channel", "station", "mount", "lang", "language", "country", "nocache"))
_PLAIN_VALUE = re.compile(r"[\w.,:/+ -]{0,40}")
# Long, and of letters as well as digits: no name that anybody has chosen.
_TOKEN = re.compile(r"(?=[^.]*\d)(?=[^.]*[A-Za-z])[\w~=-]{20,}")
# As providers of IPTV have it: /live/NAME/PASSWORD/NUMBER.ts
_ACCOUNT_PATH = re.compile(r"/(?:live|movie|series)/([^/]+)/([^/]+)/\d+(?:\.\w+)?")
_SHORTEST_SECRET = 3


def live_key(url: str) -> str:
    """Identity of a live source, told without network: SHA-256 of the URL's normal form, without
    name and password. Raises PlatformError as `url_guard.split_url`."""
    parts = split_url(url, live=True)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower().rstrip(".")
    if scheme in ("http", "https"):
        normal = url_key(parts._replace(netloc=_netloc(host, parts.port)).geturl())
        if normal.startswith("url:") and is_known_site(host):
            # A page of the site, which has several names.
            normal = url_key(parts._replace(netloc=_netloc(site_of(host), parts.port)).geturl())
    else:
        port = None if parts.port == LIVE_PORTS[scheme] else parts.port
        normal = parts._replace(
            scheme=scheme, netloc=_netloc(host, port), path=parts.path or "/", fragment=""
        ).geturl()
    return hashlib.sha256(normal.encode("utf-8", "surrogatepass")).hexdigest()


def host_of(url: str) -> str:
    """The host of a URL: a name for a source that was given none."""
    return (urlsplit(url).hostname or "").lower()


def shown(url: str) -> str:
    """The URL as people may see it: with *** for whatever could be a secret."""
    parts = urlsplit(url)
    plain = is_known_site(host_of(url))
    path = parts.path if plain else _shown_path(parts.path)
    query = "&".join(_shown_pair(pair) for pair in parts.query.split("&")) if parts.query else ""
    netloc = _netloc(parts.hostname or "", parts.port)
    if "@" in parts.netloc:
        netloc = f"{HIDDEN}@{netloc}"
    return parts._replace(netloc=netloc, path=path, query=query, fragment="").geturl()


def without_secrets(text: str, url: str) -> str:
    """A text about a source, such as why it failed, without the secrets of the source's URL."""
    text = text.replace(url, shown(url))
    for secret in sorted(_secrets(urlsplit(url)), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _netloc(host: str, port: int | None) -> str:
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"


def _shown_pair(pair: str) -> str:
    if _is_plain_pair(pair):
        return pair
    name, equals, _ = pair.partition("=")
    return f"{name}={HIDDEN}" if equals and not _TOKEN.fullmatch(name) else HIDDEN


def _is_plain_pair(pair: str) -> bool:
    name, _, value = pair.partition("=")
    plain = _PLAIN_VALUE.fullmatch(unquote_plus(value)) and not _TOKEN.fullmatch(value)
    return name.lower() in _PLAIN_NAMES and bool(plain)


def _shown_path(path: str) -> str:
    if found := _ACCOUNT_PATH.fullmatch(path):
        path = path.replace(f"/{found[1]}/{found[2]}/", f"/{HIDDEN}/{HIDDEN}/", 1)
    return "/".join(HIDDEN if _TOKEN.fullmatch(part) else part for part in path.split("/"))


def _secrets(parts: SplitResult) -> set[str]:
    """What `shown` leaves out, as it stands in the URL and as it reads."""
    found = [parts.username or "", parts.password or "", parts.fragment]
    for pair in parts.query.split("&"):
        if not _is_plain_pair(pair):
            name, equals, value = pair.partition("=")
            found.append(value if equals else name)
            found.append(name if _TOKEN.fullmatch(name) else "")
    if not is_known_site((parts.hostname or "").lower()):
        found += [part for part in parts.path.split("/") if _TOKEN.fullmatch(part)]
        if account := _ACCOUNT_PATH.fullmatch(parts.path):
            found += account.groups()
    read = {*found, *(unquote(one) for one in found), *(unquote_plus(one) for one in found)}
    return {one for one in read if len(one) >= _SHORTEST_SECRET}
