"""A frozen picture of an endpoint, for faces and tests."""

from collections.abc import Mapping
from dataclasses import dataclass

from p2pnode.sansio import Address, NodeId


@dataclass(frozen=True, slots=True)
class ConnectionView:
    """One connection; counts are since it began.

    Attributes:
        peer: Whom it leads to.
        address: Where that peer is now.
        age: Seconds since the handshake.
        last_heard: Seconds since anything authenticated came.
        is_responsive: False between PeerUnresponsive and PeerResponsive.
        rtt: Smoothed round trip, seconds.
        loss: Share of our last 1024 packets that were lost.
        window: Congestion window, bytes.
        in_flight: Bytes of it in use.
        queued: Bytes of messages not yet acknowledged.
        datagram: Largest UDP payload the path is known to carry.
        bytes_in: UDP payload bytes received.
        bytes_out: UDP payload bytes sent.
        datagrams_in: Datagrams received.
        datagrams_out: Datagrams sent.
        messages_in: Messages delivered.
        messages_out: Messages accepted for sending.
        retransmits: Shards sent again.
        parity_sent: Shards sent beyond need, against loss.
        lost: Packets taken for lost.
        recovered: Messages that parity completed.
        epochs: How often our and the peer's sending key were replaced.
    """

    peer: NodeId
    address: Address
    age: float
    last_heard: float
    is_responsive: bool
    rtt: float
    loss: float
    window: int
    in_flight: int
    queued: int
    datagram: int
    bytes_in: int
    bytes_out: int
    datagrams_in: int
    datagrams_out: int
    messages_in: int
    messages_out: int
    retransmits: int
    parity_sent: int
    lost: int
    recovered: int
    epochs: tuple[int, int]


@dataclass(slots=True)
class Traffic:
    """The counts of one connection, as they grow; named as in :class:`ConnectionView`."""

    bytes_in: int = 0
    bytes_out: int = 0
    datagrams_in: int = 0
    datagrams_out: int = 0
    messages_in: int = 0
    messages_out: int = 0
    retransmits: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class TransportSnapshot:
    """The whole endpoint.

    Attributes:
        connections: By peer.
        counters: Everything dropped or refused, by reason, and handshake events; cumulative.
        half_open: Handshakes that we answered and nobody has finished yet.
        unproven: Connections with keys that did nothing for their name yet.
        sending_bytes: Memory that messages hold which are not acknowledged, all peers together.
        receiving_bytes: Memory that messages hold of which some shards are here.
    """

    connections: tuple[ConnectionView, ...]
    counters: Mapping[str, int]
    half_open: int = 0
    unproven: int = 0
    sending_bytes: int = 0
    receiving_bytes: int = 0
