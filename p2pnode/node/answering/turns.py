"""Who is answered now, and who waits: first come, first served, and not too many of either."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from p2pnode.errors import BusyError

AT_ONCE: Final = 16
"""Answers under way at once: each holds memory in every stage, and shares the engines with the
others. As many prompts as the text process lets wait. A guess."""

MOST_WAITING: Final = 256
"""Questions that wait at the most; what a question takes is bounded by the control socket."""


class Turns:
    """Lets so many answers run at once, and so many more wait, in the order they came."""

    def __init__(self, at_once: int = AT_ONCE, most_waiting: int = MOST_WAITING) -> None:
        self._free = trio.Semaphore(at_once)
        self._most_waiting = most_waiting
        self.counters: Counter[str] = Counter()

    @property
    def ahead(self) -> int | None:
        """How many wait before whoever comes now; None where it would have its turn at once."""
        return None if self._free.value else self._free.statistics().tasks_waiting

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and hold it.

        Raises:
            BusyError: Too many wait already.
        """
        if (self.ahead or 0) >= self._most_waiting:
            self.counters["questions refused: too many wait"] += 1
            raise BusyError(
                f"{self._most_waiting} questions wait for an answer here already",
                hint="try again in a moment",
            )
        self.counters["questions that waited for their turn"] += not self._free.value
        async with self._free:
            yield
