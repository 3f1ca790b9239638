"""What messages under way may take: of one peer, of all peers, and of those nobody knows.

The bounds are in bytes of memory, what Python puts around the bytes counted (measured with
tracemalloc, CPython 3.11). A pool is divided as switches divide theirs (dynamic thresholds,
Choudhury and Hahne, 1998): nobody may hold more than a quarter of what is still free. So the first
gets a fifth of all, the next a fifth of the rest, and something is left for whoever comes: after
ten that never give anything back 11 %, after twenty 1 %. Nothing is ever taken from its holder.
"""

from dataclasses import dataclass

from p2pnode.errors import LocalProtocolError
from p2pnode.transport.config import TransportConfig

PART = 4
"""Nobody holds more of a pool than this part of what is free."""

PARTIAL_COST = 400
"""Bytes around a message of which some shards are here."""
RECEIVED_SHARD_COST = 72
"""Bytes around each of its shards."""
MESSAGE_COST = 640
"""Bytes around a message on its way out."""
SENT_SHARD_COST = 40
"""Bytes around each of its shards."""
PARITY_SHARD_COST = 60
"""Bytes around each of its parity shards, which are kept, unlike the others."""


class Pool:
    """Memory that peers share.

    Attributes:
        total: Bytes in all.
        free: Bytes of them that nobody holds.
    """

    __slots__ = ("free", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total

    @property
    def held(self) -> int:
        return self.total - self.free


class Share:
    """What one peer holds of a pool.

    Attributes:
        limit: Bytes this peer may hold at the most; whoever owns the share may change it.
        held: Bytes it holds.
        pool: What they are of.
    """

    __slots__ = ("held", "limit", "pool")

    def __init__(self, limit: int, pool: Pool) -> None:
        self.limit = limit
        self.held = 0
        self.pool = pool

    @property
    def room(self) -> int:
        """Bytes that may be taken now."""
        fair = (self.pool.free - PART * self.held) // (PART + 1)
        return max(0, min(self.limit - self.held, fair))

    def take(self, cost: int) -> None:
        """Hold ``cost`` bytes more, or fewer where it is below 0.

        Raises:
            LocalProtocolError: There is no room; ask :attr:`room` before.
        """
        if cost > self.room:
            raise LocalProtocolError(f"{cost} bytes asked of {self.room} left")
        self.held += cost
        self.pool.free -= cost

    def give_back(self, cost: int) -> None:
        self.held -= cost
        self.pool.free += cost

    def move(self, pool: Pool) -> None:
        """Hold of another pool from now on, what is held already included."""
        self.pool.free += self.held
        pool.free -= self.held
        self.pool = pool


@dataclass(frozen=True, slots=True)
class Memory:
    """The pools of one endpoint.

    Attributes:
        sending: For messages on their way out to peers that proved themselves.
        receiving: For messages of theirs of which some shards are here.
        sending_unproven: For messages to all others.
        receiving_unproven: For messages of all others.
    """

    sending: Pool
    receiving: Pool
    sending_unproven: Pool
    receiving_unproven: Pool

    @classmethod
    def of(cls, config: TransportConfig) -> "Memory":
        return cls(
            Pool(config.send_queue_total_bytes),
            Pool(config.reassembly_total_bytes),
            Pool(config.unproven_bytes),
            Pool(config.unproven_bytes),
        )
