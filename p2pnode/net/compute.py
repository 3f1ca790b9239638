"""One thread that computes, beside the loop that listens.

Arithmetic never runs on the loop. It gets one thread of its own and not one of trio's pool: the
weights stay in one core's cache, jobs keep their order, and nothing else queues before them.

Measured on a 2-core machine, round trip of an empty job: 68 us with a socket pair, 78 us with
``token.run_sync_soon``, 86 us to a process over a socket pair; while a decode keeps the thread
busy, the loop's timers are late by 4 ms at p99 with a thread and with a process alike. So it is a
thread; what wakes it, and why, is in :mod:`p2pnode.net.wakeup`.
"""

import logging
import math
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeAlias, TypeVar

import trio

from p2pnode.net.wakeup import Wakeup
from p2pnode.values import value

SWITCH_INTERVAL = 0.0005
"""Seconds a thread may keep the interpreter when another asks for it.

Small numpy calls hold it. With Python's 5 ms a timer beside a thread of pure Python is 6.9 ms late
at the median, with 0.5 ms 1.1 ms, at the same throughput (measured); less brings nothing more.
"""

POLL_SECONDS = 0.0002
"""Seconds for which a watched socket is asked again and again before the thread goes to sleep, and
the longest sleep after which that is worth while.

Going to sleep and waking cost two peers that answer each other 35 us each (measured: a 4 KiB echo
of blocking sockets takes 69 us). So where the last datagram came within this time, the next may
too. Stages of a chain, which wait for each other's engines, never poll.
"""

BRIEF_SECONDS = 0.02
"""What a job may take, judged by the last one, for the thread to begin it without a word to the
loop. Nobody watches the socket then for so long. Waking the loop to take over costs the job more
than that is worth: the two fight for the interpreter, and a stage of 12 ms took 0.4 ms longer
(measured). A long job hardly feels it, and its peers should not wait for an acknowledgement."""

LINGER = 0.001
"""Seconds that an unhurried result waits before the loop is woken for it."""

STOP_GRACE = 2.0
"""Seconds that a stop waits for the job under way; after that the thread is left behind, which
cannot keep the process alive."""

T = TypeVar("T")
_Entry: TypeAlias = Callable[[], Callable[[], None] | None]

logger = logging.getLogger(__name__)


@value
class Finished(Generic[T]):
    """The job returned ``value``."""

    value: T


@value
class Failed:
    """The job raised ``error``."""

    error: BaseException


@value
class Served:
    """What came of a datagram.

    Attributes:
        job: What the thread is to compute now, if anything.
        is_loop_wanted: Whether the loop must be told of something.
        is_answered: Whether something was sent because of it. Only then may the next be worth
            polling for: garbage is not to make a thread spin.
    """

    job: Callable[[], None] | None
    is_loop_wanted: bool
    is_answered: bool = False


@value
class Rest:
    """What there is to wait for.

    Attributes:
        seconds: Until the next timer; None where there is none.
        is_loop_wanted: Whether the loop must be told of something.
    """

    seconds: float | None
    is_loop_wanted: bool


