"""The Retry-After header of HTTP (RFC 9110, 10.2.3)."""

from __future__ import annotations

import email.utils
from datetime import UTC, datetime


def retry_after_s(text: str) -> float | None:
    """Seconds to wait, from a number of them or a date; None for anything else."""
    text = text.strip()
    if text.isdecimal():
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
