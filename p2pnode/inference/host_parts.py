"""What a node's stages are run with, and the steps that whatever it does with them is made of."""

import math
from collections import Counter
from functools import partial

from p2pnode.inference.admission import Admission, Waiting
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.events import InferenceEvent, SendFrame, SessionRefused
from p2pnode.inference.failed_work import counted, told
from p2pnode.inference.messages import (
    Control,
    Failed,
    Open,
    Opened,
    Refusal,
    Refused,
)
from p2pnode.inference.outflow import Arriving, Outflow, Queued
from p2pnode.inference.prefix_body import Names
from p2pnode.inference.reuse import Reuse
from p2pnode.inference.shares import IsProven, Shares, everybody
from p2pnode.inference.stage import Stage
from p2pnode.inference.stage_coding import StageCoding
from p2pnode.inference.stage_work import StageWork
from p2pnode.inference.table import StageTable
from p2pnode.inference.tensor_policy import Links
from p2pnode.inference.work import Computed, WorkFailed
from p2pnode.sansio import NodeId


class HostParts:
    """The parts of a stage host, composed.

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
        arrived = stage.next_position
        if is_look:
            arrived = stage.arrived_with(self._arriving(order.upstream.peer))
        of_stage = stage.next_position, stage.computed, arrived
        opened = Opened(order.session, order.epoch, order.leg, *of_stage)
        self._say(stage.requester, opened, stage.space)

    def _refuse(self, one: Waiting, code: Refusal, reason: str) -> None:
        order, requester = one.order, one.requester
        self.counters[f"session refused: {code}"] += 1
        self._events.append(SessionRefused(requester, order.layers, reason))
        refused = Refused(order.session, order.epoch, order.leg, code, reason)
        self._say(requester, refused, one.space)

    def _refuse_stage(self, stage: Stage, code: Refusal, reason: str) -> None:
        """Tell its requester that a session which was admitted is served no longer."""
        self._refuse(Waiting(stage.order, stage.requester, stage.space, 0.0), code, reason)

    def _move_on(self, stages: list[Stage], reason: str, why: str) -> None:
        """Let sessions go on elsewhere; it is no fault of this node's."""
        for stage in stages:
            self.counters[f"session moved on: {why}"] += 1
            self._refuse_stage(stage, Refusal.DRAINING, reason)
            self._free(stage, reason)

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
            bytes_of = partial(self._admission.bytes_of, stage.order, stage.space)
            self._reuse.keep(stage, names, self.kv_used, bytes_of, now)

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
