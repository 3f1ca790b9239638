"""Which layers this node holds: listen, claim, confirm, load, serve, and move to heal a hole.

The phases are those of :mod:`p2pnode.node.life`. Choosing is the scheduler's (pure policy); here is
only when to ask it, and how far the claims of others are believed: a member can sign what it likes,
and keys cost nothing. So a claim of ours gives way a few times and is then loaded, and no claim of
another keeps a hole open for ever.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from p2pnode.engine.base import ModelInfo
from p2pnode.node.config import HoldingsConfig
from p2pnode.node.life import Evidence, Life, Phase
from p2pnode.sansio import NodeId, Rng
from p2pnode.scheduler.directory import Offer
from p2pnode.scheduler.placement import choose_layers, settle_claims, should_move
from p2pnode.wire.capability import AdState


class Holdings:
    """Decides; :meth:`review` returns layers exactly when they are to be loaded."""

    def __init__(
        self,
        config: HoldingsConfig,
        node_id: NodeId,
        life: Life,
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
        self.layers = range(0)
        self.reason = "no model"
        self.due: float | None = None
        self._moves = 0  # how often this claim has given way to others'
        self._hole_since: float | None = None  # since when a layer is neither served nor claimed
        self._unserved_since: float | None = None  # since when a layer is not served

    def use_model(self, model: ModelInfo, now: float) -> None:
        """Start listening for what the swarm needs of ``model``."""
        self._model = model
        self._life.move(Evidence.MODEL_KNOWN)
        self.reason = "listening for what the swarm needs"
        self.due = now if self._config.layers is not None else now + self._pause()

    def loaded(self, now: float) -> None:
        self._life.move(Evidence.LOADED)
        self.due = None if self._config.layers is not None else now + self._config.review

    def failed(self, reason: str) -> None:
        self._life.move(Evidence.FAILED)
        self.layers, self.reason, self.due = range(0), reason, None

    def review(self, offers: Sequence[Offer], now: float) -> range | None:
        """Look at the swarm if it is time; return layers to load, or None.

        ``offers`` are those of all nodes, our own ad included.
        """
        model = self._model
        if model is None or self.due is None or now < self.due:
            return None
        ours = [offer for offer in offers if offer.space_hash32 == model.space_hash32]
        match self._life.phase:
            case Phase.LISTENING:
                return self._choose(ours, model, now)
            case Phase.CLAIMING:
                return self._confirm(ours, model, now)
            case Phase.SERVING:
                self._look_around(ours, model, now)
            case _:
                self.due = None
        return None

    def _choose(self, offers: Sequence[Offer], model: ModelInfo, now: float) -> range | None:
        if self._config.layers is not None:
            self.layers, self.reason = self._config.layers, "chosen by its owner"
            self._life.move(Evidence.CHOSEN)
            return self._load()
        placement = choose_layers(
            [offer for offer in offers if offer.peer != self._node_id],
            n_layers=model.n_layers,
            capacity_layers=self._capacity(model),
        )
        self._claim(placement.layers, placement.reason, now)
        self._life.move(Evidence.CHOSEN)
        return None

    def _confirm(self, offers: Sequence[Offer], model: ModelInfo, now: float) -> range | None:
        if self._moves >= self._config.most_moves:
            self._counters["claim loaded without agreement"] += 1
            return self._load()
        if self._moves >= self._config.unheard_moves:
            offers = self._without_unheard(offers)
        settled = settle_claims(offers, n_layers=model.n_layers)
        layers = settled.get(self._node_id, self.layers)
        if layers == self.layers:
            return self._load()
        self._claim(layers, "others had claimed the same layers", now)
        self._moves += 1
        return None

    def _claim(self, layers: range, reason: str, now: float) -> None:
        self.layers, self.reason = layers, reason
        self.due = now + self._config.confirm

    def _look_around(self, offers: Sequence[Offer], model: ModelInfo, now: float) -> None:
        self.due = now + self._config.review
        everything = set(range(model.n_layers))
        self._unserved_since = self._since(
            self._unserved_since, everything - _held(offers, AdState.SERVING), now
        )
        if self._unserved_since is None:
            self._hole_since = None
            return
        believed = self._without_unheard(offers)
        if now - self._unserved_since > self._config.claim_lasts:
            claims = sum(map(_is_claim, believed))
            self._counters["claim that lasted too long left out"] += claims
            believed = [offer for offer in believed if not _is_claim(offer)]
        held = _held(believed, AdState.SERVING, AdState.JOINING)
        self._hole_since = self._since(self._hole_since, everything - held, now)
        if self._hole_since is None:
            return
        placement = should_move(
            believed,
            us=self._node_id,
            n_layers=model.n_layers,
            capacity_layers=self._capacity(model),
            hole_seconds=now - self._hole_since,
        )
        if placement is not None:
            self._claim(placement.layers, placement.reason, now)
            self._life.move(Evidence.NEEDED_ELSEWHERE)

    @staticmethod
    def _since(since: float | None, missing: set[int], now: float) -> float | None:
        """Return since when layers have been missing; None if none are."""
        if not missing:
            return None
        return now if since is None else since

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
        self._life.move(Evidence.CONFIRMED)
        self._moves = 0
        self.due = None
        return self.layers

    def _capacity(self, model: ModelInfo) -> int:
        most = self._config.max_layers
        return model.n_layers if most is None else min(most, model.n_layers)

    def _pause(self) -> float:
        return self._config.settle + self._rng.uniform(0, self._config.jitter)


def _is_claim(offer: Offer) -> bool:
    return offer.state is AdState.JOINING


def _held(offers: Sequence[Offer], *states: AdState) -> set[int]:
    return {
        layer for offer in offers if offer.alive and offer.state in states for layer in offer.layers
    }
