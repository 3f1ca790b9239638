"""The node's outbox: frames and gossip to peers, who are called first where need be.

Nothing is dropped in silence. A frame that cannot be sent, or that waited for a session which did
not come up, is counted and told (:meth:`Outbox.take_refused`): whoever sent it must treat its peer
as lost, for there is a hole in what it said. Whoever sends much asks :meth:`Outbox.room` before.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from p2pnode.errors import QueueFullError
from p2pnode.node.config import OutboxConfig
from p2pnode.node.links import LinkMeter
from p2pnode.node.observer import Observer
from p2pnode.node.record_dials import RecordDials
from p2pnode.node.traffic import Traffic
from p2pnode.sansio import Address, NodeId
from p2pnode.transport.endpoint import Endpoint
from p2pnode.transport.events import Delivery
from p2pnode.values import value
from p2pnode.wire.vframe import TYPE_NAMES, Frame, encode_frame

_TOLD_AGAIN = 0.25  # seconds; telling may lead to the next frame, which may be refused as well
_AT_HOME = 1 << 40
_WITHOUT_END = 1 << 62


@value
class SendRefused:
    """Frames to ``peer`` were dropped; ``reason`` is a clause: "its send queue is full"."""

    peer: NodeId
    reason: str


@dataclass(slots=True)
class _Waiting:
    """Frames for one peer that is being called.

    Attributes:
        since: When the first came.
        frames: What they are called, and their bytes.
        size: Bytes of them all.
    """

    since: float
    frames: deque[tuple[str, bytes]] = field(default_factory=deque)
    size: int = 0

    def __len__(self) -> int:
        return len(self.frames)


class Outbox:
    """Sends through the transport; knows nothing of what is said.

    Attributes:
        to_ourselves: Frames a node sends to itself, to be taken from here.
        refused: To whom frames were dropped, and why: if any, :meth:`take_refused`.
        counters: What could not be sent, by reason.
        observer: Hears that a frame is built; None for nobody.
    """

    def __init__(
        self,
        node_id: NodeId,
        endpoint: Endpoint,
        traffic: Traffic,
        addresses_of: Callable[[NodeId], tuple[Address, ...]],
        config: OutboxConfig,
        meter: LinkMeter,
    ) -> None:
        self._node_id = node_id
        self._endpoint = endpoint
        self._traffic = traffic
        self._addresses_of = addresses_of
        self._meter = meter
        self._config = config
        self._waiting: dict[NodeId, _Waiting] = {}
        self._waiting_bytes = 0
        self.refused: dict[NodeId, str] = {}
        self._told: dict[NodeId, float] = {}
        self.to_ourselves: deque[Frame] = deque()
        self.counters: Counter[str] = Counter()
        self.observer: Observer | None = None
        self._record_dials = RecordDials(config.records, endpoint, self.counters)

    # Commands

    def send_frame(self, peer: NodeId, frame: Frame, now: float) -> None:
        """Send a frame; while its peer is being called, it waits."""
        if peer == self._node_id:
            self.to_ourselves.append(frame)
            return
        data = encode_frame(frame)
        kind = TYPE_NAMES[frame.type]
        if self._endpoint.is_connected(peer):
            self._send_encoded(peer, kind, data, now)
        elif (reason := self._call(peer, now)) is not None:
            self._refuse(peer, reason)
        else:
            self._keep(peer, kind, data, now)

    def send_gossip(self, peer: NodeId, payload: bytes, bulk: bool, now: float) -> None:
        """Send gossip; to a peer without a session it is lost, as gossip may be.

        Such a peer is called, within a budget: gossip goes to whomever records name.
        """
        if self._endpoint.is_connected(peer):
            delivery = Delivery.BULK if bulk else Delivery.DATAGRAM
            if not self._send(peer, payload, "gossip", delivery, now):
                self.counters["gossip dropped: send queue of the peer is full"] += 1
        elif (reason := self._record_dials.call(peer, self._addresses_of(peer), now)) is not None:
            self.counters[f"gossip dropped: {reason}"] += 1

    def under_way(self, peer: NodeId) -> int:
        """Return the bytes that ``peer`` has not acknowledged; more than any while it is called."""
        return _WITHOUT_END if peer in self._waiting else self._endpoint.queued_bytes(peer)

    def connected(self, peer: NodeId, now: float) -> None:
        """Send what waited for ``peer``."""
        self._meter.forget(peer)
        address = self._endpoint.address_of(peer)
        if address is not None:
            self._record_dials.reached(peer, address)
        waited = self._forget(peer)
        if waited is not None:
            for kind, data in waited.frames:
                self._send_encoded(peer, kind, data, now)

    def dial_failed(self, address: Address) -> None:
        """A dial of ``address`` came to nothing, whomever it was for."""
        self._record_dials.failed(address)

    def unreachable(self, peer: NodeId) -> None:
        """A dial came to nothing: drop what waited for ``peer``, unless another may succeed."""
        if not self._endpoint.is_dialling(peer):
            self._give_up(peer)

    def take_refused(self, now: float) -> list[SendRefused]:
        """Hand over to whom frames were dropped, each peer once in a quarter of a second."""
        taken: list[SendRefused] = []
        for peer in list(self.refused):
            if self._may_tell_at(peer) <= now:
                self._told[peer] = now
                taken.append(SendRefused(peer, self.refused.pop(peer)))
        for peer in [one for one in self._told if self._may_tell_at(one) <= now]:
            del self._told[peer]
        return taken

    # Questions

    def room(self, peer: NodeId) -> int:
        """Bytes of the largest frame to ``peer`` that would be taken now."""
        if peer == self._node_id:
            return _AT_HOME
        if self._endpoint.is_connected(peer):
            return self._endpoint.room(peer)
        config = self._config
        waited = self._waiting.get(peer)
        if waited is None:
            return min(config.waiting_bytes, config.waiting_total_bytes - self._waiting_bytes)
        if len(waited) >= config.most_waiting:
            return 0
        return min(
            config.waiting_bytes - waited.size, config.waiting_total_bytes - self._waiting_bytes
        )

    @property
    def waiting_bytes(self) -> int:
        """Bytes of all frames that wait for a session."""
        return self._waiting_bytes

    # Time

    def next_timeout(self) -> float | None:
        if not self._waiting and not self.refused:
            return None
        patience = self._config.waiting_seconds
        moments = [waited.since + patience for waited in self._waiting.values()]
        moments += [self._may_tell_at(peer) for peer in self.refused]
        return min(moments, default=None)

    def handle_timeout(self, now: float) -> None:
        """Drop what waited too long; what was dropped is told by :meth:`take_refused`."""
        patience = self._config.waiting_seconds
        for peer, waited in list(self._waiting.items()):
            if waited.since + patience <= now:
                self._give_up(peer)

    def _keep(self, peer: NodeId, kind: str, data: bytes, now: float) -> None:
        if len(data) > self.room(peer):
            self._refuse(peer, "too much waits for its session")
            return
        waited = self._waiting.get(peer)
        if waited is None:
            waited = self._waiting[peer] = _Waiting(now)
        waited.frames.append((kind, data))
        waited.size += len(data)
        self._waiting_bytes += len(data)

    def _give_up(self, peer: NodeId) -> None:
        waited = self._forget(peer)
        if waited is not None:
            self._refuse(peer, "no session came up", len(waited))

    def _forget(self, peer: NodeId) -> _Waiting | None:
        waited = self._waiting.pop(peer, None)
        if waited is not None:
            self._waiting_bytes -= waited.size
        return waited

    def _refuse(self, peer: NodeId, reason: str, frames: int = 1) -> None:
        self.counters[f"frame dropped: {reason}"] += frames
        self.refused.setdefault(peer, reason)

    def _may_tell_at(self, peer: NodeId) -> float:
        told = self._told.get(peer)
        return float("-inf") if told is None else told + _TOLD_AGAIN

    def _call(self, peer: NodeId, now: float) -> str | None:
        """Dial a peer; return why nothing can come of it, None where a dial is under way."""
        addresses = self._addresses_of(peer)
        if not addresses:
            return "peer of unknown address"
        for address in addresses:
            self._endpoint.connect(address, now, peer=peer)
        is_called = self._endpoint.is_dialling(peer)
        return None if is_called else "nobody can be called at the peer's addresses"

    def _send_encoded(self, peer: NodeId, kind: str, data: bytes, now: float) -> None:
        if self.observer is not None:
            self.observer.frame_built()
        if not self._send(peer, data, kind, Delivery.LATENCY, now):
            self._refuse(peer, "send queue of the peer is full")

    def _send(self, peer: NodeId, data: bytes, kind: str, delivery: Delivery, now: float) -> bool:
        try:
            self._endpoint.send(peer, data, delivery, now)
        except QueueFullError:
            return False
        self._traffic.sent(kind, len(data))
        if delivery is not Delivery.DATAGRAM:
            self._meter.sent(peer, len(data), now)
        return True
