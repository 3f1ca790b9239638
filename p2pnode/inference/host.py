"""The stages a node runs for others: admit, compute in order, pass on, remember, free.

What requesters may have of a node is shared out: sessions and memory (:mod:`.admission`), the
engine (:mod:`.stage_work`), the way out (:mod:`.outflow`), and what waits to be computed.
Requesters that are not proven share all of it but the engine and the way out as if they were one.
"""

import math

from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.events import InferenceEvent
from p2pnode.inference.host_parts import HostParts
from p2pnode.inference.messages import (
    Close,
    Control,
    Open,
    Refusal,
    Resume,
)
from p2pnode.inference.offered import Offered
from p2pnode.inference.stage import Stage
from p2pnode.inference.work import Stepped, WorkFailed, WorkResult
from p2pnode.sansio import NodeId
from p2pnode.wire.vframe import Frame

_JUST_NOW = 3.0  # seconds: longer than a token takes on a slow chain
_LOOK = 0.05  # seconds between two looks at what waits for room, if nothing else happens


class StageHost(HostParts):
    """Every stage of one node."""

    # Commands

    def serve(self, offered: Offered, kv_total: int) -> None:
        """Offer this of its model from now on; ``kv_total`` bytes are for all models' KV caches."""
        self._reuse.clear(offered.model.space_hash32)
        self._admission.serve(offered)
        self.share_kv(kv_total)

    def share_kv(self, kv_total: int) -> None:
        """Have ``kv_total`` bytes for the KV caches of all models from now on."""
        self._admission.kv_total = kv_total
        self._reuse.share(kv_total)
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
        others = [one for one in self._stages if reason and one.requester != self._node_id]
        self._move_on(others, reason, "this node rests")

    def reloaded(self, space: int) -> None:
        """Another engine has the model's layers: what the one before had is no more."""
        of_it = [one for one in self._stages if one.space == space]
        self._move_on(of_it, "its layers were loaded anew", "its layers were loaded anew")
        self._reuse.clear(space)

    def give_up(self, reason: str, space: int | None = None) -> None:
        """End every session, or those of one model; each requester is told why, and repairs."""
        for stage in [one for one in self._stages if space in {None, one.space}]:
            self.counters["session ended by us: " + reason] += 1
            self._give_up(stage, stage.failed(self._node_id, reason))
        self._reuse.clear(space)

    def compute_finished(self, job: int, result: WorkResult, now: float) -> None:
        """Take the result of the work that ``job`` named; all of a step is sent before the next."""
        handed = self.work.handed.pop(job, None)
        if handed is not None and isinstance(result, WorkFailed):
            self._reuse.lost(handed)
        keys = self.work.ended(job, now)  # none where memory was freed, or all were closed
        results = result.results if isinstance(result, Stepped) else (result,) * len(keys)
        for key, one in zip(keys, results, strict=bool(keys)):
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
