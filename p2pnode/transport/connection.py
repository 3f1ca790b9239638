"""One connection: messages in, sealed datagrams out, and back.

It knows nothing of handshakes (it begins when one has ended) nor of other peers. Everything it
does, it does at once: each input ends in :meth:`Connection._flush`, which sends what may be sent.
"""

from collections.abc import Callable
from math import inf

from p2pnode.sansio import Address
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.events import Delivery, PathTooSmall, PeerUnresponsive, Successor
from p2pnode.transport.frames import close_frame, plain_frames_untrusted
from p2pnode.transport.handshake import Established
from p2pnode.transport.outlet import BASE_ROOM
from p2pnode.transport.path import FLOOR
from p2pnode.transport.receiver import Receiver
from p2pnode.transport.sender import Sender
from p2pnode.transport.snapshot import ConnectionView, Traffic
from p2pnode.transport.surroundings import Surroundings
from p2pnode.transport.timers import Timer, Timers

_PATIENCE = 1.2


class Connection:
    """What one established handshake grew into.

    Attributes:
        peer: Whom it leads to.
        index: Our index, under which its datagrams come.
        instance: The peer's process.
        is_dialler: Whether we began the handshake.
        began: When it was established.
        is_proven: Whether the peer did something for its name: it kept this connection for a while
            and acknowledged a message, or the node vouches for it.
        ended: Why the connection is over; None while it lives. Its owner drops it then.
        successor: Whose handshake took its place, if one did.
        timers: What it waits for.
        wake: When its owner means to look at its timers; the owner's alone.
    """

    def __init__(
        self,
        config: TransportConfig,
        made: Established,
        around: Surroundings,
        now: float,
        *,
        is_proven: bool,
        on_proven: Callable[["Connection"], None],
    ) -> None:
        """``on_proven`` is called once the peer has done enough for its name, or more often."""
        self._config = config
        self._has_fast_path = config.fast_path
        self._session = made.session
        self._around = around
        self._on_proven = on_proven
        self._events = around.events
        self.peer = made.hello.node_id
        self.index = made.index
        self.instance = made.hello.instance
        self.is_dialler = made.is_dialler
        self.began = now
        self.is_proven = is_proven
        self.ended: str | None = None
        self.ended_by_us = False
        self.successor: Successor | None = None
        self.wake = inf
        self.timers = Timers()
        self.traffic = Traffic()
        self._last_heard = now
        self._sender = Sender(
            config,
            made,
            timers=self.timers,
            traffic=self.traffic,
            outbox=around.outbox,
            pool=around.memory.sending if is_proven else around.memory.sending_unproven,
            on_too_small=self._give_up_small_path,
            now=now,
        )
        # Shortcuts: each datagram asks for some of these.
        self._recovery = self._sender.recovery
        self._outbound = self._sender.outbound
        self._path = self._sender.path
        self._outlet = self._sender.outlet
        self._arrivals = self._outlet.arrivals
        self._receiver = Receiver(
            config,
            self.peer,
            self._sender,
            traffic=self.traffic,
            events=around.events,
            pool=around.memory.receiving if is_proven else around.memory.receiving_unproven,
        )
        self._reassembly = self._receiver.reassembly
        # One side pings first, so that the other need not.
        self._keepalive = config.keepalive * (1.0 if made.is_dialler else _PATIENCE)
        self.timers.arm(Timer.LIVENESS, now + self._keepalive)
        self.timers.arm(Timer.PATH, self._path.probing_from)

    @property
    def address(self) -> Address:
        """Where the peer is; it may move."""
        return self._outlet.address

    @property
    def is_responsive(self) -> bool:
        """Whether the peer acknowledges what we send."""
        return self._receiver.is_responsive

    @property
    def rtt(self) -> float:
        return self._recovery.rtt.smoothed

    @property
    def queued(self) -> int:
        """Bytes of messages the peer has not acknowledged."""
        return self._outbound.queued

    @property
    def arriving(self) -> int:
        """Bytes that came of messages which are not complete."""
        return self._reassembly.arrived

    @property
    def room(self) -> int:
        """Bytes that a message may have to be accepted now."""
        return self._outbound.room(self._outlet.shard_size)

    @property
    def is_mute(self) -> bool:
        """Whether the peer acknowledged no message yet, or none for ``silence``."""
        return self._outbound.is_mute

    @property
    def clear_down_to(self) -> int:
        """The last level of which a new message would wait for no other; -1 for none."""
        return self._outbound.clear_down_to

    @property
    def is_flushed(self) -> bool:
        """Whether nothing waits to be sent or acknowledged."""
        return not self._outbound.queued and not self._recovery.is_waiting

    @property
    def next_number(self) -> int:
        """The number that the next packet to the peer will bear."""
        return self._session.next_number

    @property
    def largest_acked(self) -> int:
        """The highest number that the peer acknowledged; -1 before the first."""
        return self._recovery.largest_acked

    # Commands

    def send(self, payload: bytes, delivery: Delivery, now: float) -> int:
        """Send a message; return its number, unique among LATENCY and BULK messages.

        A DATAGRAM that fits 1200 bytes, on a path that carries less, travels as BULK.

        Raises:
            LocalProtocolError: It is too large for its class; nothing was sent.
            QueueFullError: It is larger than :attr:`room`; nothing was sent.
        """
        if delivery is Delivery.DATAGRAM:
            if not self._outlet.datagram_room < len(payload) <= BASE_ROOM:
                self._outlet.send_datagram(payload, now)
                self._rearm()
                return -1
            delivery = Delivery.BULK  # elsewhere it fits; here it is cut
        if delivery is Delivery.LATENCY and self._has_fast_path and self.ended is None:
            number = self._sender.send_few(payload, now)
            if number is not None:
                self.traffic.messages_out += 1
                self._rearm()
                return number
        number = self._outbound.add(
            payload, delivery, self._outlet.shard_size, self._recovery.rtt.smoothed
        )
        self.traffic.messages_out += 1
        self._flush(now)
        return number

    def close(self, reason: str, now: float) -> None:
        """Tell the peer, and end; what is in flight is given up."""
        if self.ended is None:
            self._outlet.send_frames(close_frame(reason), now)
            self.ended = reason
            self.ended_by_us = True

    def be_replaced(self, successor: Successor) -> None:
        """End, for another handshake of the peer was finished; the peer knows."""
        how = "connected" if successor is Successor.SAME_PROCESS else "started"
        self.ended, self.successor = f"replaced: the peer {how} anew", successor

    def prove(self) -> None:
        """The peer has proved itself: its messages count among those of its like from now on."""
        if not self.is_proven:
            self.is_proven = True
            self._outbound.share.move(self._around.memory.sending)
            self._reassembly.share.move(self._around.memory.receiving)

    def release(self) -> None:
        """Give the memory of messages under way back; the connection has ended."""
        self._outbound.release()
        self._reassembly.release()

    def ping(self, now: float) -> None:
        """Ask for an acknowledgement: it confirms a handshake, or keeps the connection alive."""
        self._outlet.send_ping(now)
        self._rearm()

    # Inputs

    def receive_untrusted(self, datagram: bytes, source: Address, now: float) -> None:
        """Take a datagram that bears our index.

        Raises:
            DroppedError: It is not the peer's, or came before, or breaks a rule; the connection
                lives on.
        """
        session, outlet = self._session, self._outlet
        newest = session.newest if source != outlet.address else None
        counter, frames = session.open_untrusted(datagram)
        if newest is not None and counter > newest:
            self._around.on_move(outlet.address, source)
            outlet.address = source
            self._sender.move(now)
        self.receive_opened_untrusted(counter, frames, len(datagram), now)

    def receive_opened_untrusted(self, counter: int, frames: bytes, size: int, now: float) -> None:
        """Take what a datagram of ``size`` bytes held."""
        self._last_heard = now
        self.traffic.bytes_in += size
        self.traffic.datagrams_in += 1
        receiver = self._receiver
        plain = plain_frames_untrusted(frames) if self._has_fast_path else None
        if plain is not None and receiver.is_responsive:
            wants_ack, patience = receiver.receive_plain_untrusted(plain, now)
        else:
            wants_ack, patience = receiver.receive_frames_untrusted(frames, now)
            if receiver.closed is not None:
                self.ended = receiver.closed
        self._arrivals.record(counter, now, wants_ack=wants_ack, patience=patience)
        # A whole message goes to its reader first; the timer, if due at once, sends the rest.
        self._flush(now, with_ack=patience is None)

    def handle_timeout(self, now: float) -> None:
        """Fire every timer due by ``now``."""
        while self.ended is None and (timer := self.timers.pop_due(now)) is not None:
            self._fire(timer, now)
        self._flush(now)

    def heard_ago(self, now: float) -> float:
        return now - self._last_heard

    def view(self, now: float) -> ConnectionView:
        traffic = self.traffic
        return ConnectionView(
            peer=self.peer,
            address=self.address,
            age=now - self.began,
            last_heard=self.heard_ago(now),
            is_responsive=self.is_responsive,
            rtt=self.rtt,
            loss=self._outbound.losses.loss,
            window=self._sender.congestion.window,
            in_flight=self._recovery.in_flight,
            queued=self.queued,
            datagram=self._path.datagram,
            bytes_in=traffic.bytes_in,
            bytes_out=traffic.bytes_out,
            datagrams_in=traffic.datagrams_in,
            datagrams_out=traffic.datagrams_out,
            messages_in=traffic.messages_in,
            messages_out=traffic.messages_out,
            retransmits=traffic.retransmits,
            parity_sent=self._outbound.parity_sent,
            lost=traffic.lost,
            recovered=self._reassembly.recovered,
            epochs=self._session.epochs,
        )

    # Time

    def _give_up_small_path(self, now: float) -> None:
        """Nothing but the smallest messages would ever arrive, however often they are repeated."""
        self._events.append(PathTooSmall(self.peer, self.address, FLOOR))
        self.close(f"the path does not carry datagrams of {FLOOR} bytes", now)

    def _fire(self, timer: Timer, now: float) -> None:
        match timer:
            case Timer.RECOVERY:
                self._sender.recover(now)
            case Timer.SILENCE:
                self._notice_silence(now)
            case Timer.LIVENESS:
                self._check_liveness(now)
            case Timer.PATH:
                self._sender.search_path(now)
            case Timer.ACK | Timer.PACING:
                pass  # the flush that follows does it

    def _notice_silence(self, now: float) -> None:
        # Compared as sums, as the timers are armed: differences round another way, and would spin.
        silent_for = now - self._recovery.waiting_since
        if now >= self._recovery.waiting_since + self._config.idle_timeout:
            self.ended = f"nothing was acknowledged for {silent_for:.1f} s"
        elif self._receiver.is_responsive:
            self._receiver.is_responsive = False
            self._outbound.be_mute()
            self._events.append(PeerUnresponsive(self.peer, silent_for))

    def _check_liveness(self, now: float) -> None:
        config = self._config
        for _ in range(self._reassembly.forget_idle(now, config.partial_idle)):
            self._around.count("partial_message_abandoned")
        is_old = now >= self.began + config.proven_after
        if is_old and not self.is_proven and self._outbound.has_arrived:
            self._on_proven(self)
        if now >= self._last_heard + config.idle_timeout:
            self.ended = f"nothing was heard for {self.heard_ago(now):.1f} s"
            return
        if now >= self._last_heard + self._keepalive:
            if not self._recovery.is_waiting:
                self._outlet.send_ping(now)
            given_up_at = self._last_heard + config.idle_timeout
            self.timers.arm(Timer.LIVENESS, min(given_up_at, now + self._keepalive))
            return
        self.timers.arm(Timer.LIVENESS, self._last_heard + self._keepalive)

    # Sending

    def _flush(self, now: float, *, with_ack: bool = True) -> None:
        """Send everything that the window, the pace and the acknowledgements owed allow."""
        if self.ended is not None:
            return
        if self._outbound.is_waiting:  # else no pace holds anything up
            pause = self._sender.send_waiting(now)
            self.timers.arm(Timer.PACING, None if pause is None else now + pause)
            if self._outbound.clear_down_to >= 0:
                self._around.cleared[self.peer] = None
        due = self._arrivals.due
        if with_ack and due is not None and due <= now:
            self._outlet.send_ack(now)
        self._rearm()

    def _rearm(self) -> None:
        recovery = self._recovery
        silence = None
        if recovery.is_waiting:
            is_responsive = self._receiver.is_responsive
            limit = self._config.silence if is_responsive else self._config.idle_timeout
            silence = recovery.waiting_since + limit
        self.timers.arm_flow(self._arrivals.due, recovery.next_timeout(), silence)
