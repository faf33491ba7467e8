"""How sources are to be fetched: options that several commands share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from soundhash import FetchOptions

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_LENGTH = re.compile(r"(?:(\d+):)?(?:(\d+):)?(\d+(?:\.\d+)?)")

CookiesOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Cookies file of the workers (a name in SOUNDHASH_COOKIES_DIR).",
    ),
]
BrowserOption = Annotated[
    str,
    typer.Option(
        "--cookies-from-browser",
        metavar="NAME[:PROFILE]",
        help="Browser of the workers' machine to take cookies from.",
    ),
]
ProxyOption = Annotated[
    str,
    typer.Option(
        metavar="URL",
        envvar="SOUNDHASH_FETCH_PROXY",
        help="Proxy: http, https or socks5 URL. In the variable nobody else sees its password.",
        show_envvar=True,
    ),
]
PlayerClientOption = Annotated[str, typer.Option(metavar="NAME", help="YouTube player client.")]
UserAgentOption = Annotated[str, typer.Option(metavar="TEXT", help="User agent to send.")]
MaxBytesOption = Annotated[
    str,
    typer.Option(metavar="SIZE", help="Largest media, such as 500M."),
]
MaxDurationOption = Annotated[
    str,
    typer.Option(metavar="LENGTH", help="Longest recording: seconds, or 1:30:00."),
]
LimitRateOption = Annotated[
    str,
    typer.Option(metavar="SIZE", help="Most bytes a second, such as 2M."),
]


def fetch_options(
    cookies: str = "",
    cookies_from_browser: str = "",
    proxy: str = "",
    player_client: str = "",
    user_agent: str = "",
    max_bytes: str = "",
    max_duration: str = "",
    limit_rate: str = "",
) -> FetchOptions | None:
    """What the options come to; None when none is given. Raises typer.BadParameter."""
    given = (
        cookies,
        cookies_from_browser,
        proxy,
        player_client,
        user_agent,
        max_bytes,
        max_duration,
        limit_rate,
    )
    if not any(given):
        return None
    from soundhash import FetchOptions  # noqa: PLC0415 - loads gRPC

    return FetchOptions(
        cookies=cookies,
        cookies_from_browser=cookies_from_browser,
        proxy=proxy,
        player_client=player_client,
        user_agent=user_agent,
        max_bytes=parse_size(max_bytes, "--max-bytes"),
        max_duration_s=parse_length_s(max_duration, "--max-duration") if max_duration else None,
        max_bytes_per_s=parse_size(limit_rate, "--limit-rate"),
    )


def parse_size(text: str, option: str) -> int:
    """Bytes of "500M", "2GiB" or "1048576"; 0 for nothing. Units are powers of 1,024."""
    if not text:
        return 0
    found = _SIZE.fullmatch(text.strip())
    if found is None or not float(found[1]):
        raise typer.BadParameter(f"{text!r} is not a size such as 500M", param_hint=option)
    return max(1, int(float(found[1]) * _UNITS[found[2].lower()]))


def parse_length_s(text: str, option: str) -> float:
    """Seconds of "90", "1:30" or "1:00:00"."""
    found = _LENGTH.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a length such as 1:30", param_hint=option)
    hours, minutes = (found[1], found[2]) if found[2] else ("0", found[1])
    length_s = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(found[3])
    if not length_s:
        raise typer.BadParameter("must not be 0", param_hint=option)
    return length_s
