"""Which layers this node holds: listen, claim, confirm, load, serve, and move to heal a hole.

The phases are those of :mod:`p2pnode.node.life`. Choosing is the scheduler's (pure policy); here is
only when to ask it.
"""

from collections.abc import Sequence

from p2pnode.engine.base import ModelInfo
from p2pnode.node.config import HoldingsConfig
from p2pnode.node.life import Evidence, Life, Phase
from p2pnode.sansio import NodeId, Rng
from p2pnode.scheduler.directory import Offer
from p2pnode.scheduler.placement import choose_layers, settle_claims, should_move


class Holdings:
    """Decides; :meth:`review` returns layers exactly when they are to be loaded."""

    def __init__(self, config: HoldingsConfig, node_id: NodeId, life: Life, rng: Rng) -> None:
        self._config = config
        self._life = life
        self._node_id = node_id
        self._rng = rng
        self._model: ModelInfo | None = None
        self.layers = range(0)
        self.reason = "no model"
        self.due: float | None = None
        self._hole_since: float | None = None

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
        settled = settle_claims(offers, n_layers=model.n_layers)
        layers = settled.get(self._node_id, self.layers)
        if layers == self.layers:
            return self._load()
        self._claim(layers, "others had claimed the same layers", now)
        return None

    def _claim(self, layers: range, reason: str, now: float) -> None:
        self.layers, self.reason = layers, reason
        self.due = now + self._config.confirm

    def _look_around(self, offers: Sequence[Offer], model: ModelInfo, now: float) -> None:
        self.due = now + self._config.review
        if all(
            any(layer in offer.layers for offer in offers if offer.alive)
            for layer in range(model.n_layers)
        ):
            self._hole_since = None
            return
        self._hole_since = now if self._hole_since is None else self._hole_since
        placement = should_move(
            offers,
            us=self._node_id,
            n_layers=model.n_layers,
            capacity_layers=self._capacity(model),
            hole_seconds=now - self._hole_since,
        )
        if placement is not None:
            self._claim(placement.layers, placement.reason, now)
            self._life.move(Evidence.NEEDED_ELSEWHERE)

    def _load(self) -> range:
        self._life.move(Evidence.CONFIRMED)
        self.due = None
        return self.layers

    def _capacity(self, model: ModelInfo) -> int:
        most = self._config.max_layers
        return model.n_layers if most is None else min(most, model.n_layers)

    def _pause(self) -> float:
        return self._config.settle + self._rng.uniform(0, self._config.jitter)
