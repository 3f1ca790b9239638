"""The outward half of a connection: what is queued, what is in flight, and what became of it.

It owns the congestion window, the recovery of losses and the search of the path, and lets shards
leave by the outlet. Of what the peer says it hears acknowledgements alone.
"""

from collections.abc import Callable
from itertools import cycle, islice

from p2pnode.sansio import Address, Transmit
from p2pnode.transport.config import BASE_DATAGRAM, TransportConfig
from p2pnode.transport.congestion import Congestion
from p2pnode.transport.frames import FEW, Ack
from p2pnode.transport.handshake import Established
from p2pnode.transport.memory import Pool
from p2pnode.transport.outbound import Outbound
from p2pnode.transport.outlet import Outlet
from p2pnode.transport.path import Path
from p2pnode.transport.recovery import Recovery, SentPacket
from p2pnode.transport.snapshot import Traffic
from p2pnode.transport.timers import Timer, Timers

_MOST_PROBES = 8


class Sender:
    """Sends what is queued as the window, the pace and the losses allow.

    Attributes:
        recovery: What is in flight.
        congestion: How much of it there may be.
        outbound: The messages that the peer has not acknowledged.
        path: How large a datagram may be.
        outlet: Where datagrams are made.
    """

    __slots__ = (
        "_arrivals", "_session", "_timers", "_traffic", "congestion", "outbound", "outlet", "path",
        "recovery",
    )  # fmt: skip

    def __init__(
        self,
        config: TransportConfig,
        made: Established,
        *,
        timers: Timers,
        traffic: Traffic,
        outbox: list[Transmit[Address]],
        pool: Pool,
        on_too_small: Callable[[float], None],
        now: float,
    ) -> None:
        """``timers`` and ``traffic`` are the connection's; datagrams go to ``outbox``.

        ``pool`` is what queued messages take their memory of.

        ``on_too_small`` is called when not even the smallest useful datagram arrives.
        """
        self._session = made.session
        self._timers = timers
        self._traffic = traffic
        self.recovery = Recovery(config, made.rtt)
        self.congestion = Congestion(config)
        self.outbound = Outbound(config, pool)
        self.path = Path(config, made.hello.max_datagram, now, on_too_small)
        self.outlet = Outlet(
            config,
            made.session,
            self.path,
            self.recovery,
            address=made.address,
            traffic=traffic,
            outbox=outbox,
            now=now,
        )
        self._arrivals = self.outlet.arrivals

    def send_waiting(self, now: float) -> float | None:
        """Send queued shards; return how long the pacer wants to wait, None for no wait."""
        outbound, outlet = self.outbound, self.outlet
        recovery, congestion = self.recovery, self.congestion
        for level in (0, 1, 2):
            while message := outbound.next_waiting(level):
                if not congestion.allows(recovery.in_flight, level):
                    break
                outlet.is_pressed = 2 * recovery.in_flight > congestion.window
                pause = outlet.pacer.delay(congestion.window, recovery.rtt.smoothed, now)
                if pause:
                    return pause
                outlet.send_shard(message, message.next_index(), now)
        return None

    def send_few(self, payload: bytes, now: float) -> int | None:
        """Send a latency message of few shards at once; return its number.

        The fast path of nearly every message of a chain: nothing waits, nothing was lost of late,
        and the window and the pacer let it leave. Elsewhere None, and nothing changed.

        Raises:
            QueueFullError: Too much is queued already.
        """
        outbound, outlet, recovery = self.outbound, self.outlet, self.recovery
        window, size = self.congestion.window, outlet.shard_size
        before_last = 0
        if len(payload) > size:
            if len(payload) > FEW * size:
                return None
            before_last = (FEW - 1) * self.path.datagram
        if (
            outbound.is_waiting
            or not outbound.losses.is_lossless
            or recovery.in_flight + before_last >= window
            or outlet.pacer.tokens <= before_last
        ):
            return None
        message = outbound.add_few(payload, size)
        if message is None:
            return None
        for index in range(message.count):
            outlet.is_pressed = 2 * recovery.in_flight > window
            outlet.send_shard(message, index, now)
        return message.id

    def receive_run_untrusted(self, low: int, high: int, delay: float, now: float) -> None:
        """Settle an acknowledgement of one range, as :meth:`receive_ack_untrusted`.

        Raises:
            DroppedError: It covers a packet that was never sent; nothing changed.
        """
        recovery, outbound = self.recovery, self.outbound
        in_flight, acked = recovery.in_flight, None
        if high < self._session.next_number:
            acked = recovery.receive_run_untrusted(low, high, delay, now)
        if acked is None:
            self.receive_ack_untrusted(Ack(((low, high),), delay), now)
            return
        for packet in acked:
            self._settle_acked(packet, in_flight, now)
        self._settle_background(in_flight, now)
        recovery.is_patient = outbound.losses.is_clean

    def receive_ack_untrusted(self, ack: Ack, now: float) -> list[SentPacket]:
        """Settle what ``ack`` covers; return what has arrived.

        Raises:
            DroppedError: It covers a packet that was never sent; nothing changed.
        """
        in_flight = self.recovery.in_flight
        result = self.recovery.receive_ack_untrusted(ack, self._session.next_number, now)
        for packet in result.pardoned:
            self._pardon(packet)
        for packet in result.acked:
            self._settle_acked(packet, in_flight, now)
        self._settle_background(in_flight, now)
        if result.lost:
            self._settle_lost(result.lost, now)
        self.recovery.is_patient = self.outbound.losses.is_clean
        return result.acked

    def move(self, now: float) -> None:
        """The peer has another address, and the way there may carry less.

        What is under way was cut for the former one. Its shards would be repeated without end: as
        larger than what is in use, their loss says nothing of the path.
        """
        self.path.move(now)
        self.congestion.background.move()
        self.outbound.recut(self.outlet.shard_size)
        self._timers.arm(Timer.PATH, self.path.probing_from)

    # Time

    def recover(self, now: float) -> None:
        """Take for lost what was overtaken long enough; with nothing to take, probe with data."""
        lost = self.recovery.detect_losses(now)
        if lost or self.recovery.expects_loss:
            self._settle_lost(lost, now)
            return
        self.recovery.pto_count += 1
        if self.recovery.pto_count == 3:
            self.congestion.on_persistent()
            if self.path.datagram > BASE_DATAGRAM:
                self.path.fall_back(now)
                self.outbound.recut(self.outlet.shard_size)
        self._probe(now)
        if not self.path.is_confirmed or self.recovery.pto_count > 1:
            self.outlet.send_ping(now)  # small: if it alone arrives, datagrams are too large

    def search_path(self, now: float) -> None:
        """Give up the path probe in flight, if any, and send the next."""
        for packet in list(self.recovery.unacknowledged()):
            if packet.is_probe:
                self.recovery.forget(packet)
                is_answered = self.recovery.heard_at >= packet.sent_at
                if self.path.needs_witness(packet.size) and not is_answered:
                    self.path.on_silence(now)
                else:
                    self._lose_probe(packet.size, now)
        if self.path.probing_from is None or self.path.probing_from > now:
            self._timers.arm(Timer.PATH, self.path.probing_from)
            return
        size = self.path.next_probe()
        self.path.on_probe_sent()
        if size is None:
            return
        self.outlet.send_probe(size, now)
        if self.path.needs_witness(size):
            self.outlet.send_ping(now)
        self._timers.arm(Timer.PATH, now + max(3 * self.recovery.pto, 0.05))

    # What became of a packet

    def _settle_acked(self, packet: SentPacket, in_flight: int, now: float) -> None:
        if packet.told >= 0:
            self._arrivals.forget_below(packet.told)
        if packet.is_probe:
            self.path.on_probe_acked(packet.size, now)
            self._timers.arm(Timer.PATH, self.path.probing_from)
            return
        self.congestion.on_acked(packet.size, packet.sent_at, in_flight)
        self.outbound.losses.record(packet.number, lost=False)
        self.path.on_acked(packet.size)
        message = packet.message
        if message is not None and message.on_acked(packet.index, packet.geometry):
            self.outbound.finish(message.id)

    def _settle_background(self, in_flight: int, now: float) -> None:
        """Look how long a queue the round trip shows, while anything in the background waits."""
        if self.outbound.has_background:
            rtt, acked = self.recovery.rtt, in_flight - self.recovery.in_flight
            self.congestion.background.on_acked(acked, rtt.latest_free, in_flight, now)

    def _pardon(self, packet: SentPacket) -> None:
        if packet.is_probe:
            return
        self.outbound.losses.pardon(packet.number)
        self.congestion.on_pardoned(packet.sent_at)
        message = packet.message
        if message is not None and message.on_acked(packet.index, packet.geometry, in_flight=False):
            self.outbound.finish(message.id)

    def _settle_lost(self, lost: list[SentPacket], now: float) -> None:
        for packet in lost:
            if packet.is_probe:
                self._lose_probe(packet.size, now)
                self._timers.arm(Timer.PATH, self.path.probing_from)
                continue
            self._traffic.lost += 1
            self.outbound.losses.record(packet.number, lost=True)
            self.congestion.on_lost(packet.sent_at, now)
            if self.path.on_lost(packet.size, now):
                self.outbound.recut(self.outlet.shard_size)
            message = packet.message
            if message is not None and not message.is_done:
                message.on_lost(packet.index, packet.geometry)
                self._traffic.retransmits += message.is_waiting
                self.outbound.enqueue(message, first=True)

    def _lose_probe(self, size: int, now: float) -> None:
        if self.path.on_probe_lost(size, now):
            self.outbound.recut(self.outlet.shard_size)

    def _probe(self, now: float) -> None:
        """Send the oldest data in flight once more, whatever the window says.

        Two packets (RFC 9002, section 6.2.4); where loss is measured twice as many each time, for
        two can fall into the same burst again and again.
        """
        count = 2
        if self.outbound.is_lossy:
            count = min(2 << self.recovery.pto_count - 1, _MOST_PROBES)
        chosen = [
            (packet.message, packet.index)
            for packet in self.recovery.unacknowledged()
            if packet.message is not None
            and not packet.message.is_done
            and packet.geometry == packet.message.geometry
        ][:count]
        if not chosen:
            self.outlet.send_ping(now)
            return
        self._traffic.retransmits += count
        for message, index in islice(cycle(chosen), count):
            self.outlet.send_shard(message, index, now, again=True)
