"""The node's outgoing post: frames and gossip to peers, who are called first where need be."""

from collections import Counter, deque
from collections.abc import Callable

from p2pnode.node.links import LinkMeter
from p2pnode.node.traffic import Traffic
from p2pnode.sansio import Address, NodeId
from p2pnode.transport.endpoint import Endpoint
from p2pnode.transport.events import Delivery
from p2pnode.wire.vframe import Frame, encode_frame

_WITHOUT_END = 1 << 62
_MOST_WAITING = 64  # frames kept for one peer while it is being called


class Post:
    """Sends through the transport; knows nothing of what is said.

    Attributes:
        to_ourselves: Frames a node sends to itself, to be taken from here.
        counters: What could not be sent, by reason.
    """

    def __init__(
        self,
        node_id: NodeId,
        endpoint: Endpoint,
        traffic: Traffic,
        addresses_of: Callable[[NodeId], tuple[Address, ...]],
        queue_bytes: int,
        meter: LinkMeter,
    ) -> None:
        self._node_id = node_id
        self._endpoint = endpoint
        self._traffic = traffic
        self._addresses_of = addresses_of
        self._meter = meter
        self._queue_bytes = queue_bytes
        self._waiting: dict[NodeId, deque[Frame]] = {}
        self.to_ourselves: deque[Frame] = deque()
        self.counters: Counter[str] = Counter()

    def send_frame(self, peer: NodeId, frame: Frame, now: float) -> None:
        """Send a frame; while its peer is being called, it waits."""
        if peer == self._node_id:
            self.to_ourselves.append(frame)
        elif self._endpoint.is_connected(peer):
            data = encode_frame(frame)
            self._send(peer, data, frame.type.name.lower(), Delivery.LATENCY, now)
        elif self._call(peer, now):
            waiting = self._waiting.setdefault(peer, deque())
            if len(waiting) < _MOST_WAITING:
                waiting.append(frame)
            else:
                self.counters["frame dropped: too many wait for this peer"] += 1

    def send_gossip(self, peer: NodeId, payload: bytes, bulk: bool, now: float) -> None:
        """Send gossip; to a peer without a session it is lost, as gossip may be."""
        if self._endpoint.is_connected(peer):
            delivery = Delivery.BULK if bulk else Delivery.DATAGRAM
            self._send(peer, payload, "gossip", delivery, now)
        else:
            self._call(peer, now)

    def under_way(self, peer: NodeId) -> int:
        """Return the bytes that ``peer`` has not acknowledged; more than any while it is called."""
        return _WITHOUT_END if peer in self._waiting else self._endpoint.queued_bytes(peer)

    def connected(self, peer: NodeId, now: float) -> None:
        """Send what waited for ``peer``."""
        self._meter.reconnected(peer)
        for frame in self._waiting.pop(peer, ()):
            self.send_frame(peer, frame, now)

    def unreachable(self, peer: NodeId) -> None:
        """Drop what waited for ``peer``."""
        self.counters["frame dropped: no session came up"] += len(self._waiting.pop(peer, ()))

    def _call(self, peer: NodeId, now: float) -> bool:
        addresses = self._addresses_of(peer)
        if not addresses:
            self.counters["frame dropped: peer of unknown address"] += 1
        for address in addresses:
            self._endpoint.connect(address, now, peer=peer)
        return bool(addresses)

    def _send(self, peer: NodeId, data: bytes, kind: str, delivery: Delivery, now: float) -> None:
        if self._endpoint.queued_bytes(peer) + len(data) > self._queue_bytes:
            self.counters["message dropped: send queue of the peer is full"] += 1
            return
        self._traffic.sent(kind, len(data))
        if delivery is not Delivery.DATAGRAM:
            self._meter.sending(peer, len(data), now)
        self._endpoint.send(peer, data, delivery, now)
