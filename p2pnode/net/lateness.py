"""How late the event loop's timers are: the first thing to look at when a node feels slow."""

import math
from collections import deque
from collections.abc import Callable

import trio

PERIOD = 1.0
"""Seconds between samples. Each wakes a process that may have nothing else to do, which costs
about 0.5 ms of CPU: four a second were 0.2 % of a core."""

WINDOW = 60.0
"""Seconds that the figures speak for."""


class Lateness:
    """Asks to be woken every second, and notes how late that was."""

    def __init__(self) -> None:
        self._late: deque[float] = deque(maxlen=int(WINDOW / PERIOD))

    async def run(self, awake: Callable[[], None]) -> None:
        """Measure until cancelled; ``awake`` is called each time, since the loop is awake then."""
        while True:
            due = trio.current_time() + PERIOD
            await trio.sleep_until(due)
            self._late.append(trio.current_time() - due)
            awake()

    def late_ms(self) -> tuple[float, float]:
        """Return the p50 and p99 of the last minute, in milliseconds; zeros before a sample."""
        ordered = sorted(self._late)
        return _quantile(ordered, 0.50) * 1e3, _quantile(ordered, 0.99) * 1e3


def _quantile(ordered: list[float], share: float) -> float:
    """Return the smallest sample that at least ``share`` of them do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
