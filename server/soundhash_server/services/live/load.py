"""How busy the streams keep this process, measured; and whether there is room for one more."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from soundhash_server.errors import ErrorKind, PlatformError

RECENT_S = 10.0
"""What is measured is of the last so many seconds."""
LATE_S = 0.25
"""Events that come this long after their audio are late: a stream more would make it worse."""
LATE_SHARE = 0.05
"""So many of them are too many."""
MOST_BUSY = 0.65
"""Part of the threads' time that streams may fill: what a server does besides, decoding and talking
to clients, wants the rest, and a step that waits for others is late."""
LEAST_STEPS = 20
"""Less says nothing."""
YOUNG_S = 12.0
"""A stream's first seconds cost less than the later ones: many that begin at once are taken for
what they will cost."""
SUPPOSED_S = 0.03
"""A second of a stream is supposed to cost so much of a thread where nothing is measured yet."""
REMEMBERED_S = 60.0
_MOST_KEPT = 4096
_AUDIO_S = 0.5
_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class _Ran:
    time: float
    spent_s: float
    late_s: float
    young: bool


class Load:
    """Remembers what steps cost and how late they were."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._steps: deque[_Ran] = deque(maxlen=_MOST_KEPT)
        self._known = (-float("inf"), 0.0)

    def ran(self, spent_s: float, late_s: float, *, young: bool = False) -> None:
        """A step is done.

        late_s: since its audio was complete. young: its stream has just begun.
        """
        self._steps.append(_Ran(time.monotonic(), spent_s, late_s, young))

    @property
    def late_share(self) -> float:
        """Part of the latest steps that were late, 0 to 1."""
        steps = self._recent()
        return sum(step.late_s > LATE_S for step in steps) / max(1, len(steps))

    @property
    def stream_share(self) -> float:
        """Part of all threads' time that one stream in real time takes."""
        now = time.monotonic()
        spent_s = [step.spent_s for step in self._recent() if not step.young]
        if len(spent_s) >= LEAST_STEPS:
            self._known = (now, sum(spent_s) / len(spent_s) / _AUDIO_S / self._threads)
        elif now - self._known[0] > REMEMBERED_S:
            return SUPPOSED_S / self._threads
        return self._known[1]

    def admit(self, streams: int) -> None:
        """Raises PlatformError RESOURCE_EXHAUSTED (SERVER_BUSY) when one stream more than
        ``streams`` would make them late."""
        full = (streams + 1) * self.stream_share > MOST_BUSY
        late = len(self._recent()) >= LEAST_STEPS and self.late_share > LATE_SHARE
        if streams and (full or late):
            raise too_many(streams)

    def _recent(self) -> deque[_Ran]:
        since = time.monotonic() - RECENT_S
        while self._steps and self._steps[0].time < since:
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
