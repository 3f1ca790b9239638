"""The reactor: one core, one socket, and two threads that take turns at them.

Whatever touches the core goes through its monitor (:mod:`p2pnode.net.monitor`), which owns the
lock, the socket, the timers and who waits; a command reaches the core through :meth:`Reactor.call`
alone. Here are the loop's tasks; what the engine thread does is in
:mod:`p2pnode.net.engine_turns`.

What leaves because of a datagram, a timer or a command leaves before its thread does anything
else. Nothing is awaited per datagram: an await costs more than the datagram itself (send and
receive 11.4 and 7.6 us with trio's sockets, 3.9 and 2.2 us in batches, measured). What the engine
thread does, it does for a hop's sake; the figures are in docs/decisions/0011 and 0012.
"""

import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from threading import get_ident
from typing import Any, Generic, TypeAlias, TypeVar

import trio

from p2pnode.errors import LocalProtocolError
from p2pnode.net.engine_thread import STOP_GRACE, EngineThread, ThreadMaker
from p2pnode.net.engine_turns import POLL_SECONDS, EngineTurns
from p2pnode.net.jobs import Failed, Finished, Job, outcome_of
from p2pnode.net.lateness import Lateness
from p2pnode.net.monitor import TURNS, Monitor
from p2pnode.net.pump import DatagramSocket
from p2pnode.net.waiter import Waiter
from p2pnode.sansio import Address, Core

CoreT = TypeVar("CoreT", bound=Core[Address, Any])
EventT = TypeVar("EventT")
T = TypeVar("T")
Task: TypeAlias = Callable[[], Awaitable[None]]

BATCH = 64
"""Datagrams that the loop takes before its other tasks get their turn."""

BATCH_SECONDS = 0.001
"""A batch ends early after this long, so that the first datagram's answer does not wait for the
last one's arithmetic."""

OFFLOADED = 4
"""Tasks in trio's pool at once. They are pure Python for the most part, and more would only
contend for the interpreter; a guess."""


