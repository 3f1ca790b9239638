"""A thread of its own for arithmetic, how it sleeps, and how it is stopped.

Arithmetic never runs on the loop. It gets one thread of its own and not one of trio's pool: the
weights stay in one core's cache, jobs keep their order, and nothing else queues before them. What
it does is :class:`p2pnode.net.reactor.Reactor`'s to say.

Measured on a 2-core machine, round trip of an empty job: 68 us with a socket pair, 78 us with
``token.run_sync_soon``, 86 us to a process over a socket pair; while a decode keeps the thread
busy, the loop's timers are late by 4 ms at p99 with a thread and with a process alike. So it is a
thread; what wakes it, and why, is in :mod:`p2pnode.net.wakeup`.
"""

import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Protocol

import trio

from p2pnode.net.priority import let_others_first, take_short_slices
from p2pnode.net.sleeper import Sleeper
from p2pnode.net.wakeup import Wakeup

SWITCH_INTERVAL = 0.0005
"""Seconds a thread may keep the interpreter when another asks for it.

Small numpy calls hold it. With Python's 5 ms a timer beside a thread of pure Python is 6.9 ms late
at the median, with 0.5 ms 1.1 ms, at the same throughput (measured); less brings nothing more.
"""

STOP_GRACE = 2.0
"""Seconds that a stop waits for the job under way; after that the thread is left behind, which
cannot keep the process alive."""

logger = logging.getLogger(__name__)


class EngineThread:
    """Runs ``body(self)`` while :meth:`running`; loop and thread wake each other through it.

    Attributes:
        is_stopping: Whether the body is to return.
    """

    def __init__(
        self,
        body: Callable[["EngineThread"], None],
        *,
        name: str = "engine",
        stop_grace: float = STOP_GRACE,
    ) -> None:
        self._body = body
        self._name = name
        self._stop_grace = stop_grace
        self._ended = trio.Event()
        self._is_closed = False
        self.is_stopping = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the thread; at the end wait a little for the body to return."""
        self._token = trio.lowlevel.current_trio_token()
        self._to_thread, self._to_loop = Wakeup(), Wakeup()
        self._sleeper = Sleeper(self._to_thread)
        # A daemon, so that a job that never ends cannot keep a process from ending.
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        with _switch_interval(SWITCH_INTERVAL):
            thread.start()
            take_short_slices()  # the loop, and not the thread, which has started
            try:
                yield
            finally:
                await self._stop(thread)

    def wake(self) -> None:
        """End the thread's sleep, or its next one."""
        if not self._is_closed:
            self._to_thread.wake()

    def wake_loop(self) -> None:
        """End a wait for :meth:`loop_woken`, or the next one."""
        if not self._is_closed:
            self._to_loop.wake()

    async def loop_woken(self) -> None:
        """Wait until the thread has something to say."""
        await trio.lowlevel.wait_readable(self._to_loop.fileno)
        self._to_loop.clear()

    # In the thread

    def listen(self, fileno: int) -> None:
        """Let what arrives at ``fileno`` end the sleeps too."""
        self._sleeper.listen(fileno)

    def has_arrived(self) -> bool:
        """See :meth:`p2pnode.net.sleeper.Sleeper.has_arrived`."""
        return self._sleeper.has_arrived()

    def sleep(self, seconds: float | None) -> tuple[bool, float]:
        """See :meth:`p2pnode.net.sleeper.Sleeper.sleep`."""
        return self._sleeper.sleep(seconds)

    def _run(self) -> None:
        let_others_first()
        try:
            self._body(self)
        finally:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._ended.set)

    async def _stop(self, thread: threading.Thread) -> None:
        self.is_stopping = True
        self._to_thread.wake()
        with trio.move_on_after(self._stop_grace, shield=True):
            await self._ended.wait()
            thread.join()  # it has only to return
            self._is_closed = True  # the thread is gone, so nobody is in the middle of a wake
            self._to_thread.close()
            self._to_loop.close()
            return
        logger.warning("the %s thread is still busy; leaving it behind", self._name)


class ThreadMaker(Protocol):
    """Makes the thread of a reactor; :class:`EngineThread` itself does."""

    def __call__(
        self, body: Callable[[EngineThread], None], *, stop_grace: float
    ) -> EngineThread: ...


@contextmanager
def _switch_interval(seconds: float) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
