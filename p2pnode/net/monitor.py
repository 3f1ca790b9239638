"""The core and its socket behind one lock, and who waits for them.

A monitor in the textbook's sense: each method is one stay under the lock, and the core is reached
in no other way. It never waits itself. The loop and the engine thread call it in turns
(:mod:`p2pnode.net.reactor`); what one leaves to the other, it says by waking it.
"""

import math
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from p2pnode.errors import LocalProtocolError
from p2pnode.net.jobs import Failed, Finished, Job
from p2pnode.net.pace import Pace
from p2pnode.net.pump import DatagramSocket, Pump
from p2pnode.net.waiter import Turn, Waiter, next_waiter
from p2pnode.sansio import Address, Core

CoreT = TypeVar("CoreT", bound=Core[Address, Any])
EventT = TypeVar("EventT")
T = TypeVar("T")

TURNS = 16
"""Timers already due are fired at once at most this often in a row; a core that asks for more
must wait for the timer task, so it cannot starve the loop."""

BRIEF_SECONDS = 0.03
"""Seconds for which the socket may go unread, so that a job begins without a word to the loop.
Waking the loop to take over costs the job more than that is worth: the two fight for the
interpreter, and a stage of 12 ms took 0.4 ms longer (measured). A long job hardly feels it, and
its peers should not wait for an acknowledgement: little longer than their ``ack_patience``."""

STUCK_SECONDS = 0.1
"""How late a timer may be that the engine thread keeps, before the loop sees to it, and for how
long a brief job may go on before the loop takes over the socket."""

GATHERED = 64
"""Datagrams taken at most before a job begins that they may belong into: what a session sends for a
token is two or three, and a job has at most 32 sessions."""


class Signals(Protocol):
    """How the two threads wake each other; :class:`p2pnode.net.engine_thread.EngineThread`."""

    def wake(self) -> None: ...
    def wake_loop(self) -> None: ...


def _never(core: object) -> bool:
    return False


