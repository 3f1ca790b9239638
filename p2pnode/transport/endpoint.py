"""The transport of one node: many connections behind one UDP socket, without the socket.

Datagrams, commands and time go in; datagrams, events and the moment of the next timer come out.
"""

from collections import Counter

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.sansio import Address, NodeId, Rng, Transmit
from p2pnode.transport.admission import SwarmKeys
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.connection import Connection
from p2pnode.transport.establishing import Establishing
from p2pnode.transport.events import (
    Delivery,
    TransportEvent,
)
from p2pnode.transport.handshake import Local
from p2pnode.transport.identity import Identity
from p2pnode.transport.memory import Memory
from p2pnode.transport.messages import LEVELS
from p2pnode.transport.packets import DATA_HEADER, DroppedError, Hello, Kind
from p2pnode.transport.peers import PeerTable
from p2pnode.transport.snapshot import TransportSnapshot
from p2pnode.transport.surroundings import Surroundings


class Endpoint:
    """Dials, answers, and carries messages between this node and its peers.

    *Commands*: :meth:`connect`, :meth:`send`, :meth:`close`, :meth:`close_all`.
    *Inputs*: :meth:`receive_datagram`, :meth:`handle_timeout`.
    *Outputs*, to be collected after each of them: :meth:`datagrams_to_send`, :meth:`take_events`,
    :meth:`next_timeout`.

    Attributes:
        cleared: Peers that :meth:`is_clear` anew, in the order in which that was seen; whoever
            holds messages back for them takes them from here.
    """

    def __init__(
        self,
        config: TransportConfig,
        identity: Identity,
        swarm_secret: bytes,
        rng: Rng,
        now: float,
    ) -> None:
        """``swarm_secret`` is the 32 bytes that all members share."""
        self._outbox: list[Transmit[Address]] = []
        self._events: list[TransportEvent] = []
        self._counters: Counter[str] = Counter()
        self._memory = Memory.of(config)
        self._peers = PeerTable(config)
        self._by_index = self._peers.by_index
        self._by_peer = self._peers.by_peer
        self.cleared: dict[NodeId, None] = {}
        self._around = Surroundings(
            self._outbox, self._events, self._memory, self._count, self._peers.moved, self.cleared
        )
        hello = Hello(identity.node_id, rng.randbytes(8), config.max_datagram)
        local = Local(config, identity, SwarmKeys.derive(swarm_secret), hello, rng)
        self._establishing = Establishing(local, self._around, self._peers, now)
        self._schedule = self._establishing.schedule
        self._contests = self._establishing.contests

    # Commands

    def connect(
        self,
        address: Address,
        now: float,
        *,
        peer: NodeId | None = None,
        tries: int | None = None,
    ) -> None:
        """Dial ``address``, expecting ``peer`` there if given.

        ``tries`` bounds how often the first message is sent before anything came back, for an
        address that may be a third party's.

        Each dial ends in PeerConnected or DialFailed, one under way at the same address for each
        peer that was hoped for there. Nothing happens when the peer is connected, or, where none is
        given, somebody at the address.
        """
        self._establishing.dial(address, peer, now, tries)

    def vouch(self, peer: NodeId) -> None:
        """``peer`` is known from before: it need not prove itself, and never makes room."""
        self._establishing.vouch(peer)

    def send(self, peer: NodeId, payload: bytes, delivery: Delivery, now: float) -> int:
        """Send a message of at most 65536 bytes; return its number (-1 for a DATAGRAM).

        Raises:
            LocalProtocolError: ``peer`` is not connected, or the message is too large for its
                class. Nothing was sent.
            QueueFullError: It is larger than :meth:`room`. Nothing was sent.
        """
        return self._connection(peer).send(payload, delivery, now)

    def ping(self, peer: NodeId, now: float) -> None:
        """Ask ``peer`` for an acknowledgement, which shows it where we are now."""
        connection = self._by_peer.get(peer)
        if connection is not None:
            self._schedule.take(connection)
            connection.ping(now)

    def close(self, peer: NodeId, reason: str, now: float) -> None:
        """End the connection to ``peer`` and tell it why; harmless when there is none."""
        connection = self._by_peer.get(peer)
        if connection is not None:
            connection.close(reason, now)
            self._establishing.reap(connection)

    def close_all(self, reason: str, now: float) -> None:
        for peer in list(self._by_peer):
            self.close(peer, reason, now)

    def close_when_flushed(self, reason: str, deadline: float, now: float) -> None:
        """Close each connection once what was handed over is acknowledged, or at ``deadline``.

        Until then nobody new is let in. Whether all are closed, :attr:`is_closed` says.
        """
        self._establishing.take_leave(reason, deadline, now)

    # Questions

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close_when_flushed` was asked for, and is done."""
        return self._establishing.departure is not None and not self._by_peer

    @property
    def is_flushed(self) -> bool:
        """Whether all that was handed over was sent and, if it asks for that, acknowledged."""
        return all(connection.is_flushed for connection in self._by_peer.values())

    def is_dialling(self, peer: NodeId) -> bool:
        """Whether a dial under way may lead to ``peer``."""
        return self._establishing.is_dialling(peer)

    def is_proven(self, peer: NodeId) -> bool:
        """Whether ``peer`` is connected and did something for its name, or was vouched for."""
        connection = self._by_peer.get(peer)
        return connection is not None and connection.is_proven

    def is_connected(self, peer: NodeId) -> bool:
        return peer in self._by_peer

    def peers(self) -> list[NodeId]:
        return list(self._by_peer)

    def address_of(self, peer: NodeId) -> Address | None:
        connection = self._by_peer.get(peer)
        return None if connection is None else connection.address

    def rtt(self, peer: NodeId) -> float | None:
        """Smoothed round trip in seconds; None when not connected."""
        connection = self._by_peer.get(peer)
        return None if connection is None else connection.rtt

    def heard_ago(self, peer: NodeId, now: float) -> float | None:
        """Seconds since anything authenticated came from ``peer``; None when not connected."""
        connection = self._by_peer.get(peer)
        return None if connection is None else connection.heard_ago(now)

    def queued_bytes(self, peer: NodeId) -> int:
        """Bytes of messages that ``peer`` has not acknowledged; 0 when not connected."""
        connection = self._by_peer.get(peer)
        return 0 if connection is None else connection.queued

    def arriving_bytes(self, peer: NodeId) -> int:
        """Bytes that came from ``peer``, of messages that are not complete."""
        connection = self._by_peer.get(peer)
        return 0 if connection is None else connection.arriving

    def is_clear(self, peer: NodeId, delivery: Delivery) -> bool:
        """Whether a message to ``peer`` would wait for no other; False when not connected.

        For one of BULK all others count, for one of LATENCY those of BULK do not.
        """
        return LEVELS[delivery] <= self.clear_down_to(peer)

    def clear_down_to(self, peer: NodeId) -> int:
        """Return the last level of which a message to ``peer`` would wait for no other.

        0 is LATENCY, 1 BULK, 2 BACKGROUND; -1 where even one of LATENCY would, or when not
        connected.
        """
        connection = self._by_peer.get(peer)
        return -1 if connection is None else connection.clear_down_to

    def is_mute(self, peer: NodeId) -> bool:
        """Whether ``peer`` acknowledged no message yet, or none for ``silence``."""
        connection = self._by_peer.get(peer)
        return connection is not None and connection.is_mute

    def room(self, peer: NodeId) -> int:
        """Bytes that a message to ``peer`` may have to be accepted now; 0 when not connected."""
        connection = self._by_peer.get(peer)
        return 0 if connection is None else connection.room

    def snapshot(self, now: float) -> TransportSnapshot:
        views = tuple(connection.view(now) for connection in self._by_peer.values())
        memory = self._memory
        return TransportSnapshot(
            views,
            dict(self._counters),
            half_open=self._establishing.half_open,
            unproven=self._peers.unproven,
            sending_bytes=memory.sending.held + memory.sending_unproven.held,
            receiving_bytes=memory.receiving.held + memory.receiving_unproven.held,
        )

    # Inputs

    def receive_datagram(self, data: bytes, source: Address, now: float) -> None:
        """Take one datagram.

        Raises:
            RemoteProtocolError: It was dropped; a counter says why, and nothing else changed.
        """
        try:
            self._receive_untrusted(data, source, now)
        except DroppedError as error:
            self._counters[error.reason] += 1
            raise
        except RemoteProtocolError:
            self._counters["handshake_forged"] += 1
            raise

    def handle_timeout(self, now: float) -> None:
        self._establishing.handle_timeout(now)

    # Outputs

    def next_timeout(self) -> float | None:
        return self._establishing.next_timeout()

    def datagrams_to_send(self) -> list[Transmit[Address]]:
        taken = self._outbox[:]
        self._outbox.clear()
        return taken

    def take_events(self) -> list[TransportEvent]:
        taken = self._events[:]
        self._events.clear()
        return taken

    # The machine

    def _receive_untrusted(self, data: bytes, source: Address, now: float) -> None:
        kind = data[0] if data else 0
        if kind != Kind.DATA:
            self._establishing.receive_untrusted(kind, data, source, now)
            return
        if len(data) < DATA_HEADER.size:
            raise DroppedError("data_malformed")
        index = int.from_bytes(data[1:5], "little")
        connection = self._by_index.get(index)
        if connection is None:
            self._establishing.confirm_untrusted(index, data, now)
            return
        if connection not in self._schedule.in_hand:
            self._schedule.take(connection)
        connection.receive_untrusted(data, source, now)
        if (
            connection.ended is not None
            or self._contests
            or self._establishing.departure is not None
        ):
            self._establishing.finish_input(connection, now)

    def _connection(self, peer: NodeId) -> Connection:
        connection = self._by_peer.get(peer)
        if connection is None:
            raise LocalProtocolError(f"not connected to {peer.hex()[:8]}")
        if connection not in self._schedule.in_hand:
            self._schedule.take(connection)
        return connection

    def _count(self, reason: str) -> None:
        self._counters[reason] += 1
