"""A virtual network with a virtual clock, on which production cores run by the thousand.

Nothing here waits: time jumps from one thing that happens to the next. The same seed, the same
cores and the same calls tell the same story; :meth:`VirtualNetwork.trace_hash` says so in one
line.
"""

import hashlib
import heapq
import struct
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from random import Random
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.testing.attached import (
    BOOKKEEPING,
    DEFAULT_RECEIVE_BUFFER,
    Attachable,
    Clock,
    Node,
    fingerprint,
)
from p2pnode.testing.links import Fate, Link, Path
from p2pnode.testing.statistics import Statistics

__all__ = ["Clock", "Statistics", "VirtualNetwork"]

PeerT = TypeVar("PeerT", bound=Hashable)
EventT = TypeVar("EventT")

_SPIN_LIMIT = 10_000


class VirtualNetwork(Generic[PeerT, EventT]):
    """Connects cores by links that lose, delay, double, reorder, damage and refuse.

    Attributes:
        now: Seconds of virtual time.
        story: Every event of every core: (moment, address, event).
        intercept: Called with (source, destination, payload) of each datagram sent; False drops
            it. For tests that must hit one particular datagram.
    """

    def __init__(self, seed: int, link: Link | None = None, *, keep_story: bool = True) -> None:
        self.now = 0.0
        self.story: list[tuple[float, PeerT, EventT]] = []
        self.intercept: Callable[[PeerT, PeerT, bytes], bool] | None = None
        self._seed = seed
        self._link = link or Link()
        self._keep_story = keep_story
        self._nodes: dict[PeerT, Node[PeerT, EventT]] = {}
        self._paths: dict[tuple[PeerT, PeerT], Path] = {}
        self._links: dict[tuple[PeerT, PeerT], Link] = {}
        self._severed: set[tuple[PeerT, PeerT]] = set()
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._entries = 0
        self._trace = hashlib.blake2b(digest_size=16)
        self._numbers: dict[PeerT, int] = {}
        self._sent = 0
        self._delivered = 0
        self._malformed = 0
        self._dropped: Counter[str] = Counter()
        self._bytes_sent: Counter[PeerT] = Counter()
        self._bytes_delivered: Counter[PeerT] = Counter()

    # Who is there

    def attach(
        self,
        address: PeerT,
        core: Attachable[PeerT, EventT],
        *,
        on_event: Callable[[EventT, float], None] | None = None,
        clock: Clock | None = None,
        receive_buffer: int = DEFAULT_RECEIVE_BUFFER,
    ) -> None:
        """Put ``core`` on the network, and carry out what it already wants.

        Args:
            address: Where it is reached; attaching to a taken address replaces the core there.
            core: The core; it is told times on its own ``clock``.
            on_event: Called with each event and the node's own time. It may call any method of
                the network, or the core directly: what comes of it is collected.
            clock: How the node's clock reads; equal to :attr:`now` if left out.
            receive_buffer: Bytes that wait for the core while it is stalled.
        """
        node = Node(address, core, on_event, clock or Clock(), receive_buffer)
        self._nodes[address] = node
        self._collect(node)

    def detach(self, address: PeerT) -> None:
        """Crash the node: it falls silent, and what is on its way to it is dropped."""
        del self._nodes[address]

    def stall(self, address: PeerT, seconds: float) -> None:
        """Freeze the node, as a busy or suspended machine: no datagrams, timers or commands.

        What arrives waits in its receive buffer, and is dropped once that is full.
        """
        node = self._nodes[address]
        node.stalled_until = max(node.stalled_until, self.now + seconds)
        self._plan(node.stalled_until, self._resume, node)

    def addresses(self) -> list[PeerT]:
        """Return who is attached, in the order they came."""
        return list(self._nodes)

    # The weather

    def set_link(self, source: PeerT, destination: PeerT, link: Link) -> None:
        """Set the link of one direction, from now on."""
        self._links[source, destination] = link
        path = self._paths.get((source, destination))
        if path is not None:
            path.replace(link)

    def set_links(self, one: PeerT, other: PeerT, link: Link) -> None:
        """Set the links of both directions."""
        self.set_link(one, other, link)
        self.set_link(other, one, link)

    def partition(
        self, group_a: Iterable[PeerT], group_b: Iterable[PeerT], *, one_way: bool = False
    ) -> None:
        """Drop everything between the groups; with ``one_way`` only what A sends to B."""
        group_b = list(group_b)
        for a in group_a:
            for b in group_b:
                self._severed.add((a, b))
                if not one_way:
                    self._severed.add((b, a))

    def heal(self) -> None:
        """Undo every partition."""
        self._severed.clear()

    # What happens

    def call(self, address: PeerT, command: Callable[[float], None]) -> None:
        """Run ``command(now)`` as the node at ``address`` and carry out what the core wants.

        A stalled node runs it when it comes back; a crashed one never does.
        """
        node = self._nodes.get(address)
        if node is None:
            return
        if node.stalled_until > self.now:
            self._plan(node.stalled_until, self._call_if_alive, node, command)
            return
        command(node.clock.read(self.now))
        self._collect(node)

    def after(self, delay: float, action: Callable[[float], None]) -> None:
        """Run ``action(now)`` once ``delay`` seconds have passed."""
        self._plan(self.now + delay, lambda: action(self.now))

    def send(self, source: PeerT, destination: PeerT, payload: bytes) -> None:
        """Send a datagram in the name of ``source``, who need not exist: for forgeries."""
        self._send(source, destination, payload, reliable=False)

    def run(self, seconds: float) -> None:
        """Let ``seconds`` of virtual time pass."""
        end = self.now + seconds
        agenda = self._agenda
        while agenda and agenda[0][0] <= end:
            self.now, _, act, arguments = heapq.heappop(agenda)
            act(*arguments)
        self.now = end

    def run_until(self, predicate: Callable[[], bool], limit_seconds: float) -> bool:
        """Run until ``predicate()`` holds, at most ``limit_seconds``; return whether it does."""
        end = self.now + limit_seconds
        agenda = self._agenda
        while not predicate():
            if not agenda or agenda[0][0] > end:
                self.now = end
                return predicate()
            self.now, _, act, arguments = heapq.heappop(agenda)
            act(*arguments)
        return True

    # What happened

    def trace_hash(self) -> str:
        """Return a hash over every datagram sent, delivered or dropped and every event."""
        return self._trace.hexdigest()

    def statistics(self) -> Statistics[PeerT]:
        return Statistics(
            sent=self._sent,
            delivered=self._delivered,
            dropped=MappingProxyType(dict(self._dropped)),
            malformed=self._malformed,
            bytes_sent=MappingProxyType(dict(self._bytes_sent)),
            bytes_delivered=MappingProxyType(dict(self._bytes_delivered)),
        )

    # Sending

    def _send(self, source: PeerT, destination: PeerT, payload: bytes, *, reliable: bool) -> None:
        self._sent += 1
        self._bytes_sent[source] += len(payload)
        fate = self._fate(source, destination, payload, reliable=reliable)
        if fate.dropped:
            self._drop(fate.dropped, source, destination, payload)
            return
        for moment, copy in fate.copies:
            self._plan(moment, self._arrive, source, destination, copy)

    def _fate(self, source: PeerT, destination: PeerT, payload: bytes, *, reliable: bool) -> Fate:
        if (source, destination) in self._severed:
            return Fate(dropped="partition")
        if self.intercept is not None and not self.intercept(source, destination, payload):
            return Fate(dropped="intercepted")
        path = self._paths.get((source, destination)) or self._open_path(source, destination)
        if reliable:
            return path.carry_reliably(payload, self.now)
        return path.carry(payload, self.now)

    def _open_path(self, source: PeerT, destination: PeerT) -> Path:
        link = self._links.get((source, destination), self._link)
        path = Path(link, Random(f"{self._seed} {source!r} {destination!r}"))
        self._paths[source, destination] = path
        return path

    def _drop(self, reason: str, source: PeerT, destination: PeerT, payload: bytes) -> None:
        self._dropped[reason] += 1
        self._record(reason.encode(), source, destination, payload)

    # Arriving

    def _arrive(self, source: PeerT, destination: PeerT, payload: bytes) -> None:
        node = self._nodes.get(destination)
        if node is None:
            self._drop("absent", source, destination, payload)
        elif node.stalled_until > self.now:
            self._buffer(node, source, payload)
        else:
            self._deliver(node, source, payload)
            self._collect(node)

    def _buffer(self, node: Node[PeerT, EventT], source: PeerT, payload: bytes) -> None:
        if node.buffered + len(payload) + BOOKKEEPING > node.receive_buffer:
            self._drop("buffer", source, node.address, payload)
            return
        node.buffered += len(payload) + BOOKKEEPING
        node.waiting.append((source, payload))

    def _deliver(self, node: Node[PeerT, EventT], source: PeerT, payload: bytes) -> None:
        self._delivered += 1
        self._bytes_delivered[node.address] += len(payload)
        self._record(b"", source, node.address, payload)
        try:
            node.core.receive_datagram(payload, source, node.clock.read(self.now))
        except RemoteProtocolError:
            self._malformed += 1

    def _resume(self, node: Node[PeerT, EventT]) -> None:
        if self._nodes.get(node.address) is not node or node.stalled_until > self.now:
            return
        node.buffered = 0
        while node.waiting and self._nodes.get(node.address) is node:
            self._deliver(node, *node.waiting.popleft())
            self._collect(node)
        self._collect(node)

    def _call_if_alive(self, node: Node[PeerT, EventT], command: Callable[[float], None]) -> None:
        if self._nodes.get(node.address) is node:
            self.call(node.address, command)

    # Waking

    def _wake(self, node: Node[PeerT, EventT], moment: float) -> None:
        if node.wake != moment or self._nodes.get(node.address) is not node:
            return  # moved, or gone
        node.wake = None
        if node.stalled_until > moment:
            return  # _resume looks at the timers
        if node.due is not None and node.clock.when(node.due) <= moment:
            self._refuse_to_spin(node)
            # Back and forth between clocks rounds: never tell a core it is too early.
            node.core.handle_timeout(max(node.due, node.clock.read(moment)))
        self._collect(node)

    def _set_wake(self, node: Node[PeerT, EventT]) -> None:
        """See that the node wakes in time, with as few entries in the agenda as possible.

        A timer that moves later costs nothing now: the entry that stands pops first and looks
        again. Without this, a timer pushed back by every packet fills the agenda with stale
        entries, and the simulation runs twenty times slower.
        """
        node.due = node.core.next_timeout()
        if node.due is None:
            return
        moment = max(node.clock.when(node.due), self.now)
        if node.wake is None or moment < node.wake:
            node.wake = moment
            self._plan(moment, self._wake, node, moment)

    def _refuse_to_spin(self, node: Node[PeerT, EventT]) -> None:
        node.spins = node.spins + 1 if node.spun_at == self.now else 0
        node.spun_at = self.now
        if node.spins > _SPIN_LIMIT:
            raise LocalProtocolError(
                f"the core at {node.address!r} asks to be woken at {node.due} for ever"
            )

    # Collecting

    def _collect(self, node: Node[PeerT, EventT]) -> None:
        if node.stalled_until > self.now:
            return
        core = node.core
        while self._nodes.get(node.address) is node:
            transmits = core.datagrams_to_send()
            for transmit in transmits:
                reliable: bool = getattr(transmit, "bulk", False)
                self._send(node.address, transmit.destination, transmit.payload, reliable=reliable)
            events = core.take_events()
            for event in events:
                self._tell(node, event)
            if not events or node.on_event is None:
                break  # nobody has had a chance to ask the core for more
        self._set_wake(node)

    def _tell(self, node: Node[PeerT, EventT], event: EventT) -> None:
        if self._keep_story:
            self.story.append((self.now, node.address, event))
        self._record(b"event", node.address, node.address, fingerprint(event))
        if node.on_event is not None:
            node.on_event(event, node.clock.read(self.now))

    def _plan(self, moment: float, act: Callable[..., None], *arguments: object) -> None:
        self._entries += 1
        heapq.heappush(self._agenda, (moment, self._entries, act, arguments))

    def _record(self, kind: bytes, source: PeerT, destination: PeerT, payload: bytes) -> None:
        numbers = self._numbers
        one = numbers.setdefault(source, len(numbers))
        other = numbers.setdefault(destination, len(numbers))
        head = struct.pack("<dII16sI", self.now, one, other, kind, len(payload))
        self._trace.update(head)
        self._trace.update(payload)
