"""The driver: feeds a core with datagrams and time, and carries out what it asks.

Trio runs one task at a time and a core never awaits, so each input is atomic. Only the thread that
computes comes from outside (the methods that end in ``_worker``), and a lock keeps the two apart;
the clock is read under it, so that a core never sees time run backwards. What leaves because of a
datagram, a timer or a command leaves before the loop does anything else. Nothing is awaited per
datagram: an await costs more than the datagram itself (send and receive 11.4 and 7.6 us with
trio's sockets, 3.9 and 2.2 us in batches, measured).
"""

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable
from typing import Generic, Protocol, TypeGuard, TypeVar

import trio

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.net.compute import Rest
from p2pnode.net.lateness import LoopWatch
from p2pnode.sansio import Address, Core
from p2pnode.values import value

EventT = TypeVar("EventT")
T = TypeVar("T")
WorkT = TypeVar("WorkT")

BATCH = 64
"""Datagrams taken before the other tasks get their turn."""

BATCH_SECONDS = 0.001
"""A batch ends early after this long, so that the first datagram's answer does not wait for the
last one's arithmetic."""

TURNS = 16
"""Timers already due are fired at once at most this often in a row; a core that asks for more
must wait for the timer task, so it cannot starve the loop."""

STUCK_SECONDS = 0.1
"""How late a timer may be that the other thread keeps, before the loop sees to it."""

REASONS = 64
"""Distinct reasons counted: the peer chooses the bytes, so it must not choose our memory."""

logger = logging.getLogger(__name__)


class DatagramSocket(Protocol):
    """What the driver needs of a socket; :class:`p2pnode.net.udp.UdpSocket` is one."""

    async def wait_readable(self) -> None: ...
    def receive(self) -> tuple[bytes, Address] | None: ...
    def send(self, payload: bytes, destination: Address) -> bool: ...


@value
class Received(Generic[WorkT]):
    """What came of a datagram that another thread took.

    Attributes:
        work: The first event that is work for that thread, which begins it at once.
        is_loop_wanted: Whether the loop must be woken: to dispatch other events, for an earlier
            timer, or to send what cannot wait for the end of the work.
        is_answered: Whether something was sent because of the datagram.
    """

    work: WorkT | None
    is_loop_wanted: bool
    is_answered: bool = False


