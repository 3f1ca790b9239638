"""A bound on the time of a contestant's own code, which may hang in any way it likes."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN = 1.0
"""Seconds between two interruptions: an event loop or an ``except`` may swallow the first."""

_AT_ONCE = 1e-3
"""Seconds, where somebody else's timer fell due meanwhile: zero would switch it off."""


class OverrunError(Exception):
    """The time was over."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Interrupt the body after ``seconds``, wherever it is.

    Works in the main thread of a POSIX system, by the alarm signal; elsewhere it bounds nothing.

    Raises:
        OverrunError: The time was over.
    """
    if (
        not hasattr(signal, "setitimer")
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise OverrunError(f"it hung: no end after {seconds:g} s")

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, interrupt)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:  # another's timer, such as a test's: it goes on as if we had not been there
            remaining = max(_AT_ONCE, left - (time.monotonic() - began))
            signal.setitimer(signal.ITIMER_REAL, remaining, interval)
