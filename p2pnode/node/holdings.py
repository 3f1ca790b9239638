"""Which layers this node holds: listen, claim, confirm, load, serve, and move to heal a hole.

One model's. The phases are those of :mod:`p2pnode.node.holding_life`. Choosing is the scheduler's
(pure policy); here is only when to ask it (at once where that is brief, else by an event and its
answer), and how far the claims of others are believed: a member can sign what it likes, and keys
cost nothing. So a claim of ours gives way a few times and is then loaded, and no claim of another
keeps a hole open for ever.

Invariants: at most one question is open; while one is, the phase is the one it was asked in, and
nothing is due.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from p2pnode.engine.base import ModelInfo
from p2pnode.node.capacity import Capacity
from p2pnode.node.config import HoldingsConfig
from p2pnode.node.events import PlacementRequested
from p2pnode.node.holding_life import HoldingEvidence, HoldingLife, HoldingPhase
from p2pnode.sansio import NodeId, Rng
from p2pnode.scheduler.directory import Offer
from p2pnode.scheduler.moving import Choosing, Moving, PlacementTask, Settling
from p2pnode.scheduler.placement import Placement
from p2pnode.scheduler.resizing import Resizing
from p2pnode.wire.ad import AdState

_ON = {
    HoldingPhase.LISTENING: HoldingEvidence.CHOSEN,
    HoldingPhase.SERVING: HoldingEvidence.NEEDED_ELSEWHERE,
}
"""What a claim means to a node that had none."""

AS_WAS_ASKED = "as was asked"
"""Why a node with a model holds none of it, where its owner wishes so."""


class Holdings:
    """Decides; :meth:`review` returns layers exactly when they are to be loaded."""

    def __init__(
        self,
        config: HoldingsConfig,
        node_id: NodeId,
        life: HoldingLife,
        rng: Rng,
        is_heard: Callable[[NodeId], bool] = lambda peer: True,
        counters: Counter[str] | None = None,
    ) -> None:
        """``is_heard`` tells whether a session of ours with a peer is up."""
        self._config = config
        self._life = life
        self._node_id = node_id
        self._rng = rng
        self._is_heard = is_heard
        self._counters = Counter[str]() if counters is None else counters
        self._model: ModelInfo | None = None
        self._fitting: Capacity | None = None
        self.layers = range(0)
        self.reason = "no model"
        self.due: float | None = None
        self._ticket = 0
        self._is_asking = False
        self._chosen_for = 0  # for how many layers there was memory when they were chosen
        self._moves = 0  # how often this claim has given way to others'
        self._hole_since: float | None = None  # since when a layer is neither served nor claimed
        self._unserved_since: float | None = None  # since when a layer is not served

    def use_model(self, model: ModelInfo, now: float, fitting: Capacity | None = None) -> None:
        """Start listening for what the swarm needs of ``model``.

        ``fitting`` is what there is memory for, at least one layer; None for all.
        """
        self._model = model
        self._fitting = fitting
        self._life.move(HoldingEvidence.MODEL_KNOWN)
        self.reason = "listening for what the swarm needs"
        self.due = now if self._config.layers is not None else now + self._pause()

    def fit(self, fitting: Capacity) -> None:
        """There is memory for as much as this now; what is held changes with the next look."""
        self._fitting = fitting

    def loaded(self, now: float) -> None:
        self._life.move(HoldingEvidence.LOADED)
        self.due = None if self._config.layers is not None else now + self._config.review

    def failed(self, reason: str) -> None:
        self._life.move(HoldingEvidence.FAILED)
        self.layers, self.reason, self.due = range(0), reason, None

    def model_lost(self, reason: str) -> None:
        """Hold nothing any more, whatever was under way."""
        self._lose(HoldingEvidence.MODEL_LOST, reason)

    def engine_lost(self, reason: str) -> None:
        """Hold nothing any more, whatever was under way: nothing computes here."""
        self._lose(HoldingEvidence.ENGINE_LOST, reason)

    def _lose(self, evidence: HoldingEvidence, reason: str) -> None:
        if self._model is None:
            return
        if self._life.phase is not HoldingPhase.IDLE:
            self._life.move(evidence)
        self.layers, self.reason, self.due = range(0), reason, None
        self._is_asking = False

    def restart(self, now: float) -> None:
        """Start as at first, unless nothing was lost or nothing is to be held."""
        if self._model is not None and self._life.phase is HoldingPhase.IDLE:
            self.use_model(self._model, now, self._fitting)

    def rest(self) -> None:
        """Look no further for now: whatever was asked is of no more use."""
        self._is_asking = False

    def resume(self, now: float) -> None:
        """Go on looking from where :meth:`rest` was called; what was seen before is old."""
        self._hole_since = self._unserved_since = None
        pauses = {
            HoldingPhase.LISTENING: self._pause(),
            HoldingPhase.CLAIMING: self._config.confirm,
        }
        if self._config.layers is not None:
            pauses = {HoldingPhase.LISTENING: 0.0}
        elif self._life.phase is HoldingPhase.SERVING:
            pauses = {HoldingPhase.SERVING: self._config.review}
        if (pause := pauses.get(self._life.phase)) is not None:
            self.due = now + pause

    def review(self, offers: Sequence[Offer], now: float) -> range | PlacementRequested | None:
        """Look at the swarm if it is time; return layers to load, or a long question, or None.

        ``offers`` are those of all nodes, our own ad included.
        """
        model = self._model
        if model is None or self.due is None or now < self.due:
            return None
        self.due = None
        ours = [offer for offer in offers if offer.space_hash32 == model.space_hash32]
        match self._life.phase:
            case HoldingPhase.LISTENING:
                task = self._choosing(ours, model)
            case HoldingPhase.CLAIMING:
                task = self._settling(ours, model)
            case HoldingPhase.SERVING:
                task = self._moving(ours, model, now) or self._resizing(ours, model)
            case _:
                return None
        if task is None:
            return self._take(None, now)
        if task.is_brief:
            return self._take(task(), now)
        self._ticket += 1
        self._is_asking = True
        return PlacementRequested(model.space_hash32, self._ticket, task)

    def placed(self, ticket: int, placement: Placement | None, now: float) -> range | None:
        """Take the answer to a :class:`PlacementRequested`; return layers to load, or None."""
        if ticket != self._ticket or not self._is_asking:
            return None
        self._is_asking = False
        return self._take(placement, now)

    def _choosing(self, offers: Sequence[Offer], model: ModelInfo) -> PlacementTask | None:
        if self._config.layers is not None:
            return None
        others = tuple(offer for offer in offers if offer.peer != self._node_id)
        return Choosing(others, model.n_layers, self._capacity(model))

    def _settling(self, offers: Sequence[Offer], model: ModelInfo) -> PlacementTask | None:
        if self._moves >= self._config.most_moves:
            self._counters["claim loaded without agreement"] += 1
            return None
        if self._moves >= self._config.unheard_moves:
            offers = self._without_unheard(offers)
        return Settling(tuple(offers), self._node_id, model.n_layers, self.layers)

    def _moving(
        self, offers: Sequence[Offer], model: ModelInfo, now: float
    ) -> PlacementTask | None:
        is_served = _covers(offers, model.n_layers, AdState.SERVING)
        self._unserved_since = None if is_served else _first(self._unserved_since, now)
        if self._unserved_since is None:
            self._hole_since = None
            return None
        believed = self._without_unheard(offers)
        if now - self._unserved_since > self._config.claim_lasts:
            claims = sum(map(_is_claim, believed))
            self._counters["claim that lasted too long left out"] += claims
            believed = [offer for offer in believed if not _is_claim(offer)]
        is_whole = _covers(believed, model.n_layers, AdState.SERVING, AdState.JOINING)
        self._hole_since = None if is_whole else _first(self._hole_since, now)
        if self._hole_since is None:
            return None
        return Moving(
            tuple(believed),
            self._node_id,
            model.n_layers,
            self._capacity(model),
            now - self._hole_since,
            None if self._fitting is None else self._fitting.with_last,
        )

    def _resizing(self, offers: Sequence[Offer], model: ModelInfo) -> PlacementTask | None:
        """Ask what to hold, where there is room for clearly more layers than there was, or fewer.

        Only where that has changed since they were chosen: one may hold less than it could.
        """
        capacity, held = self._capacity(model), len(self.layers)
        if self._fitting is None or self._config.layers is not None or not capacity:
            return None
        margin = max(1, round(self._config.resize_margin * model.n_layers))
        if capacity >= held and capacity < self._chosen_for + margin:
            return None
        self._chosen_for = capacity
        wanted = any(offer.ad.demand for offer in offers if offer.alive)
        return Resizing(tuple(offers), self._node_id, model.n_layers, self.layers, capacity, wanted)

    def _take(self, placement: Placement | None, now: float) -> range | None:
        """Go on by what was answered, None where nothing is to change; return layers to load."""
        phase = self._life.phase
        if placement is not None:
            self._claim(placement, now)
            if phase is HoldingPhase.CLAIMING:
                self._moves += 1
            else:
                self._life.move(_ON[phase])
        elif phase is HoldingPhase.SERVING:
            self.due = now + self._config.review
        elif phase is HoldingPhase.CLAIMING:
            return self._load()
        elif self._config.layers is not None:
            self.layers, self.reason = self._config.layers, "chosen by its owner"
            self._life.move(HoldingEvidence.CHOSEN)
            return self._load()
        return None

    def _claim(self, placement: Placement, now: float) -> None:
        self.layers, self.reason = self._within(placement.layers), placement.reason
        if self._model is not None:
            self._chosen_for = self._capacity(self._model)
        self.due = now + self._config.confirm

    def _within(self, layers: range) -> range:
        """Leave out what there is no memory for beside the output matrix."""
        if self._fitting is None or self._model is None:
            return layers
        return self._fitting.within(layers, self._model.n_layers)

    def _without_unheard(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        """Leave out the claims of members that we know by the word of others alone."""
        believed = [
            offer
            for offer in offers
            if not _is_claim(offer) or offer.peer == self._node_id or self._is_heard(offer.peer)
        ]
        self._counters["claim of one never heard left out"] += len(offers) - len(believed)
        return believed

    def _load(self) -> range:
        self._life.move(HoldingEvidence.CONFIRMED)
        self._moves = 0
        self.due = None
        return self.layers

    def _capacity(self, model: ModelInfo) -> int:
        fitting = None if self._fitting is None else self._fitting.layers
        bounds = (self._config.max_layers, fitting)
        return min((model.n_layers, *(most for most in bounds if most is not None)))

    def _pause(self) -> float:
        return self._config.settle + self._rng.uniform(0, self._config.jitter)


def _is_claim(offer: Offer) -> bool:
    return offer.state is AdState.JOINING


def _covers(offers: Sequence[Offer], n_layers: int, *states: AdState) -> bool:
    held = set[int]()
    for offer in offers:
        if offer.alive and offer.state in states:
            held.update(range(offer.layers.start, min(offer.layers.stop, n_layers)))
            if len(held) == n_layers:
                return True
    return False


def _first(since: float | None, now: float) -> float:
    return now if since is None else since
