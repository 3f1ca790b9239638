"""One thread that computes, beside the loop that listens.

Arithmetic never runs on the loop. It gets one thread of its own and not one of trio's pool: the
weights stay in one core's cache, jobs keep their order, and nothing else queues before them.

Measured on a 2-core machine, round trip of an empty job: 68 us with a socket pair, 78 us with
``token.run_sync_soon``, 86 us to a process over a socket pair; while a decode keeps the thread
busy, the loop's timers are late by 4 ms at p99 with a thread and with a process alike. So it is a
thread and a socket pair.
"""

import logging
import select
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


@dataclass(frozen=True, slots=True)
class Watch:
    """A socket that the thread watches instead of the loop while it has nothing to compute.

    What arrives there is as a rule the next thing to compute, and two handovers, to the loop and
    from it to the thread, cost 0.3 ms of a hop (measured).

    Attributes:
        fileno: The socket.
        serve: Called in the thread when the socket is readable: takes what is there, and returns
            a job that came of it, if any, and whether the loop must be told of something.
        done: Called on the loop with the outcome of such a job.
        moved: Called on the loop: True when the thread watches from now on, False when the loop
            must.
    """

    fileno: int
    serve: Callable[[], tuple[Callable[[], None] | None, bool]]
    done: Callable[[Finished[None] | Failed], None]
    moved: Callable[[bool], None]


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
        self._watch: Watch | None = None
        self._watching = False
        self._ours: socket.socket | None = None

    def watch(self, watch: Watch) -> None:
        """Let the thread watch a socket, after its next job and whenever it is idle."""
        self._watch = watch

    @property
    def backlog(self) -> int:
        """Jobs submitted whose result has not been handed back."""
        return self._backlog

    def submit(self, job: Callable[[], T], done: Callable[[Finished[T] | Failed], None]) -> None:
        """Queue ``job``; ``done`` is called with its outcome on the trio loop.

        A job still queued when the worker stops is dropped: nobody is left to be told.
        """

        def finish(outcome: Finished[T] | Failed) -> None:
            self._backlog -= 1
            done(outcome)

        self._backlog += 1
        self._jobs.put(_entry(job, finish))
        self._poke()
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
        self._ours = ours
        with ours, _switch_interval(SWITCH_INTERVAL):
            thread.start()
            try:
                task_status.started()
                while await _woken(ours):
                    self._hand_back()
            finally:
                self._stopping = True
                self._jobs.put(None)
                self._poke()
                await self._ended(ours)

    def _hand_back(self) -> None:
        results = self._results
        while results:
            results.popleft()()
        if self._watch is not None:
            self._watch.moved(self._watching)

    def _poke(self) -> None:
        """Wake the thread where it waits for the watched socket and not for the queue."""
        if self._watching and self._ours is not None:
            with suppress(BrokenPipeError):  # it has just hung up
                _wake(self._ours)

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

    # The thread

    def _work(self, theirs: socket.socket) -> None:
        """Compute, append, and wake the loop with one byte."""
        with theirs, suppress(BrokenPipeError):  # broken: left behind, the loop is gone
            while (entry := self._next(theirs)) is not None and not self._stopping:
                self._results.append(entry())
                if not self._leisure:
                    _wake(theirs)

    def _next(self, theirs: socket.socket) -> _Entry | None:
        """Wait for a job; None is the last."""
        if self._leisure:
            self._leisure = False
            with suppress(Empty):
                entry = self._jobs.get(timeout=LINGER)
                _wake(theirs)
                return entry
            _wake(theirs)
        watch = self._watch
        return self._jobs.get() if watch is None else self._next_watching(watch, theirs)

    def _next_watching(self, watch: Watch, theirs: socket.socket) -> _Entry | None:
        poll = select.poll()
        for descriptor in (theirs.fileno(), watch.fileno):
            poll.register(descriptor, select.POLLIN)
        self._watching = True
        _wake(theirs)
        try:
            while True:
                with suppress(Empty):  # asked after saying that we watch, so nothing is missed
                    return self._jobs.get_nowait()
                ready = {descriptor for descriptor, _ in poll.poll()}
                if theirs.fileno() in ready and not theirs.recv(4096):
                    return None
                if watch.fileno in ready and (entry := self._serve(watch, theirs)) is not None:
                    return entry
        finally:
            self._watching = False
            _wake(theirs)

    def _serve(self, watch: Watch, theirs: socket.socket) -> _Entry | None:
        try:
            job, is_loop_wanted = watch.serve()
        except BaseException as error:
            failed = Failed(error)
            self._watch = None  # the loop will raise this; let it watch until it ends
            return lambda: lambda: watch.done(failed)
        if job is not None:
            return _entry(job, watch.done)
        if is_loop_wanted:
            _wake(theirs)
        return None


def _entry(job: Callable[[], T], done: Callable[[Finished[T] | Failed], None]) -> _Entry:
    def run() -> Callable[[], None]:
        outcome = _outcome(job)
        return lambda: done(outcome)

    return run


def _wake(other: socket.socket) -> None:
    with suppress(BlockingIOError):  # full of bytes: it is awake already
        other.send(b"\0")


async def _woken(ours: socket.socket) -> bool:
    """Wait for bytes and swallow them; False once the thread has hung up."""
    while True:
        await trio.lowlevel.wait_readable(ours)
        with suppress(BlockingIOError):
            try:
                return bool(ours.recv(4096))
            except ConnectionResetError:
                return False  # it hung up without reading our last byte


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
