"""One connection: messages in, sealed datagrams out, and back.

It knows nothing of handshakes (it begins when one has ended) nor of other peers. Everything it
does, it does at once: each input ends in :meth:`Connection._flush`, which sends what may be sent.
"""

from collections import deque
from dataclasses import dataclass
from itertools import cycle, islice

from p2pnode.errors import LocalProtocolError
from p2pnode.sansio import Address, Transmit
from p2pnode.transport.acks import Arrivals
from p2pnode.transport.config import BASE_DATAGRAM, TransportConfig
from p2pnode.transport.congestion import Congestion, Pacer
from p2pnode.transport.events import (
    MAX_MESSAGE,
    Delivery,
    MessageReceived,
    PeerResponsive,
    PeerUnresponsive,
    TransportEvent,
)
from p2pnode.transport.frames import (
    ACK_ROOM,
    DATAGRAM,
    PING_FRAME,
    SHARD_HEADER,
    Ack,
    Close,
    Datagram,
    Done,
    Ping,
    Probe,
    Shard,
    close_frame,
    decode_frames_untrusted,
    done_frame,
    probe_frame,
    shard_header,
)
from p2pnode.transport.handshake import Established
from p2pnode.transport.messages import ID_MASK, ID_SPAN, Outgoing, Reassembly
from p2pnode.transport.packets import DATA_OVERHEAD
from p2pnode.transport.parity import LossEstimator, parity_for
from p2pnode.transport.path import Path
from p2pnode.transport.recovery import Recovery, SentPacket
from p2pnode.transport.snapshot import ConnectionView
from p2pnode.transport.timers import Timer, Timers

_DATAGRAM_FRAME = bytes([DATAGRAM])
_MOST_PROBES = 8
_PATIENCE = 1.2
_MOST_DONE = 64  # notices of rebuilt messages that may wait; they are only a courtesy


@dataclass(slots=True)
class _Traffic:
    bytes_in: int = 0
    bytes_out: int = 0
    datagrams_in: int = 0
    datagrams_out: int = 0
    messages_in: int = 0
    messages_out: int = 0
    retransmits: int = 0
    parity_sent: int = 0
    lost: int = 0


