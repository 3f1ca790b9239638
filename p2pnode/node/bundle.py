"""One model of a node: what of it is held, how fast that is, and what the swarm is told of it."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from p2pnode.engine.base import EXACT, EngineProfile, KvSizes, ModelInfo, StageCost
from p2pnode.inference.work import WorkResult
from p2pnode.moments import earliest
from p2pnode.node.advert import AdvertOffer
from p2pnode.node.capacity import Capacity
from p2pnode.node.config import HoldingsConfig, SpeedConfig
from p2pnode.node.events import LoadRequested, MeasureRequested, PlacementRequested
from p2pnode.node.holding_life import HoldingLife, HoldingPhase
from p2pnode.node.holdings import AS_WAS_ASKED, Holdings
from p2pnode.node.retries import Retries
from p2pnode.node.speed import SpeedMeter
from p2pnode.sansio import NodeId, Rng
from p2pnode.scheduler.demand import Demand
from p2pnode.scheduler.directory import Offer
from p2pnode.scheduler.placement import Placement

Asked: TypeAlias = LoadRequested | MeasureRequested | PlacementRequested


class Bundle:
    """One model; commands return what the engine or a planner is to do, if anything.

    Attributes:
        model: What it is.
        life: How far it is.
        holdings: Which layers, and why.
        speed: What real work says of this machine's speed.
        layers: What the engine holds; empty before the first load.
        offer: What the swarm is told.
        is_lost: Whether the model's file is another than the one that was hashed.
        leave_by: Until when its sessions may go on, once it is to be unloaded; None before.
        demand: What this node asks of it.
        capacity: What of it there would be memory for without the other models; None where memory
            is no matter, or nothing is to be held.
    """

    def __init__(
        self,
        model: ModelInfo,
        config: HoldingsConfig,
        speed: SpeedConfig,
        node_id: NodeId,
        rng: Rng,
        is_heard: Callable[[NodeId], bool],
        counters: Counter[str],
    ) -> None:
        self.model = model
        self.life = HoldingLife()
        self.holdings = Holdings(config, node_id, self.life, rng, is_heard, counters)
        self.speed = SpeedMeter(speed)
        self.layers = range(0)
        self.offer = AdvertOffer(model)
        self.is_lost = False
        self.leave_by: float | None = None
        self.demand = Demand()
        self.capacity: Capacity | None = None
        self._chosen = config.layers
        self._retries = Retries()

    @property
    def space(self) -> int:
        return self.model.space_hash32

    @property
    def is_loading(self) -> bool:
        """Whether the engine is to load the layers chosen."""
        return self.life.phase is HoldingPhase.LOADING and self.leave_by is None

    @property
    def kv_per_token_layer(self) -> int | None:
        """Bytes of the KV cache, by the engine that was loaded last; None before."""
        return None if self.offer.loaded is None else self.offer.loaded.kv_bytes_per_token_layer

    @property
    def kv_sizes(self) -> KvSizes:
        """What sizes its KV caches come in."""
        return EXACT if self.offer.loaded is None else self.offer.loaded.kv_sizes

    # Commands

    @property
    def chosen(self) -> range | None:
        """The layers that its owner chose; None where the node chooses."""
        return self._chosen

    @property
    def held_bytes(self) -> int:
        """What the layers take that are held, and those that are to be loaded beside them."""
        if self.capacity is None or self.life.phase is HoldingPhase.IDLE:
            return 0
        of, n_layers = self.capacity.bytes_of, self.model.n_layers
        following = self.holdings.layers if self.holdings.layers != self.layers else range(0)
        return of(self.layers, n_layers) + of(following, n_layers)

    def take_up(self, fitting: Capacity | None, *, hold: bool, now: float) -> None:
        """With ``hold``, take on some of its layers.

        ``fitting`` is what there is memory for; nothing is taken on where that is no layer, unless
        its owner chose them.
        """
        if hold and (fitting is None or fitting.layers or self._chosen is not None):
            self.holdings.use_model(self.model, now, fitting)
        else:
            self.holdings.reason = fitting.why_none if hold and fitting else AS_WAS_ASKED

    def loaded(self, layers: range, profile: EngineProfile, now: float) -> None:
        """The engine holds ``layers``, and ``profile`` is what it is."""
        self.layers = layers
        self._retries.loaded(now)
        self.holdings.loaded(now)
        self.speed.calibrated(profile.cost, now)
        self.offer.cost = profile.cost
        self.offer.engine = self.offer.loaded = profile

    def lost(self, reason: str) -> None:
        """The model's file is another: leave the layers. Sessions under way go on.

        They are computed with what was read before, which is still right.
        """
        self.is_lost = True
        self._leave()
        self._retries.forget()
        self.holdings.model_lost(reason)

    def engine_lost(self, reason: str, now: float) -> float:
        """Nothing computes here any more; return the seconds until another try."""
        self._leave()
        self.holdings.engine_lost(reason)
        return self._retries.failed(now)

    def load_failed(self, reason: str, now: float) -> float | None:
        """The layers cannot be loaded; return the seconds until another try, None for never.

        They are tried again where they were loaded before: then it is the machine.
        """
        self.holdings.failed(reason)
        return self._retries.failed(now) if self._retries.has_failed else None

    def restored(self, now: float) -> None:
        """The model's file is what was hashed: take on layers as at the start."""
        self.is_lost = False
        self.holdings.restart(now)

    def finished(self, job: int, result: WorkResult, now: float) -> bool:
        """The engine has done a job; return whether the swarm should hear what that says."""
        return self.speed.finished(job, result, now) and self._believe()

    def measured(self, cost: StageCost, now: float) -> bool:
        """The engine was measured at rest; return whether the swarm should hear of it."""
        return self.speed.measured(cost, now) and self._believe()

    def requests(self, offers: Callable[[], Sequence[Offer]], now: float) -> list[Asked]:
        """Return what others are to do now: the engine, or a planner; nearly always nothing."""
        asked = (self.review(offers, now), self.measurement(now))
        return [request for request in asked if request is not None]

    def measurement(self, now: float) -> MeasureRequested | None:
        """Ask for a measurement, if one is due."""
        if not self.layers or self.speed.due is None or now < self.speed.due:
            return None
        self.speed.asked()
        return MeasureRequested(self.space)

    def review(
        self, offers: Callable[[], Sequence[Offer]], now: float
    ) -> LoadRequested | PlacementRequested | None:
        """Look at what the swarm needs, if it is time."""
        if self.holdings.due is None or now < self.holdings.due:
            return None
        asked = self.holdings.review(offers(), now)
        return asked if isinstance(asked, PlacementRequested) else self._decided(asked)

    def placed(self, ticket: int, placement: Placement | None, now: float) -> LoadRequested | None:
        """Take the answer to a :class:`PlacementRequested`."""
        return self._decided(self.holdings.placed(ticket, placement, now))

    def retry_if_due(self, now: float) -> None:
        """Time has passed: load again what failed, if it is time."""
        if self.leave_by is None and self._retries.is_due(now):
            self.holdings.restart(now)

    # Outputs

    @property
    def due(self) -> float | None:
        """When something is to be asked of others."""
        if self.leave_by is not None:
            return None
        return earliest(self.holdings.due, self.speed.due if self.layers else None)

    @property
    def retry_at(self) -> float | None:
        """When to load again what failed."""
        return None if self.leave_by is not None else self._retries.due

    def describe(self, now: float, load: int, *, claims: bool) -> None:
        """Bring the offer up to what is true now.

        ``load`` is for how many sessions it decodes; ``claims`` whether layers may be claimed.
        """
        self.offer.load = load
        is_idle = self.life.phase is HoldingPhase.IDLE
        self.offer.is_leaving = self.leave_by is not None
        self.offer.demand = self.demand.level(now)
        claims = claims and not is_idle and not self.offer.is_leaving
        self.offer.claimed = self.holdings.layers if claims else None
        self.offer.served = self.layers
        self.offer.trouble = "" if self.layers else self.holdings.reason

    def _leave(self) -> None:
        self.layers = range(0)
        self.offer.engine = None

    def _believe(self) -> bool:
        self.offer.cost = self.speed.cost
        return True

    def _decided(self, layers: range | None) -> LoadRequested | None:
        if layers is None:
            return None
        return LoadRequested(self.space, layers, self.holdings.reason)
