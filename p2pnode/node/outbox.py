"""The node's outbox: frames and gossip to peers, who are called first where need be.

Nothing is dropped in silence. A frame that cannot be sent, or that waited for a session which did
not come up, is counted. If an answer has a hole without it, it is told as well
(:meth:`Outbox.take_refused`): whoever sent it must treat its peer as lost. Whoever sends much asks
:meth:`Outbox.room` before, and :meth:`Outbox.when_room` tells when there is some again.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from p2pnode.moments import earliest
from p2pnode.node.config import OutboxConfig
from p2pnode.node.links import LinkMeter
from p2pnode.node.observer import Observer
from p2pnode.node.record_dials import RecordDials
from p2pnode.node.send_queue import Message
from p2pnode.node.sending import Sending, Told
from p2pnode.node.traffic import Traffic
from p2pnode.node.traffic_class import BREAKS_ANSWERS, TrafficClass, class_of
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
        frames: Their classes, and what they are.
        size: Bytes of them all.
    """

    since: float
    frames: deque[tuple[TrafficClass, Message]] = field(default_factory=deque)
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
        self._sending = Sending(endpoint, traffic, meter, config.budgets, self.counters)
        self.observer: Observer | None = None
        self._record_dials = RecordDials(config.records, endpoint, self.counters)

    # Commands

    def send_frame(
        self,
        peer: NodeId,
        frame: Frame,
        now: float,
        *,
        is_replay: bool = False,
        traffic: TrafficClass | None = None,
    ) -> bool:
        """Send a frame; while its peer is being called, it waits.

        Args:
            peer: Whom to.
            frame: What.
            now: The time.
            is_replay: Whether it was sent before, to somebody else.
            traffic: Its class, where its type does not tell.

        Returns:
            Whether it was taken. If not, it is counted; and told, if answers need its class.
        """
        if peer == self._node_id:
            self.to_ourselves.append(frame)
            return True
        if traffic is None:
            traffic = class_of(frame, is_replay=is_replay)
        message = Message(TYPE_NAMES[frame.type], encode_frame(frame))
        if self._endpoint.is_connected(peer):
            return self._send(peer, traffic, message, now)
        if (reason := self._call(peer, now)) is not None:
            return self._refuse(peer, traffic, reason)
        return self._keep(peer, traffic, message, now)

    def send_gossip(self, peer: NodeId, payload: bytes, bulk: bool, now: float) -> None:
        """Send gossip; to a peer without a session it is lost, as gossip may be.

        Such a peer is called, within a budget: gossip goes to whomever records name.
        """
        if self._endpoint.is_connected(peer):
            if bulk:
                self._sending.send(peer, TrafficClass.GOSSIP, Message("gossip", payload), now)
                return
            self._endpoint.send(peer, payload, Delivery.DATAGRAM, now)
            self._traffic.sent("gossip", len(payload))
        elif (reason := self._record_dials.call(peer, self._addresses_of(peer), now)) is not None:
            self.counters[f"gossip dropped: {reason}"] += 1

    def under_way(self, peer: NodeId) -> int:
        """Return the bytes that ``peer`` has not acknowledged; more than any while it is called."""
        if peer in self._waiting:
            return _WITHOUT_END
        return self._endpoint.queued_bytes(peer) + self._sending.held(peer)

    def when_room(self, peer: NodeId, traffic: TrafficClass, size: int, told: Told) -> None:
        """Have ``told`` called once ``size`` bytes of a class have room, or the session is over."""
        self._sending.when_room(peer, traffic, size, told)

    def go_on(self, now: float) -> None:
        """Send what the transport sends at once by now; to be called after each of its inputs."""
        self._sending.go_on(now)

    def connected(self, peer: NodeId, now: float) -> None:
        """Send what waited for ``peer``."""
        self._meter.forget(peer)
        address = self._endpoint.address_of(peer)
        if address is not None:
            self._record_dials.reached(peer, address)
        waited = self._forget(peer)
        if waited is not None:
            for traffic, message in waited.frames:
                self._send(peer, traffic, message, now)
        self._sending.go_on_with(peer, now)  # with what waited for a session that this one replaces

    def disconnected(self, peer: NodeId, now: float) -> None:
        """The session with ``peer`` is over, and what waited for it with it."""
        self._meter.forget(peer)
        self._sending.ended(peer, now)

    def sessions_close(self, now: float) -> None:
        """The sessions will close once the transport has sent what it has: hand it the rest."""
        self._sending.hand_over_urgent(now)

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

    def room(self, peer: NodeId, traffic: TrafficClass) -> int:
        """Bytes of the largest frame of a class to ``peer`` that would be taken now."""
        if peer == self._node_id:
            return _AT_HOME
        if self._endpoint.is_connected(peer):
            return self._sending.room(peer, traffic)
        return self._room_to_wait(peer)

    def queued(self, peer: NodeId) -> dict[TrafficClass, int]:
        """Bytes that wait for ``peer`` and were not handed to the transport, by class."""
        return self._sending.by_class(peer)

    def _room_to_wait(self, peer: NodeId) -> int:
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
        looks_at = self._sending.looks_at
        if not self._waiting and not self.refused:
            return looks_at
        patience = self._config.waiting_seconds
        moments = [waited.since + patience for waited in self._waiting.values()]
        moments += [self._may_tell_at(peer) for peer in self.refused]
        return earliest(looks_at, *moments)

    def handle_timeout(self, now: float) -> None:
        """Drop what waited too long; what was dropped is told by :meth:`take_refused`."""
        patience = self._config.waiting_seconds
        for peer, waited in list(self._waiting.items()):
            if waited.since + patience <= now:
                self._give_up(peer)
        if (looks_at := self._sending.looks_at) is not None and looks_at <= now:
            self._sending.look(now)

    def _keep(self, peer: NodeId, traffic: TrafficClass, message: Message, now: float) -> bool:
        size = len(message.data)
        if size > self._room_to_wait(peer):
            return self._refuse(peer, traffic, "too much waits for its session")
        waited = self._waiting.get(peer)
        if waited is None:
            waited = self._waiting[peer] = _Waiting(now)
        waited.frames.append((traffic, message))
        waited.size += size
        self._waiting_bytes += size
        return True

    def _give_up(self, peer: NodeId) -> None:
        waited = self._forget(peer)
        for traffic, _ in () if waited is None else waited.frames:
            self._refuse(peer, traffic, "no session came up")

    def _forget(self, peer: NodeId) -> _Waiting | None:
        waited = self._waiting.pop(peer, None)
        if waited is not None:
            self._waiting_bytes -= waited.size
        return waited

    def _refuse(self, peer: NodeId, traffic: TrafficClass, reason: str) -> bool:
        self.counters[f"frame dropped: {reason}"] += 1
        if traffic in BREAKS_ANSWERS:
            self.refused.setdefault(peer, reason)
        return False

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

    def _send(self, peer: NodeId, traffic: TrafficClass, message: Message, now: float) -> bool:
        if self.observer is not None:
            self.observer.frame_built()
        if self._sending.send(peer, traffic, message, now):
            return True
        return self._refuse(peer, traffic, "send queue of the peer is full")