class Driver(Generic[EventT]):
    """Runs one core on one socket.

    ``on_event(event, now)`` is called synchronously, in order; it may use :meth:`call`.

    Attributes:
        counters: Datagrams dropped because they were malformed, by reason.
    """

    def __init__(
        self,
        core: Core[Address, EventT],
        socket: DatagramSocket,
        on_event: Callable[[EventT, float], None],
    ) -> None:
        self._core = core
        self._socket = socket
        self._on_event = on_event
        self._watch = LoopWatch()
        self._alarm = trio.CancelScope()
        self._dispatching = False
        self._lock = threading.RLock()
        self._clock: trio.abc.Clock | None = None
        self._left: list[EventT] = []
        self._watching = trio.CancelScope()
        self._kept_from: float | None = None
        self._returned = trio.Event()
        self._returned.set()
        self.counters: Counter[str] = Counter()

    async def run(self) -> None:
        """Serve until cancelled; whatever the core has to say already is said first."""
        self._clock = trio.lowlevel.current_clock()
        self._flush()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive)
            nursery.start_soon(self._keep_time)
            nursery.start_soon(self._watch.run)

    def call(self, command: Callable[[float], T]) -> T:
        """Run ``command(now)`` and send at once what it made the core want to send."""
        with self._lock:
            result = command(trio.current_time())
            self._flush()
        return result

    def call_from_worker(
        self, command: Callable[[float], None], wake_loop: Callable[[], None]
    ) -> None:
        """Run ``command(now)`` in another thread, and send from there what it made the core want.

        A computed hidden state leaves 0.15 ms sooner than by way of the loop. Where events are
        left to the loop, ``wake_loop`` is called, and must see to it that :meth:`flush` is.

        Sending comes last. It wakes the next stage, which, on the same machine, is put on this
        very core; whatever we had still to do would later take that from it (see
        :mod:`p2pnode.net.wakeup`).
        """
        if self._clock is None:
            raise LocalProtocolError("the driver is not running yet")
        with self._lock:
            command(self._clock.current_time())
            self._left += self._core.take_events()
            if self._left:
                wake_loop()
            self._send()

    def receive_in_worker(
        self, is_work: Callable[[EventT], TypeGuard[WorkT]]
    ) -> Received[WorkT] | None:
        """Take one datagram in another thread, which watches the socket while it is idle.

        Where it is work, nothing else is done now: what the core wants to send besides is for
        the loop, while the work goes on, if it is due at once, and waits for the end if not.

        Returns:
            What came of it; None where no datagram was waiting.
        """
        if self._clock is None:
            raise LocalProtocolError("the driver is not running yet")
        with self._lock:
            datagram = self._socket.receive()
            if datagram is None:
                return None
            now = self._take(*datagram, self._clock.current_time)
            work: WorkT | None = None
            for event in self._core.take_events():
                if work is None and is_work(event):
                    work = event
                else:
                    self._left.append(event)
            if work is None:
                is_answered = self._send()
                return Received(None, bool(self._left), is_answered)
            due = self._core.next_timeout()
            return Received(work, is_loop_wanted=due is not None and due <= now)

    def rest_in_worker(self) -> Rest:
        """Fire what is due, in the thread that watches the socket and is about to sleep.

        It keeps all timers from the next one on; see :meth:`_set_alarm`.
        """
        if self._clock is None:
            raise LocalProtocolError("the driver is not running yet")
        with self._lock:
            for _ in range(TURNS):
                due = self._core.next_timeout()
                wait = None if due is None else due - self._clock.current_time()
                if wait is None or wait > 0:
                    break
                self._core.handle_timeout(self._clock.current_time())
                self._left += self._core.take_events()
                self._send()
            self._kept_from = math.inf if due is None else due
            seconds = None if wait is None else max(0.0, wait)
            return Rest(seconds, is_loop_wanted=bool(self._left))

    def let_worker_watch(self, watching: bool) -> None:
        """Leave the socket to the other thread, or take it back."""
        if watching:
            if self._returned.is_set():
                self._returned = trio.Event()
            self._watching.cancel()
        else:
            self._kept_from = None
            self._returned.set()
        self._flush()

    def flush(self) -> None:
        """Dispatch what :meth:`call_from_worker` left to the loop."""
        self._flush()

    def deliver(self, data: bytes, source: Address) -> None:
        """Hand the core a datagram as if the socket had received it."""
        self._take(data, source, trio.current_time)
        self._flush()

    def loop_late_ms(self) -> tuple[float, float]:
        """Return how late the loop's timers were over the last minute: p50 and p99."""
        return self._watch.late_ms()

    # The two tasks

    async def _receive(self) -> None:
        while True:
            if not self._returned.is_set():
                await self._returned.wait()
            if self._drain():
                await trio.lowlevel.checkpoint()  # a third of what asking epoll again costs
                continue
            with trio.CancelScope() as self._watching:
                await self._socket.wait_readable()

    def _drain(self) -> bool:
        """Take a batch, answer it, and tell whether more may be waiting.

        The first datagram is answered before the next is asked for: in a chain it comes alone,
        and a stage waits for it.
        """
        receive, take = self._socket.receive, self._take
        datagram = receive()
        if datagram is None:
            return False
        began = take(*datagram, trio.current_time)
        self._flush()
        more = 0
        while more < BATCH - 1 and (datagram := receive()) is not None:
            more += 1
            if take(*datagram, trio.current_time) > began + BATCH_SECONDS:
                break
        if more:
            self._flush()
        return datagram is not None

    async def _keep_time(self) -> None:
        """Sleep until the core's next timer.

        Setting a scope's deadline wakes nobody, so :meth:`_set_alarm` can move the timer with
        every datagram for next to nothing. It moves it only forward in haste: a timer put off is
        found out here, when the old alarm rings for nothing.
        """
        while True:
            with trio.CancelScope() as self._alarm:
                self._set_alarm()
                await trio.sleep_forever()
            # Whoever watches the socket may be late: nobody is to be found silent who was not.
            self._drain()
            self._flush()

    # The pump

    def _take(self, data: bytes, source: Address, clock: Callable[[], float]) -> float:
        """Give the core a datagram; return the time, which is read once nobody else is in it."""
        with self._lock:
            now = clock()
            try:
                self._core.receive_datagram(data, source, now)
            except RemoteProtocolError as error:
                self._count_malformed(str(error))
                logger.debug("dropped a datagram of %s: %s", source, error)
        return now

    def _flush(self) -> None:
        """Send, dispatch and fire until the core has nothing more to say."""
        with self._lock:
            self._flush_locked()

    def _flush_locked(self) -> None:
        if self._dispatching:
            self._send()
            return  # called from an event; the loop below is under way and will see the rest
        self._dispatching = True
        try:
            for _ in range(TURNS):
                # Events first: one of them may be work for the engine, and whatever is to be sent
                # (an acknowledgement, as a rule) can leave while that computes.
                dispatched = self._dispatch()
                self._send()
                if not (dispatched or self._fire()):
                    break
            else:
                self._alarm.deadline = -math.inf  # there is more, but others have waited enough
        finally:
            self._dispatching = False
        self._send()
        self._set_alarm()

    def _send(self) -> bool:
        """Send what the core wants sent; return whether that was anything."""
        send = self._socket.send
        transmits = self._core.datagrams_to_send()
        for transmit in transmits:
            send(transmit.payload, transmit.destination)
        return bool(transmits)

    def _dispatch(self) -> bool:
        left, self._left = self._left, []
        events = (*left, *self._core.take_events()) if left else self._core.take_events()
        for event in events:
            self._on_event(event, trio.current_time())
        return bool(events)

    def _fire(self) -> bool:
        """Fire the timers that are due; a core must not leave a timer due that it just fired."""
        due = self._core.next_timeout()
        if due is None or due > (now := trio.current_time()):
            return False
        self._core.handle_timeout(now)
        return True

    def _set_alarm(self) -> None:
        due = self._core.next_timeout()
        if due is None:
            return
        if self._kept_from is not None and due >= self._kept_from:
            due += STUCK_SECONDS  # the other thread has it, unless something holds that up
        if due < self._alarm.deadline:
            self._alarm.deadline = due

    def _count_malformed(self, message: str) -> None:
        reason = f"malformed: {message.partition(':')[0][:60]}"
        if reason not in self.counters and len(self.counters) >= REASONS:
            reason = "malformed: other"
        self.counters[reason] += 1
