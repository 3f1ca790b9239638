"""How the engine thread sleeps: until something arrives, until it is woken, or for a while.

It is a module of its own because it is compiled, which what starts the thread cannot be: what
runs between a sleep and the datagram that ended it is waited for.
"""

import time

from p2pnode.net.polling import READABLE, poller
from p2pnode.net.wakeup import Wakeup

_LONGEST = 2.0**31 - 1
"""Milliseconds that poll() takes at most."""


class Sleeper:
    """Sleeps in one thread; ``alarm`` ends a sleep from any other."""

    def __init__(self, alarm: Wakeup) -> None:
        self._alarm = alarm
        self._poll = poller()
        self._poll.register(alarm.fileno, READABLE)

    def listen(self, fileno: int) -> None:
        """Let what arrives at ``fileno`` end the sleeps too."""
        self._poll.register(fileno, READABLE)

    def has_arrived(self) -> bool:
        """Whether something is there to be taken: cheaper than to ask a socket that has nothing."""
        return any(descriptor != self._alarm.fileno for descriptor, _ in self._poll.poll(0))

    def sleep(self, seconds: float | None) -> tuple[bool, float]:
        """Sleep until woken, until something arrives, or for ``seconds``.

        Returns:
            Whether something arrived, and the seconds it took.
        """
        most = None if seconds is None else min(1e3 * seconds, _LONGEST)  # poll() rounds it up
        asleep_at = time.perf_counter()
        ready = self._poll.poll(most)
        slept = time.perf_counter() - asleep_at
        has_arrived = False
        for descriptor, _ in ready:
            if descriptor == self._alarm.fileno:
                self._alarm.clear()
            else:
                has_arrived = True
        return has_arrived, slept
