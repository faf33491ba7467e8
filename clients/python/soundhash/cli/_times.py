"""Spans and moments as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import typer

from soundhash.cli._fetching import parse_length_s

_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", re.IGNORECASE)


def parse_span_s(text: str, option: str) -> float:
    """Seconds of "45s", "10min", "24h", "7d", "1:30", "90" or "0".

    Raises typer.BadParameter.
    """
    found = _SPAN.fullmatch(text.strip())
    if found is not None:
        return float(found[1]) * _UNITS_S[found[2].lower()]
    return 0.0 if text.strip() == "0" else parse_length_s(text, option)


def parse_moment(text: str, option: str) -> datetime:
    """The time of "2026-11-21", "2026-11-21 18:00" or any other of ISO 8601, local where no zone
    is named; "2h" is two hours ago. Raises typer.BadParameter."""
    if _SPAN.fullmatch(text.strip()):
        try:
            return datetime.now(UTC) - timedelta(seconds=parse_span_s(text, option))
        except OverflowError:
            pass
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is not a time such as 2026-11-21T18:00, or 2h for two hours ago",
            param_hint=option,
        ) from None
