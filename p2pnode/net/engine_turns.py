"""What the engine thread does in turns: it computes, and it waits at the socket."""

import os
import time
from typing import Any, Generic, TypeVar

from p2pnode.net.engine_thread import EngineThread
from p2pnode.net.jobs import Job, outcome_of
from p2pnode.net.monitor import TURNS, Monitor
from p2pnode.sansio import Address, Core

CoreT = TypeVar("CoreT", bound=Core[Address, Any])
EventT = TypeVar("EventT")

POLL_SECONDS = 0.0005
"""Seconds for which the engine thread asks the socket again and again before it goes to sleep, and
the longest sleep after which that is worth while.

Going to sleep and waking cost two peers that answer each other 35 us each (measured: a 4 KiB echo
of blocking sockets takes 69 us). So where the last datagrams came within this time, the next may
too. The peer has to read, answer and send meanwhile, which takes a slow core 0.2 to 0.3 ms: with
0.2 ms here, most asking was in vain. Stages of a chain wait for each other's engines, which takes
longer.
"""

_IN_A_ROW = 2
"""Datagrams that must have come so soon, and been answered, before the next is asked for: of those
that come at random, one in ten follows another within the time at 200 a second."""


class EngineTurns(Generic[CoreT, EventT]):
    """The engine thread's half of :class:`~p2pnode.net.reactor.Reactor`; called in that thread."""

    def __init__(
        self, monitor: Monitor[CoreT, EventT], thread: EngineThread, poll: float = POLL_SECONDS
    ) -> None:
        self._monitor = monitor
        self._engine_thread = thread  # `_thread` would be a word of C, once compiled
        self._poll = poll

    def run(self, fileno: int) -> None:
        """Take turns until the thread is to stop; ``fileno`` is the socket's.

        Whatever is raised fails the monitor, and wakes the loop to see it.
        """
        thread = self._engine_thread
        try:
            thread.listen(fileno)
            job: Job[CoreT, Any] | None = None
            while not thread.is_stopping:
                job = self._wait() if job is None else self._compute(job)
        except BaseException as error:
            self._monitor.fail(error)
            thread.wake_loop()

    def _compute(self, job: Job[CoreT, Any]) -> Job[CoreT, Any] | None:
        """Compute ``job``, hand over what came of it, and return the next one in the queue."""
        began = time.perf_counter()
        outcome = outcome_of(job.run)
        seconds = time.perf_counter() - began
        if self._engine_thread.is_stopping:  # the socket may be closed, and nobody is left to tell
            return None
        return self._monitor.finish(job, outcome, seconds)

    def _wait(self) -> Job[CoreT, Any] | None:
        """Wait at the socket for something to compute; None where the thread is to end.

        What arrives there is as a rule the next thing to compute, and two handovers, to the loop
        and from it to the thread, cost 0.3 ms of a hop (measured).
        """
        monitor, thread = self._monitor, self._engine_thread
        soon = 0  # datagrams in a row
        while not thread.is_stopping:
            if monitor.has_jobs and (job := monitor.begin()) is not None:
                return job
            taken = self._take_soon() if soon >= _IN_A_ROW else None
            if taken is None:
                has_arrived, slept = thread.sleep(monitor.rest())
                soon = soon + 1 if slept < self._poll else 0
                taken = self._take_arrived() if has_arrived else None
            if taken is None:
                continue
            job, is_answered = taken
            if job is not None:
                return job
            if not is_answered:
                soon = 0  # garbage is not to make a thread spin
        return None

    def _take_arrived(self) -> tuple[Job[CoreT, Any] | None, bool] | None:
        """Take what has arrived, until something comes of it.

        Garbage comes in heaps, and to look at the timers and go to sleep takes as long as it.
        """
        last: tuple[Job[CoreT, Any] | None, bool] | None = None
        for _ in range(TURNS):
            taken = self._monitor.take_or_begin()
            if taken is None:
                break
            last = taken
            job, is_answered = taken
            if job is not None or is_answered or self._monitor.has_jobs:
                break
        return last

    def _take_soon(self) -> tuple[Job[CoreT, Any] | None, bool] | None:
        """Ask a quiet socket again and again for a moment, instead of going to sleep.

        The timers are still this thread's to fire: none waits for the peers' talk to end.
        """
        monitor, thread = self._monitor, self._engine_thread
        wait = monitor.rest()
        until = time.perf_counter() + (self._poll if wait is None else min(self._poll, wait))
        while not monitor.has_jobs:
            _yield_core()  # to the peer we wait for, should it share ours
            if thread.has_arrived():
                return monitor.take_or_begin()
            if time.perf_counter() >= until:
                return None
        return None


def _yield_core() -> None:
    if hasattr(os, "sched_yield"):
        os.sched_yield()
