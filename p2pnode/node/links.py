"""How much the way to each peer carries, learnt from the node's own large messages.

The transport acknowledges bytes, so a message has arrived when as many bytes as were sent up to its
end are acknowledged. Such a moment can only be seen late (the acknowledgement travels, and waits
for company), and a busy peer makes it later still: every error makes a link look slower than it
is. So the best of the newest few counts, and a link that was not measured is not called slow.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from p2pnode.inference.tensor_policy import Link
from p2pnode.sansio import NodeId

LARGE: Final = 2048
"""Bytes from which on a message says something about the rate: two datagrams."""

_NEWEST: Final = 8  # of rates; a link that became slow is believed after as many messages
_ENOUGH: Final = 3  # of rates, before they are believed at all
_LEAST_SHARE: Final = 1 / 32  # of the time seen; what is left when the way back is taken off
_RTTS: Final = 16
_MOST_PENDING: Final = 64


class Queues(Protocol):
    """What the meter asks of the transport."""

    def queued_bytes(self, peer: NodeId) -> int:
        """Return the bytes that were accepted for ``peer`` and not acknowledged."""


@dataclass(slots=True)
class _Way:
    """What was seen of one peer; sizes in bytes, times in seconds."""

    sent: int = 0
    pending: deque[tuple[int, int, float]] = field(default_factory=deque)  # mark, size, sent at
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=_NEWEST))
    rtts: deque[float] = field(default_factory=lambda: deque(maxlen=_RTTS))


class LinkMeter:
    """Knows the ways to all peers; inference asks it before it codes hidden states.

    Attributes:
        pending: To whom a large message is under way: if any, :meth:`look` would learn something.
    """

    def __init__(
        self,
        queues: Queues,
        measured_rtt: Callable[[NodeId], float | None],
        ack_delay: float,
    ) -> None:
        """``ack_delay`` is how long a peer may keep an acknowledgement back, in seconds."""
        self._queues = queues
        self._measured_rtt = measured_rtt
        self._ack_delay = ack_delay
        self._ways: dict[NodeId, _Way] = {}
        self.pending: set[NodeId] = set()

    def sent(self, peer: NodeId, size: int, now: float) -> None:
        """A message of ``size`` bytes was handed to the transport."""
        way = self._ways.get(peer)
        if way is None:
            way = self._ways[peer] = _Way()
        way.sent += size
        if size >= LARGE and len(way.pending) < _MOST_PENDING:
            way.pending.append((way.sent, self._queues.queued_bytes(peer), now))
            self.pending.add(peer)

    def look(self, now: float) -> None:
        """See which large messages have arrived."""
        for peer in tuple(self.pending):
            way = self._ways[peer]
            arrived = way.sent - self._queues.queued_bytes(peer)
            while way.pending and way.pending[0][0] <= arrived:
                _, size, sent_at = way.pending.popleft()
                self._learn(peer, way, size, now - sent_at)
            if not way.pending:
                self.pending.discard(peer)

    def forget(self, peer: NodeId) -> None:
        """The session to ``peer`` is over, or a new one: what was under way is no more."""
        self._ways.pop(peer, None)
        self.pending.discard(peer)

    def link(self, peer: NodeId) -> Link:
        """Return what is known of the way to ``peer``."""
        way = self._ways.get(peer)
        if way is None:
            return Link()
        rtt = self._least_rtt(peer, way)
        return Link(self._goodput(way), None if rtt is None else rtt / 2)

    def goodput(self, peer: NodeId) -> float | None:
        """Return the bytes a second that large messages reach; None before enough were sent."""
        way = self._ways.get(peer)
        return None if way is None else self._goodput(way)

    @staticmethod
    def _goodput(way: _Way) -> float | None:
        return max(way.rates) if len(way.rates) >= _ENOUGH else None

    def _least_rtt(self, peer: NodeId, way: _Way) -> float | None:
        """Of the newest few: while much is queued on the way, a round trip has the queue in it."""
        rtt = self._measured_rtt(peer)
        if rtt is not None:
            way.rtts.append(rtt)
        return min(way.rtts, default=None)

    def _learn(self, peer: NodeId, way: _Way, size: int, seconds: float) -> None:
        back = (self._least_rtt(peer, way) or 0.0) + self._ack_delay
        wire = max(seconds - back, _LEAST_SHARE * seconds)
        if wire > 0:
            way.rates.append(size / wire)
