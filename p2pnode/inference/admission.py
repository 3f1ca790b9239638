"""Whom a node runs layers for: who can never be served, who must wait, and who gives way.

An order that cannot be served at all is refused at once. One that there is no room for waits for a
moment, shorter than its requester does, and is counted: a session may end, or one give way that its
requester holds beyond its share.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from p2pnode.engine.base import EXACT, KvSizes, ModelInfo
from p2pnode.errors import LocalProtocolError
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.memory import stage_bytes
from p2pnode.inference.messages import Close, Open, Refusal
from p2pnode.inference.shares import STRANGERS, IsProven, Parties, Shares, everybody
from p2pnode.inference.stage import Stage, admitted
from p2pnode.inference.stage_coding import StageCoding
from p2pnode.sansio import NodeId


@dataclass(frozen=True, slots=True)
class Waiting:
    """An order that there is no room for now."""

    order: Open
    requester: NodeId
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
        self._layers = range(0)
        self._kv_total = 0
        self._kv_per_token_layer: int | None = None
        self._kv_sizes = EXACT
        self._draining = ""
        self._resting = ""
        self.model: ModelInfo | None = None
        self.waiting: list[Waiting] = []

    def serve(
        self,
        model: ModelInfo,
        layers: range,
        kv_total: int,
        kv_per_token_layer: int | None,
        kv_sizes: KvSizes,
    ) -> None:
        self.model, self._layers, self._kv_total = model, layers, kv_total
        self._kv_per_token_layer, self._kv_sizes = kv_per_token_layer, kv_sizes

    def drain(self, reason: str) -> None:
        self._draining = reason

    def rest(self, reason: str) -> None:
        """Admit nobody but the node itself, until ``reason`` is empty."""
        self._resting = reason

    def refusal(self, order: Open, requester: NodeId) -> tuple[Refusal, str] | None:
        """Return why ``order`` cannot be served even by a node that has nothing else to do."""
        model = self.model
        if model is None or not _within(order.layers, self._layers):
            held = f"[{self._layers.start}, {self._layers.stop})"
            asked = f"[{order.layers.start}, {order.layers.stop})"
            return Refusal.LAYERS, f"layers {asked} asked, {held} held"
        if order.root is not None and order.root.hex() != model.data_sig:
            return Refusal.MODEL, f"its model is another, of the root {model.data_sig[:16]}"
        if self._draining:
            return Refusal.DRAINING, self._draining
        if self._resting and requester != self._node_id:
            return Refusal.DRAINING, self._resting
        if order.sampling is not None and order.layers.stop != model.n_layers:
            return Refusal.LAYERS, "only the last layer's holder can draw tokens"
        if (why := _undrawable(order, model)) is not None:
            return Refusal.SAMPLING, why
        if self._coding.lacks(order.terms):
            return Refusal.CALIBRATION, "it has no calibration of the model, or another one"
        if order.positions > model.context_length:
            return Refusal.CONTEXT, f"the model's context ends at {model.context_length} tokens"
        needed = self._needed(order)
        if needed > self._kv_total:
            return (
                Refusal.MEMORY,
                f"{needed >> 10} KiB of KV memory asked, {self._kv_total >> 10} in all",
            )
        return None

    def shares(self, stages: Iterable[Stage]) -> Shares[Stage]:
        """Return who has how much now; good until a session comes or goes."""
        return Shares(
            stages, self._kv_total, self._config.max_sessions, self._node_id, self._is_proven
        )

    def room(self, order: Open, requester: NodeId, shares: Shares[Stage]) -> list[Stage] | None:
        """Return who must go for ``order`` to fit; None if it cannot be helped now."""
        needed = self._needed(order)
        return [] if shares.lack(needed) is None else shares.give_way(requester, needed)

    def admit(self, order: Open, requester: NodeId, now: float) -> Stage:
        """Return the new stage."""
        if self.model is None:
            raise LocalProtocolError("nobody is admitted where there is no model")
        key = (requester, order.session, order.leg)
        return admitted(key, order, self.model, self._needed(order), now)

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
            refusal = self.refusal(one.order, one.requester)
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

    def lack(self, order: Open, shares: Shares[Stage]) -> tuple[Refusal, str]:
        """Return why there is no room."""
        return shares.lack(self._needed(order)) or (Refusal.SHARE, "others wait too")

    def _needed(self, order: Open) -> int:
        if self.model is None:
            return 0
        per, sizes = self._kv_per_token_layer, self._kv_sizes
        count = len(order.layers)
        return stage_bytes(self.model, count, order.positions, order.out_dtype, per, sizes)


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
