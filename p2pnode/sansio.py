"""The shape that every core shares.

A core only thinks. Datagrams, commands and time go in; datagrams, events and the moment of its
next timer come out. It reads no clock and holds no entropy: ``now`` (seconds on any monotonic
clock) and ``rng`` are arguments, so the same seed tells the same story, and one driver and one
simulator serve every core.
"""

from collections.abc import MutableSequence, Sequence
from typing import Any, Generic, NewType, Protocol, TypeAlias, TypeVar

from p2pnode.values import value

Address: TypeAlias = tuple[str, int]
"""An IP address in text form, and a UDP port."""

NodeId = NewType("NodeId", bytes)
"""A node's ed25519 verify key, 32 bytes: its name everywhere beyond the socket."""

PeerT = TypeVar("PeerT", contravariant=False)
EventT_co = TypeVar("EventT_co", covariant=True)
_T = TypeVar("_T")


@value
class Transmit(Generic[PeerT]):
    """``payload`` is to be sent to ``destination`` as one datagram.

    ``is_probe``: it asks whether the path carries so much; that it does not is an answer too.
    """

    destination: PeerT
    payload: bytes
    is_probe: bool = False


def format_address(address: Address) -> str:
    """Return ``host:port``, an IPv6 host in brackets."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Rng(Protocol):
    """The part of :class:`random.Random` that cores use.

    A node gets ``random.SystemRandom`` (the operating system's entropy: session keys are drawn
    from it), a simulation ``random.Random(seed)``.
    """

    def random(self) -> float: ...
    def uniform(self, a: float, b: float) -> float: ...
    def randrange(self, start: int, stop: int, /) -> int: ...
    def randbytes(self, n: int) -> bytes: ...
    def choice(self, seq: Sequence[_T]) -> _T: ...
    def shuffle(self, x: MutableSequence[Any]) -> None: ...
    def sample(self, population: Sequence[_T], k: int) -> list[_T]: ...


class Core(Protocol[PeerT, EventT_co]):
    """What a driver or a simulator needs of a core."""

    def receive_datagram(self, data: bytes, source: PeerT, now: float) -> None:
        """Take one datagram.

        Raises:
            RemoteProtocolError: It was malformed; only a counter changed.
        """

    def handle_timeout(self, now: float) -> None:
        """Fire, in order of time, every timer due by ``now``."""

    def next_timeout(self) -> float | None:
        """Return the moment of the earliest timer, or None."""

    def datagrams_to_send(self) -> list[Transmit[PeerT]]:
        """Hand over what is to be sent now; a second call returns nothing new."""

    def take_events(self) -> Sequence[EventT_co]:
        """Hand over what has happened since the last call."""
