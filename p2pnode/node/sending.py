"""Hands messages to the transport no sooner than they would leave, the highest class first.

The transport sends what it was handed in its own order, of two classes alone, and keeps a window of
it on the way. So a message waits here until nothing stands before it there: then one is handed
over, and what comes meanwhile of a higher class still leaves before the next. Where nothing waits
at all, which is the rule, a message goes straight to the transport.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from p2pnode.errors import QueueFullError
from p2pnode.node.links import LinkMeter
from p2pnode.node.send_queue import Message, SendQueues, Standing
from p2pnode.node.traffic import Traffic
from p2pnode.node.traffic_class import DELIVERIES, Budgets, TrafficClass
from p2pnode.sansio import NodeId
from p2pnode.transport.endpoint import Endpoint
from p2pnode.transport.events import Delivery

_LOOK: Final = 0.05  # seconds between two looks at what nobody tells of
_MOST_LOOKED_AT: Final = 64  # peers, in one look

Told: TypeAlias = Callable[[NodeId, TrafficClass, float], None]
"""Called once there is room for ``peer`` in a class, or no session with it; and when."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """Somebody wants to hear when so many bytes fit."""

    size: int
    told: Told


class Sending:
    """Sends to peers with a session.

    Attributes:
        counters: What had to wait, and what had no room, by class and reason.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        traffic: Traffic,
        meter: LinkMeter,
        budgets: Budgets,
        counters: Counter[str],
    ) -> None:
        self._endpoint = endpoint
        self._traffic = traffic
        self._meter = meter
        self._queues = SendQueues(budgets)
        self.counters = counters
        self._stuck: dict[NodeId, None] = {}  # the transport has no memory for their first
        self._wishes: dict[tuple[NodeId, TrafficClass], list[_Wish]] = {}
        self._looked_at = 0.0

    # Commands

    def send(self, peer: NodeId, traffic: TrafficClass, message: Message, now: float) -> bool:
        """Send a message, or keep it until it may leave; False where there is no room for it."""
        delivery = DELIVERIES[traffic]
        if (
            peer not in self._queues
            and self._endpoint.is_clear(peer, delivery)
            and self._hand_over(peer, message, delivery, now)
        ):
            return True
        if not self._queues.put(peer, traffic, message, self._standing(peer)):
            self.counters[f"{traffic.label} refused: its queue to the peer is full"] += 1
            return False
        self.go_on_with(peer, now)
        if traffic in self._queues.by_class(peer):
            self.counters[f"{traffic.label} held back: more is on its way to the peer"] += 1
        return True

    def go_on(self, now: float) -> None:
        """Hand over what those peers wait for before whom nothing stands in the transport now."""
        cleared = self._endpoint.cleared
        for peer in list(cleared) if self._queues or self._wishes else ():
            self.go_on_with(peer, now)
            self._tell(peer, now)
        cleared.clear()

    def hand_over_urgent(self, now: float) -> None:
        """Hand over what breaks answers if it is missing: the sessions are about to close."""
        for peer in self._endpoint.peers() if self._queues else ():
            while (turn := self._queues.turn(peer, 0)) is not None:
                message = self._queues.first(peer, turn.traffic)
                if not self._hand_over(peer, message, turn.delivery, now):
                    break
                self._queues.take(peer, turn.traffic)

    def ended(self, peer: NodeId, now: float) -> None:
        """The session with ``peer`` is over: drop what waits for it, unless another took its place.

        Whoever wants room hears that there is none to wait for.
        """
        if self._endpoint.is_connected(peer):
            return
        for traffic, frames in self._queues.drop(peer).items():
            self.counters[f"{traffic.label} dropped: the session ended"] += frames
        self._stuck.pop(peer, None)
        for traffic in TrafficClass:
            for wish in self._wishes.pop((peer, traffic), ()):
                wish.told(peer, traffic, now)

    def when_room(self, peer: NodeId, traffic: TrafficClass, size: int, told: Told) -> None:
        """Have ``told`` called, once, when a message of ``size`` bytes has room.

        It is called from :meth:`go_on`, :meth:`look` or :meth:`ended`, never from here. A size
        beyond the class's budget stands for all of it.
        """
        wish = _Wish(min(size, self._queues.most(traffic)), told)
        self._wishes.setdefault((peer, traffic), []).append(wish)

    def look(self, now: float) -> None:
        """Look for room that others of the same pool gave back: nobody tells of that."""
        self._looked_at = now
        for peer in list(self._stuck)[:_MOST_LOOKED_AT]:
            del self._stuck[peer]
            self.go_on_with(peer, now)
        for peer in list(dict.fromkeys(peer for peer, _ in self._wishes))[:_MOST_LOOKED_AT]:
            self._tell(peer, now)

    # Questions

    @property
    def looks_at(self) -> float | None:
        """When :meth:`look` is due; None while nobody needs it."""
        return self._looked_at + _LOOK if self._stuck or self._wishes else None

    def room(self, peer: NodeId, traffic: TrafficClass) -> int:
        """Bytes of the largest message of a class to ``peer`` that would be taken now."""
        return self._queues.room(peer, traffic, self._standing(peer))

    def held(self, peer: NodeId) -> int:
        """Bytes that wait here for ``peer``."""
        return self._queues.held(peer) if self._queues else 0

    def by_class(self, peer: NodeId) -> dict[TrafficClass, int]:
        """Bytes that wait here for ``peer``, by class."""
        return self._queues.by_class(peer)

    def _standing(self, peer: NodeId) -> Standing:
        if not self._endpoint.is_proven(peer):
            return Standing.UNPROVEN
        return Standing.MUTE if self._endpoint.is_mute(peer) else Standing.PROVEN

    # Handing over

    def go_on_with(self, peer: NodeId, now: float) -> None:
        """Hand over as much as leaves at once, and one message more."""
        queues = self._queues
        while (level := self._endpoint.clear_down_to(peer)) >= 0:
            turn = queues.turn(peer, level)
            if turn is None:
                return
            message = queues.first(peer, turn.traffic)
            if not self._hand_over(peer, message, turn.delivery, now):
                self._stuck[peer] = None
                return
            queues.take(peer, turn.traffic)

    def _hand_over(self, peer: NodeId, message: Message, delivery: Delivery, now: float) -> bool:
        """Hand a message to the transport; False where that has no memory for it."""
        size = len(message.data)
        try:
            self._endpoint.send(peer, message.data, delivery, now)
        except QueueFullError:
            return False
        self._traffic.sent(message.kind, size)
        self._meter.sent(peer, size, now)
        return True

    def _tell(self, peer: NodeId, now: float) -> None:
        """Tell those for whom there is room; what they do about it may lead here again."""
        if not self._wishes:
            return
        for traffic in TrafficClass:
            wishes = self._wishes.pop((peer, traffic), None)
            if wishes is None:
                continue
            room = self.room(peer, traffic)
            if left := [wish for wish in wishes if wish.size > room]:
                self._wishes[peer, traffic] = left
            for wish in wishes:
                if wish.size <= room:
                    wish.told(peer, traffic, now)