@value
class Watch:
    """A socket that the thread watches instead of the loop while it has nothing to compute.

    What arrives there is as a rule the next thing to compute, and two handovers, to the loop and
    from it to the thread, cost 0.3 ms of a hop (measured). It keeps the timers too: a loop that
    wakes now and then takes the core of an engine on the same machine (3 % of a token, measured).

    Attributes:
        fileno: The socket.
        serve: Called in the thread when the socket may be readable: takes one datagram and says
            what came of it, or None where nothing was there.
        rest: Called in the thread before it sleeps: fires the timers that are due.
        done: Called on the loop with the outcome of such a job, unless that was unhurried.
        moved: Called on the loop: True when the thread watches from now on, False when the loop
            must; not for a job expected to be brief.
    """

    fileno: int
    serve: Callable[[], Served | None]
    rest: Callable[[], Rest]
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
        self._is_on_watch = False
        self._is_brief = False
        self._ended = False
        self._to_loop = Wakeup()
        self._to_thread = Wakeup()

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
        if self._watching:
            self._to_thread.wake()
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
        # A daemon, so that a job that never ends cannot keep a process from ending.
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        with _switch_interval(SWITCH_INTERVAL):
            thread.start()
            try:
                task_status.started()
                while True:
                    await self._woken()
                    self._hand_back()
            finally:
                self._stopping = True
                self._jobs.put(None)
                self._to_thread.wake()
                await self._end(thread)

    def _hand_back(self) -> None:
        results = self._results
        while results:
            results.popleft()()
        if self._watch is not None:
            self._watch.moved(self._is_on_watch)

    async def _woken(self) -> None:
        await trio.lowlevel.wait_readable(self._to_loop.fileno)
        self._to_loop.clear()

    async def _end(self, thread: threading.Thread) -> None:
        """Wait for the thread to say that it ends."""
        with trio.move_on_after(self._stop_grace, shield=True):
            while not self._ended:
                await self._woken()
            thread.join()  # it has only to return
            self._to_loop.close()
            self._to_thread.close()
            return
        logger.warning("the %s thread is still busy; leaving it behind", self._name)

    def unhurried(self) -> None:
        """Say, inside a job, that nobody on the loop waits for its result.

        The loop then hears of it a moment later, or, where the job came from the watched socket,
        never. A stage that has just sent its result has woken the next one; where both share a
        machine, waking our own loop as well would make that one wait for a core (measured on two
        cores: 850 us instead of 250 until it had the datagram).
        """
        self._leisure = True

    def wake_loop(self) -> None:
        """Have the loop call :attr:`Watch.moved`; for jobs that leave something to it."""
        self._to_loop.wake()

    # The thread

    def _work(self) -> None:
        while (entry := self._next()) is not None and not self._stopping:
            began = time.perf_counter()
            result = entry()
            self._is_brief = time.perf_counter() - began < BRIEF_SECONDS
            if result is None:
                continue
            self._results.append(result)
            if not self._leisure:
                self._to_loop.wake()
        self._ended = True
        self._to_loop.wake()

    def _next(self) -> _Entry | None:
        """Wait for a job; None is the last."""
        if self._leisure:
            self._leisure = False
            with suppress(Empty):
                entry = self._jobs.get(timeout=LINGER)
                self._to_loop.wake()
                return entry
            self._to_loop.wake()
        watch = self._watch
        return self._jobs.get() if watch is None else self._next_watching(watch)

    def _next_watching(self, watch: Watch) -> _Entry | None:
        poll = select.poll()
        for descriptor in (self._to_thread.fileno, watch.fileno):
            poll.register(descriptor, select.POLLIN)
        is_hot = is_quiet = False
        self._watching = True
        if not self._is_on_watch:
            self._is_on_watch = True
            self._to_loop.wake()
        try:
            while self._jobs.empty():  # asked after saying that we watch, so nothing is missed
                served = self._served_soon(watch) if is_hot else None
                if served is None:
                    rest = watch.rest()
                    if rest.is_loop_wanted:
                        self._to_loop.wake()
                    asleep_at = time.perf_counter()
                    ready = {descriptor for descriptor, _ in poll.poll(_milliseconds(rest))}
                    is_hot = time.perf_counter() - asleep_at < POLL_SECONDS
                    if self._to_thread.fileno in ready:
                        self._to_thread.clear()
                    served = watch.serve() if watch.fileno in ready else None
                if served is None:
                    continue
                if served.job is not None:
                    is_quiet = self._is_brief and not served.is_loop_wanted
                    return self._entry_of(served.job, watch)
                if served.is_loop_wanted:
                    self._to_loop.wake()
                is_hot = is_hot and served.is_answered
            return self._jobs.get()
        except BaseException as error:
            self._watch = None  # the loop will raise this; let it watch until it ends
            failed = Failed(error)
            return lambda: lambda: watch.done(failed)
        finally:
            self._watching = False
            if not is_quiet:
                self._is_on_watch = False
                self._to_loop.wake()

    def _entry_of(self, job: Callable[[], None], watch: Watch) -> _Entry:
        """Return what runs a job that came of a datagram; nobody waits for one unhurried."""

        def run() -> Callable[[], None] | None:
            outcome = _outcome(job)
            if self._leisure and isinstance(outcome, Finished):
                self._leisure = False
                return None
            return lambda: watch.done(outcome)

        return run

    def _served_soon(self, watch: Watch) -> Served | None:
        """Ask a quiet socket again and again for a moment, instead of going to sleep."""
        until = time.perf_counter() + POLL_SECONDS
        while time.perf_counter() < until and self._jobs.empty():
            served = watch.serve()
            if served is not None:
                return served
            _yield_core()  # to the peer we wait for, should it share ours
        return None


def _entry(job: Callable[[], T], done: Callable[[Finished[T] | Failed], None]) -> _Entry:
    def run() -> Callable[[], None]:
        outcome = _outcome(job)
        return lambda: done(outcome)

    return run


def _yield_core() -> None:
    if hasattr(os, "sched_yield"):
        os.sched_yield()


def _milliseconds(rest: Rest) -> int | None:
    return None if rest.seconds is None else math.ceil(1e3 * rest.seconds)


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
