"""How late the event loop's timers are: the first thing to look at when a node feels slow."""

import time
from collections import deque
from collections.abc import Callable

import trio

from p2pnode.quantiles import quantile

PERIOD = 1.0
"""Seconds between samples of an idle process. Each wakes a process that may have nothing else to
do, which costs about 0.5 ms of CPU: four a second were 0.2 % of a core."""

BUSY_PERIOD = 0.05
"""Seconds between samples of a busy process, which is awake anyway. One a second would make the
p99 of a minute its worst sample."""

BUSY_SHARE = 0.1
"""Of a core that a process uses to count as busy."""

WINDOW = 60.0
"""Seconds that the figures cover."""


class Lateness:
    """Asks to be woken in a while, and notes how late that was.

    ``cpu`` tells the seconds of CPU that the process has used.
    """

    def __init__(self, cpu: Callable[[], float] = time.process_time) -> None:
        self._cpu = cpu
        self._samples: deque[tuple[float, float]] = deque()  # (due, late), the oldest first

    async def run(self, awake: Callable[[], None]) -> None:
        """Measure until cancelled; ``awake`` is called each time, since the loop is awake then."""
        period, used = PERIOD, self._cpu()
        while True:
            due = trio.current_time() + period
            await trio.sleep_until(due)
            self._note(due, trio.current_time() - due)
            before, used = used, self._cpu()
            period = BUSY_PERIOD if used - before > BUSY_SHARE * period else PERIOD
            awake()

    def _note(self, due: float, late: float) -> None:
        self._samples.append((due, late))
        while self._samples[0][0] < due - WINDOW:
            self._samples.popleft()

    def late_ms(self) -> tuple[float, float]:
        """Return the p50 and p99 of the last minute, in milliseconds; zeros before a sample."""
        late = [late for _, late in self._samples]
        return quantile(late, 0.50) * 1e3, quantile(late, 0.99) * 1e3
