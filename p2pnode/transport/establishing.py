"""From handshakes to connections: who gets one, who waits, who is refused, who must go for whom.

Everything rare is here, so that datagrams of established connections do not come here.
"""

from contextlib import suppress
from math import inf

from p2pnode.sansio import Address, NodeId, Transmit, format_address
from p2pnode.transport.connection import Connection
from p2pnode.transport.crossing import gives_way, stays
from p2pnode.transport.events import (
    DialFailed,
    KeyUsedTwice,
    PeerConnected,
    PeerDisconnected,
    Successor,
)
from p2pnode.transport.frames import Close, close_frame, decode_frames_untrusted
from p2pnode.transport.half_open import HalfOpen, HalfOpenTable
from p2pnode.transport.handshake import Dial, Established, Local
from p2pnode.transport.identity import is_possible
from p2pnode.transport.newcomers import Newcomers
from p2pnode.transport.packets import DroppedError, Kind
from p2pnode.transport.peers import PeerTable
from p2pnode.transport.rivals import Contest, Rivals
from p2pnode.transport.schedule import Schedule
from p2pnode.transport.surroundings import Surroundings


class Establishing:
    """Makes connections of handshakes, and ends them.

    Attributes:
        peers: The connections there are.
        schedule: The same by the moment of their next timer.
        contests: Peers of whom two processes may live; empty nearly always.
        departure: Why and when everything ends at the latest; None until we leave.
    """

    def __init__(
        self,
        local: Local,
        around: Surroundings,
        peers: PeerTable,
        now: float,
    ) -> None:
        """``around`` is what all connections share."""
        self._local = local
        self._config = local.config
        self._around = around
        self._outbox = around.outbox
        self._events = around.events
        self._count = around.count
        self.peers = peers
        self._by_peer = peers.by_peer
        self.schedule = Schedule[Connection]()
        self._newcomers = Newcomers(local.config, now)
        self._rivals = Rivals(local.config)
        self.contests = self._rivals.contests
        self.departure: tuple[str, float] | None = None
        self._half_open = HalfOpenTable(
            local,
            draw_index=self._draw_index,
            outbox=around.outbox,
            count=around.count,
            now=now,
        )

    # Commands

    def dial(
        self, address: Address, peer: NodeId | None, now: float, tries: int | None = None
    ) -> None:
        """Begin a handshake; see ``Endpoint.connect``."""
        if peer in self._by_peer:
            return
        reason = self._reason_not_to_dial(address, peer)
        if reason is None and peer is None and self.peers.is_connected_at(address):
            return
        if reason is None and not self._half_open.dial(address, peer, now, tries):
            reason = "too many others are being called at this address"
        if reason is not None:
            self._events.append(DialFailed(address, peer, reason))

    def is_dialling(self, peer: NodeId) -> bool:
        return self._half_open.is_dialling(peer)

    @property
    def half_open(self) -> int:
        return self._half_open.half_open

    def vouch(self, peer: NodeId) -> None:
        """``peer`` is known from before; see ``Endpoint.vouch``."""
        self._newcomers.know(peer)
        if peer in self._by_peer:
            self.prove(self._by_peer[peer])

    def prove(self, connection: Connection) -> None:
        """The peer of ``connection`` did something for its name."""
        self._newcomers.know(connection.peer)
        connection.prove()
        self.peers.proven(connection)

    def take_leave(self, reason: str, deadline: float, now: float) -> None:
        """Close what is flushed, the rest when it is or at ``deadline``; let nobody in."""
        self.departure = (reason, deadline)
        for connection in list(self._by_peer.values()):
            self.schedule.take(connection)
            connection.ping(now)  # what left unacknowledged before it has arrived when this has

    # Inputs

    def receive_untrusted(self, kind: int, data: bytes, source: Address, now: float) -> None:
        """Take a datagram of a handshake."""
        if kind == Kind.INIT:
            if self.departure is not None:
                raise DroppedError("handshake_while_leaving")
            self._half_open.receive_init_untrusted(data, source, now)
        elif kind == Kind.RESPONSE:
            dial, made = self._half_open.receive_response_untrusted(data, source, now)
            self._consider_response(dial, made, now)
        elif kind == Kind.FINISH:
            answer, made = self._half_open.receive_finish_untrusted(data, source, now)
            connection = self._establish(answer, made, now)
            if connection is not None:
                connection.ping(now)
        elif kind == Kind.COOKIE:
            self._half_open.receive_cookie_untrusted(data, source, now)
        else:
            raise DroppedError("unknown_kind")

    def confirm_untrusted(self, index: int, data: bytes, now: float) -> None:
        """Take the first sealed datagram of a handshake."""
        half_open, counter, frames = self._half_open.open_untrusted(index, data)
        if half_open.established is None or self._is_refusal_untrusted(half_open, frames):
            return
        connection = self._establish(half_open, half_open.established, now)
        if connection is not None:
            connection.receive_opened_untrusted(counter, frames, len(data), now)
            self.reap(connection)

    def handle_timeout(self, now: float) -> None:
        for dial in self._half_open.handle_timeout(now):
            self._count("dials_failed")
            self._end_dial(dial, dial.failure)
        for connection in self.schedule.take_due(now):
            self.schedule.take(connection)
            connection.handle_timeout(now)
            self.finish_input(connection, now)
        if self.contests:
            self._decide_contests(now)
        if self.departure is not None and now >= self.departure[1]:
            for connection in list(self._by_peer.values()):
                connection.close(self.departure[0], now)
                self.reap(connection)

    def next_timeout(self) -> float | None:
        """Return when something is due; None when nothing is."""
        earliest, handshake = self.schedule.next_timeout(), self._half_open.next_timeout()
        if handshake < earliest:
            earliest = handshake
        if self.contests:
            earliest = self._rivals.next_timeout(earliest)
        if self.departure is not None and self._by_peer:
            earliest = min(earliest, self.departure[1])
        return None if earliest == inf else earliest

    def finish_input(self, connection: Connection, now: float) -> None:
        """Look at what an input to ``connection`` may have brought about, besides its own doing."""
        if connection.ended is not None:
            self.reap(connection)
            if self.contests and (contest := self._rivals.ended(connection)) is not None:
                self._replace(contest, now)
            return
        if self.contests and (contest := self._rivals.survived(connection)) is not None:
            self._refuse(contest, now)
        if self.departure is not None and connection.is_flushed:
            connection.close(self.departure[0], now)
            self.reap(connection)

    def reap(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        if connection.ended is None or not self.peers.remove(connection):
            return
        connection.release()
        self.schedule.drop(connection)
        self._events.append(
            PeerDisconnected(
                connection.peer,
                connection.ended,
                by_us=connection.ended_by_us,
                successor=connection.successor,
            )
        )

    # Making connections

    def _is_refusal_untrusted(self, half_open: HalfOpen, frames: bytes) -> bool:
        """Look at the packet that confirms our dial: say whether it is a refusal instead."""
        if not isinstance(half_open, Dial):
            return False
        for frame in decode_frames_untrusted(frames):
            if isinstance(frame, Close):
                self._give_up(half_open, f"refused there: {frame.reason}")
                return True
        return False

    def _consider_response(self, dial: Dial, made: Established, now: float) -> None:
        """We know now who answered: go on, unless it is ourselves or needless.

        Of our dials to one process only one goes on once it is answered: the peer makes a
        connection of each that is finished, and cannot tell which of them we would keep.
        """
        peer = made.hello.node_id
        existing = self._by_peer.get(peer)
        under_way = self._half_open.answered_by(made.hello, besides=dial)
        if peer == self._local.identity.node_id:
            self._meet_ourselves(dial, made, now)
        elif (
            existing is not None
            and existing.instance == made.hello.instance
            and existing.is_responsive
        ):
            where = format_address(existing.address)
            self._give_up(dial, f"already connected to this node at {where}", is_needless=True)
        elif under_way is not None:
            where = format_address(under_way.address)
            self._give_up(dial, f"this node has just answered at {where}", is_needless=True)
        elif dial.is_finished_by_response:
            connection = self._establish(dial, made, now)
            if connection is not None:
                connection.ping(now)
        else:
            self._half_open.send_finish(dial, now)

    def _meet_ourselves(self, dial: Dial, made: Established, now: float) -> None:
        if made.hello.instance == self._local.hello.instance:
            self._give_up(dial, "that is this node itself")
            return
        self._give_up(dial, "another process there uses this node's own key")
        self._tell_of_two(made.hello.node_id, None, made.address, now)

    def _establish(self, half_open: HalfOpen, made: Established, now: float) -> Connection | None:
        """Make a connection of a confirmed handshake; None when it is not to be, or not yet.

        Raises:
            DroppedError: There is no room for this peer.
        """
        self._half_open.drop(half_open)
        if gives_way(made, self._local.identity.node_id, self._half_open.answered_by(made.hello)):
            self._count("handshake_crossed")
            return None
        existing = self._by_peer.get(made.hello.node_id)
        if existing is not None and self._rivals.is_needed(existing, made):
            self.schedule.take(existing)
            if not self._rivals.hold(existing, half_open, made, now):
                self._end_dial(half_open, "its key is in use, and others wait for it already")
                raise DroppedError("handshake_of_a_key_in_use")
            self._count("handshake_held")
            return None
        if existing is not None:
            if stays(existing, made, self._local, now):
                self._count("handshake_crossed")
                self._end_dial(half_open, "the two are connected already, at another address")
                return None
            is_same = existing.instance == made.hello.instance
            existing.be_replaced(Successor.SAME_PROCESS if is_same else Successor.NEW_PROCESS)
            self.reap(existing)
            return self._connect(half_open, made, now, is_known=existing.is_proven)
        try:
            is_known = self._admit(made, now)
        except DroppedError as error:
            self._end_dial(half_open, f"this node takes no more peers: {error}")
            raise
        return self._connect(half_open, made, now, is_known=is_known)

    def _admit(self, made: Established, now: float) -> bool:
        """Make room for a newcomer, and say whether it is known.

        Raises:
            DroppedError: There is none for this one.
        """
        is_known = self._newcomers.is_known(made.hello.node_id)
        victim = self.peers.room_for(made.address, now, is_known=is_known)
        if not is_known and not made.is_dialler:
            self._newcomers.admit(made.address, now)
        if victim is not None:
            self._count("unproven_peer_made_room")
            victim.close("no room for peers that have proved nothing", now)
            self.reap(victim)
        return is_known

    def _connect(
        self, half_open: HalfOpen, made: Established, now: float, *, is_known: bool
    ) -> Connection:
        peer = made.hello.node_id
        connection = Connection(
            self._config, made, self._around, now, is_proven=is_known, on_proven=self.prove
        )
        self.peers.add(connection)
        self.schedule.take(connection)
        self._events.append(PeerConnected(peer, made.address))
        for dial in (half_open, *self._half_open.drop_dials(peer, made.address)):
            self._end_dial(dial, "another node answered there")
        return connection

    # Ends of dials

    def _give_up(self, dial: Dial, reason: str, *, is_needless: bool = False) -> None:
        self._half_open.drop(dial)
        self._end_dial(dial, reason, is_needless=is_needless)

    def _end_dial(self, half_open: HalfOpen, reason: str, *, is_needless: bool = False) -> None:
        """Tell everyone who hoped for something of a dial, unless it came true."""
        if not isinstance(half_open, Dial):
            return
        if not half_open.hopes and not self.peers.is_connected_at(half_open.address):
            peer = half_open.peer
            self._events.append(DialFailed(half_open.address, peer, reason, is_needless))
        for peer in half_open.hopes:
            if peer not in self._by_peer:
                self._events.append(DialFailed(half_open.address, peer, reason, is_needless))

    def _reason_not_to_dial(self, address: Address, peer: NodeId | None) -> str | None:
        if self.departure is not None:
            return "this node is leaving"
        if peer is None:
            return None
        if peer == self._local.identity.node_id:
            return "that is this node itself"
        if not is_possible(peer):
            # Announcements and gossip bring keys of strangers; a bad one is no bug of ours.
            return "its key is no key: no such node exists"
        if self.peers.is_connected_at(address):
            return "another node is connected at this address"
        return None

    # One key, two processes

    def _decide_contests(self, now: float) -> None:
        for connection in self._rivals.to_ask(now):
            self.schedule.take(connection)
            connection.ping(now)
        for contest in self._rivals.lost(now):
            self._replace(contest, now)

    def _replace(self, contest: Contest, now: float) -> None:
        """The connection that was asked showed no life: the newcomer takes its place."""
        existing = contest.existing
        if existing.ended is None:
            existing.be_replaced(Successor.NEW_PROCESS)
            self.reap(existing)
        for half_open, made in contest.held:
            with suppress(DroppedError):
                connection = self._establish(half_open, made, now)
                if connection is not None:
                    connection.ping(now)

    def _refuse(self, contest: Contest, now: float) -> None:
        """Two processes live: the one with the session keeps it."""
        existing = contest.existing
        where = format_address(existing.address)
        reason = f"this key is in use by another process, at {where}: give each its own"
        for half_open, made in contest.held:
            self._count("key_used_twice")
            datagram = made.session.seal(close_frame(reason), now)
            self._outbox.append(Transmit(made.address, datagram))
            self._end_dial(half_open, reason)
            self._tell_of_two(existing.peer, existing.address, made.address, now)

    def _tell_of_two(
        self, peer: NodeId, address: Address | None, other: Address, now: float
    ) -> None:
        if self._rivals.is_worth_telling(peer, other, now):
            self._events.append(KeyUsedTwice(peer, address, other))

    def _draw_index(self) -> int:
        while True:
            index = self._local.rng.randrange(0, 1 << 32)
            if index not in self.peers.by_index and index not in self._half_open:
                return index
