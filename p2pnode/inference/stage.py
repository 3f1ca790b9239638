"""One session that a node runs some layers for: what came in, what is computed, what was sent on.

A stage is known by (requester, session, leg). Its inputs arrive on one edge and leave on another;
a chain with another leg in it gives both edges new stream ids, so a late frame of the one before
finds no door. What a stage sent it keeps until the session closes: when a later stage dies, its
successor is fed from there, in the very batches first used, so that it computes the very same
numbers.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TypeAlias

from p2pnode.engine.base import ModelInfo, SessionKey
from p2pnode.engine.sampling.past import Past
from p2pnode.inference.activations import MOST_SCALES, Batch, Inbox, token_of
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.events import StageEnded
from p2pnode.inference.memory import value_bytes
from p2pnode.inference.messages import Failed, Open
from p2pnode.inference.terms import DTYPES
from p2pnode.sansio import NodeId
from p2pnode.wire.dtypes import DType

StageKey: TypeAlias = tuple[NodeId, int, int]
"""Requester, session, leg."""

_TOKENS = frozenset({int(DType.I8)})
_HIDDEN = frozenset(map(int, (DType.F32, DType.CENTRED, *DTYPES.values())))


@dataclass(slots=True)
class Stage:
    """One admitted session on this node.

    Invariants: ``computed`` <= ``job_end`` while there is a ``job``; ``queue`` goes on from there
    without a gap, and ``inbox`` from the end of that. ``sent`` covers all below ``computed`` (of a
    last stage, what had a token), and only grows. Below ``cursor`` all of ``sent`` has left, or is
    not wanted, in this epoch; while not ``sending``, nothing leaves.

    Attributes:
        model: Whose layers it runs.
        order: What the requester asked for, in the newest epoch.
        inbox: Frames that came in, becoming batches.
        kv_bytes: Memory reserved.
        admitted_at: When it was admitted, or moved to a newer epoch.
        used_at: When a frame or an order last came.
        is_used: Whether a frame ever came.
        sending: False between a re-opening and its Resume: outputs are only kept.
        send_from: The next stage holds what lies below; it is not sent again.
        is_same_way: Whether its outputs go where they went in the epoch before.
        cursor: The first of ``sent`` that has yet to leave.
        replayed: How many of ``sent`` there were when the next stage was to be fed anew: what
            leaves of those is a replay.
        queue: Batches that wait for the engine.
        waiting: Bytes of activations in the inbox and the queue.
        job: The work the engine has in hand, and the position its result reaches.
        computed: The KV cache holds positions below.
        sent: Every batch passed on so far, oldest first.
        codings: Mask of the codings they were sent in, where the session keeps count.
        past: The tokens that the next draw depends on: what the first order told, and what was
            drawn here since. No other stage draws for this leg, so later orders tell nothing new.
        began: When it was admitted first.
    """

    key: StageKey
    model: ModelInfo
    order: Open
    inbox: Inbox
    kv_bytes: int
    admitted_at: float
    used_at: float
    is_used: bool = False
    sending: bool = True
    send_from: int = 0
    is_same_way: bool = False
    cursor: int = 0
    replayed: int = 0
    queue: list[Batch] = field(default_factory=list)
    waiting: int = 0
    job: int | None = None
    job_end: int = 0
    computed: int = 0
    sent: list[Batch] = field(default_factory=list)
    codings: int = 0
    past: Past | None = None
    began: float = 0.0

    @property
    def requester(self) -> NodeId:
        return self.key[0]

    @property
    def space(self) -> int:
        """Names the model in every frame."""
        return self.model.space_hash32

    @property
    def session_key(self) -> SessionKey:
        requester, session, leg = self.key
        return requester + session.to_bytes(8, "big") + leg.to_bytes(4, "big")

    @property
    def next_position(self) -> int:
        """Positions below are computed, or will be when what is here is done."""
        if self.queue:
            return self.queue[-1].end
        return self.computed if self.job is None else self.job_end

    @property
    def arrived(self) -> int:
        """How many positions came in, of a batch that is not complete too."""
        return self.next_position + self.inbox.rows

    def arrived_with(self, more: int) -> int:
        """Return the same, with what ``more`` bytes are of a message that is not complete."""
        order = self.order
        if not order.layers.start:
            return self.arrived
        rows = more // (value_bytes(order.out_dtype) * self.model.d_model)
        return min(self.arrived + rows, order.positions)

    def free_at(self, config: InferenceConfig) -> float:
        """Return when it is to be freed, unless something comes for it before."""
        if self.is_used:
            return self.used_at + config.session_idle
        return self.admitted_at + config.unused_after

    def begin_at(self, position: int, sent: list[Batch]) -> None:
        """All below ``position`` was computed before, for a session that began alike.

        ``sent`` is what that one passed on. A last stage's tokens were of another answer.
        """
        self.computed = self.job_end = position
        self.inbox.skip_to(position)
        if self.order.sampling is None:
            self.sent = [batch for batch in sent if batch.end <= position]

    def computed_until(self, batches: tuple[Batch, ...]) -> None:
        """The job is done, and gave ``batches``."""
        self.job, self.computed = None, self.job_end
        self.sent += batches
        if self.past is not None:
            for batch in batches:
                self.past = self.past.at(batch.start).then(token_of(batch))

    def resume(self, position: int) -> int:
        """Send what is kept from ``position`` on, and go on; return how many batches that is.

        Found by halving: a walk along a long session would be work that a short message asks for.
        """
        self.sending, self.send_from = True, position
        self.cursor = bisect_left(self.sent, position, key=_start)
        self.replayed = len(self.sent)
        return self.replayed - self.cursor

    def failed(self, culprit: NodeId, reason: str, code: str = "") -> Failed:
        """Return what its requester is told when ``culprit`` broke it."""
        order = self.order
        return Failed(order.session, order.epoch, order.leg, culprit, reason, code)

    def ended(self, reason: str) -> StageEnded:
        """Return what the node is told when it is over."""
        seconds = self.used_at - self.began
        return StageEnded(self.requester, self.order.layers, self.computed, seconds, reason)

    def take_job(self, most_batches: int, most_rows: int) -> tuple[Batch, ...]:
        """Return the batches to compute next, off the queue, which is not empty.

        So many at the most; the first whatever it has, and no more rows than that together.
        """
        queue = self.queue
        if len(queue) == 1:
            self.queue, self.job_end = [], queue[0].end
            return (queue[0],)
        count, rows = 1, queue[0].rows
        while count < min(len(queue), most_batches):
            rows += queue[count].rows
            if rows > most_rows:
                break
            count += 1
        taken, self.queue = tuple(queue[:count]), queue[count:]
        self.job_end = taken[-1].end
        return taken


def admitted(key: StageKey, order: Open, model: ModelInfo, kv_bytes: int, now: float) -> Stage:
    """Return the stage of a session that was just admitted."""
    if order.layers.start == 0:
        inbox = Inbox(4, _TOKENS, order.positions)
    else:
        inbox = Inbox(model.d_model, _HIDDEN, order.positions, MOST_SCALES)
    return Stage(key, model, order, inbox, kv_bytes, now, now, past=order.past, began=now)


def _start(batch: Batch) -> int:
    return batch.start


def size_of(batch: Batch) -> int:
    """Return the bytes of a batch's rows."""
    if len(batch.pieces) == 1:
        return len(batch.pieces[0][0].payload)
    return sum(len(piece[0].payload) for piece in batch.pieces)
