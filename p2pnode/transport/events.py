"""What an endpoint tells its owner, and the classes of delivery the owner may ask for."""

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from p2pnode.sansio import Address, NodeId

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


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A handshake with ``peer`` succeeded; both sides proved identity and secret."""

    peer: NodeId
    address: Address


@dataclass(frozen=True, slots=True)
class PeerUnresponsive:
    """Data in flight to ``peer`` has been unacknowledged for ``silent_for`` seconds.

    Said once for each silence; the connection goes on trying.
    """

    peer: NodeId
    silent_for: float


@dataclass(frozen=True, slots=True)
class PeerResponsive:
    """An unresponsive ``peer`` acknowledged something: the silence is over."""

    peer: NodeId


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    """The connection ended, by whoever's will; messages still in flight may or may not arrive."""

    peer: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A whole message of ``peer``, authenticated, told once."""

    peer: NodeId
    payload: bytes
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class DialFailed:
    """No connection came of a dial; ``reason`` says what a person might look at.

    Attributes:
        address: The address dialled.
        peer: Whom we expected there, or who turned out to be there.
        reason: One line.
    """

    address: Address
    peer: NodeId | None
    reason: str


TransportEvent: TypeAlias = (
    PeerConnected
    | PeerUnresponsive
    | PeerResponsive
    | PeerDisconnected
    | MessageReceived
    | DialFailed
)
