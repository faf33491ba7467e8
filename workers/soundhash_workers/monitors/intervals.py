"""How much time a set of overlapping intervals covers, in bounded memory."""

from __future__ import annotations

_MOST = 32


class Covered:
    """The union of intervals, in seconds on any axis.

    Intervals come about in order; of more than 32 separate ones the earliest are only summed up,
    and what comes for them later is counted again.
    """

    def __init__(self, settled_s: float = 0.0) -> None:
        self._settled_s = settled_s
        self._open: list[tuple[float, float]] = []

    @property
    def total_s(self) -> float:
        """Seconds covered."""
        return self._settled_s + sum(end - start for start, end in self._open)

    def add(self, start_s: float, end_s: float) -> None:
        """Covers ``start_s`` to ``end_s``; nothing when that is empty."""
        if end_s <= start_s:
            return
        merged: list[tuple[float, float]] = []
        for one in sorted((*self._open, (start_s, end_s))):
            if merged and one[0] <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], one[1]))
            else:
                merged.append(one)
        for start, end in merged[:-_MOST]:
            self._settled_s += end - start
        self._open = merged[-_MOST:]
