"""The parts of a stream that no match covers, told as soon as they are certain."""

from __future__ import annotations

LEAST_S = 1.0
"""A shorter break between two matches is not told: their borders are not that exact."""
PART_S = 30.0
"""A long gap is told in parts of this length."""


class Gaps:
    """Takes what is covered, gives what is not. Holds only what is not settled yet."""

    def __init__(self) -> None:
        self._told_s = 0.0
        self._covered: list[tuple[float, float]] = []

    def cover(self, start_s: float, end_s: float) -> None:
        """A match was told."""
        self._covered.append((start_s, end_s))

    def settle(self, until_s: float, *, end: bool = False) -> list[tuple[float, float]]:
        """Gaps before ``until_s``, before which nothing changes any more, in order.

        One that reaches ``until_s`` may go on, and waits until it is long; ``end``: it does not.
        """
        gaps: list[tuple[float, float]] = []
        at_s = self._told_s
        for start_s, end_s in sorted(self._covered):
            if start_s >= until_s:
                break
            if start_s - at_s >= LEAST_S:
                gaps.append((at_s, start_s))
            at_s = max(at_s, end_s)
        if until_s - at_s >= (LEAST_S if end else PART_S):
            gaps.append((at_s, until_s))
            at_s = until_s
        self._told_s = at_s
        self._covered = [one for one in self._covered if one[1] > at_s]
        return gaps
