"""How long a job will take, by the jobs before it."""

import math
from collections import deque
from collections.abc import Iterable


class Pace:
    """How long a job takes at most, judged by the jobs before it.

    A job of more rows takes longer than one of fewer, but less a row. So one of ``u`` units that
    took ``s`` seconds bounds every other: one of ``n`` units takes at most ``s * max(1, n / u)``.
    The last jobs seen of each size, by powers of two, are kept: a prefill of 64 rows says little
    about a decode, and the job that happened to come before may have been either. Of those the
    median counts, for a moment in which something else had the core says nothing about the next.
    """

    def __init__(self) -> None:
        self._seen: dict[int, deque[tuple[float, float]]] = {}
        self._latest = (0.0, 0.0)  # units, and the most seconds: the next job is as a rule alike

    def most_seconds(self, units: float) -> float:
        """Return the seconds that a job of ``units`` takes at most; infinity where nobody knows."""
        latest, seconds = self._latest
        if units == latest:
            return seconds
        if units <= 0 or math.isinf(units):
            return max(0.0, units)
        same = self._seen.get(_size(units))
        if same is not None:
            return _bound(same, units)
        return min((_bound(seen, units) for seen in self._seen.values()), default=math.inf)

    def learn(self, units: float, seconds: float) -> None:
        """Take in that a job of ``units`` took ``seconds``."""
        if units <= 0 or math.isinf(units):
            return
        size = _size(units)
        seen = self._seen.get(size)
        if seen is None:
            seen = self._seen[size] = deque(maxlen=_REMEMBERED)
        seen.append((units, seconds))
        self._latest = units, _bound(seen, units)


_REMEMBERED = 3
"""Jobs of a size that are remembered; one slow in three is no rule, two are."""


def _bound(seen: Iterable[tuple[float, float]], units: float) -> float:
    """The median of the bounds, the larger of the middle ones where they are two."""
    bounds = sorted(seconds * max(1.0, units / known) for known, seconds in seen)
    return bounds[len(bounds) // 2]


def _size(units: float) -> int:
    return math.frexp(units)[1]
