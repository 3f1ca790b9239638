"""The stages a node runs for others: admit, compute in order, pass on, remember, free.

A stage is known by (requester, session, leg). Its inputs arrive on one edge and leave on another;
each epoch gives both edges new stream ids, so a frame of an older epoch finds no door. What a
stage sent it keeps until the session closes: when a later stage dies, its successor is fed from
there, in the very batches first used, so that it computes the very same numbers.

What requesters may have of a node is shared out: sessions and memory (:mod:`.shares`), the engine
(:mod:`.turns`), the way out (:mod:`.outflow`), and the activations that wait to be computed.
"""

from collections import Counter
from dataclasses import dataclass, field

from p2pnode.engine.base import ModelInfo, SessionKey
from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.activations import MOST_SCALES, Batch, Inbox, to_frames
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.events import ComputeRequested, InferenceEvent, SendFrame
from p2pnode.inference.memory import stage_bytes
from p2pnode.inference.messages import (
    Close,
    Control,
    Failed,
    Open,
    Opened,
    Refused,
    Resume,
)
from p2pnode.inference.outflow import Outflow, Queued
from p2pnode.inference.shares import Shares
from p2pnode.inference.stage_coding import StageCoding
from p2pnode.inference.tensor_policy import Links
from p2pnode.inference.terms import DTYPES
from p2pnode.inference.turns import StageKey, Turns
from p2pnode.inference.work import Computed, Forward, Release, WorkResult
from p2pnode.sansio import NodeId
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import Frame

_TOKENS = frozenset({int(DType.I8)})
_HIDDEN = frozenset(map(int, (DType.F32, DType.CENTRED, *DTYPES.values())))


_LOOK = 0.05  # seconds between two looks at what waits for room, if nothing else happens


@dataclass(slots=True)
class Stage:
    """One admitted session on this node.

    Invariants: ``computed`` <= ``job_end`` while there is a ``job``; ``queue`` goes on from there
    without a gap, and ``inbox`` from the end of that. ``sent`` covers all below ``computed`` (of a
    last stage, what had a token), and only grows. Below ``cursor`` all of ``sent`` has left, or is
    not wanted, in this epoch; while not ``sending``, nothing leaves.

    Attributes:
        order: What the requester asked for, in the newest epoch.
        inbox: Frames that came in, becoming batches.
        kv_bytes: Memory reserved.
        admitted_at: When it was admitted.
        used_at: When a frame or an order last came.
        is_used: Whether a frame ever came.
        sending: False between a re-opening and its Resume: outputs are only kept.
        send_from: The next stage holds what lies below; it is not sent again.
        cursor: The first of ``sent`` that has yet to leave.
        queue: Batches that wait for the engine.
        waiting: Bytes of activations in the inbox and the queue.
        job: The work the engine has in hand, and the position its result reaches.
        computed: The KV cache holds positions below.
        sent: Every batch passed on so far, oldest first.
        codings: Mask of the codings they were sent in, where the session keeps count.
    """

    key: StageKey
    order: Open
    inbox: Inbox
    kv_bytes: int
    admitted_at: float
    used_at: float
    is_used: bool = False
    sending: bool = True
    send_from: int = 0
    cursor: int = 0
    queue: list[Batch] = field(default_factory=list)
    waiting: int = 0
    job: int | None = None
    job_end: int = 0
    computed: int = 0
    sent: list[Batch] = field(default_factory=list)
    codings: int = 0

    @property
    def requester(self) -> NodeId:
        return self.key[0]

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


@dataclass(frozen=True, slots=True)
class Waiting:
    """An order that there is no room for now."""

    order: Open
    requester: NodeId
    since: float


