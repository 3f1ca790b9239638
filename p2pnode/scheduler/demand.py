"""How much a model is asked for: a count that fades, and how the swarm is told of it.

Every request counts one, and half of what was counted is forgotten every ``half_life`` seconds. So
a steady stream of r requests a second comes to r * half_life / ln 2.
"""

import math
from collections.abc import Iterable
from typing import Final

HALF_LIFE: Final = 600.0
"""Seconds. A guess: an evening's use is remembered, a busy minute alone moves nobody."""

MOST_TOLD: Final = 12
"""The most that one node's word counts for, as a level: 4095 requests. Whoever says more is not
believed to that extent, so no member alone makes a model more wanted than all others together."""

_FAINT: Final = 0.05  # below, nothing is said


class Demand:
    """The requests for one model, at one node."""

    def __init__(self, half_life: float = HALF_LIFE) -> None:
        self._half_life = half_life
        self._count = 0.0
        self._at = 0.0

    def asked(self, now: float) -> None:
        """One more request came."""
        self._count = self.count(now) + 1.0
        self._at = now

    def count(self, now: float) -> float:
        """Return what is left of all that came."""
        return self._count * math.exp2(-max(0.0, now - self._at) / self._half_life)

    def level(self, now: float) -> int:
        """Return what the ad says: 0 for nothing, n for about 2^n - 1 requests.

        Coarse, so that requests cost no gossip: a level changes when the count doubles or halves.
        """
        count = self.count(now)
        return 0 if count < _FAINT else min(MOST_TOLD, max(1, round(count + 1).bit_length() - 1))


def requests_of(levels: Iterable[int]) -> float:
    """Return the requests that the levels of several nodes come to, each believed up to a bound."""
    return float(sum((1 << min(MOST_TOLD, level)) - 1 for level in levels))
