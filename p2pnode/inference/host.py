"""The stages a node runs for others: admit, compute in order, pass on, remember, free.

What requesters may have of a node is shared out: sessions and memory (:mod:`.admission`), the
engine (:mod:`.stage_work`), the way out (:mod:`.outflow`), and what waits to be computed.
Requesters that are not proven share all of it but the engine and the way out as if they were one.
"""

import math
from collections import Counter

from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.admission import Admission, Waiting
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.events import InferenceEvent, SendFrame, SessionRefused
from p2pnode.inference.failed_work import counted, told
from p2pnode.inference.memory import value_bytes
from p2pnode.inference.messages import (
    Close,
    Control,
    Failed,
    Open,
    Opened,
    Refusal,
    Refused,
    Resume,
)
from p2pnode.inference.offered import Offered
from p2pnode.inference.outflow import Arriving, Outflow, Queued
from p2pnode.inference.prefix_body import Names
from p2pnode.inference.reuse import Reuse
from p2pnode.inference.shares import IsProven, Shares, everybody
from p2pnode.inference.stage import Stage
from p2pnode.inference.stage_coding import StageCoding
from p2pnode.inference.stage_work import StageWork
from p2pnode.inference.table import StageTable
from p2pnode.inference.tensor_policy import Links
from p2pnode.inference.work import Computed, Stepped, WorkFailed, WorkResult
from p2pnode.sansio import NodeId
from p2pnode.wire.vframe import Frame

_JUST_NOW = 3.0  # seconds: longer than a token takes on a slow chain
_LOOK = 0.05  # seconds between two looks at what waits for room, if nothing else happens


