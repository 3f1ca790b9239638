"""What goes between a core and the world: datagrams, events, jobs and timers.

It is not safe to use from two threads; :class:`p2pnode.net.reactor.Reactor` calls it under its
lock, and nobody else does.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

import trio

from p2pnode.errors import RemoteProtocolError
from p2pnode.net.jobs import Job
from p2pnode.sansio import Address, Core

CoreT = TypeVar("CoreT", bound=Core[Address, Any])
EventT = TypeVar("EventT")

REASONS = 64
"""Distinct reasons counted: the peer chooses the bytes, so it must not choose our memory."""

logger = logging.getLogger(__name__)


class DatagramSocket(Protocol):
    """What is needed of a socket; :class:`p2pnode.net.udp.UdpSocket` is one."""

    @property
    def fileno(self) -> int: ...
    async def wait_readable(self) -> None: ...
    def receive(self) -> tuple[bytes, Address] | None: ...
    def send(self, payload: bytes, destination: Address, *, is_probe: bool = False) -> bool: ...


class Pump(Generic[CoreT, EventT]):
    """One core and its socket.

    Attributes:
        core: The core.
        jobs: What it wants computed, in order.
        left: Events for the loop, in order.
        counters: Datagrams dropped because they were malformed, by reason.
    """

    def __init__(
        self,
        core: CoreT,
        socket: DatagramSocket,
        job_of: Callable[[EventT], Job[CoreT, Any] | None] | None,
    ) -> None:
        self.core = core
        self._socket = socket
        self._job_of = job_of
        self._clock = clock = trio.lowlevel.current_clock()
        # Trio's own clock is perf_counter from another start: read so, it takes no Python.
        is_plain = type(clock).__name__ == "SystemClock"
        began = perf_counter()  # first: a timer that is a little early here is due when it fires
        self._ahead = clock.current_time() - began if is_plain else None
        self.jobs: deque[Job[CoreT, Any]] = deque()
        self.left: list[EventT] = []
        self.counters: Counter[str] = Counter()

    def now(self) -> float:
        """Read the clock: here, so that a core never sees time run backwards."""
        return self._clock.current_time() if self._ahead is None else perf_counter() + self._ahead

    def take(self) -> float | None:
        """Give the core the next datagram; return when, or None where none was waiting."""
        datagram = self._socket.receive()
        if datagram is None:
            return None
        now = self.now()
        data, source = datagram
        try:
            self.core.receive_datagram(data, source, now)
        except RemoteProtocolError as error:
            self._count_malformed(str(error))
            logger.debug("dropped a datagram of %s: %s", source, error)
        return now

    def fire(self, now: float) -> bool:
        """Fire the timers due; a core must not leave a timer due that it just fired."""
        due = self.core.next_timeout()
        if due is None or due > now:
            return False
        self.core.handle_timeout(now)
        return True

    def sort(self) -> bool:
        """Sort the core's news into jobs and events; return whether there was a job."""
        events = self.core.take_events()
        if not events:
            return False
        job_of = self._job_of
        if job_of is None:
            self.left += events
            return False
        had = len(self.jobs)
        for event in events:
            job = job_of(event)
            if job is None:
                self.left.append(event)
            else:
                self.jobs.append(job)
        return len(self.jobs) > had

    def send(self) -> bool:
        """Send what the core wants sent; return whether that was anything."""
        send = self._socket.send
        transmits = self.core.datagrams_to_send()
        for transmit in transmits:
            send(transmit.payload, transmit.destination, is_probe=transmit.is_probe)
        return bool(transmits)

    def events(self) -> list[EventT]:
        """Hand over the events left for the loop."""
        taken, self.left = self.left, []
        return taken

    def next_job(self) -> Job[CoreT, Any] | None:
        """Hand over the next job that somebody still wants."""
        while self.jobs:
            job = self.jobs.popleft()
            if job.is_wanted(self.core):
                return job
        return None

    def _count_malformed(self, message: str) -> None:
        reason = f"malformed: {message.partition(':')[0][:60]}"
        if reason not in self.counters and len(self.counters) >= REASONS:
            reason = "malformed: other"
        self.counters[reason] += 1
