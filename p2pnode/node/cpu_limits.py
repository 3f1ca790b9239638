"""Limits that a process sets itself: CPU time, memory, and no core left behind.

Where the system has interval timers it ends the process itself, whatever runs in it. Elsewhere a
thread does, which has to get its turn: templates are Python and give it one, and so does a
tokenizer that lets other threads run.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

HAS_TIMERS: Final = hasattr(signal, "setitimer")


@dataclass(frozen=True, slots=True)
class CpuLimit:
    """A limit of CPU time.

    Attributes:
        seconds: So much of it.
        timer: The interval timer that counts it, where there are such.
        signal_name: The signal by which that ends the process.
        fallback: The status with which the process ends elsewhere.
    """

    seconds: float
    timer: str
    signal_name: str
    fallback: int

    @property
    def status(self) -> int:
        """What a process that overran ends with, as its parent sees it."""
        return -int(getattr(signal, self.signal_name)) if HAS_TIMERS else self.fallback


@contextmanager
def spending(limit: CpuLimit, left: float) -> Iterator[list[float]]:
    """End this process once it has used ``left`` seconds of CPU time in this block.

    Yields:
        A list that has, after the block, what is left of them.
    """
    rest: list[float] = []
    if HAS_TIMERS:
        timer = getattr(signal, limit.timer)
        signal.setitimer(timer, left)
        try:
            yield rest
        finally:
            rest.append(max(1e-3, signal.setitimer(timer, 0)[0]))
        return
    watch = _Watch(time.process_time() + left, limit.status)
    try:
        yield rest
    finally:
        watch.cancel()
        rest.append(max(1e-3, watch.until - time.process_time()))


def default_signals(limits: tuple[CpuLimit, ...]) -> None:
    """Let the signals of timers end the process."""
    for limit in limits if HAS_TIMERS else ():
        signal.signal(getattr(signal, limit.signal_name), signal.SIG_DFL)


def limit_memory(more: int) -> bool:
    """Leave no core behind, and take ``more`` bytes of memory at the most beyond what is taken now.

    Returns:
        Whether the system keeps that; elsewhere somebody has to look from outside.
    """
    try:
        resource = import_module("resource")
    except ModuleNotFoundError:
        return False
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return False
    most = int(statm.read_text().split()[0]) * resource.getpagesize() + more
    allowed = resource.getrlimit(resource.RLIMIT_AS)[1]
    if allowed != resource.RLIM_INFINITY:
        most = min(most, allowed)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return True


class _Watch:
    """A thread that ends the process once it has used CPU time up to ``until``."""

    def __init__(self, until: float, status: int) -> None:
        self.until = until
        self._status = status
        self._is_over = threading.Event()
        threading.Thread(target=self._run, name="limit", daemon=True).start()

    def cancel(self) -> None:
        self._is_over.set()

    def _run(self) -> None:
        while (left := self.until - time.process_time()) > 0:
            if self._is_over.wait(left):
                return
        if not self._is_over.is_set():
            os._exit(self._status)
