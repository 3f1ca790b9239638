"""One thread that computes, beside the loop that listens.

Arithmetic never runs on the loop. It gets one thread of its own and not one of trio's pool: the
weights stay in one core's cache, jobs keep their order, and nothing else queues before them.

Measured on a 2-core machine, round trip of an empty job: 68 us with a socket pair, 78 us with
``token.run_sync_soon``, 86 us to a process over a socket pair; while a decode keeps the thread
busy, the loop's timers are late by 4 ms at p99 with a thread and with a process alike. So it is a
thread and a socket pair.
"""

import logging
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeAlias, TypeVar

import trio

SWITCH_INTERVAL = 0.0005
"""Seconds a thread may keep the interpreter when another asks for it.

Small numpy calls hold it. With Python's 5 ms a timer beside a thread of pure Python is 6.9 ms late
at the median, with 0.5 ms 1.1 ms, at the same throughput (measured); less brings nothing more.
"""

LINGER = 0.001
"""Seconds that an unhurried result waits before the loop is woken for it."""

STOP_GRACE = 2.0
"""Seconds that a stop waits for the job under way; after that the thread is left behind, which
cannot keep the process alive."""

T = TypeVar("T")
_Entry: TypeAlias = Callable[[], Callable[[], None]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """The job returned ``value``."""

    value: T


@dataclass(frozen=True, slots=True)
class Failed:
    """The job raised ``error``."""

    error: BaseException


class ComputeWorker:
    """Runs jobs one after the other; submit to it from the trio thread alone."""

    def __init__(self, *, name: str = "compute", stop_grace: float = STOP_GRACE) -> None:
        self._name = name
        self._stop_grace = stop_grace
        self._jobs: SimpleQueue[_Entry | None] = SimpleQueue()
        self._results: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._leisure = False
        self._backlog = 0

    @property
    def backlog(self) -> int:
        """Jobs submitted whose result has not been handed back."""
        return self._backlog

    def submit(self, job: Callable[[], T], done: Callable[[Finished[T] | Failed], None]) -> None:
        """Queue ``job``; ``done`` is called with its outcome on the trio loop.

        A job still queued when the worker stops is dropped: nobody is left to be told.
        """

        def entry() -> Callable[[], None]:
            outcome = _outcome(job)
            return lambda: done(outcome)

        self._backlog += 1
        self._jobs.put(entry)
        # The worker wakes and wants the interpreter; without this it waits until the loop sleeps.
        # Measured from here to the job's first line: 235 us, and 140 with it.
        time.sleep(0)

    async def compute(self, job: Callable[[], T]) -> T:
        """Run ``job`` and wait for it; cancelling forgets the result and not the job.

        Raises:
            BaseException: Whatever the job raised.
        """
        finished = trio.Event()
        outcomes: list[Finished[T] | Failed] = []

        def done(outcome: Finished[T] | Failed) -> None:
            outcomes.append(outcome)
            finished.set()

        self.submit(job, done)
        await finished.wait()
        match outcomes[0]:
            case Failed(error):
                raise error
            case Finished(value):
                return value

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Compute until cancelled, then wait a little for the job under way."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        # A daemon, so that a job that never ends cannot keep a process from ending.
        thread = threading.Thread(target=self._work, args=(theirs,), name=self._name, daemon=True)
        with ours, _switch_interval(SWITCH_INTERVAL):
            thread.start()
            try:
                task_status.started()
                while await _woken(ours):
                    self._hand_back()
            finally:
                self._stopping = True
                self._jobs.put(None)
                await self._ended(ours)

    def _hand_back(self) -> None:
        results = self._results
        while results:
            self._backlog -= 1
            results.popleft()()

    async def _ended(self, ours: socket.socket) -> None:
        """Wait for the thread to hang up, which is the last thing it does."""
        with trio.move_on_after(self._stop_grace, shield=True):
            while await _woken(ours):
                pass
            return
        logger.warning("the %s thread is still busy; leaving it behind", self._name)

    def unhurried(self) -> None:
        """Say, inside a job, that nobody on the loop waits for its result.

        The loop then hears of it a moment later. A stage that has just sent its result has woken
        the next one; where both share a machine, waking our own loop as well would make that one
        wait for a core (measured on two cores: 850 us instead of 250 until it had the datagram).
        """
        self._leisure = True

    def _work(self, theirs: socket.socket) -> None:
        """The thread: compute, append, and wake the loop with one byte."""
        with theirs:
            entry = self._jobs.get()
            while entry is not None and not self._stopping:
                self._results.append(entry())
                following = self._linger()
                with suppress(BlockingIOError):  # full of bytes: the loop is awake already
                    try:
                        theirs.send(b"\0")
                    except BrokenPipeError:
                        return  # left behind: the loop is gone
                entry = self._jobs.get() if following is _nothing else following

    def _linger(self) -> _Entry | None:
        """Wait a moment if the loop is not to be woken yet; return what was queued meanwhile."""
        if not self._leisure:
            return _nothing
        self._leisure = False
        try:
            return self._jobs.get(timeout=LINGER)
        except Empty:
            return _nothing


def _nothing() -> Callable[[], None]:
    raise AssertionError("this is no job")


async def _woken(ours: socket.socket) -> bool:
    """Wait for bytes and swallow them; False once the thread has hung up."""
    while True:
        await trio.lowlevel.wait_readable(ours)
        with suppress(BlockingIOError):
            return bool(ours.recv(4096))


def _outcome(job: Callable[[], T]) -> Finished[T] | Failed:
    try:
        return Finished(job())
    except BaseException as error:
        return Failed(error)


@contextmanager
def _switch_interval(seconds: float) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
