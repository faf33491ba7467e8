"""How busy the streams keep this process, measured; and whether there is room for one more."""

from __future__ import annotations

import time
from collections import deque

from soundhash_server.errors import ErrorKind, PlatformError

RECENT_S = 10.0
"""What is measured is of the last so many seconds."""
LATE_S = 0.25
"""Events that come this long after their audio are late: a stream more would make it worse."""
LATE_SHARE = 0.05
"""So many of them are too many."""
MOST_BUSY = 0.85
"""Part of the threads' time that streams may fill: beyond it a queue grows without end."""
LEAST_STEPS = 20
"""Less says nothing."""
_MOST_KEPT = 4096
_AUDIO_S = 0.5
_RETRY_S = 5.0


class Load:
    """Remembers what steps cost and how late they were."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        # Time, seconds spent, seconds late, half seconds of audio.
        self._steps: deque[tuple[float, float, float, float]] = deque(maxlen=_MOST_KEPT)

    def ran(self, spent_s: float, late_s: float, steps: float) -> None:
        """A step is done; late_s: since its audio was complete."""
        self._steps.append((time.monotonic(), spent_s, late_s, steps))

    @property
    def late_share(self) -> float:
        """Part of the latest steps that were late, 0 to 1."""
        steps = self._recent()
        return sum(late > LATE_S for _, _, late, _ in steps) / max(1, len(steps))

    @property
    def stream_share(self) -> float:
        """Part of all threads' time that one stream in real time takes."""
        steps = self._recent()
        audio_s = _AUDIO_S * sum(count for _, _, _, count in steps)
        return sum(spent for _, spent, _, _ in steps) / max(_AUDIO_S, audio_s) / self._threads

    def admit(self, streams: int) -> None:
        """Raises PlatformError RESOURCE_EXHAUSTED (SERVER_BUSY) when one stream more than
        ``streams`` would make them late."""
        if streams and len(self._recent()) >= LEAST_STEPS:
            full = (streams + 1) * self.stream_share > MOST_BUSY
            if full or self.late_share > LATE_SHARE:
                raise too_many(streams)

    def _recent(self) -> deque[tuple[float, float, float, float]]:
        since = time.monotonic() - RECENT_S
        while self._steps and self._steps[0][0] < since:
            self._steps.popleft()
        return self._steps


def too_many(streams: int) -> PlatformError:
    """There is no room for one more stream."""
    return PlatformError(
        ErrorKind.RESOURCE_EXHAUSTED,
        "SERVER_BUSY",
        f"The server already follows {streams} streams; one more would make them late.",
        "Try again after the given delay, or ask another server.",
        retry_after_s=_RETRY_S,
        metadata={"limit": str(streams)},
    )
