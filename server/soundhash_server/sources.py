"""The identity of what is ingested: the same source twice is the same job and the same video."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import quote, unquote, urlunsplit

from soundhash_server.known_sites import Media, Page, is_known_site, recognise, site_of
from soundhash_server.url_guard import split_url

_DEFAULT_PORTS = {"http": 80, "https": 443}
# Say who sent the reader, not what is read.
_TRACKING = re.compile(r"(utm_\w+|fbclid|gclid|dclid|msclkid|igshid|mc_cid|mc_eid)", re.IGNORECASE)
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"
_MAX_NAME_CHARS = 500
_MAX_TEXT_CHARS = 20_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


def sha256_key(content_sha256: str) -> str:
    """Identity of uploaded bytes, by their SHA-256 in lower-case hexadecimal."""
    return f"sha256:{content_sha256}"


def media_key(service: str, media_id: str) -> str:
    """Identity of a recording at a service, by yt-dlp's names: ``media:youtube:ID``.

    service: the extractor's key, in any case. Raises ValueError when one of them is empty.
    """
    if not service or not media_id:
        raise ValueError("a media key needs a service and an id")
    return f"media:{service.lower()}:{media_id}"


def split_media_key(key: str) -> tuple[str, str]:
    """The service and the id of a media key; both empty for any other key."""
    kind, _, rest = key.partition(":")
    service, _, media_id = rest.partition(":")
    return (service, media_id) if kind == "media" and media_id else ("", "")


def search_key(text: str) -> str:
    """Identity of a search: its words, whatever their case and spacing."""
    return f"search:{' '.join(text.casefold().split())}"


def source_host(url: str) -> str:
    """The host that a URL's media comes from: lower case, without www or m, and one name for
    all hosts of a known site (``youtube.com``, ``twitch.tv``, ``x.com``, ...).

    Raises PlatformError as `url_guard.split_url`.
    """
    return site_of(_ascii_host(split_url(url).hostname or ""))


def of_known_site(url: str) -> bool:
    """Whether a URL is of a site whose recordings only yt-dlp gets at."""
    return is_known_site(_ascii_host(split_url(url).hostname or ""))


def url_key(url: str) -> str:
    """Identity of what is behind a URL, told without network.

    Where the site and the form of its URL are known, that of the recording (`media_key`). Else
    the URL in RFC 3986 normal form, without fragment and without the query's marks of who sent
    the reader. Raises PlatformError as `url_guard.split_url`.
    """
    parts = split_url(url)
    match recognise(parts):
        case Media(service=service, media_id=media_id):
            return media_key(service, media_id)
        case Page(url=canonical):
            parts = split_url(canonical)
    scheme = parts.scheme.lower()
    host = _ascii_host(parts.hostname or "")
    port = parts.port
    netloc = host if port in (None, _DEFAULT_PORTS[scheme]) else f"{host}:{port}"
    path = _upper_escapes(_without_dots(quote(parts.path, safe=_PATH_SAFE)))
    query = "&".join(
        pair for pair in parts.query.split("&") if not _TRACKING.fullmatch(pair.partition("=")[0])
    )
    return "url:" + urlunsplit((scheme, netloc, path or "/", _upper_escapes(query), ""))


def title_from_name(name: str) -> str:
    """A title from a file name or a URL's path: its last part without the ending."""
    stem = posixpath.splitext(posixpath.basename(unquote(name).replace("\\", "/").rstrip("/")))[0]
    return clean_text(stem)


def clean_text(text: str) -> str:
    """Text from outside on one line, without control characters, at most 500 characters."""
    return _CONTROL.sub(" ", text).strip()[:_MAX_NAME_CHARS]


def clean_lines(text: str) -> str:
    """Text from outside, its lines kept, without other control characters, at most 20,000
    characters."""
    lines = (_CONTROL.sub(" ", line).rstrip() for line in text.splitlines())
    return "\n".join(lines).strip()[:_MAX_TEXT_CHARS]


def _ascii_host(host: str) -> str:
    host = host.lower().rstrip(".")
    if ":" in host:
        return f"[{host}]"
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def _without_dots(path: str) -> str:
    """RFC 3986, 5.2.4; empty parts stay, since they may name something else."""
    kept: list[str] = []
    parts = path.split("/")[1:]
    for part in parts:
        if part == ".." and kept:
            kept.pop()
        elif part not in (".", ".."):
            kept.append(part)
    if parts and parts[-1] in (".", ".."):
        kept.append("")
    return "".join(f"/{part}" for part in kept)


def _upper_escapes(text: str) -> str:
    return re.sub(r"%[0-9a-fA-F]{2}", lambda found: found.group().upper(), text)
