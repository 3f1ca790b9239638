"""One outbox on a real endpoint of a virtual network, driven as a node drives it."""

from collections.abc import Callable

from p2pnode.node.config import OutboxConfig
from p2pnode.node.links import LinkMeter
from p2pnode.node.outbox import Outbox, SendRefused
from p2pnode.node.traffic import Traffic
from p2pnode.node.traffic_class import TrafficClass
from p2pnode.sansio import Address, NodeId, Transmit
from p2pnode.testing.links import Link
from p2pnode.testing.pair import Endpoints
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.endpoint import Endpoint
from p2pnode.transport.events import MessageReceived, PeerDisconnected, TransportEvent
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import Frame, MessageType, Slice, decode_frame_untrusted

TYPES = {
    TrafficClass.THINK: MessageType.THINK,
    TrafficClass.SYNC: MessageType.SYNC,
    TrafficClass.PROMPT: MessageType.THINK,
    TrafficClass.REPLAY: MessageType.THINK,
    TrafficClass.ASK: MessageType.ASK,
    TrafficClass.CACHE: MessageType.CACHE,
    TrafficClass.WEIGHTS: MessageType.CACHE,
}


def frame_of(traffic: TrafficClass, number: int, size: int) -> Frame:
    """Return a frame of a class; its number comes out at the other end."""
    return Frame(TYPES[traffic], int(traffic), number, 7, slices=(_row(size),))


def _row(size: int) -> Slice:
    return Slice(DType.I8, (1, size), bytes(size))


class Core:
    """An endpoint and the outbox before it, as one core.

    Attributes:
        most_cleared: The most peers that one datagram let go on.
    """

    def __init__(self, endpoint: Endpoint, outbox: Outbox) -> None:
        self.most_cleared = 0
        self._endpoint = endpoint
        self._outbox = outbox

    def receive_datagram(self, data: bytes, source: Address, now: float) -> None:
        self._endpoint.receive_datagram(data, source, now)
        self.most_cleared = max(self.most_cleared, len(self._endpoint.cleared))
        self._outbox.go_on(now)

    def handle_timeout(self, now: float) -> None:
        for core in (self._endpoint, self._outbox):
            due = core.next_timeout()
            if due is not None and due <= now:
                core.handle_timeout(now)
        self._outbox.go_on(now)

    def next_timeout(self) -> float | None:
        moments = (self._endpoint.next_timeout(), self._outbox.next_timeout())
        return min((one for one in moments if one is not None), default=None)

    def datagrams_to_send(self) -> list[Transmit[Address]]:
        return self._endpoint.datagrams_to_send()

    def take_events(self) -> list[TransportEvent]:
        return self._endpoint.take_events()


class OneSender:
    """Alice, who sends by classes, and some peers who receive.

    Attributes:
        arrived: By peer, what came: (class, number, seconds from its sending to its arrival).
        refused: What was told of frames that were dropped.
    """

    def __init__(
        self,
        names: tuple[str, ...] = ("bob",),
        link: Link | None = None,
        config: OutboxConfig | None = None,
        transport: TransportConfig | None = None,
        seed: int = 1,
    ) -> None:
        self.peers = Endpoints(seed)
        self.network = self.peers.network
        self.alice = self.peers.add("alice", config=transport)
        self.endpoint = self.peers.endpoints[self.alice]
        self.outbox = Outbox(
            self.peers.node_id(self.alice),
            self.endpoint,
            Traffic(),
            lambda peer: (),
            config or OutboxConfig(),
            LinkMeter(self.endpoint, self.endpoint.rtt, 0.005),
        )
        self.network.detach(self.alice)
        self.core = Core(self.endpoint, self.outbox)
        self.network.attach(self.alice, self.core, on_event=self._hear_of_sessions)
        self.arrived: dict[NodeId, list[tuple[TrafficClass, int, float]]] = {}
        self.refused: list[SendRefused] = []
        self._sent: dict[tuple[NodeId, int, int], float] = {}
        for name in names:
            self._add(name, link)
        self.network.run(2)  # in which the paths are searched

    def _add(self, name: str, link: Link | None) -> None:
        address = self.peers.add(name)
        peer, endpoint = self.peers.node_id(address), self.peers.endpoints[address]
        self.endpoint.vouch(peer)
        self.arrived[peer] = []
        self.network.detach(address)
        self.network.attach(
            address, endpoint, on_event=lambda event, now: self._receive(peer, event, now)
        )
        self.peers.connect(self.alice, address)
        self.network.run(0.1)
        if link is not None:
            self.network.set_links(self.alice, address, link)

    @property
    def bob(self) -> NodeId:
        """The first peer."""
        return next(iter(self.arrived))

    def send(
        self, traffic: TrafficClass, number: int, size: int, peer: NodeId | None = None
    ) -> bool:
        """Send a frame; return whether it was taken."""
        taken: list[bool] = []
        to = peer or self.bob

        def command(now: float) -> None:
            self._sent[to, traffic, number] = now
            frame = frame_of(traffic, number, size)
            taken.append(self.outbox.send_frame(to, frame, now, traffic=traffic))
            self.refused.extend(self.outbox.take_refused(now))

        self.network.call(self.alice, command)
        return taken[0]

    def call(self, command: Callable[[float], None]) -> None:
        self.network.call(self.alice, command)

    def numbers(self, traffic: TrafficClass, peer: NodeId | None = None) -> list[int]:
        """Return the numbers of the frames of a class, in the order in which they came."""
        return [number for of, number, _ in self.arrived[peer or self.bob] if of is traffic]

    def delays(self, traffic: TrafficClass) -> list[float]:
        """Return how long each frame of a class to the first peer took, the briefest first."""
        return sorted(delay for of, _, delay in self.arrived[self.bob] if of is traffic)

    def _receive(self, peer: NodeId, event: TransportEvent, now: float) -> None:
        if isinstance(event, MessageReceived):
            frame = decode_frame_untrusted(event.payload)
            sent = self._sent[peer, frame.stream_id, frame.frame_seq]
            traffic = TrafficClass(frame.stream_id)
            self.arrived[peer].append((traffic, frame.frame_seq, now - sent))

    def _hear_of_sessions(self, event: TransportEvent, now: float) -> None:
        if isinstance(event, PeerDisconnected):
            self.outbox.disconnected(event.peer, now)