class Connection:
    """What one established handshake grew into.

    Attributes:
        peer: Whom it leads to.
        address: Where the peer is; it may move.
        index: Our index, under which its datagrams come.
        instance: The peer's process.
        is_dialler: Whether we began the handshake.
        began: When it was established.
        is_responsive: Whether the peer acknowledges what we send.
        ended: Why the connection is over; None while it lives. Its owner drops it then.
        timers: What it waits for.
    """

    def __init__(
        self,
        config: TransportConfig,
        made: Established,
        outbox: list[Transmit[Address]],
        events: list[TransportEvent],
        now: float,
    ) -> None:
        """Datagrams are appended to ``outbox``, events to ``events``."""
        self._config = config
        self._session = made.session
        self._outbox = outbox
        self._events = events
        self.peer = made.hello.node_id
        self.address = made.address
        self.index = made.index
        self.instance = made.hello.instance
        self.is_dialler = made.is_dialler
        self.began = now
        self.is_responsive = True
        self.ended: str | None = None
        self.timers = Timers()
        self.traffic = _Traffic()
        self._last_heard = now
        self._last_progress = now
        self._recovery = Recovery(config, made.rtt)
        self._congestion = Congestion(config)
        self._pacer = Pacer(config.pacing_burst, now)
        self._losses = LossEstimator()
        self._path = Path(config, made.hello.max_datagram, now)
        self._arrivals = Arrivals(config.max_ack_delay, config.ack_every)
        self._reassembly = Reassembly(config.reassembly_bytes)
        self._unfinished: dict[int, Outgoing] = {}
        self._queues: tuple[deque[Outgoing], deque[Outgoing]] = (deque(), deque())
        self._next_id = 0
        self._done: list[int] = []
        self.queued = 0
        # One side pings first, so that the other need not.
        self._keepalive = config.keepalive * (1.0 if made.is_dialler else _PATIENCE)
        self.timers.arm(Timer.LIVENESS, now + self._keepalive)
        self.timers.arm(Timer.PATH, self._path.probing_from)

    @property
    def rtt(self) -> float:
        return self._recovery.rtt.smoothed

    # Commands

    def send(self, payload: bytes, delivery: Delivery, now: float) -> int:
        """Send a message; return its number, unique among LATENCY and BULK messages.

        Raises:
            LocalProtocolError: It is too large for its class, or more is queued than
                ``send_queue_bytes``; nothing was sent.
        """
        if delivery is Delivery.DATAGRAM:
            return self._send_datagram(payload, now)
        if len(payload) > MAX_MESSAGE:
            raise LocalProtocolError(f"a message has at most {MAX_MESSAGE} bytes")
        if self.queued + len(payload) > self._config.send_queue_bytes:
            raise LocalProtocolError(f"{self.queued} bytes wait already: see queued_bytes")
        number = self._next_id
        self._next_id = number + 1 & ID_MASK
        shard_size = self._shard_size
        parity = 0
        if delivery is Delivery.LATENCY and self._config.fec:
            parity = self._parity_for(-(-len(payload) // shard_size) or 1)
        message = Outgoing(number, payload, delivery, shard_size, parity)
        self._unfinished[number] = message
        self.queued += len(payload)
        self.traffic.messages_out += 1
        self.traffic.parity_sent += parity
        self._enqueue(message)
        self._flush(now)
        return number

    def close(self, reason: str, now: float) -> None:
        """Tell the peer, and end; what is in flight is given up."""
        if self.ended is None:
            self._transmit(close_frame(reason), now)
            self.ended = reason

    def ping(self, now: float) -> None:
        """Ask for an acknowledgement: it confirms a handshake, or keeps the connection alive."""
        self._send_eliciting(PING_FRAME, now)
        self._rearm(now)

    # Inputs

    def receive_untrusted(self, datagram: bytes, source: Address, now: float) -> None:
        """Take a datagram that bears our index.

        Raises:
            DroppedError: It is not the peer's, or came before, or breaks a rule; the connection
                lives on.
        """
        newest = self._session.newest
        counter, frames = self._session.open_untrusted(datagram)
        if source != self.address and counter > newest:
            self.address = source
            self._path.move(now)
            self.timers.arm(Timer.PATH, now)
        self.receive_opened_untrusted(counter, frames, len(datagram), now)

    def receive_opened_untrusted(self, counter: int, frames: bytes, size: int, now: float) -> None:
        """Take what a datagram of ``size`` bytes held."""
        self._last_heard = now
        self.traffic.bytes_in += size
        self.traffic.datagrams_in += 1
        wants_ack = False
        for frame in decode_frames_untrusted(frames):
            if isinstance(frame, Shard):
                self._receive_shard_untrusted(frame)
                wants_ack = True
            elif isinstance(frame, Ack):
                self._receive_ack_untrusted(frame, now)
            elif isinstance(frame, Datagram):
                self._deliver(frame.payload, Delivery.DATAGRAM)
            elif isinstance(frame, Done):
                self._finish(self._unfinished.get(frame.message))
            elif isinstance(frame, Close):
                self.ended = f"closed by the peer: {frame.reason}"
            elif isinstance(frame, Ping | Probe):
                wants_ack = True
        self._arrivals.record(counter, now, wants_ack=wants_ack)
        self._flush(now)

    def handle_timeout(self, now: float) -> None:
        """Fire every timer due by ``now``."""
        while self.ended is None and (timer := self.timers.pop_due(now)) is not None:
            self._fire(timer, now)
        self._flush(now)

    def view(self, now: float) -> ConnectionView:
        traffic = self.traffic
        return ConnectionView(
            peer=self.peer,
            address=self.address,
            age=now - self.began,
            last_heard=now - self._last_heard,
            is_responsive=self.is_responsive,
            rtt=self.rtt,
            loss=self._losses.loss,
            window=self._congestion.window,
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
            parity_sent=traffic.parity_sent,
            lost=traffic.lost,
            recovered=self._reassembly.recovered,
            epochs=self._session.epochs,
        )

    # Receiving

    def _receive_shard_untrusted(self, shard: Shard) -> None:
        payload, is_needless = self._reassembly.add_untrusted(shard)
        if is_needless and len(self._done) < _MOST_DONE and shard.count > 1:
            self._done.append(shard.message)
        if payload is not None:
            self._deliver(payload, shard.delivery)

    def _deliver(self, payload: bytes, delivery: Delivery) -> None:
        self.traffic.messages_in += 1
        self._events.append(MessageReceived(self.peer, payload, delivery))

    def _receive_ack_untrusted(self, ack: Ack, now: float) -> None:
        in_flight = self._recovery.in_flight
        result = self._recovery.receive_ack_untrusted(ack, self._session.next_number, now)
        for packet in result.pardoned:
            self._pardon(packet)
        for packet in result.acked:
            self._settle_acked(packet, in_flight, now)
        if any(not packet.is_probe for packet in result.acked):
            self._progress(now)
        self._settle_lost(result.lost, now)

    def _settle_acked(self, packet: SentPacket, in_flight: int, now: float) -> None:
        if packet.told >= 0:
            self._arrivals.forget_below(packet.told)
        if packet.is_probe:
            self._path.on_probe_acked(packet.size, now)
            self.timers.arm(Timer.PATH, self._path.probing_from)
            return
        self._congestion.on_acked(packet.size, packet.sent_at, in_flight)
        self._losses.record(packet.number, lost=False)
        self._path.on_acked(packet.size)
        message = packet.message
        if message is not None and message.on_acked(packet.index, packet.geometry):
            self._finish(message)

    def _pardon(self, packet: SentPacket) -> None:
        if packet.is_probe:
            return
        self._losses.pardon(packet.number)
        self._congestion.on_pardoned(packet.sent_at)
        message = packet.message
        if message is not None and message.on_acked(packet.index, packet.geometry, in_flight=False):
            self._finish(message)

    def _settle_lost(self, lost: list[SentPacket], now: float) -> None:
        for packet in lost:
            if packet.is_probe:
                self._path.on_probe_lost(packet.size, now)
                self.timers.arm(Timer.PATH, self._path.probing_from)
                continue
            self.traffic.lost += 1
            self._losses.record(packet.number, lost=True)
            self._congestion.on_lost(packet.sent_at, now)
            if self._path.on_lost(packet.size, now):
                self._shrink()
            message = packet.message
            if message is not None and not message.is_done:
                message.on_lost(packet.index, packet.geometry)
                self.traffic.retransmits += message.is_waiting
                self._enqueue(message, first=True)

    def _finish(self, message: Outgoing | None) -> None:
        """The peer has it whole."""
        if message is not None and self._unfinished.pop(message.id, None) is not None:
            message.finish()
            self.queued -= len(message.payload)

    def _progress(self, now: float) -> None:
        self._last_progress = now
        if not self.is_responsive:
            self.is_responsive = True
            self._events.append(PeerResponsive(self.peer))

    # Time

    def _fire(self, timer: Timer, now: float) -> None:
        match timer:
            case Timer.RECOVERY:
                self._recover(now)
            case Timer.SILENCE:
                self._notice_silence(now)
            case Timer.LIVENESS:
                self._check_liveness(now)
            case Timer.PATH:
                self._search_path(now)
            case Timer.ACK | Timer.PACING:
                pass  # the flush that follows does it

    def _recover(self, now: float) -> None:
        lost = self._recovery.detect_losses(now)
        if lost or self._recovery.is_watching:
            self._settle_lost(lost, now)
            return
        self._recovery.pto_count += 1
        if self._recovery.pto_count == 3:
            self._congestion.on_persistent()
            if self._path.datagram > BASE_DATAGRAM:
                self._path.fall_back(now)
                self._shrink()
        self._probe(now)

    def _probe(self, now: float) -> None:
        """Send the oldest data in flight once more, whatever the window says.

        Two packets (RFC 9002, section 6.2.4); where loss is measured twice as many each time, for
        two can fall into the same burst again and again.
        """
        lossy = self._losses.loss >= self._config.fec_least_loss
        count = min(2 << self._recovery.pto_count - 1, _MOST_PROBES) if lossy else 2
        chosen = [
            (packet.message, packet.index)
            for packet in self._recovery.unacknowledged()
            if packet.message is not None
            and not packet.message.is_done
            and packet.geometry == packet.message.geometry
        ][:count]
        if not chosen:
            self._send_eliciting(PING_FRAME, now)
            return
        self.traffic.retransmits += count
        for message, index in islice(cycle(chosen), count):
            self._send_shard(message, index, now, again=True)

    def _notice_silence(self, now: float) -> None:
        # Compared as sums, as the timers are armed: differences round another way, and would spin.
        silent_for = now - self._last_progress
        if now >= self._last_progress + self._config.idle_timeout:
            self.ended = f"nothing was acknowledged for {silent_for:.1f} s"
        elif self.is_responsive:
            self.is_responsive = False
            self._events.append(PeerUnresponsive(self.peer, silent_for))

    def _check_liveness(self, now: float) -> None:
        config = self._config
        unheard = now - self._last_heard
        if now >= self._last_heard + config.idle_timeout:
            self.ended = f"nothing was heard for {unheard:.1f} s"
            return
        if now >= self._last_heard + self._keepalive:
            if not self._recovery.is_waiting:
                self._send_eliciting(PING_FRAME, now)
            given_up_at = self._last_heard + config.idle_timeout
            self.timers.arm(Timer.LIVENESS, min(given_up_at, now + self._keepalive))
            return
        self.timers.arm(Timer.LIVENESS, self._last_heard + self._keepalive)

    def _search_path(self, now: float) -> None:
        for packet in list(self._recovery.unacknowledged()):
            if packet.is_probe:
                self._recovery.forget(packet)
                self._path.on_probe_lost(packet.size, now)
        size = self._path.next_probe()
        self._path.on_probe_sent()
        if size is None:
            return
        self._track(probe_frame(size - DATA_OVERHEAD), None, 0, -1, now, is_probe=True)
        self.timers.arm(Timer.PATH, now + max(3 * self._recovery.pto, 0.05))

    # Sending

    @property
    def _shard_size(self) -> int:
        return self._path.datagram - DATA_OVERHEAD - SHARD_HEADER - ACK_ROOM

    def _parity_for(self, count: int) -> int:
        losses = self._losses
        if losses.loss < self._config.fec_least_loss:
            return 0
        most = max(2, int(count * self._config.fec_max_overhead))
        return parity_for(count, losses.chain, target=self._parity_target(), most=most)

    def _parity_target(self) -> float:
        """A repair costs a round trip: the longer that is, the rarer it should be needed."""
        return 1e-3 if self.rtt < 0.1 else 1e-4

    def _shrink(self) -> None:
        """The path carries less: cut what is under way anew."""
        for message in self._unfinished.values():
            message.recut(self._shard_size)
            self._enqueue(message)

    def _send_datagram(self, payload: bytes, now: float) -> int:
        room = self._path.datagram - DATA_OVERHEAD - 1
        if len(payload) > room:
            raise LocalProtocolError(f"{len(payload)} bytes do not fit one datagram of {room}")
        prefix, _ = self._told(now, room - len(payload))
        self._transmit(prefix + _DATAGRAM_FRAME + payload, now)
        self._rearm(now)
        return -1

    def _enqueue(self, message: Outgoing, *, first: bool = False) -> None:
        if message.is_queued or not message.is_waiting:
            return
        message.is_queued = True
        queue = self._queues[message.delivery]
        if first:
            queue.appendleft(message)
        else:
            queue.append(message)

    def _flush(self, now: float) -> None:
        """Send everything that the window, the pace and the acknowledgements owed allow."""
        if self.ended is not None:
            return
        pause = self._send_waiting(now)
        due = self._arrivals.due
        if due is not None and due <= now:
            prefix, _ = self._told(now, self._path.datagram - DATA_OVERHEAD)
            self._transmit(prefix, now)
        self.timers.arm(Timer.PACING, None if pause is None else now + pause)
        self._rearm(now)

    def _send_waiting(self, now: float) -> float | None:
        """Send queued shards; return how long the pacer wants to wait, None for no wait."""
        for queue in self._queues:
            while queue:
                message = queue[0]
                if not message.is_waiting:
                    queue.popleft().is_queued = False
                    continue
                if not self._may_send(message):
                    break
                pause = self._pacer.delay(self._congestion.window, self.rtt, now)
                if pause:
                    return pause
                self._send_shard(message, message.next_index(), now)
        return None

    def _may_send(self, message: Outgoing) -> bool:
        oldest = next(iter(self._unfinished))
        if message.id - oldest & ID_MASK >= ID_SPAN:
            return False
        is_bulk = message.delivery is Delivery.BULK
        return self._congestion.allows(self._recovery.in_flight, bulk=is_bulk)

    def _send_shard(
        self, message: Outgoing, index: int, now: float, *, again: bool = False
    ) -> None:
        data = message.shard(index)
        header = shard_header(
            message.delivery, message.id, len(message.payload), message.count, index
        )
        room = self._path.datagram - DATA_OVERHEAD - SHARD_HEADER - len(data)
        prefix, told = self._told(now, room)
        message.on_sent(index, again=again)
        self._track(prefix + header + data, message, index, told, now)

    def _send_eliciting(self, frame: bytes, now: float) -> None:
        prefix, told = self._told(now, 200)
        self._track(prefix + frame, None, 0, told, now)

    def _track(
        self,
        frames: bytes,
        message: Outgoing | None,
        index: int,
        told: int,
        now: float,
        *,
        is_probe: bool = False,
    ) -> None:
        """Send frames whose arrival matters."""
        if not is_probe and not self._recovery.is_waiting:
            self._last_progress = now
        number = self._session.next_number
        size = self._transmit(frames, now)
        geometry = 0 if message is None else message.geometry
        self._recovery.sent(SentPacket(number, now, size, message, index, geometry, told, is_probe))

    def _transmit(self, frames: bytes, now: float) -> int:
        datagram = self._session.seal(frames, now)
        size = len(datagram)
        self._outbox.append(Transmit(self.address, datagram))
        self._pacer.spend(size)
        self.traffic.bytes_out += size
        self.traffic.datagrams_out += 1
        return size

    def _told(self, now: float, room: int) -> tuple[bytes, int]:
        """Return what we owe the peer to know, if there is room, and the highest number told."""
        if self._arrivals.due is None or room < ACK_ROOM:
            return b"", -1
        ack = self._arrivals.take(now)
        if ack is None:
            return b"", -1
        done = self._done[: (room - ACK_ROOM) // 5]
        del self._done[: len(done)]
        notices = b"".join(done_frame(message) for message in done)
        return notices + ack.encode(room - len(notices)), ack.largest

    def _rearm(self, now: float) -> None:
        timers = self.timers
        recovery = self._recovery
        timers.arm(Timer.ACK, self._arrivals.due)
        timers.arm(Timer.RECOVERY, recovery.next_timeout())
        if not recovery.is_waiting:
            timers.arm(Timer.SILENCE, None)
            return
        limit = self._config.silence if self.is_responsive else self._config.idle_timeout
        timers.arm(Timer.SILENCE, self._last_progress + limit)
