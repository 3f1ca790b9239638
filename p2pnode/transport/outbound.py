"""The messages a connection has accepted and the peer has not acknowledged."""

from collections import deque

from p2pnode.errors import LocalProtocolError, QueueFullError
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.events import MAX_MESSAGE, Delivery
from p2pnode.transport.memory import (
    MESSAGE_COST,
    PARITY_SHARD_COST,
    PART,
    SENT_SHARD_COST,
    Pool,
    Share,
)
from p2pnode.transport.messages import ID_MASK, ID_SPAN, Outgoing
from p2pnode.transport.parity import LossEstimator, parity_for

_LONG_RTT = 0.1
_RARE, _RARER = 1e-3, 1e-4


class Outbound:
    """Cuts messages into shards with as much parity as measured loss asks for, and orders them.

    Attributes:
        share: The memory they hold; small until the peer acknowledged a message, for whoever never
            does should not be waited for with much.
        queued: Bytes of messages not acknowledged.
        losses: Which of our packets were lost.
        parity_sent: Shards made beyond need.
        has_arrived: Whether the peer ever acknowledged a message.
        is_mute: Whether it did not, or has stopped to.
    """

    def __init__(self, config: TransportConfig, pool: Pool) -> None:
        """``pool`` is what the messages to other peers take too."""
        self._config = config
        self._mute_limit = min(config.mute_queue_bytes, config.send_queue_bytes)
        self.share = Share(self._mute_limit, pool)
        self.is_mute = True
        self.has_arrived = False
        self._unfinished: dict[int, Outgoing] = {}
        self._queues: tuple[deque[Outgoing], ...] = (deque(), deque(), deque())  # by level
        self._next_id = 0
        self.queued = 0
        self.losses = LossEstimator()
        self.parity_sent = 0

    def add(self, payload: bytes, delivery: Delivery, shard_size: int, rtt: float) -> int:
        """Accept a message; return its number.

        Raises:
            LocalProtocolError: It is too large.
            QueueFullError: Too much is queued already.
        """
        if len(payload) > MAX_MESSAGE:
            raise LocalProtocolError(f"a message has at most {MAX_MESSAGE} bytes")
        cost = self._cost(payload, shard_size)
        parity = 0
        if delivery is Delivery.LATENCY and self._config.fec and self.is_lossy:
            parity = self._parity(-(-len(payload) // shard_size) or 1, rtt)
            if len(payload) > shard_size:
                cost += parity * (shard_size + PARITY_SHARD_COST)
        message = self._accept(payload, delivery, shard_size, parity, cost)
        self.parity_sent += parity
        self.enqueue(message)
        return message.id

    def add_few(self, payload: bytes, shard_size: int) -> Outgoing | None:
        """Accept a latency message of few shards, to be sent at once; None where it must wait.

        As :meth:`add`, where nothing waits and nothing was lost of late.

        Raises:
            QueueFullError: Too much is queued already.
        """
        cost = self._cost(payload, shard_size)
        oldest = next(iter(self._unfinished), None)
        if oldest is not None and self._next_id - oldest & ID_MASK >= ID_SPAN:
            return None
        return self._accept(payload, Delivery.LATENCY, shard_size, 0, cost)

    def _cost(self, payload: bytes, shard_size: int) -> int:
        """Return the memory that a message takes.

        Raises:
            QueueFullError: There is less.
        """
        share = self.share
        cost = len(payload) + MESSAGE_COST + len(payload) // shard_size * SENT_SHARD_COST
        held = share.held + cost
        if held > share.limit or PART * held > share.pool.free - cost:
            raise QueueFullError(f"{self.queued} bytes wait already")
        return cost

    def _accept(
        self, payload: bytes, delivery: Delivery, shard_size: int, parity: int, cost: int
    ) -> Outgoing:
        number = self._next_id
        self._next_id = number + 1 & ID_MASK
        message = Outgoing(number, payload, delivery, shard_size, parity)
        message.cost = cost
        self.share.held += cost
        self.share.pool.free -= cost
        self._unfinished[number] = message
        self.queued += len(payload)
        return message

    @property
    def is_lossy(self) -> bool:
        """Whether enough is lost for parity, and for acknowledgements in haste, to pay."""
        return self.losses.loss >= self._config.fec_least_loss

    def enqueue(self, message: Outgoing, *, first: bool = False) -> None:
        """Put a message with shards to send in its line, unless it stands there already."""
        if message.is_queued or not message.is_waiting:
            return
        message.is_queued = True
        queue = self._queues[message.level]
        if first:
            queue.appendleft(message)
        else:
            queue.append(message)

    @property
    def is_waiting(self) -> bool:
        """Whether any message stands in line."""
        latency, bulk, background = self._queues
        return bool(latency or bulk or background)

    @property
    def has_background(self) -> bool:
        """Whether a message of BACKGROUND stands in line."""
        return bool(self._queues[2])

    @property
    def clear_down_to(self) -> int:
        """The last level of which a new message would wait for no other; -1 for none."""
        latency, bulk, background = self._queues
        if latency:
            return -1
        if bulk:
            return 0
        return 1 if background else 2

    def next_waiting(self, level: int) -> Outgoing | None:
        """Return the first message in line with a shard that may be sent."""
        queue = self._queues[level]
        while queue:
            message = queue[0]
            if message.is_waiting:
                oldest = next(iter(self._unfinished))
                return message if message.id - oldest & ID_MASK < ID_SPAN else None
            queue.popleft().is_queued = False
        return None

    def finish(self, number: int) -> None:
        """The peer has the message whole; harmless when it was finished before."""
        message = self._unfinished.pop(number, None)
        if message is not None:
            message.finish()
            self.queued -= message.size
            self.share.give_back(message.cost)
            if self.is_mute:
                self.has_arrived, self.is_mute = True, False
                self.share.limit = self._config.send_queue_bytes

    def room(self, shard_size: int) -> int:
        """Return how many bytes a message may have to be accepted now."""
        room = self.share.room - MESSAGE_COST
        return max(0, room - (room // shard_size + 1) * SENT_SHARD_COST)

    def be_mute(self) -> None:
        """The peer stopped acknowledging: take little for it until it does again."""
        self.is_mute = True
        self.share.limit = self._mute_limit

    def release(self) -> None:
        """Give everything up: the connection has ended."""
        for number in list(self._unfinished):
            message = self._unfinished.pop(number)
            message.finish()
            self.share.give_back(message.cost)
        self.queued = 0

    def recut(self, shard_size: int) -> None:
        """The path carries less: cut what is under way anew."""
        for message in self._unfinished.values():
            message.recut(shard_size)
            self.enqueue(message)

    def _parity(self, count: int, rtt: float) -> int:
        """A repair costs a round trip: the longer that is, the rarer it should be needed."""
        target = _RARE if rtt < _LONG_RTT else _RARER
        most = max(2, int(count * self._config.fec_max_overhead))
        return parity_for(count, self.losses.chain, target=target, most=most)
