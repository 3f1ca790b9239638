"""How late the event loop's timers are: the first thing to look at when a node feels slow."""

from collections import deque
from collections.abc import Callable

import trio

from p2pnode.quantiles import quantile

PERIOD = 1.0
"""Seconds between samples. Each wakes a process that may have nothing else to do, which costs
about 0.5 ms of CPU: four a second were 0.2 % of a core."""

WINDOW = 60.0
"""Seconds that the figures cover."""


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
        return quantile(self._late, 0.50) * 1e3, quantile(self._late, 0.99) * 1e3