class Reactor(Generic[CoreT, EventT]):
    """Runs one core on one socket.

    ``on_event(event, now)`` is called on the loop, in order, without the lock; it may use
    :meth:`call`. With ``job_of`` there is an engine thread: an event for which it returns a job is
    computed there, and ``on_event`` never hears of it. ``job_of`` is called under the lock, as is
    ``gathers``: whether the core is about to ask for a job, into which more may belong of what has
    arrived.

    What raises, in the core or in a callback and in whichever thread, ends :meth:`run` with that
    error. But what a command raises is its caller's (:meth:`call`), and what a job or a task
    raises is handed to its ``done``.

    Invariants: its own fields are the loop's alone. ``_gate`` is open while the loop knows of no
    other who waits at the socket: from one wake-up to the next that says so. ``_dispatching``
    holds exactly while turns are taken: a command that an event gives sends, and leaves what
    follows to them. ``_nursery`` is None before :meth:`run` and after it. ``_alarm`` falls no later
    than the next timer that the loop keeps, by the table in :mod:`~p2pnode.net.monitor`.
    """

    def __init__(
        self,
        core: CoreT,
        socket: DatagramSocket,
        on_event: Callable[[EventT, float], None],
        *,
        job_of: Callable[[EventT], Job[CoreT, Any] | None] | None = None,
        stop_grace: float = STOP_GRACE,
        thread: ThreadMaker = EngineThread,
        poll: float = POLL_SECONDS,
        gathers: Callable[[CoreT], bool] | None = None,
    ) -> None:
        self._socket = socket
        self._poll = poll
        self._on_event = on_event
        self._thread = None if job_of is None else thread(self._work, stop_grace=stop_grace)
        self._monitor: Monitor[CoreT, EventT] = Monitor(
            core, socket, job_of, self._thread, *(() if gathers is None else (gathers,))
        )
        self._dispatching = False
        self._alarm = trio.CancelScope()
        self._at_socket = trio.CancelScope()
        self._gate = trio.Event()
        self._gate.set()
        self._nursery: trio.Nursery | None = None
        self._loop: int | None = None  # its thread, once it runs
        self._pool = trio.CapacityLimiter(OFFLOADED)
        self._lateness = Lateness()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; whatever the core has to say already is said first.

        Raises:
            Exception: What the core or a callback raised first, in whichever thread.
        """
        self._loop = get_ident()
        try:
            if self._thread is None:
                await self._run([], task_status)
            else:
                async with self._thread.running():
                    await self._run([partial(self._heed, self._thread)], task_status)
        finally:
            self._nursery = None
            self.raise_failure()

    async def _run(self, tasks: list[Task], task_status: trio.TaskStatus[None]) -> None:
        tasks += [
            self._receive,
            self._keep_time,
            partial(self._lateness.run, self._monitor.take_over),
        ]
        async with trio.open_nursery() as self._nursery:
            for task in tasks:
                self._nursery.start_soon(self._guard, task)
            self._flush()
            if self._monitor.failure is not None:  # before it ran
                self._end()
            task_status.started()

    # For whoever owns it: on the loop

    def call(self, command: Callable[[CoreT, float], T]) -> T:
        """Run ``command(core, now)`` and send at once what it made the core want to send.

        Raises:
            LocalProtocolError: The reactor has failed, or this is not the loop's thread.
            Exception: Whatever the command raised.
        """
        if self._loop not in (None, get_ident()):
            raise LocalProtocolError("Reactor.call is for the thread of the loop")
        try:
            return self._monitor.call(command)
        finally:
            self._flush()

    def offload(
        self,
        task: Callable[[], T],
        done: Callable[[CoreT, Finished[T] | Failed, float], None],
    ) -> None:
        """Run ``task`` in trio's pool, then ``done(core, outcome, now)`` as a command.

        For what would hold up the loop: writing a file, planning over many peers. A stop does not
        wait for it, and then nobody is told.

        Raises:
            LocalProtocolError: The reactor is not running.
        """
        if self._nursery is None:
            raise LocalProtocolError("the reactor is not running")
        self._nursery.start_soon(self._guard, partial(self._offload, task, done))

    @property
    def failure(self) -> BaseException | None:
        """What ended :meth:`run`, or is about to."""
        return self._monitor.failure

    def raise_failure(self) -> None:
        """Raise what ended :meth:`run`, if anything did: to those that end because of it.

        Raises:
            Exception: The first error, as it was.
        """
        if self._monitor.failure is not None:
            raise self._monitor.failure from None

    @property
    def counters(self) -> Counter[str]:
        """Datagrams dropped because they were malformed, by reason."""
        return self._monitor.counters

    def loop_late_ms(self) -> tuple[float, float]:
        """Return how late the loop's timers were over the last minute: p50 and p99."""
        return self._lateness.late_ms()

    # The loop's tasks

    async def _receive(self) -> None:
        while True:
            if not self._gate.is_set():
                await self._gate.wait()
            if self._drain():
                await trio.lowlevel.checkpoint()  # a third of what asking epoll again costs
                continue
            with trio.CancelScope() as self._at_socket:
                await self._socket.wait_readable()

    def _drain(self) -> bool:
        """Take a batch, answer it, and tell whether more may be waiting.

        The first datagram is answered before the next is asked for: in a chain it comes alone,
        and a stage waits for it.
        """
        take = self._monitor.take
        began = take()
        if began is None:
            return False
        self._flush()
        more = 0
        while more < BATCH - 1 and (now := take()) is not None:
            more += 1
            if now > began + BATCH_SECONDS:
                break
        if more:
            self._flush()
        return now is not None

    async def _keep_time(self) -> None:
        """Sleep until the core's next timer.

        Setting a scope's deadline wakes nobody, so :meth:`_flush` can move the timer with
        every datagram for next to nothing. It moves it only forward in haste: a timer put off is
        found out here, when the old alarm comes for nothing.
        """
        while True:
            with trio.CancelScope() as self._alarm:
                self._set_alarm(self._monitor.next_alarm(anew=True))
                await trio.sleep_forever()
            self._monitor.take_over()
            # Whoever waits may be late: nobody is to be found silent who was not.
            self._drain()
            self._flush()

    async def _heed(self, thread: EngineThread) -> None:
        """Act on what the engine thread leaves to the loop."""
        while True:
            await thread.loop_woken()
            self._settle_gate()
            self._flush()

    def _settle_gate(self) -> None:
        if self._monitor.failure is not None:
            self._end()
        elif self._monitor.waiter is Waiter.LOOP:
            self._gate.set()
        elif self._gate.is_set():
            self._gate = trio.Event()
            self._at_socket.cancel()

    async def _offload(
        self,
        task: Callable[[], T],
        done: Callable[[CoreT, Finished[T] | Failed, float], None],
    ) -> None:
        outcome = await trio.to_thread.run_sync(
            outcome_of, task, abandon_on_cancel=True, limiter=self._pool
        )
        self.call(lambda core, now: done(core, outcome, now))

    async def _guard(self, task: Task) -> None:
        try:
            await task()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._monitor.fail(error)
        if self._thread is not None:
            self._thread.is_stopping = True  # it finds nothing to do any more
        self._end()

    def _end(self) -> None:
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    # The loop's turns

    def _flush(self) -> None:
        """Send, dispatch and fire until the core has nothing more to say."""
        if self._monitor.failure is not None:
            return
        try:
            if not self._dispatching:
                self._take_turns()
            elif self._monitor.sort_and_send():  # from an event: the turns will see the rest
                _let_go()
        except Exception as error:  # no fault of whoever gave the command
            self._fail(error)

    def _take_turns(self) -> None:
        monitor = self._monitor
        self._dispatching = True
        try:
            for _ in range(TURNS):
                # Events first: one of them may be work for the engine, and whatever is to be sent
                # (an acknowledgement, as a rule) can leave while that computes.
                has_job, events = monitor.sort()
                if has_job:
                    _let_go()
                for event in events:
                    self._on_event(event, monitor.now())
                if events:
                    monitor.send()
                elif not monitor.send_and_fire():
                    self._set_alarm(monitor.next_alarm())
                    return
            self._alarm.deadline = -math.inf  # there is more, but others have waited enough
        finally:
            self._dispatching = False

    def _set_alarm(self, moment: float | None) -> None:
        if moment is not None:
            self._alarm.deadline = moment

    def _work(self, thread: EngineThread) -> None:
        EngineTurns(self._monitor, thread, self._poll).run(self._socket.fileno)


def _let_go() -> None:
    """Let the engine thread have the interpreter, which it would get once the loop sleeps.

    Measured until its job's first line: 235 us without, 140 with.
    """
    time.sleep(0)
