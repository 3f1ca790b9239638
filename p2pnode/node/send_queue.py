"""What waits to be handed to the transport: a queue for each peer and class, within budgets.

A higher class leaves first. None waits for ever: once fifteen bytes of higher classes have passed
each byte of the first message of a class, that goes next. So a class that waits has at least a
fifteenth of what the higher ones have, and the highest keeps more than half of all. It is the
sharing of deficit round robin (Shreedhar and Varghese, 1995) under a strict order.

Nothing here sends. Whoever does asks whose turn it is (:meth:`SendQueues.turn`), and takes that.
"""

from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from p2pnode.node.traffic_class import DELIVERIES, Budgets, TrafficClass
from p2pnode.sansio import NodeId
from p2pnode.transport.events import Delivery
from p2pnode.transport.memory import Pool, Share
from p2pnode.transport.messages import LEVELS
from p2pnode.values import value

MESSAGE_COST: Final = 128
"""Bytes around a message that waits: 90 by tracemalloc, CPython 3.11, and a part of its line."""

PATIENCE: Final = 15
"""Bytes of higher classes that may pass a frame, for each byte of it."""

_CLASSES: Final = tuple(TrafficClass)


@value
class Message:
    """What is sent, and as what its traffic is counted: a type of frames, or gossip."""

    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Turn:
    """What may leave next.

    Attributes:
        traffic: Its class.
        delivery: How it travels. What was passed for long enough goes as what passed it did, or it
            would wait in the transport instead.
    """

    traffic: TrafficClass
    delivery: Delivery


class Standing(IntEnum):
    """How much is kept for a peer."""

    PROVEN = 0
    MUTE = 1
    """Proven, and acknowledges nothing."""
    UNPROVEN = 2


class _PeerQueue:
    """What waits for one peer.

    Invariants: ``shares[c]`` holds the cost of the messages in ``lines[c]``, and ``share`` that of
    all; ``passed[c]`` is 0 where ``lines[c]`` is empty.
    """

    __slots__ = ("lines", "passed", "share", "shares")

    def __init__(self, limits: tuple[int, ...], pools: tuple[Pool, ...], pool: Pool) -> None:
        self.lines: tuple[deque[Message], ...] = tuple(deque() for _ in _CLASSES)
        self.share = Share(pool.total, pool)
        self.shares = tuple(Share(*of) for of in zip(limits, pools, strict=True))
        self.passed = [0] * len(_CLASSES)  # bytes of higher classes, since its first is first


class SendQueues:
    """The queues of one node.

    Invariant: a peer is in ``_peers`` while, and only while, something waits for it.
    """

    def __init__(self, budgets: Budgets) -> None:
        by_class = budgets.of_classes()
        self._mute = budgets.mute
        self._limits = tuple(budget.each for budget in by_class)
        self._pools = tuple(Pool(budget.total) for budget in by_class)
        self._proven, self._unproven = Pool(budgets.total), Pool(budgets.unproven)
        self._peers: dict[NodeId, _PeerQueue] = {}

    def __contains__(self, peer: NodeId) -> bool:
        return peer in self._peers

    def __bool__(self) -> bool:
        return bool(self._peers)

    def put(
        self, peer: NodeId, traffic: TrafficClass, message: Message, standing: Standing
    ) -> bool:
        """Put a message at the end of its line; False where there is no room: nothing changed."""
        if len(message.data) > self.room(peer, traffic, standing):
            return False
        queue = self._peers.get(peer)
        if queue is None:
            pool = self._unproven if standing is Standing.UNPROVEN else self._proven
            queue = self._peers[peer] = _PeerQueue(self._limits, self._pools, pool)
        cost = len(message.data) + MESSAGE_COST
        queue.share.take(cost)
        queue.shares[traffic].take(cost)
        queue.lines[traffic].append(message)
        return True

    def room(self, peer: NodeId, traffic: TrafficClass, standing: Standing) -> int:
        """Return the bytes of the largest message that would be taken now."""
        pool = self._unproven if standing is Standing.UNPROVEN else self._proven
        most = pool.total if standing is Standing.PROVEN else self._mute
        queue = self._peers.get(peer)
        if queue is None:
            share, of_class = Share(most, pool), Share(self._limits[traffic], self._pools[traffic])
        else:
            share, of_class = queue.share, queue.shares[traffic]
            share.limit = most
            if share.pool is not pool:  # it has proved itself since
                share.move(pool)
        return max(0, min(share.room, of_class.room) - MESSAGE_COST)

    def turn(self, peer: NodeId, level: int) -> Turn | None:
        """Return what leaves next for ``peer``; nothing that the transport has below ``level``."""
        queue = self._peers.get(peer)
        if queue is None:
            return None
        first: Turn | None = None
        for traffic, line in zip(_CLASSES, queue.lines, strict=True):
            if not line:
                continue
            if queue.passed[traffic] >= PATIENCE * max(1, len(line[0].data)):
                return Turn(traffic, Delivery.LATENCY)
            delivery = DELIVERIES[traffic]
            if first is None and LEVELS[delivery] <= level:
                first = Turn(traffic, delivery)
        return first

    def first(self, peer: NodeId, traffic: TrafficClass) -> Message:
        """Return the first frame of a line that is not empty."""
        return self._peers[peer].lines[traffic][0]

    def take(self, peer: NodeId, traffic: TrafficClass) -> Message:
        """Take the first frame of a line that is not empty."""
        queue = self._peers[peer]
        taken = queue.lines[traffic].popleft()
        size = len(taken.data)
        queue.share.give_back(size + MESSAGE_COST)
        queue.shares[traffic].give_back(size + MESSAGE_COST)
        queue.passed[traffic] = 0
        for lower in range(traffic + 1, len(_CLASSES)):
            if queue.lines[lower]:
                queue.passed[lower] += size
        if not queue.share.held:
            del self._peers[peer]
        return taken

    def drop(self, peer: NodeId) -> dict[TrafficClass, int]:
        """Forget what waits for ``peer``; return how many frames of each class that was."""
        queue = self._peers.pop(peer, None)
        if queue is None:
            return {}
        for share in (queue.share, *queue.shares):
            share.give_back(share.held)
        counted = zip(_CLASSES, queue.lines, strict=True)
        return {traffic: len(line) for traffic, line in counted if line}

    def most(self, traffic: TrafficClass) -> int:
        """Return the bytes of the largest frame that would ever be taken."""
        return self._limits[traffic] - MESSAGE_COST

    def held(self, peer: NodeId) -> int:
        """Return the bytes that wait for ``peer``."""
        queue = self._peers.get(peer)
        return 0 if queue is None else queue.share.held

    def by_class(self, peer: NodeId) -> dict[TrafficClass, int]:
        """Return the bytes that wait for ``peer``, by class; of what is empty nothing."""
        queue = self._peers.get(peer)
        if queue is None:
            return {}
        held = zip(_CLASSES, queue.shares, strict=True)
        return {traffic: share.held for traffic, share in held if share.held}
