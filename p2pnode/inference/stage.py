"""The stages a node runs for others: admit, compute in order, pass on, remember, free.

A stage is known by (requester, session, leg). Its inputs arrive on one edge and leave on another;
each epoch gives both edges new stream ids, so a frame of an older epoch finds no door. What a
stage sent it keeps until the session closes: when a later stage dies, its successor is fed from
there, in the very batches first used, so that it computes the very same numbers.
"""

from collections import Counter
from dataclasses import dataclass, field

from p2pnode.engine.base import ModelInfo, SessionKey
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
from p2pnode.inference.stage_coding import StageCoding
from p2pnode.inference.tensor_policy import Links
from p2pnode.inference.terms import DTYPES
from p2pnode.inference.work import Computed, Forward, Release, WorkResult
from p2pnode.sansio import NodeId
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import Frame

StageKey = tuple[NodeId, int, int]
"""Requester, session, leg."""

_TOKENS = frozenset({int(DType.I8)})
_HIDDEN = frozenset(map(int, (DType.F32, DType.CENTRED, *DTYPES.values())))


@dataclass(slots=True)
class Stage:
    """One admitted session on this node.

    Attributes:
        order: What the requester asked for, in the newest epoch.
        inbox: Frames that came in, becoming batches.
        kv_bytes: Memory reserved.
        used_at: When a frame or an order last came.
        sending: False between a re-opening and its Resume: outputs are only kept.
        send_from: The next stage holds what lies below; it is not sent again.
        queue: Batches that wait for the engine.
        job: The work the engine has in hand, and the position its result reaches.
        computed: The KV cache holds positions below.
        sent: Every batch passed on so far, oldest first.
        codings: Mask of the codings they were sent in, where the session keeps count.
    """

    key: StageKey
    order: Open
    inbox: Inbox
    kv_bytes: int
    used_at: float
    sending: bool = True
    send_from: int = 0
    queue: list[Batch] = field(default_factory=list)
    job: int | None = None
    job_end: int = 0
    computed: int = 0
    sent: list[Batch] = field(default_factory=list)
    codings: int = 0

    @property
    def session_key(self) -> SessionKey:
        requester, session, leg = self.key
        return requester + session.to_bytes(8, "big") + leg.to_bytes(4, "big")

    @property
    def next_position(self) -> int:
        """Positions below are computed, or will be when the job in hand is done."""
        return self.computed if self.job is None else self.job_end