class StageHost:
    """Every stage of one node.

    Attributes:
        coding: How hidden states leave here.
        held: Stages whose batches wait for room on the way to their peers: if any, :meth:`refill`.
        work: What the engine is asked to do.
        jobs: The stages that wait for each piece of work; none where memory is to be freed.
        kept: What sessions that are over left behind.
    """

    def __init__(
        self,
        config: InferenceConfig,
        node_id: NodeId,
        links: Links | None = None,
        queued: Queued | None = None,
        is_proven: IsProven = everybody,
        arriving: Arriving = lambda _: 0,
    ) -> None:
        def is_known(peer: NodeId) -> bool:
            return peer == node_id or is_proven(peer)

        self._config = config
        self._arriving = arriving
        self._node_id = node_id
        self.coding = StageCoding(config.policy, links)
        self._admission = Admission(config, node_id, self.coding, is_known)
        self._stages = StageTable(is_known)
        self._spoken_for: int | None = None
        self._looked_at = 0.0
        self._has_changed = False  # since what waits was looked at
        self._free_from = math.inf  # no stage may be freed before this
        self._events: list[InferenceEvent] = []
        self.work = StageWork(config, self._stages, self.coding, self._events)
        self.jobs = self.work.jobs
        self.counters: Counter[str] = Counter()
        self._outflow = Outflow(config, queued, self.counters)
        self.held = self._outflow.held
        self._reuse = Reuse(config.reuse, self.work, self.counters, is_known)
        self.kept = self._reuse.caches

    # Commands

    def serve(self, offered: Offered, kv_total: int) -> None:
        """Offer this of its model from now on; ``kv_total`` bytes are for all models' KV caches."""
        self._reuse.clear(offered.model.space_hash32)
        self._reuse.kv_total = kv_total
        self._admission.serve(offered, kv_total)
        self._change()
        self._refuse_void()

    def retire(self, space: int, reason: str) -> None:
        """Admit no further session of a model."""
        self._admission.retire(space, reason)
        self._refuse_void()

    def withdraw(self, space: int) -> None:
        """Offer nothing of a model any more; its sessions go on."""
        self._reuse.clear(space)
        self._admission.withdraw(space)
        self._change()
        self._refuse_void()

    def drain(self, reason: str) -> None:
        """Admit no further session, nor any that waits for room."""
        self._admission.drain(reason)
        self._refuse_void()

    def rest(self, reason: str) -> None:
        """Compute for this node alone until ``reason`` is empty; sessions of others move on."""
        self._admission.rest(reason)
        self._refuse_void()
        if reason:
            self._reuse.keep_own(self._node_id)
        for stage in [one for one in self._stages if reason and one.requester != self._node_id]:
            self.counters["session moved on: this node rests"] += 1
            self._refuse_stage(stage, Refusal.DRAINING, reason)
            self._free(stage, reason)

    def give_up(self, reason: str, space: int | None = None) -> None:
        """End every session, or those of one model; each requester is told why, and repairs."""
        for stage in [one for one in self._stages if space in {None, one.space}]:
            self.counters["session ended by us: " + reason] += 1
            self._give_up(stage, stage.failed(self._node_id, reason))
        self._reuse.clear(space)

    def compute_finished(self, job: int, result: WorkResult, now: float) -> None:
        """Take the result of the work that ``job`` named; all of a step is sent before the next."""
        keys = self.work.ended(job, now)
        if not keys:
            return  # memory was freed, or all its sessions were closed meanwhile
        results = result.results if isinstance(result, Stepped) else (result,) * len(keys)
        for key, one in zip(keys, results, strict=True):
            if key is not None:
                self._take_result(self._stages[key], one, now)

    def peer_unresponsive(self, peer: NodeId, reason: str) -> None:
        """Tell the requesters whose next stage is ``peer``: nobody else can see it."""
        for stage in self._stages:
            if stage.order.downstream.peer == peer != stage.requester:
                self._say(stage.requester, stage.failed(peer, reason), stage.space)

    def peer_gone(self, peer: NodeId) -> None:
        """Free whatever ``peer`` had asked for."""
        self._admission.forget(peer)
        for stage in [one for one in self._stages if one.requester == peer]:
            self.counters["session freed: its requester is gone"] += 1
            self._free(stage, "its requester is gone")
        self._reuse.forget(peer)

    def refill(self) -> None:
        """Send what there is room for by now."""
        for key in list(self.held):
            self._outflow.send(self._stages[key], self._events)

    # Inputs

    def receive_control(self, message: Control, source: NodeId, space: int, now: float) -> None:
        """Take one control message of the requester ``source``, on the model of ``space``."""
        match message:
            case Open():
                self._open(message, source, space, now)
            case Resume(session, epoch, leg, position):
                stage = self._stages.get((source, session, leg))
                if stage is not None and stage.order.epoch == epoch:
                    self._outflow.resume(stage, position, self._events)
            case Close(session, epoch, keep):
                names = dict(keep)
                for stage in self._stages.of_session(source, session):
                    if stage.order.epoch <= epoch:
                        self._free(stage, names=names.get(stage.order.leg), now=now)
                self._admission.forget(source, message)
                if self._has_changed:
                    self._admit_waiting(now)
            case _:
                self.counters["control message for nobody here"] += 1

    def receive_think_untrusted(self, frame: Frame, source: NodeId, now: float) -> bool:
        """Take a Think frame; False when it names no stream of this epoch.

        Raises:
            RemoteProtocolError: It does not belong on its stream.
        """
        stage = self._stages.behind(source, frame.stream_id)
        if stage is None or stage.space != frame.space_hash32:
            return False
        stage.used_at, stage.is_used = now, True
        size = len(frame.slices[0].payload) if frame.slices else 0
        most, stages = self._config.waiting_bytes, self._stages
        if stages.waiting + size > most and stages.is_too_much(stage, size, most):
            self.counters["activation dropped: too many wait to be computed"] += 1
            return True
        try:
            if not stage.inbox.add_untrusted(frame):
                self.counters["activation received twice"] += 1
                return True
            while (batch := stage.inbox.take_batch()) is not None:
                stage.queue.append(batch)
        except RemoteProtocolError as error:  # its sender will never send anything better
            self.counters["compute failed"] += 1
            self._give_up(stage, stage.failed(source, str(error)))
            raise
        self._stages.recount(stage, stage.waiting + size)
        self.work.compute(stage, now)
        return True

    def handle_timeout(self, now: float) -> None:
        self._looked_at = now
        for stage in [one for one in self._stages if now >= one.free_at(self._config)]:
            if stage.is_used:
                self.counters["session freed: idle"] += 1
            else:
                self.counters["session freed: never used"] += 1
                self._refuse_stage(stage, Refusal.UNUSED, "nobody ever used it")
            self._free(stage, "nothing came for it any more")
        self._reuse.expire(now)
        self.refill()
        if self._has_changed or now >= self._admission.due:
            self._admit_waiting(now)
        moments = (stage.free_at(self._config) for stage in self._stages)
        self._free_from = min(moments, default=math.inf)

    # Outputs

    def next_timeout(self) -> float | None:
        """Return when to look at stages: no later than the first may be freed, perhaps sooner.

        What a stage waits for only moves further off, and is found out when the time has come.
        """
        moment = min(self._free_from, self.kept.due)
        waiting = self._admission.waiting
        if waiting:
            moment = min(moment, self._admission.due)
        if self.held or (waiting and self._has_changed):
            moment = min(moment, self._looked_at + _LOOK)
        return None if moment == math.inf else moment

    def take_events(self) -> list[InferenceEvent]:
        """Return what happened, and the next step for the engine."""
        taken, step = self.take_news(), self.work.compose()
        return taken if step is None else [*taken, step]

    def take_news(self) -> list[InferenceEvent]:
        if self._outflow.handed:
            self._outflow.taken()
        taken = self._events.copy()
        self._events.clear()  # others put theirs behind it
        return taken

    def stages(self) -> list[Stage]:
        return list(self._stages)

    def decoding(self, space: int, now: float) -> int:
        """Return how many sessions of a model had work here just now."""
        since = now - _JUST_NOW
        return sum(
            one.is_used and one.space == space and one.used_at > since for one in self._stages
        )

    @property
    def kv_used(self) -> int:
        return sum(stage.kv_bytes for stage in self._stages)

    @property
    def kv_spoken_for(self) -> int:
        """KV bytes that one more requester could not have, if it asked.

        Asked with every datagram, so reckoned only when a session came or went.
        """
        if self._spoken_for is None:
            self._spoken_for = self._admission.shares(self._stages).spoken_for
        return self._spoken_for

    # Admission

    def _open(self, order: Open, requester: NodeId, space: int, now: float) -> None:
        key = (requester, order.session, order.leg)
        stage = self._stages.get(key)
        behind = self._stages.behind(order.upstream.peer, order.upstream.stream)
        if behind is not None and behind is not stage:
            # Drawn at random: an honest collision is one in 2^32, a dishonest one ends here.
            self.counters["stream already taken"] += 1
            return
        if stage is not None:
            if order.epoch < stage.order.epoch:
                self.counters["order of an older epoch"] += 1
            elif order.weighed != stage.order.weighed or space != stage.space:
                self.counters["order for something else than was admitted"] += 1
            else:
                stage.admitted_at = now if order.epoch > stage.order.epoch else stage.admitted_at
                self._ready(stage, order, now)
            return
        if self._admission.has_newer(requester, order):  # or two stages would have one key
            self.counters["order of an older epoch"] += 1
            return
        self._admission.forget(requester, order)
        one = Waiting(order, requester, space, now)
        if (refusal := self._admission.refusal(order, requester, space)) is not None:
            self._refuse(one, *refusal)
            return
        shares = self._admission.shares(self._stages)
        if not self._enter(one, shares, now):
            self._wait(one, shares)

    def _ready(self, stage: Stage, order: Open, now: float) -> None:
        self.held.pop(stage.key, None)
        is_look = order.epoch > stage.order.epoch and order.upstream == stage.order.upstream
        self._stages.move(stage, order)
        self.work.moved(stage, now)
        stage.used_at = now
        opened = Opened(
            order.session,
            order.epoch,
            order.leg,
            stage.next_position,
            stage.computed,
            self._arrived(stage) if is_look else stage.next_position,
        )
        self._say(stage.requester, opened, stage.space)

    def _arrived(self, stage: Stage) -> int:
        """Return how many positions came in, with what the transport has of one more batch."""
        order = stage.order
        if not order.layers.start:
            return stage.arrived
        more = self._arriving(order.upstream.peer)
        rows = more // (value_bytes(order.out_dtype) * stage.model.d_model)
        return min(stage.arrived + rows, order.positions)

    def _refuse(self, one: Waiting, code: Refusal, reason: str) -> None:
        order, requester = one.order, one.requester
        self.counters[f"session refused: {code}"] += 1
        self._events.append(SessionRefused(requester, order.layers, reason))
        refused = Refused(order.session, order.epoch, order.leg, code, reason)
        self._say(requester, refused, one.space)

    def _refuse_stage(self, stage: Stage, code: Refusal, reason: str) -> None:
        """Tell its requester that a session which was admitted is served no longer."""
        self._refuse(Waiting(stage.order, stage.requester, stage.space, 0.0), code, reason)

    def _enter(self, one: Waiting, shares: Shares[Stage], now: float) -> bool:
        """Admit a session if it fits, now that those beyond their share have given way."""
        going = self._admission.room(one.order, one.requester, one.space, shares)
        if going is None:
            return False
        for stage in going:
            self.counters["session gave way: its requester had more than its share"] += 1
            self._refuse_stage(stage, Refusal.SHARE, "others ask for their share")
            self._free(stage, "others asked for their share")
        stage = self._admission.admit(one.order, one.requester, one.space, now)
        self._stages.add(stage)
        self._change()
        self._reuse.begin(stage, self.kv_used, now)
        self._ready(stage, one.order, now)
        self._free_from = min(self._free_from, stage.free_at(self._config))
        return True

    def _wait(self, one: Waiting, shares: Shares[Stage]) -> None:
        """Keep an order for which there is no room, for a while and as many as there may be."""
        if not self._admission.waiting:
            self._has_changed = False  # it was just looked at
        gone = self._admission.wait(one, self._stages)
        self.counters["order waits for room"] += one not in gone
        for other in gone:
            self._refuse(other, *self._admission.lack(other, shares))

    def _admit_waiting(self, now: float) -> None:
        """Look for room again: sessions came or went since, or the time of some order is up."""
        self._has_changed = False
        self._refuse_void()
        admission = self._admission
        waiting, admission.waiting = admission.waiting, []
        shares: Shares[Stage] | None = None
        for one in waiting:
            if self._stages.precludes(one.order, one.requester):
                self.counters["order that waited, and came to nothing"] += 1
                continue
            shares = admission.shares(self._stages) if shares is None else shares
            if self._enter(one, shares, now):
                self.counters["order waited and was admitted"] += 1
                shares = None
            elif now >= one.since + self._config.open_wait:
                self._refuse(one, *admission.lack(one, shares))
            else:
                admission.waiting.append(one)

    def _refuse_void(self) -> None:
        """Refuse what waits and cannot be served any more, whatever room there is."""
        for one, code, reason in self._admission.take_void():
            self._refuse(one, code, reason)

    def _change(self) -> None:
        """A session came or went, or the room for all of them is another."""
        self._spoken_for = None
        self._has_changed = True

    def _free(
        self, stage: Stage, reason: str = "", names: Names | None = None, now: float = 0.0
    ) -> None:
        """``stage`` is over; what has ``names`` is kept, unless nobody may have it any more."""
        self._stages.remove(stage)
        if stage.computed:
            self._events.append(stage.ended(reason))
        self._change()
        self.held.pop(stage.key, None)
        if names is None or self._admission.refusal(stage.order, stage.requester, stage.space):
            self.work.release(stage)
        else:
            self._reuse.keep(stage, names, now)

    # Results

    def _take_result(self, stage: Stage, result: Computed | WorkFailed, now: float) -> None:
        if not isinstance(result, Computed):
            stage.job = None
            self.counters.update(counted(result))
            self._give_up(stage, told(result, stage, self._node_id))
            return
        stage.computed_until(result.batches)
        stage.used_at = now
        if result.coded:
            stage.codings |= self.coding.note(stage.order, stage.space, result)
        self._outflow.send(stage, self._events, is_new=True)
        if stage.queue:
            self.work.compute(stage, now)

    def _give_up(self, stage: Stage, failed: Failed) -> None:
        self._say(stage.requester, failed, stage.space)
        self._free(stage, failed.reason)

    def _say(self, peer: NodeId, message: Control, space: int) -> None:
        self._events.append(SendFrame(peer, control_frame(message, space)))
