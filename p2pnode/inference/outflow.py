"""What stages may send now: no more than the way to the next has room for.

A replay is all that a stage keeps, and a message of 150 bytes asks for it. Sent at once to a peer
that reads nothing, it would lie in this node's memory, and again for every peer it is asked for. So
batches leave while less than a window is unacknowledged at their peer, and at all peers together.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from p2pnode.inference.activations import Batch
from p2pnode.inference.config import InferenceConfig
from p2pnode.sansio import NodeId

Queued: TypeAlias = Callable[[NodeId], int]
"""Bytes that a peer was sent and has not acknowledged."""

TOKEN_BYTES: Final = 65536
"""A batch up to this size may always leave to a peer with nothing under way."""


class Outflow:
    """Asks the transport how much is under way."""

    def __init__(self, config: InferenceConfig, queued: Queued | None) -> None:
        self._config = config
        self._queued: Queued = queued or (lambda _: 0)
        self._filled: dict[NodeId, None] = {}

    def has_room(self, peer: NodeId, batch: Batch) -> bool:
        """Whether ``batch`` may leave for ``peer`` now."""
        queued = self._queued(peer)
        size = sum(len(piece[0].payload) for piece in batch.pieces)
        if queued == 0 and size <= TOKEN_BYTES:
            return True
        if queued >= self._config.replay_window:
            return False
        self._filled[peer] = None
        total = 0
        for one in list(self._filled):
            under_way = self._queued(one)
            total += under_way
            if not under_way and one != peer:
                del self._filled[one]
        return total < self._config.replay_total
