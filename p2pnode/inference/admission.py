"""Whom a node runs layers for: who can never be served, who must wait, and who gives way.

An order that cannot be served at all is refused at once. One that there is no room for waits for a
moment, shorter than its requester does, and is counted: a session may end, or one give way that its
requester holds beyond its share.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from p2pnode.engine.base import ModelInfo
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.messages import Close, Open, Refusal
from p2pnode.inference.offered import Offered
from p2pnode.inference.shares import STRANGERS, IsProven, Parties, Shares, everybody
from p2pnode.inference.stage import Stage, admitted
from p2pnode.inference.stage_coding import StageCoding
from p2pnode.sansio import NodeId


@dataclass(frozen=True, slots=True)
class Waiting:
    """An order that there is no room for now, of the model of ``space``."""

    order: Open
    requester: NodeId
    space: int
    since: float

    def is_of(self, requester: NodeId, session: int, epoch: int, leg: int | None = None) -> bool:
        """Whether it is of this session, and of this epoch or before."""
        order = self.order
        return (
            (self.requester, order.session) == (requester, session)
            and order.epoch <= epoch
            and leg in {None, order.leg}
        )


class Admission:
    """What a node offers, and the orders that wait for it.

    Memory and sessions are shared out among all models together: ``kv_total`` bytes are for their
    KV caches.

    Invariant: whatever is in ``waiting`` could be served if there were room; there are at most
    ``max_waiting``, an eighth of them of one requester, each for at most ``open_wait``, the oldest
    first. While somebody proven asks, all that are not count as one requester.
    """

    def __init__(
        self,
        config: InferenceConfig,
        node_id: NodeId,
        coding: StageCoding,
        is_proven: IsProven = everybody,
    ) -> None:
        self._config = config
        self._is_proven = is_proven
        self._node_id = node_id
        self._coding = coding
        self._offered: dict[int, Offered] = {}
        self.kv_total = 0
        self._retired: dict[int, str] = {}
        self._draining = ""
        self._resting = ""
        self.waiting: list[Waiting] = []

    def serve(self, offered: Offered) -> None:
        """Offer this of its model from now on."""
        self._offered[offered.model.space_hash32] = offered

    def retire(self, space: int, reason: str) -> None:
        """Admit no session of the model any more."""
        self._retired[space] = reason

    def withdraw(self, space: int) -> None:
        """Offer nothing of the model any more."""
        self._offered.pop(space, None)
        self._retired.pop(space, None)

    def drain(self, reason: str) -> None:
        self._draining = reason

    def rest(self, reason: str) -> None:
        """Admit nobody but the node itself, until ``reason`` is empty."""
        self._resting = reason

    def refusal(self, order: Open, requester: NodeId, space: int) -> tuple[Refusal, str] | None:
        """Return why ``order`` cannot be served even by a node that has nothing else to do."""
        offered = self._offered.get(space)
        if offered is None or not _within(order.layers, offered.layers):
            layers = range(0) if offered is None else offered.layers
            held = f"[{layers.start}, {layers.stop})"
            asked = f"[{order.layers.start}, {order.layers.stop})"
            return Refusal.LAYERS, f"layers {asked} asked, {held} held"
        model = offered.model
        if order.root is not None and order.root.hex() != model.data_sig:
            return Refusal.MODEL, f"its model is another, of the root {model.data_sig[:16]}"
        if leaving := self._draining or self._retired.get(space, ""):
            return Refusal.DRAINING, leaving
        if self._resting and requester != self._node_id:
            return Refusal.DRAINING, self._resting
        if order.sampling is not None and order.layers.stop != model.n_layers:
            return Refusal.LAYERS, "only the last layer's holder can draw tokens"
        if (why := _undrawable(order, model)) is not None:
            return Refusal.SAMPLING, why
        if self._coding.lacks(order.terms, space):
            return Refusal.CALIBRATION, "it has no calibration of the model, or another one"
        if order.positions > model.context_length:
            return Refusal.CONTEXT, f"the model's context ends at {model.context_length} tokens"
        needed = offered.bytes_of(order)
        if needed > self.kv_total:
            return (
                Refusal.MEMORY,
                f"{needed >> 10} KiB of KV memory asked, {self.kv_total >> 10} in all",
            )
        return None

    def shares(self, stages: Iterable[Stage]) -> Shares[Stage]:
        """Return who has how much now; good until a session comes or goes."""
        return Shares(
            stages, self.kv_total, self._config.max_sessions, self._node_id, self._is_proven
        )

    def room(
        self, order: Open, requester: NodeId, space: int, shares: Shares[Stage]
    ) -> list[Stage] | None:
        """Return who must go for ``order`` to fit; None if it cannot be helped now."""
        needed = self._offered[space].bytes_of(order)
        return [] if shares.lack(needed) is None else shares.give_way(requester, needed)

    def admit(self, order: Open, requester: NodeId, space: int, now: float) -> Stage:
        """Return the new stage."""
        offered = self._offered[space]
        key = (requester, order.session, order.leg)
        return admitted(key, order, offered.model, offered.bytes_of(order), now)

    def bytes_of(self, order: Open, space: int, positions: int) -> int:
        """Return the memory that ``order`` would ask for with so many positions."""
        return self._offered[space].bytes_of(replace(order, positions=positions))

    def wait(self, one: Waiting, stages: Iterable[Stage]) -> list[Waiting]:
        """Let an order wait; return who waits no longer: where too many do, ``one`` itself.

        A stranger's order gives way to that of somebody proven.
        """
        most, waiting = self._config.max_waiting, self.waiting
        asking = (one.requester, *(other.requester for other in waiting))
        parties = Parties((*asking, *(stage.requester for stage in stages)), self._is_proven)
        party = parties.of(one.requester)
        if sum(parties.of(other.requester) == party for other in waiting) >= max(1, most // 8):
            return [one]
        waiting.append(one)
        if len(waiting) <= most:
            return []
        strangers = [other for other in waiting if parties.of(other.requester) == STRANGERS]
        last = strangers[-1] if strangers else one
        waiting.remove(last)
        return [last]

    @property
    def due(self) -> float:
        """When the time of the oldest order that waits is up; infinity where none waits."""
        return self.waiting[0].since + self._config.open_wait if self.waiting else math.inf

    def take_void(self) -> list[tuple[Waiting, Refusal, str]]:
        """Return those that no room would help any more, each with why; they wait no longer."""
        void: list[tuple[Waiting, Refusal, str]] = []
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            refusal = self.refusal(one.order, one.requester, one.space)
            if refusal is None:
                self.waiting.append(one)
            else:
                void.append((one, *refusal))
        return void

    def has_newer(self, requester: NodeId, order: Open) -> bool:
        """Whether an order for the same leg waits that is of a later epoch than ``order``."""
        return any(
            (one.requester, one.order.session, one.order.leg)
            == (requester, order.session, order.leg)
            and one.order.epoch > order.epoch
            for one in self.waiting
        )

    def forget(self, requester: NodeId, order: Open | Close | None = None) -> None:
        """Whatever waits of this session, or of this requester at all, is of no more use."""
        if order is None:
            self.waiting = [one for one in self.waiting if one.requester != requester]
            return
        leg = order.leg if isinstance(order, Open) else None
        self.waiting = [
            one for one in self.waiting if not one.is_of(requester, order.session, order.epoch, leg)
        ]

    def lack(self, one: Waiting, shares: Shares[Stage]) -> tuple[Refusal, str]:
        """Return why there is no room."""
        needed = self._offered[one.space].bytes_of(one.order)
        return shares.lack(needed) or (Refusal.SHARE, "others wait too")


def _undrawable(order: Open, model: ModelInfo) -> str | None:
    """Return why no token can be drawn as ``order`` says."""
    if order.unknown:
        return f"this version does not know {order.unknown!r}"
    if order.sampling is None or not order.sampling.needs_past:
        return None
    past = order.past
    if past is None or not past.suffices(order.sampling):
        return "tokens that the draw depends on were not told"
    if order.sampling.schema and not order.sampling.ends:
        return "an answer that follows a schema needs tokens that end it"
    if any(token >= model.vocab_size for token in (*past.tokens, *order.sampling.ends)):
        return f"told of a token beyond the vocabulary of {model.vocab_size}"
    return None


def _within(inner: range, outer: range) -> bool:
    return outer.start <= inner.start and inner.stop <= outer.stop
