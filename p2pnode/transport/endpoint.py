"""The transport of one node: many connections behind one UDP socket, without the socket.

Datagrams, commands and time go in; datagrams, events and the moment of the next timer come out.
"""

from collections import Counter
from math import inf

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.sansio import Address, NodeId, Rng, Transmit
from p2pnode.transport.admission import SwarmKeys
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.connection import Connection
from p2pnode.transport.events import (
    Delivery,
    DialFailed,
    PeerConnected,
    PeerDisconnected,
    TransportEvent,
)
from p2pnode.transport.handshake import Dial, Established, Local
from p2pnode.transport.identity import Identity, is_possible
from p2pnode.transport.lobby import HalfOpen, Lobby
from p2pnode.transport.packets import DATA_HEADER, DroppedError, Hello, Kind
from p2pnode.transport.peers import PeerTable
from p2pnode.transport.schedule import Schedule
from p2pnode.transport.snapshot import TransportSnapshot


class Endpoint:
    """Dials, answers, and carries messages between this node and its peers.

    *Commands*: :meth:`connect`, :meth:`send`, :meth:`close`, :meth:`close_all`.
    *Inputs*: :meth:`receive_datagram`, :meth:`handle_timeout`.
    *Outputs*, to be collected after each of them: :meth:`datagrams_to_send`, :meth:`take_events`,
    :meth:`next_timeout`.
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
        self._config = config
        self._rng = rng
        self._outbox: list[Transmit[Address]] = []
        self._events: list[TransportEvent] = []
        self._counters: Counter[str] = Counter()
        self._peers = PeerTable()
        self._by_index = self._peers.by_index
        self._by_peer = self._peers.by_peer
        self._schedule = Schedule[Connection]()
        hello = Hello(identity.node_id, rng.randbytes(8), config.max_datagram)
        self._local = Local(config, identity, SwarmKeys.derive(swarm_secret), hello, rng)
        self._lobby = Lobby(
            self._local,
            draw_index=self._draw_index,
            outbox=self._outbox,
            count=self._count,
            now=now,
        )

    # Commands

    def connect(self, address: Address, now: float, *, peer: NodeId | None = None) -> None:
        """Dial ``address``, expecting ``peer`` there if given.

        Each dial ends in PeerConnected or DialFailed. Nothing happens when a dial to the address
        is under way, or a connection to it or to the peer is up.
        """
        if peer == self._local.identity.node_id:
            self._events.append(DialFailed(address, peer, "that is this node itself"))
            return
        if peer in self._by_peer or self._peers.is_connected_at(address):
            return
        if peer is not None and not is_possible(peer):
            # Announcements and gossip bring keys of strangers; a bad one is no bug of ours.
            self._events.append(DialFailed(address, peer, "its key is no key: no such node exists"))
            return
        self._lobby.dial(address, peer, now)

    def send(self, peer: NodeId, payload: bytes, delivery: Delivery, now: float) -> int:
        """Send a message of at most 65536 bytes; return its number (-1 for a DATAGRAM).

        Raises:
            LocalProtocolError: ``peer`` is not connected, the message is too large for its class,
                or :meth:`queued_bytes` has reached its bound. Nothing was sent.
        """
        return self._connection(peer).send(payload, delivery, now)

    def close(self, peer: NodeId, reason: str, now: float) -> None:
        """End the connection to ``peer`` and tell it why; harmless when there is none."""
        connection = self._by_peer.get(peer)
        if connection is not None:
            connection.close(reason, now)
            self._reap(connection)

    def close_all(self, reason: str, now: float) -> None:
        for peer in list(self._by_peer):
            self.close(peer, reason, now)

    # Questions

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

    def snapshot(self, now: float) -> TransportSnapshot:
        views = tuple(connection.view(now) for connection in self._by_peer.values())
        return TransportSnapshot(views, dict(self._counters))

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
        for dial in self._lobby.handle_timeout(now):
            self._counters["dials_failed"] += 1
            self._events.append(DialFailed(dial.address, dial.peer, dial.failure))
        for connection in self._schedule.take_due(now):
            self._schedule.take(connection)
            connection.handle_timeout(now)
            self._reap(connection)

    # Outputs

    def next_timeout(self) -> float | None:
        earliest = min(self._lobby.next_timeout(), self._schedule.next_timeout())
        return None if earliest == inf else earliest

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
        if kind == Kind.DATA:
            self._receive_data_untrusted(data, source, now)
        elif kind == Kind.INIT:
            self._lobby.receive_init_untrusted(data, source, now)
        elif kind == Kind.RESPONSE:
            dial, made = self._lobby.receive_response_untrusted(data, source, now)
            self._consider_response(dial, made, now)
        elif kind == Kind.FINISH:
            answer, made = self._lobby.receive_finish_untrusted(data, source, now)
            connection = self._establish(answer, made, now)
            if connection is not None:
                connection.ping(now)
        elif kind == Kind.COOKIE:
            self._lobby.receive_cookie_untrusted(data, source, now)
        else:
            raise DroppedError("unknown_kind")

    def _receive_data_untrusted(self, data: bytes, source: Address, now: float) -> None:
        if len(data) < DATA_HEADER.size:
            raise DroppedError("data_malformed")
        index = int.from_bytes(data[1:5], "little")
        connection = self._by_index.get(index)
        if connection is not None:
            if connection is not self._schedule.in_hand:
                self._schedule.take(connection)
            connection.receive_untrusted(data, source, now)
            if connection.ended is not None:
                self._reap(connection)
            return
        half_open, counter, frames = self._lobby.open_untrusted(index, data)
        if half_open.established is not None:
            made = self._establish(half_open, half_open.established, now)
            if made is not None:
                made.receive_opened_untrusted(counter, frames, len(data), now)
                self._reap(made)

    def _consider_response(self, dial: Dial, made: Established, now: float) -> None:
        """We know now who answered: go on, unless it is ourselves or needless."""
        peer = made.hello.node_id
        existing = self._by_peer.get(peer)
        if peer == self._local.identity.node_id:
            self._give_up(dial, "that is this node itself")
        elif (
            existing is not None
            and existing.instance == made.hello.instance
            and existing.is_responsive
        ):
            host, port = existing.address
            self._give_up(dial, f"already connected to this node at {host}:{port}")
        elif dial.is_finished_by_response:
            connection = self._establish(dial, made, now)
            if connection is not None:
                connection.ping(now)
        else:
            self._lobby.send_finish(dial, now)

    def _give_up(self, dial: Dial, reason: str) -> None:
        self._lobby.drop(dial)
        self._events.append(DialFailed(dial.address, dial.peer, reason))

    def _establish(self, half_open: HalfOpen, made: Established, now: float) -> Connection | None:
        """Make a connection of a confirmed handshake; None when an existing one stays instead."""
        self._lobby.drop(half_open)
        peer = made.hello.node_id
        existing = self._by_peer.get(peer)
        if existing is not None:
            if self._stays(existing, made, now):
                self._counters["handshake_crossed"] += 1
                return None
            existing.ended = "replaced: the peer connected anew"
            self._reap(existing)
        elif len(self._by_peer) >= self._config.max_peers:
            raise DroppedError("peers_too_many")
        connection = Connection(
            self._config, made, self._outbox, self._events, now, on_move=self._peers.moved
        )
        self._peers.add(connection)
        self._schedule.take(connection)
        self._lobby.drop_dials(peer, made.address)
        self._events.append(PeerConnected(peer, made.address))
        return connection

    def _stays(self, existing: Connection, made: Established, now: float) -> bool:
        """Of two handshakes between the same two processes at once, the lower node's dial stays."""
        is_young = now - existing.began < self._config.dial_timeout
        ours_is_lower = self._local.identity.node_id < existing.peer
        return (
            existing.instance == made.hello.instance
            and is_young
            and existing.is_dialler != made.is_dialler
            and existing.is_dialler == ours_is_lower
        )

    def _reap(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        if connection.ended is None or not self._peers.remove(connection):
            return
        self._schedule.drop(connection)
        self._events.append(PeerDisconnected(connection.peer, connection.ended))

    def _connection(self, peer: NodeId) -> Connection:
        connection = self._by_peer.get(peer)
        if connection is None:
            raise LocalProtocolError(f"not connected to {peer.hex()[:8]}")
        if connection is not self._schedule.in_hand:
            self._schedule.take(connection)
        return connection

    def _draw_index(self) -> int:
        while True:
            index = self._rng.randrange(0, 1 << 32)
            if index not in self._by_index and index not in self._lobby:
                return index

    def _count(self, reason: str) -> None:
        self._counters[reason] += 1