class Monitor(Generic[CoreT, EventT]):
    """One core, one socket, one lock.

    What holds of its fields whenever the lock is free, by who waits:

    ===================  ============  ==============================  ==========================
    field                LOOP          THREAD                          NOBODY
    ===================  ============  ==============================  ==========================
    ``_kept_from``       None          a moment: timers from then on   as in THREAD
                                       are the thread's to fire
    ``_is_asleep``       False         whether it sleeps, and must be  False
                                       woken for a job
    ``_last_read`` the past      the past                        when it last read the
                                                                       socket, within BRIEF of
                                                                       the job's expected end
    ``_armed``           at most the   at most the next timer that the thread does not keep, and
                         next timer    at most STUCK after one that it does
    ===================  ============  ==============================  ==========================

    ``_armed`` is the moment for which the loop's alarm is set. Where the thread makes an earlier
    timer, it wakes the loop in LOOP, and keeps it in the other two. ``_failure`` is the first
    error, and never replaced: from then on the core is left alone, and each method but ``call``
    says that there is nothing to do.
    """

    def __init__(
        self,
        core: CoreT,
        socket: DatagramSocket,
        job_of: Callable[[EventT], Job[CoreT, Any] | None] | None,
        signals: Signals | None,
        gathers: Callable[[CoreT], bool] = _never,
    ) -> None:
        """``gathers`` says whether the core is about to ask for a job that more may belong into."""
        self._lock = threading.RLock()
        self._pump: Pump[CoreT, EventT] = Pump(core, socket, job_of)
        self._signals = signals
        self._gathers = gathers
        self._pace = Pace()
        self._waiter = Waiter.LOOP
        self._last_read = -math.inf
        self._kept_from: float | None = None
        self._armed = math.inf
        self._is_asleep = False
        self._failure: BaseException | None = None
        self.now = self._pump.now

    @property
    def failure(self) -> BaseException | None:
        return self._failure

    @property
    def counters(self) -> Counter[str]:
        with self._lock:
            return Counter(self._pump.counters)

    def fail(self, error: BaseException) -> None:
        """Leave the core alone from now on, because of ``error``."""
        with self._lock:
            if self._failure is None:
                self._failure = error

    # For the loop

    @property
    def waiter(self) -> Waiter:
        """Who waits at the socket."""
        return self._waiter

    def call(self, command: Callable[[CoreT, float], T]) -> T:
        """Run ``command(core, now)``.

        Raises:
            LocalProtocolError: The core has failed.
            Exception: Whatever the command raised.
        """
        with self._lock:
            if self._failure is not None:
                raise LocalProtocolError("the node has failed") from self._failure
            return command(self._pump.core, self._pump.now())

    def take(self) -> float | None:
        """Give the core the next datagram; return when, or None where none was waiting."""
        with self._lock:
            return self._pump.take() if self._failure is None else None

    def sort(self) -> tuple[bool, list[EventT]]:
        """Queue the core's jobs; return whether there was one, and the events to dispatch."""
        with self._lock:
            if self._failure is not None:
                return False, []
            return self._sort(), self._pump.events()

    def sort_and_send(self) -> bool:
        """Queue jobs, leave the events, send; return whether there was a job."""
        with self._lock:
            if self._failure is not None:
                return False
            has_job = self._sort()
            self._pump.send()
        return has_job

    def send(self) -> None:
        with self._lock:
            if self._failure is None:
                self._pump.send()

    def send_and_fire(self) -> bool:
        """Send; then fire what is due, and return whether anything was."""
        with self._lock:
            if self._failure is not None:
                return False
            self._pump.send()
            return self._pump.fire(self._pump.now())

    def next_alarm(self, *, anew: bool = False) -> float | None:
        """Return when the loop's alarm is due; None where it may stay as it is.

        It moves only forward, unless it is set ``anew``.
        """
        with self._lock:
            if self._failure is not None:
                return None
            if anew:
                self._armed = math.inf
            due = self._pump.core.next_timeout()
            if due is None:
                return None
            if self._kept_from is not None and due >= self._kept_from:
                due += STUCK_SECONDS  # the engine thread has it, unless something holds that up
            if due >= self._armed:
                return None
            self._armed = due
            return due

    def take_over(self) -> None:
        """Let the loop wait where a job that was thought to be brief is none."""
        with self._lock:
            overdue = self._pump.now() >= self._last_read + STUCK_SECONDS
            if self._waiter is Waiter.NOBODY and overdue and self._failure is None:
                self._move(Turn.OVERDUE)

    # For the engine thread

    @property
    def has_jobs(self) -> bool:
        """Whether any are queued; asked without the lock, and so only a hint."""
        return bool(self._pump.jobs)

    def begin(self) -> Job[CoreT, Any] | None:
        """Take the next job of the queue, and settle who waits meanwhile."""
        with self._lock:
            self._is_asleep = False
            if self._failure is not None:
                return None
            return self._begin(self._pump.now())

    def finish(
        self, job: Job[CoreT, Any], outcome: Finished[Any] | Failed, seconds: float
    ) -> Job[CoreT, Any] | None:
        """Tell the core what came of ``job``, send what it wants sent, and begin the next one.

        A computed hidden state leaves 0.15 ms sooner from here than by way of the loop. Sending
        comes last. It wakes the next stage, which, on the same machine, is put on this very core;
        whatever we had still to do would later take that from it (see :mod:`p2pnode.net.wakeup`).
        """
        pump = self._pump
        with self._lock:
            if self._failure is not None:
                return None
            job.done(pump.core, outcome, pump.now())
            if self._gathers(pump.core):
                pump.send()  # others wait for what was computed, and we for nobody
                self._gather()
            pump.sort()
            if pump.left:
                self._wake_loop()
            pump.send()
            self._pace.learn(job.units, seconds)
            return self._begin(pump.now()) if pump.jobs else None

    def take_or_begin(self) -> tuple[Job[CoreT, Any] | None, bool] | None:
        """Take a datagram; return the job to begin, and whether something was sent.

        Where there is a job, nothing else is done now: what the core wants to send besides is for
        the loop, if it is due at once, and else waits for the job's end.

        Returns:
            None where no datagram was waiting.
        """
        pump = self._pump
        with self._lock:
            self._is_asleep = False
            if self._failure is not None:
                return None
            now = pump.take()
            if now is None:
                return None
            if self._gathers(pump.core):
                self._gather()
            pump.sort()
            job = self._begin(now) if pump.jobs else None
            if pump.left and (job is None or self._waiter is Waiter.LOOP):
                self._wake_loop()
            return job, job is None and pump.send()

    def rest(self) -> float | None:
        """Take over the socket, fire what is due, and return the seconds until the next timer.

        The timers go with the socket: a loop that wakes now and then takes the core of an engine
        on the same machine (3 % of a token, measured). None where there is no timer; 0 after a
        failure, when there is nothing to sleep for.
        """
        pump = self._pump
        with self._lock:
            if self._failure is not None:
                return 0.0
            if self._waiter is not Waiter.THREAD:
                self._move(Turn.IDLE)
            for _ in range(TURNS):
                due = pump.core.next_timeout()
                wait = None if due is None else max(0.0, due - pump.now())
                if wait != 0.0 or not pump.fire(pump.now()):
                    break
                pump.sort()
                pump.send()
            self._kept_from = math.inf if due is None else due
            if pump.left:
                self._wake_loop()
            self._is_asleep = not pump.jobs
            return 0.0 if pump.jobs else wait

    # Under the lock

    def _gather(self) -> None:
        """Take what has arrived while it may belong into the job that the core is about to ask for.

        Sessions that are computed together come together, and the first of them would begin alone.
        """
        pump, gathers = self._pump, self._gathers
        for _ in range(GATHERED):
            if pump.take() is None or not gathers(pump.core):
                return

    def _sort(self) -> bool:
        has_job = self._pump.sort()
        if has_job and self._is_asleep and self._signals is not None:
            self._is_asleep = False
            self._signals.wake()
        return has_job

    def _begin(self, now: float) -> Job[CoreT, Any] | None:
        pump = self._pump
        job = pump.next_job()
        if job is None:
            return None
        due = pump.core.next_timeout()
        if self._waiter is Waiter.THREAD:
            self._last_read = now
        unread = now - self._last_read + self._pace.most_seconds(job.units)
        is_due = due is not None and due <= now
        self._move(Turn.LONG if is_due or unread > BRIEF_SECONDS else Turn.BRIEF)
        if self._waiter is Waiter.LOOP and due is not None and due < self._armed:
            self._wake_loop()  # its alarm is set for later
        return job

    def _move(self, turn: Turn) -> None:
        before, self._waiter = self._waiter, next_waiter(self._waiter, turn)
        if self._waiter is Waiter.LOOP:
            self._kept_from = None
        if (before is Waiter.LOOP) != (self._waiter is Waiter.LOOP):
            self._wake_loop()

    def _wake_loop(self) -> None:
        if self._signals is not None:
            self._signals.wake_loop()
