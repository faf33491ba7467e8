"""When a job that failed for a passing reason runs again."""

from __future__ import annotations

import random

RETRY_AFTER_CAP_S = 6 * 3600.0


def retry_delay_s(
    attempt: int, base_s: float, cap_s: float, *, retry_after_s: float | None = None
) -> float:
    """Seconds to wait after attempt number ``attempt`` (from 1) has failed.

    Exponential back-off under ``cap_s`` with full jitter: anywhere between nothing and
    ``base_s * 2 ** (attempt - 1)``, so that jobs which failed together do not come back
    together (Brooker, "Exponential backoff and jitter"). What the source asked for by
    Retry-After is waited for in any case, up to six hours.
    """
    # A float's exponent ends at 1023.
    span_s = min(cap_s, base_s * 2.0 ** min(attempt - 1, 60))
    delay_s = random.uniform(0.0, span_s)  # noqa: S311 - no secret
    return delay_s + min(retry_after_s or 0.0, RETRY_AFTER_CAP_S)
