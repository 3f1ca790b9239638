"""What an endpoint tells its owner, and the classes of delivery the owner may ask for."""

from enum import Enum, IntEnum, auto
from typing import TypeAlias

from p2pnode.sansio import Address, NodeId
from p2pnode.values import value

MAX_MESSAGE = 65536
"""Bytes in the largest message; one V-Frame."""


class Delivery(IntEnum):
    """How a message travels. Whatever the class: whole, at most once, in no order."""

    LATENCY = 0
    """Ahead of everything else, with parity when loss is measured, repaired until it arrives."""
    BULK = 1
    """Behind latency messages, without parity, repaired until it arrives."""
    DATAGRAM = 2
    """Once, never repaired; must fit one datagram."""
    BACKGROUND = 3
    """Behind BULK, and slower where a queue grows on the way, whoever else fills it. On the wire it
    is BULK: only its sender knows."""


@value
class PeerConnected:
    """A handshake with ``peer`` succeeded; both sides proved identity and secret."""

    peer: NodeId
    address: Address


@value
class PeerUnresponsive:
    """Data in flight to ``peer`` has been unacknowledged for ``silent_for`` seconds.

    Said once for each silence; the connection goes on trying.
    """

    peer: NodeId
    silent_for: float


@value
class PeerResponsive:
    """An unresponsive ``peer`` acknowledged something: the silence is over."""

    peer: NodeId


class Successor(Enum):
    """Whose handshake took the place of a connection."""

    SAME_PROCESS = auto()  # it dialled anew, or at two addresses at once: nobody closed anything
    NEW_PROCESS = auto()  # the peer was started anew: what its former self held is lost


@value
class PeerDisconnected:
    """The connection ended; messages still in flight may or may not arrive.

    Attributes:
        peer: Whom it led to.
        reason: Why.
        by_us: Whether it was our will, and says nothing of the peer.
        successor: Whose handshake took its place; None if none did.
    """

    peer: NodeId
    reason: str
    by_us: bool = False
    successor: Successor | None = None


@value
class MessageReceived:
    """A whole message of ``peer``, authenticated, told once."""

    peer: NodeId
    payload: bytes
    delivery: Delivery


@value
class DialFailed:
    """No connection came of a dial; ``reason`` says what a person might look at.

    Attributes:
        address: The address dialled.
        peer: Whom we expected there, or who turned out to be there.
        reason: One line.
        is_needless: Whether ``peer`` answered at another address, so that nothing is amiss.
    """

    address: Address
    peer: NodeId | None
    reason: str
    is_needless: bool = False


@value
class PathTooSmall:
    """The path to ``peer`` carries less than ``size`` bytes of UDP payload, though it carries some.

    The connection is given up with it: what is larger would never arrive.
    """

    peer: NodeId
    address: Address
    size: int


@value
class KeyUsedTwice:
    """Two living processes use one key: a state directory was copied, or a disk cloned.

    Told at most once a minute for a pair of addresses.

    Attributes:
        peer: The key; our own, if the other process uses that.
        address: Where the one is that keeps its session; None when that is this node itself.
        other_address: Where the one is that was refused.
    """

    peer: NodeId
    address: Address | None
    other_address: Address


TransportEvent: TypeAlias = (
    PeerConnected
    | PeerUnresponsive
    | PeerResponsive
    | PeerDisconnected
    | MessageReceived
    | DialFailed
    | PathTooSmall
    | KeyUsedTwice
)
