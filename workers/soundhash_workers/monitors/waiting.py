"""When a source that failed is tried again."""

from __future__ import annotations

from soundhash_server.fetching.failures import REASONS
from soundhash_server.model import Failure
from soundhash_workers.retry import retry_delay_s

PASSING_S = 60.0
"""Longest wait after what fails in passing: a station that comes back is to be heard soon."""
OFFLINE_S = 120.0
"""Longest wait for a source that is not on the air now: it may take days, and asking costs."""


def next_attempt_s(
    failure: Failure, attempt: int, *, base_s: float, cap_s: float, retry_after_s: float | None
) -> float:
    """Seconds to wait after attempt number ``attempt`` (from 1) has failed.

    Exponential with full jitter up to ``cap_s``, or less for what passes; and what the source
    asked for, whatever that is. There is no last attempt: what seems to be for good (an address
    that leads nowhere, a private page) may have been corrected by then.
    """
    known = REASONS.get(failure.reason)
    if failure.reason == "SOURCE_OFFLINE":
        cap_s = min(cap_s, OFFLINE_S)
    elif failure.transient and not (known is not None and known.refusal):
        cap_s = min(cap_s, PASSING_S)
    return retry_delay_s(attempt, base_s, cap_s, retry_after_s=retry_after_s)