class StageHost:
    """Every stage of one node."""

    def __init__(
        self,
        config: InferenceConfig,
        node_id: NodeId,
        links: Links | None = None,
        queued: Queued | None = None,
    ) -> None:
        self._config = config
        self._node_id = node_id
        self.coding = StageCoding(config.policy, links)
        self._model: ModelInfo | None = None
        self._layers = range(0)
        self._kv_total = 0
        self._draining = ""
        self._stages: dict[StageKey, Stage] = {}
        self._doors: dict[tuple[NodeId, int], StageKey] = {}
        self._waiting: list[Waiting] = []
        self._looked_at = 0.0
        self._turns = Turns(config.engine_ahead)
        self._outflow = Outflow(config, queued)
        self._held: dict[StageKey, None] = {}
        self._jobs: dict[int, StageKey | None] = {}
        self._next_job = 0
        self._bytes_waiting = 0
        self._events: list[InferenceEvent] = []
        self.counters: Counter[str] = Counter()

    # Commands

    def serve(self, model: ModelInfo, layers: range, kv_total: int) -> None:
        """Offer ``layers`` from now on, with ``kv_total`` bytes for KV caches."""
        self._model, self._layers, self._kv_total = model, layers, kv_total

    def drain(self, reason: str) -> None:
        """Admit no further session."""
        self._draining = reason

    def give_up(self, reason: str) -> None:
        """End every session; each requester is told why, so that it repairs at once."""
        for stage in list(self._stages.values()):
            self.counters["session ended by us: " + reason] += 1
            self._say(stage.requester, self._failed(stage, self._node_id, reason))
            self._free(stage)

    def compute_finished(self, job: int, result: WorkResult, now: float) -> None:
        """Take the result of the work that ``job`` named."""
        self._turns.ended(job)
        key = self._jobs.pop(job, None)
        if key is None:
            self._take_turns()
            return  # memory was freed, or the session was closed meanwhile
        stage = self._stages.get(key)
        if stage is None or stage.job != job:
            self.counters["compute of a closed session"] += 1
            self._take_turns()
            return
        stage.job = None
        if not isinstance(result, Computed):
            sender = stage.order.upstream.peer
            self._give_up(stage, result.reason, sender if result.is_input_bad else self._node_id)
            self._take_turns()
            return
        stage.computed = stage.job_end
        stage.used_at = now
        if result.coded:
            stage.codings |= self.coding.note(stage.order, result)
        stage.sent += result.batches
        self._send(stage)
        self._compute(stage)
        self._take_turns()

    def wants(self, job: int) -> bool:
        """Whether anybody still waits for ``job``; safe to ask from another thread."""
        return job in self._jobs

    def peer_unresponsive(self, peer: NodeId, reason: str) -> None:
        """Tell the requesters whose next stage is ``peer``: nobody else can see it."""
        for stage in self._stages.values():
            if stage.order.downstream.peer == peer != stage.requester:
                self._say(stage.requester, self._failed(stage, peer, reason))

    def peer_gone(self, peer: NodeId) -> None:
        """Free whatever ``peer`` had asked for."""
        self._waiting = [one for one in self._waiting if one.requester != peer]
        for stage in [stage for stage in self._stages.values() if stage.requester == peer]:
            self.counters["session freed: its requester is gone"] += 1
            self._free(stage)

    @property
    def is_holding_back(self) -> bool:
        """Whether batches wait for the way to their peer to clear."""
        return bool(self._held)

    def refill(self) -> None:
        """Send what there is room for by now."""
        for key in list(self._held):
            self._send(self._stages[key])

    # Inputs

    def receive_control(self, message: Control, source: NodeId, now: float) -> None:
        """Take one control message of the requester ``source``."""
        match message:
            case Open():
                self._open(message, source, now)
            case Resume(session, epoch, leg, position):
                stage = self._stages.get((source, session, leg))
                if stage is not None and stage.order.epoch == epoch:
                    self._resume(stage, position)
            case Close(session, epoch):
                for stage in self._of_session(source, session):
                    if stage.order.epoch <= epoch:
                        self._free(stage)
                self._waiting = [one for one in self._waiting if not _closes(message, source, one)]
                self._admit_waiting(now)
            case _:
                self.counters["control message for nobody here"] += 1

    def receive_think_untrusted(self, frame: Frame, source: NodeId, now: float) -> bool:
        """Take a Think frame; False when it names no stream of this epoch.

        Raises:
            RemoteProtocolError: It does not belong on its stream.
        """
        key = self._doors.get((source, frame.stream_id))
        if key is None:
            return False
        stage = self._stages[key]
        stage.used_at, stage.is_used = now, True
        size = len(frame.slices[0].payload) if frame.slices else 0
        if self._is_too_much(stage, size):
            self.counters["activation dropped: too many wait to be computed"] += 1
            return True
        try:
            if not stage.inbox.add_untrusted(frame):
                self.counters["activation received twice"] += 1
                return True
            while (batch := stage.inbox.take_batch()) is not None:
                stage.queue.append(batch)
        except RemoteProtocolError as error:  # its sender will never send anything better
            self._give_up(stage, str(error), source)
            raise
        stage.waiting += size
        self._bytes_waiting += size
        self._compute(stage)
        return True

    def handle_timeout(self, now: float) -> None:
        for stage in list(self._stages.values()):
            if not stage.is_used and now - stage.admitted_at >= self._config.unused_after:
                self.counters["session freed: never used"] += 1
                self._refuse(stage.order, stage.requester, "unused", "nobody ever used it")
                self._free(stage)
            elif now - stage.used_at >= self._config.session_idle:
                self.counters["session freed: idle"] += 1
                self._free(stage)
        self.refill()
        self._admit_waiting(now)

    # Outputs

    def next_timeout(self) -> float | None:
        moments = [
            stage.used_at + self._config.session_idle
            if stage.is_used
            else stage.admitted_at + self._config.unused_after
            for stage in self._stages.values()
        ]
        if self._waiting or self._held:
            moments.append(self._looked_at + _LOOK)
        return min(moments, default=None)

    def take_events(self) -> list[InferenceEvent]:
        taken, self._events = self._events, []
        return taken

    def stages(self) -> list[Stage]:
        return list(self._stages.values())

    @property
    def kv_used(self) -> int:
        return sum(stage.kv_bytes for stage in self._stages.values())

    @property
    def kv_spoken_for(self) -> int:
        """KV bytes that one more requester could not have, if it asked."""
        return self._shares().spoken_for if self._stages else 0

    # Admission

    def _open(self, order: Open, requester: NodeId, now: float) -> None:
        key = (requester, order.session, order.leg)
        door = (order.upstream.peer, order.upstream.stream)
        if self._doors.get(door, key) != key:
            # Drawn at random: an honest collision is one in 2^32, a dishonest one ends here.
            self.counters["stream already taken"] += 1
            return
        stage = self._stages.get(key)
        if stage is not None:
            if order.epoch < stage.order.epoch or order.layers != stage.order.layers:
                self.counters["order of an older epoch"] += 1
            else:
                self._ready(stage, order, now)
            return
        self._waiting = [one for one in self._waiting if not _replaces(order, requester, one)]
        refusal = self._refusal(order)
        if refusal is not None:
            self._refuse(order, requester, *refusal)
        elif self._make_room(order, requester):
            self._ready(self._admit(key, order, now), order, now)
        else:
            self._wait(Waiting(order, requester, now))

    def _ready(self, stage: Stage, order: Open, now: float) -> None:
        self._bind(stage, order)
        stage.used_at = now
        opened = Opened(order.session, order.epoch, order.leg, stage.next_position, stage.computed)
        self._say(stage.requester, opened)

    def _refuse(self, order: Open, requester: NodeId, code: str, reason: str) -> None:
        self.counters[f"session refused: {code}"] += 1
        self._say(requester, Refused(order.session, order.epoch, order.leg, code, reason))

    def _shares(self) -> Shares[Stage]:
        return Shares(self._stages.values(), self._kv_total, self._config.max_sessions)

    def _make_room(self, order: Open, requester: NodeId) -> bool:
        """Whether the session fits, now that those beyond their share have given way."""
        needed = self._needed(order)
        shares = self._shares()
        if shares.lack(needed) is None:
            return True
        going = shares.give_way(requester, needed)
        for stage in going or ():
            self.counters["session gave way: its requester had more than its share"] += 1
            self._refuse(stage.order, stage.requester, "share", "others ask for their share")
            self._free(stage)
        return going is not None

    def _wait(self, one: Waiting) -> None:
        """Keep an order for which there is no room, for a while and as many as there may be."""
        most = self._config.max_waiting
        mine = sum(other.requester == one.requester for other in self._waiting)
        if len(self._waiting) >= most or mine >= max(1, most // 8):
            self._refuse_waiting(one)
            return
        self.counters["order waits for room"] += 1
        self._waiting.append(one)
        if not self._held and len(self._waiting) == 1:
            self._looked_at = one.since

    def _admit_waiting(self, now: float) -> None:
        self._looked_at = now
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            order = one.order
            if self._make_room(order, one.requester):
                self.counters["order waited and was admitted"] += 1
                key = (one.requester, order.session, order.leg)
                self._ready(self._admit(key, order, now), order, now)
            elif now - one.since >= self._config.open_wait:
                self._refuse_waiting(one)
            else:
                self._waiting.append(one)

    def _refuse_waiting(self, one: Waiting) -> None:
        code, reason = self._shares().lack(self._needed(one.order)) or ("share", "others wait too")
        self._refuse(one.order, one.requester, code, reason)

    def _refusal(self, order: Open) -> tuple[str, str] | None:
        model = self._model
        if model is None or not _within(order.layers, self._layers):
            held = f"[{self._layers.start}, {self._layers.stop})"
            asked = f"[{order.layers.start}, {order.layers.stop})"
            return "layers", f"layers {asked} asked, {held} held"
        if self._draining:
            return "draining", self._draining
        if order.sampling is not None and order.layers.stop != model.n_layers:
            return "layers", "only the last layer's holder can draw tokens"
        if self.coding.lacks(order.terms):
            return "calibration", "it has no calibration of the model, or another one"
        if order.positions > model.context_length:
            return "context", f"the model's context ends at {model.context_length} tokens"
        needed = self._needed(order)
        if needed > self._kv_total:
            return "memory", f"{needed >> 10} KiB of KV memory asked, {self._kv_total >> 10} in all"
        return None

    def _needed(self, order: Open) -> int:
        model = self._model
        if model is None:
            return 0
        return stage_bytes(model, len(order.layers), order.positions, order.out_dtype)

    def _admit(self, key: StageKey, order: Open, now: float) -> Stage:
        model = self._model
        if model is None:
            raise AssertionError("admission was checked")
        first = order.layers.start == 0
        if first:
            inbox = Inbox(4, _TOKENS, order.positions)
        else:
            inbox = Inbox(model.d_model, _HIDDEN, order.positions, MOST_SCALES)
        stage = Stage(key, order, inbox, self._needed(order), now, now)
        self._stages[key] = stage
        return stage

    def _bind(self, stage: Stage, order: Open) -> None:
        """Move ``stage`` to the order's epoch: new doors, and whatever waited is sent again."""
        self._doors.pop((stage.order.upstream.peer, stage.order.upstream.stream), None)
        self._doors[order.upstream.peer, order.upstream.stream] = stage.key
        stage.sending = order.epoch == 0
        if order.upstream.peer != stage.order.upstream.peer:
            stage.queue.clear()
        stage.order = order
        stage.inbox.skip_to(stage.next_position)
        self._held.pop(stage.key, None)
        self._recount(stage, sum(map(_size, stage.queue)))

    def _resume(self, stage: Stage, position: int) -> None:
        if stage.sending:
            return  # once an epoch: each sends all that is kept, for a message of 150 bytes
        stage.sending, stage.send_from, stage.cursor = True, position, 0
        self.counters["batch replayed"] += sum(batch.start >= position for batch in stage.sent)
        self._send(stage)

    def _free(self, stage: Stage) -> None:
        del self._stages[stage.key]
        self._doors.pop((stage.order.upstream.peer, stage.order.upstream.stream), None)
        self._held.pop(stage.key, None)
        self._turns.leave(stage.key)
        self._recount(stage, 0)
        if stage.job is not None:
            self._jobs.pop(stage.job, None)  # whoever computes need not begin
            self._turns.ended(stage.job)
        self._request(Release(stage.session_key), None)
        self._take_turns()

    def _of_session(self, requester: NodeId, session: int) -> list[Stage]:
        return [stage for key, stage in self._stages.items() if key[:2] == (requester, session)]

    # Work

    def _compute(self, stage: Stage) -> None:
        if stage.job is None and stage.queue:
            self._turns.wait(stage.key)
            self._take_turns()

    def _take_turns(self) -> None:
        """Give the engine what it has room for; requesters take turns."""
        while (key := self._turns.next()) is not None:
            self._begin(self._stages[key])

    def _begin(self, stage: Stage) -> None:
        count = _job_size(stage.queue, self._config)
        batches, stage.queue = tuple(stage.queue[:count]), stage.queue[count:]
        order = stage.order
        stage.job_end = batches[-1].end
        self._recount(stage, stage.waiting - sum(map(_size, batches)))
        stage.job = self._request(
            Forward(
                stage.session_key,
                order.layers,
                batches,
                order.out_dtype,
                order.sampling,
                order.sample_from,
                order.positions,
                self.coding.recipe(order, batches, self._width, stage.codings),
                self.coding.calibration(order.terms, order.layers.start),
            ),
            stage.key,
        )
        self._turns.began(stage.job)

    def _is_too_much(self, stage: Stage, size: int) -> bool:
        """Whether so much waits to be computed that a requester has to keep to its share."""
        most = self._config.waiting_bytes
        if self._bytes_waiting + size <= most:
            return False
        waiting: Counter[NodeId] = Counter()
        for one in self._stages.values():
            waiting[one.requester] += one.waiting
        waiting[stage.requester] += size
        return waiting[stage.requester] > most // sum(held > 0 for held in waiting.values())

    def _recount(self, stage: Stage, waiting: int) -> None:
        self._bytes_waiting += waiting - stage.waiting
        stage.waiting = waiting

    def _request(self, work: Forward | Release, key: StageKey | None) -> int:
        job, self._next_job = self._next_job, self._next_job + 1
        self._jobs[job] = key
        self._events.append(ComputeRequested(job, work))
        return job

    def _give_up(self, stage: Stage, reason: str, culprit: NodeId) -> None:
        self.counters["compute failed"] += 1
        self._say(stage.requester, self._failed(stage, culprit, reason))
        self._free(stage)

    def _send(self, stage: Stage) -> None:
        """Send on what is ready, as far as the next has room for it."""
        if not stage.sending:
            return
        edge = stage.order.downstream
        while stage.cursor < len(stage.sent):
            batch = stage.sent[stage.cursor]
            if batch.start >= stage.send_from:
                if not self._outflow.has_room(edge.peer, batch):
                    self.counters["batch held back: its peer has not taken the last"] += 1
                    self._held[stage.key] = None
                    return
                for frame in to_frames(batch, edge.stream, self._space):
                    self._events.append(SendFrame(edge.peer, frame))
            stage.cursor += 1
        self._held.pop(stage.key, None)

    @staticmethod
    def _failed(stage: Stage, culprit: NodeId, reason: str) -> Failed:
        order = stage.order
        return Failed(order.session, order.epoch, order.leg, culprit, reason)

    def _say(self, peer: NodeId, message: Control) -> None:
        self._events.append(SendFrame(peer, control_frame(message, self._space)))

    @property
    def _space(self) -> int:
        return 0 if self._model is None else self._model.space_hash32

    @property
    def _width(self) -> int:
        return 0 if self._model is None else self._model.d_model


def _job_size(queue: list[Batch], config: InferenceConfig) -> int:
    """Return how many batches make one job."""
    count, rows = 1, queue[0].rows
    while count < min(len(queue), config.max_batches):
        rows += queue[count].rows
        if rows > config.job_rows:
            break
        count += 1
    return count


def _size(batch: Batch) -> int:
    return sum(len(piece[0].payload) for piece in batch.pieces)


def _closes(close: Close, source: NodeId, one: Waiting) -> bool:
    order = one.order
    return (one.requester, order.session) == (source, close.session) and order.epoch <= close.epoch


def _replaces(order: Open, requester: NodeId, one: Waiting) -> bool:
    older = one.order
    return (one.requester, older.session, older.leg) == (requester, order.session, order.leg)


def _within(inner: range, outer: range) -> bool:
    return outer.start <= inner.start and inner.stop <= outer.stop