class StageHost:
    """Every stage of one node."""

    def __init__(
        self, config: InferenceConfig, node_id: NodeId, links: Links | None = None
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
        self._jobs: dict[int, StageKey | None] = {}
        self._next_job = 0
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
            self._say(stage.key[0], self._failed(stage, self._node_id, reason))
            self._free(stage)

    def compute_finished(self, job: int, result: WorkResult, now: float) -> None:
        """Take the result of the work that ``job`` named."""
        key = self._jobs.pop(job, None)
        if key is None:
            return  # memory was freed, or the session was closed meanwhile
        stage = self._stages.get(key)
        if stage is None or stage.job != job:
            self.counters["compute of a closed session"] += 1
            return
        stage.job = None
        if not isinstance(result, Computed):
            self._give_up(stage, result.reason)
            return
        stage.computed = stage.job_end
        stage.used_at = now
        if result.coded:
            stage.codings |= self.coding.note(stage.order, result)
        for batch in result.batches:
            stage.sent.append(batch)
            self._send(stage, batch)
        self._compute(stage)

    def wants(self, job: int) -> bool:
        """Whether anybody still waits for ``job``; safe to ask from another thread."""
        return job in self._jobs

    def peer_unresponsive(self, peer: NodeId, reason: str) -> None:
        """Tell the requesters whose next stage is ``peer``: nobody else can see it."""
        for stage in self._stages.values():
            if stage.order.downstream.peer == peer != stage.key[0]:
                self._say(stage.key[0], self._failed(stage, peer, reason))

    def peer_gone(self, peer: NodeId) -> None:
        """Free whatever ``peer`` had asked for."""
        for stage in [stage for stage in self._stages.values() if stage.key[0] == peer]:
            self.counters["session freed: its requester is gone"] += 1
            self._free(stage)

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
        stage.used_at = now
        if not stage.inbox.add_untrusted(frame):
            self.counters["activation received twice"] += 1
            return True
        while (batch := stage.inbox.take_batch()) is not None:
            stage.queue.append(batch)
        self._compute(stage)
        return True

    def handle_timeout(self, now: float) -> None:
        for stage in list(self._stages.values()):
            if now - stage.used_at >= self._config.session_idle:
                self.counters["session freed: idle"] += 1
                self._free(stage)

    # Outputs

    def next_timeout(self) -> float | None:
        used = min((stage.used_at for stage in self._stages.values()), default=None)
        return None if used is None else used + self._config.session_idle

    def take_events(self) -> list[InferenceEvent]:
        taken, self._events = self._events, []
        return taken

    def stages(self) -> list[Stage]:
        return list(self._stages.values())

    @property
    def kv_used(self) -> int:
        return sum(stage.kv_bytes for stage in self._stages.values())

    # Admission

    def _open(self, order: Open, requester: NodeId, now: float) -> None:
        key = (requester, order.session, order.leg)
        door = (order.upstream.peer, order.upstream.stream)
        if self._doors.get(door, key) != key:
            # Drawn at random: an honest collision is one in 2^32, a dishonest one ends here.
            self.counters["stream already taken"] += 1
            return
        stage = self._stages.get(key)
        if stage is None:
            refusal = self._refusal(order)
            if refusal is not None:
                self.counters[f"session refused: {refusal[0]}"] += 1
                self._say(requester, Refused(order.session, order.epoch, order.leg, *refusal))
                return
            stage = self._admit(key, order, now)
        elif order.epoch < stage.order.epoch or order.layers != stage.order.layers:
            self.counters["order of an older epoch"] += 1
            return
        self._bind(stage, order)
        stage.used_at = now
        position = stage.next_position
        self._say(
            requester, Opened(order.session, order.epoch, order.leg, position, stage.computed)
        )

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
        if len(self._stages) >= self._config.max_sessions:
            return "sessions", f"{len(self._stages)} sessions are all this node serves at once"
        needed, free = _needed(order, model), self._kv_total - self.kv_used
        if needed > free:
            return "memory", f"{needed >> 10} KiB of KV memory asked, {max(free, 0) >> 10} free"
        return None

    def _admit(self, key: StageKey, order: Open, now: float) -> Stage:
        model = self._model
        if model is None:
            raise AssertionError("admission was checked")
        first = order.layers.start == 0
        if first:
            inbox = Inbox(4, _TOKENS, order.positions)
        else:
            inbox = Inbox(model.d_model, _HIDDEN, order.positions, MOST_SCALES)
        stage = Stage(key, order, inbox, _needed(order, model), now)
        self._stages[key] = stage
        return stage

    def _bind(self, stage: Stage, order: Open) -> None:
        """Move ``stage`` to the order's epoch: new doors, and whatever waited is sent again."""
        self._doors.pop((stage.order.upstream.peer, stage.order.upstream.stream), None)
        self._doors[order.upstream.peer, order.upstream.stream] = stage.key
        stage.sending = order.epoch == 0
        stage.order = order
        stage.queue.clear()
        stage.inbox.skip_to(stage.next_position)

    def _resume(self, stage: Stage, position: int) -> None:
        if stage.sending:
            return  # once an epoch: each sends all that is kept, for a message of 150 bytes
        stage.sending, stage.send_from = True, position
        for batch in stage.sent:
            self.counters["batch replayed"] += batch.start >= position
            self._send(stage, batch)

    def _free(self, stage: Stage) -> None:
        del self._stages[stage.key]
        self._doors.pop((stage.order.upstream.peer, stage.order.upstream.stream), None)
        if stage.job is not None:
            self._jobs.pop(stage.job, None)  # whoever computes need not begin
        self._request(Release(stage.session_key), None)

    def _of_session(self, requester: NodeId, session: int) -> list[Stage]:
        return [stage for key, stage in self._stages.items() if key[:2] == (requester, session)]

    # Work

    def _compute(self, stage: Stage) -> None:
        if stage.job is not None or not stage.queue:
            return
        most = self._config.max_batches
        batches, stage.queue = tuple(stage.queue[:most]), stage.queue[most:]
        order = stage.order
        stage.job_end = batches[-1].end
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

    def _request(self, work: Forward | Release, key: StageKey | None) -> int:
        job, self._next_job = self._next_job, self._next_job + 1
        self._jobs[job] = key
        self._events.append(ComputeRequested(job, work))
        return job

    def _give_up(self, stage: Stage, reason: str) -> None:
        self.counters["compute failed"] += 1
        self._say(stage.key[0], self._failed(stage, self._node_id, reason))
        self._free(stage)

    def _send(self, stage: Stage, batch: Batch) -> None:
        if not stage.sending or batch.start < stage.send_from:
            return
        edge = stage.order.downstream
        for frame in to_frames(batch, edge.stream, self._space):
            self._events.append(SendFrame(edge.peer, frame))

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


def _needed(order: Open, model: ModelInfo) -> int:
    return stage_bytes(model, len(order.layers), order.positions, order.out_dtype)


def _within(inner: range, outer: range) -> bool:
    return outer.start <= inner.start and inner.stop <= outer.stop
