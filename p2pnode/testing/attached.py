"""A core as the virtual network sees it: its shape, its clock and its receive buffer."""

import dataclasses
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

PeerT = TypeVar("PeerT", bound=Hashable)
EventT = TypeVar("EventT")
PeerT_co = TypeVar("PeerT_co", covariant=True)
EventT_co = TypeVar("EventT_co", covariant=True)

DEFAULT_RECEIVE_BUFFER = 212_992
"""Linux's default; 92 datagrams of 1200 bytes fit into it (measured)."""

BOOKKEEPING = DEFAULT_RECEIVE_BUFFER // 92 - 1200
"""What Linux charges a waiting datagram on top of its bytes, from the measurement above."""


class Sendable(Protocol[PeerT_co]):
    """Whatever names a destination and a payload; :class:`~p2pnode.sansio.Transmit` does."""

    @property
    def destination(self) -> PeerT_co: ...
    @property
    def payload(self) -> bytes: ...


class Attachable(Protocol[PeerT, EventT_co]):
    """The shape of every core, as far as a network cares (see :mod:`p2pnode.sansio`)."""

    def receive_datagram(self, data: bytes, source: PeerT, now: float) -> None: ...
    def handle_timeout(self, now: float) -> None: ...
    def next_timeout(self) -> float | None: ...
    def datagrams_to_send(self) -> Sequence[Sendable[PeerT]]: ...
    def take_events(self) -> Sequence[EventT_co]: ...


@dataclass(frozen=True, slots=True)
class Clock:
    """How one node's clock reads: ``offset + rate * time``."""

    offset: float = 0.0
    rate: float = 1.0

    def read(self, moment: float) -> float:
        return self.offset + self.rate * moment

    def when(self, reading: float) -> float:
        return (reading - self.offset) / self.rate


class Node(Generic[PeerT, EventT]):
    """One attached core and what the network remembers of it.

    Attributes:
        wake: When its earliest agenda entry pops.
        due: What its own clock reads when its next timer fires.
    """

    def __init__(
        self,
        address: PeerT,
        core: Attachable[PeerT, EventT],
        on_event: Callable[[EventT, float], None] | None,
        clock: Clock,
        receive_buffer: int,
    ) -> None:
        self.address = address
        self.core = core
        self.on_event = on_event
        self.clock = clock
        self.receive_buffer = receive_buffer
        self.wake: float | None = None
        self.due: float | None = None
        self.stalled_until = 0.0
        self.waiting: deque[tuple[PeerT, bytes]] = deque()
        self.buffered = 0
        self.spins = 0
        self.spun_at = -1.0


def fingerprint(event: object) -> bytes:
    """Return bytes that are equal for equal events, in this process and in any other.

    Of dataclasses the fields count, of what can be called (a task, with all it was made of) the
    type alone, of anything else the ``repr``; an event that holds a set of
    strings has no stable one, since their order changes from process to process.
    """
    kind = type(event)
    reader = _READERS.get(kind)
    if reader is None:
        reader = _READERS[kind] = _reader_of(event)
    return reader(event)


def _reader_of(event: object) -> Callable[[Any], bytes]:
    """Return what makes bytes of all events of this one's type; asked once a type."""
    kind = type(event)
    if issubclass(kind, bytes | memoryview):
        return bytes
    if issubclass(kind, tuple | list):
        return lambda event: b"\x1e".join([fingerprint(part) for part in event])
    name = kind.__name__.encode()
    if callable(event):
        return lambda event: name
    if not dataclasses.is_dataclass(event):
        return lambda event: repr(event).encode()
    fields = [part.name for part in dataclasses.fields(event)]
    return lambda event: b"\x1f".join(
        [name, *[fingerprint(getattr(event, field)) for field in fields]]
    )


_READERS: dict[type, Callable[[Any], bytes]] = {}
