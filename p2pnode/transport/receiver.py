"""The inward half of a connection: what the peer's frames say, and the messages that they make.

It puts shards together and hands messages over, and passes on what the peer says of ours.
"""

from p2pnode.sansio import NodeId
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.events import Delivery, MessageReceived, PeerResponsive, TransportEvent
from p2pnode.transport.frames import (
    Ack,
    Close,
    Datagram,
    Done,
    Plain,
    Shard,
    decode_frames_untrusted,
)
from p2pnode.transport.memory import Pool
from p2pnode.transport.messages import LEAST_SHARD, Reassembly
from p2pnode.transport.sender import Sender
from p2pnode.transport.snapshot import Traffic

_PATIENCE_SHARE = 0.8  # of what the sender allows for; the rest is for our own lateness


class Receiver:
    """Takes what a datagram of the peer held, once it was opened.

    Attributes:
        reassembly: The peer's messages that are not complete.
        is_responsive: Whether the peer acknowledges what we send. It becomes true here, and untrue
            by the connection, which knows the time.
        closed: Why the peer ended the connection; None while it has not.
    """

    __slots__ = (
        "_events", "_outbound", "_outlet", "_patience", "_peer", "_sender", "_traffic", "closed",
        "is_responsive", "reassembly",
    )  # fmt: skip

    def __init__(
        self,
        config: TransportConfig,
        peer: NodeId,
        sender: Sender,
        *,
        traffic: Traffic,
        events: list[TransportEvent],
        pool: Pool,
    ) -> None:
        """``sender`` is the other half; ``traffic`` is the connection's.

        Events are appended to ``events``; ``pool`` is what incomplete messages take their memory
        of.
        """
        self._peer = peer
        self._sender = sender
        self._outbound = sender.outbound
        self._outlet = sender.outlet
        self._traffic = traffic
        self._events = events
        self._patience = _PATIENCE_SHARE * config.ack_patience
        self.reassembly = Reassembly(config.reassembly_bytes, pool, least_shard=LEAST_SHARD)
        self.is_responsive = True
        self.closed: str | None = None

    def receive_plain_untrusted(self, plain: Plain, now: float) -> tuple[bool, float | None]:
        """As :meth:`receive_frames_untrusted`, for what nearly every datagram holds.

        Only while the peer is responsive: whether it has become so again is not looked at.
        """
        low, high, delay, number, length, count, index, is_urgent, data = plain
        if high >= 0:
            self._sender.receive_run_untrusted(low, high, delay, now)
        if data is None:
            return False, None
        latency = Delivery.LATENCY
        payload = self._add_untrusted(number, latency, length, count, index, data)
        if payload is None:
            return True, None
        self._deliver(payload, latency)
        return True, 0.0 if is_urgent else self._patience

    def receive_frames_untrusted(self, frames: bytes, now: float) -> tuple[bool, float | None]:
        """Take frames; return whether they are to be acknowledged, and how long that may wait.

        None for as long as usual.

        Raises:
            DroppedError: They break a rule; what came before in them has been taken.
        """
        wants_ack = False
        patience: float | None = None
        for frame in decode_frames_untrusted(frames):
            if isinstance(frame, Shard):
                patience = self._receive_shard_untrusted(frame)
                wants_ack = True
            elif isinstance(frame, Ack):
                acked = self._sender.receive_ack_untrusted(frame, now)
                if not self.is_responsive and any(not packet.is_probe for packet in acked):
                    self.is_responsive = True
                    self._events.append(PeerResponsive(self._peer))
            elif isinstance(frame, Datagram):
                self._deliver(frame.payload, Delivery.DATAGRAM)
            elif isinstance(frame, Done):
                self._outbound.finish(frame.message)
            elif isinstance(frame, Close):
                self.closed = f"closed by the peer: {frame.reason}"
            else:
                wants_ack = True
        return wants_ack, patience

    def _receive_shard_untrusted(self, shard: Shard) -> float | None:
        """Take a shard; return how long its acknowledgement may wait, None for as usual.

        That of a latency message may wait for the answer, or for the work it brings, unless the
        sender asks for it at once.
        """
        payload = self._add_untrusted(
            shard.message, shard.delivery, shard.length, shard.count, shard.index, shard.data
        )
        if payload is not None:
            self._deliver(payload, shard.delivery)
        if payload is None or shard.delivery is not Delivery.LATENCY:
            return None
        return 0.0 if shard.immediate_ack else self._patience

    def _add_untrusted(
        self, number: int, delivery: Delivery, length: int, count: int, index: int, data: bytes
    ) -> bytes | None:
        payload, is_needless = self.reassembly.add_piece_untrusted(
            number, delivery, length, count, index, data
        )
        if is_needless and count > 1:
            self._outlet.owe_done(number)
        return payload

    def _deliver(self, payload: bytes, delivery: Delivery) -> None:
        self._traffic.messages_in += 1
        self._events.append(MessageReceived(self._peer, payload, delivery))
