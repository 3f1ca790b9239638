"""What stages may send now: no more than the way to the next has room for.

A replay is all that a stage keeps, and a message of 150 bytes asks for it. Sent at once to a peer
that reads nothing, it would lie in this node's memory, and again for every peer it is asked for. So
batches leave while less than a window is unacknowledged at their peer, and at all peers together.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final, TypeAlias

from p2pnode.inference.activations import Batch, to_frames
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.events import InferenceEvent, SendFrame
from p2pnode.inference.stage import Stage, StageKey, size_of
from p2pnode.sansio import NodeId

Queued: TypeAlias = Callable[[NodeId], int]
"""Bytes that a peer was sent and has not acknowledged."""

Arriving: TypeAlias = Callable[[NodeId], int]
"""Bytes that came from a peer, of messages that are not complete."""

TOKEN_BYTES: Final = 65536
"""A batch up to this size may always leave to a peer with nothing under way."""


class Outflow:
    """Asks the transport how much is under way, and remembers what it has yet to hear of.

    Attributes:
        handed: Bytes that were let go, by peer; if any, :meth:`taken` once they are with it.
        held: Stages whose batches wait for room on the way to their peers, and where in what they
            sent the first of those is.
    """

    def __init__(
        self, config: InferenceConfig, queued: Queued | None, counters: Counter[str]
    ) -> None:
        self._config = config
        self._queued: Queued = queued or (lambda _: 0)
        self._counters = counters
        self._filled: dict[NodeId, None] = {}
        self.handed: dict[NodeId, int] = {}
        self.held: dict[StageKey, int] = {}

    def send(self, stage: Stage, events: list[InferenceEvent], *, is_new: bool = False) -> None:
        """Put behind ``events`` what is ready, as far as the next has room for it.

        ``is_new`` where the last of it was computed just now.
        """
        if not stage.sending:
            return
        edge = stage.order.downstream
        while stage.cursor < len(stage.sent):
            batch = stage.sent[stage.cursor]
            if batch.start >= stage.send_from:
                # A token's row may always leave once, when it is computed: the transport has its
                # own bounds, and to ask would be 20 us of each hop. A replay costs its requester
                # no computing, so it must ask.
                is_token = is_new and batch.rows == 1 and stage.cursor + 1 == len(stage.sent)
                if not is_token and not self.let_go(edge.peer, batch):
                    if self.held.get(stage.key) != stage.cursor:  # each once, however often asked
                        self._counters["batch held back: its peer has not taken the last"] += 1
                        self.held[stage.key] = stage.cursor
                    return
                frames = to_frames(batch, edge.stream, stage.space)
                is_replay = stage.cursor < stage.replayed
                events += [SendFrame(edge.peer, frame, is_replay) for frame in frames]
            stage.cursor += 1
        self.held.pop(stage.key, None)

    def resume(self, stage: Stage, position: int, events: list[InferenceEvent]) -> None:
        """Send, once an epoch, all of what is kept from ``position`` on.

        Not what is under way to the same stage: on a slow way that would take as long again, and
        the next token would wait behind it.
        """
        if stage.sending:
            return  # once an epoch: each sends all that is kept, for a message of 150 bytes
        peer = stage.order.downstream.peer
        if stage.is_same_way and position >= stage.send_from and self._under_way(peer):
            stage.sending = True
            self._counters["resumed: what was sent is under way"] += 1
            self.send(stage, events)
            return
        self._counters["batch replayed"] += stage.resume(position)
        self.send(stage, events)

    def taken(self) -> None:
        """What was let go is with the transport now."""
        self.handed.clear()

    def let_go(self, peer: NodeId, batch: Batch) -> bool:
        """Whether ``batch`` may leave for ``peer`` now; then it counts as under way."""
        size = size_of(batch)
        if not self._has_room(peer, size):
            return False
        self.handed[peer] = self.handed.get(peer, 0) + size
        return True

    def _has_room(self, peer: NodeId, size: int) -> bool:
        under_way = self._under_way(peer)
        if under_way == 0 and size <= TOKEN_BYTES:
            return True
        if under_way >= self._config.replay_window:
            return False
        self._filled[peer] = None
        total = 0
        for one in list(self._filled):
            under_way = self._under_way(one)
            total += min(under_way, self._config.replay_window)  # one of no end holds up no other
            if not under_way and one != peer:
                del self._filled[one]
        return total < self._config.replay_total

    def _under_way(self, peer: NodeId) -> int:
        return self._queued(peer) + self.handed.get(peer, 0)
