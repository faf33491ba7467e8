"""When a call may be tried again, and after how long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from soundhash._errors import Aborted, ResourceExhausted, SoundHashError, Unavailable

_FIRST_S = 0.1
_FACTOR = 2.0
_LONGEST_S = 5.0

_PATIENCE = 3
"""Times as many tries to come back to something that went well: a server that is restarted
takes seconds, and its job goes on meanwhile."""


_MISMATCHES = 3
"""So often an upload is told that it goes on at the wrong place before it gives up."""


def may_pass(error: SoundHashError) -> bool:
    """Whether the same call can succeed later: the server is away, or asks to come back."""
    if isinstance(error, Unavailable):
        return True
    return isinstance(error, (ResourceExhausted, Aborted)) and error.retry_after_s is not None


class Attempts:
    """The tries of one call: exponential back-off with jitter, all within one deadline.

    max_retries: tries after the first. timeout_s: for all tries together; None: no limit.
    """

    def __init__(
        self,
        max_retries: int,
        timeout_s: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._max_retries = self._first_retries = max_retries
        self._clock = clock
        self._uniform = uniform
        self._deadline_s = None if timeout_s is None else clock() + timeout_s
        self._failures = 0

    @property
    def remaining_s(self) -> float | None:
        """Time left for the try that begins now; None: no limit."""
        if self._deadline_s is None:
            return None
        return max(0.0, self._deadline_s - self._clock())

    def delay_s(self, error: SoundHashError) -> float | None:
        """How long to wait before the next try, or None to give up with this error.

        Waits at least as long as the server asks for, and never past the deadline.
        """
        if self._failures >= self._max_retries or not may_pass(error):
            return None
        longest_s = min(_LONGEST_S, _FIRST_S * _FACTOR**self._failures)
        self._failures += 1
        # The jitter spreads clients that were all refused at once.
        delay_s = (error.retry_after_s or 0.0) + self._uniform(longest_s / 2, longest_s)
        remaining_s = self.remaining_s
        if remaining_s is not None and delay_s >= remaining_s:
            return None
        return delay_s

    def next_delay_s(self, error: Exception) -> float:
        """As delay_s, but raises the error when there is no next try."""
        delay_s = self.delay_s(error) if isinstance(error, SoundHashError) else None
        if delay_s is None:
            raise error from None
        return delay_s

    def works(self) -> None:
        """The call works (streams): what fails after this counts from the beginning."""
        self._failures = 0
        self._max_retries = self._first_retries * _PATIENCE


class Position:
    """Where an upload goes on. offset: in bytes from the start of the media."""

    def __init__(self) -> None:
        self.offset = 0
        self._furthest = 0
        self._mismatches = 0

    def found(self, offset: int, attempts: Attempts) -> None:
        """So much has arrived; getting further counts as working."""
        self.offset = offset
        if offset > self._furthest > 0:
            attempts.works()
        self._furthest = max(self._furthest, offset)

    def next_delay_s(self, error: Exception, attempts: Attempts) -> float:
        """As `Attempts.next_delay_s`; the wrong place is asked for again at once."""
        if (
            isinstance(error, SoundHashError)
            and error.reason == "UPLOAD_OFFSET_MISMATCH"
            and self._mismatches < _MISMATCHES
        ):
            self._mismatches += 1
            return 0.0
        return attempts.next_delay_s(error)
