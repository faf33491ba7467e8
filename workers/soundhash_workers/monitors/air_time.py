"""When what a source sends was on the air, from when it arrived."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from datetime import datetime, timedelta

_RECENT_S = 30.0
_STEP_S = 0.05
_MOST_KNOTS = 1024


class AirTime:
    """Maps seconds of one connection's audio to air time. Pure: no clock.

    Servers send what they have buffered at once, and segments as a whole: the piece of the last
    30 s that came soonest after it was made says how late the others are. That follows a source
    whose clock drifts, and a pause after which nothing is made up for. Air time never runs
    backwards.

    begun: when the connection was made, by the clock on the wall.
    """

    def __init__(self, begun: datetime) -> None:
        self._begun = begun
        self._arrived_s = 0.0
        # Position behind a piece, and its arrival less that; the least of the window comes first.
        self._leads: deque[tuple[float, float]] = deque()
        # From this position on (until the next), air time runs on from this one.
        self._positions_s: list[float] = []
        self._air_s: list[float] = []
        self._latest_s = float("-inf")

    @property
    def arrived_s(self) -> float:
        """Audio that has arrived, seconds."""
        return self._arrived_s

    def arrived(self, length_s: float, after_s: float) -> None:
        """A piece of audio arrived, ``after_s`` seconds after the connection was made."""
        self._arrived_s += length_s
        lead_s = after_s - self._arrived_s
        while self._leads and self._leads[-1][1] >= lead_s:
            self._leads.pop()
        self._leads.append((self._arrived_s, lead_s))
        while self._leads[0][0] < self._arrived_s - _RECENT_S:
            self._leads.popleft()

    def settle(self, position_s: float) -> datetime:
        """Air time of ``position_s``, by what has arrived so far; it stays what it is.

        Positions grow from call to call and are not beyond what has arrived.
        """
        air_s = max(self._latest_s, position_s + (self._leads[0][1] if self._leads else 0.0))
        if self._positions_s:
            expected_s = self._air_s[-1] + position_s - self._positions_s[-1]
            if abs(air_s - expected_s) < _STEP_S:
                self._latest_s = expected_s
                return self._time(expected_s)
        self._positions_s.append(position_s)
        self._air_s.append(air_s)
        if len(self._positions_s) > _MOST_KNOTS:
            del self._positions_s[0], self._air_s[0]
        self._latest_s = air_s
        return self._time(air_s)

    def at(self, position_s: float) -> datetime:
        """Air time of any position, as it was settled, or as it goes on from there."""
        if not self._positions_s:
            return self._begun
        index = max(0, bisect_right(self._positions_s, position_s) - 1)
        air_s = self._air_s[index] + position_s - self._positions_s[index]
        if index + 1 < len(self._air_s):
            air_s = min(air_s, self._air_s[index + 1])
        return self._time(air_s)

    def _time(self, air_s: float) -> datetime:
        return self._begun + timedelta(seconds=air_s)
