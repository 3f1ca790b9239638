"""What a virtual network has seen."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

PeerT = TypeVar("PeerT", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Statistics(Generic[PeerT]):
    """What the network has seen so far.

    Attributes:
        sent: Datagrams handed over by cores.
        delivered: Datagrams handed to cores, second copies included.
        dropped: Datagrams that reached nobody, by reason: ``loss``, ``queue``, ``mtu``,
            ``partition``, ``absent`` (no core there), ``buffer`` (the receiver was stalled and
            its buffer full), ``intercepted``.
        malformed: Datagrams that a core refused with ``RemoteProtocolError``.
        bytes_sent: UDP payload bytes sent, by sender.
        bytes_delivered: UDP payload bytes delivered, by receiver.
    """

    sent: int
    delivered: int
    dropped: Mapping[str, int]
    malformed: int
    bytes_sent: Mapping[PeerT, int]
    bytes_delivered: Mapping[PeerT, int]
