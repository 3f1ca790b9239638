"""What this node serves, and the ad that says so: layers, measured speed, free memory."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from p2pnode.engine.base import EXACT, EngineProfile, ModelInfo, StageCost
from p2pnode.errors import ConfigError
from p2pnode.inference.core import Inference
from p2pnode.inference.work import WorkResult
from p2pnode.membership.swim import Swim
from p2pnode.moments import earliest
from p2pnode.node.advert import Advert
from p2pnode.node.capacity import Capacity
from p2pnode.node.config import NodeConfig
from p2pnode.node.events import LoadRequested, MeasureRequested, PlacementRequested
from p2pnode.node.holdings import AS_WAS_ASKED, Holdings
from p2pnode.node.kv_offer import KvOffer
from p2pnode.node.life import Life, Phase
from p2pnode.node.planner import DirectoryPlanner
from p2pnode.node.resting import Rest
from p2pnode.node.retries import Retries
from p2pnode.node.speed import SpeedMeter
from p2pnode.sansio import NodeId, Rng
from p2pnode.scheduler.placement import Placement
from p2pnode.wire.ad import NEWEST

Asked: TypeAlias = LoadRequested | MeasureRequested | PlacementRequested


class Serving:
    """Chooses layers, has them loaded and offered, and keeps the ad true.

    Attributes:
        holdings: Which layers, and why.
        speed: What real work says of this machine's speed.
        layers: What the engine holds; empty before the first load.
        resting: Why this node computes for nobody else now; None while it does.
        is_model_lost: Whether the model's file is another than the one that was hashed.
    """

    def __init__(
        self,
        config: NodeConfig,
        node_id: NodeId,
        life: Life,
        advert: Advert,
        swim: Swim,
        planner: DirectoryPlanner,
        inference: Inference,
        rng: Rng,
        is_heard: Callable[[NodeId], bool],
        counters: Counter[str],
    ) -> None:
        self._config = config
        self._life = life
        self._advert = advert
        self._swim = swim
        self._planner = planner
        self._inference = inference
        self._counters = counters
        self.holdings = Holdings(config.holdings, node_id, life, rng, is_heard, counters)
        self.speed = SpeedMeter(config.speed)
        self.layers = range(0)
        self.is_model_lost = False
        self.resting: Rest | None = None
        self._announce_at: float | None = None
        self._are_members_others = False
        self._old_until = 0.0  # until when ads are of version 1, though none reads that alone
        self._kv = KvOffer(config.kv_bytes)
        self._kv_per_token_layer: int | None = None
        self._kv_sizes = EXACT
        self._retries = Retries()

    # Commands

    def use_model(
        self, model: ModelInfo, *, hold: bool, now: float, fitting: Capacity | None = None
    ) -> None:
        """Advertise ``model``; with ``hold``, also take on some of its layers.

        ``fitting`` is what there is memory for; nothing is taken on where that is no layer, unless
        its owner chose them.

        Raises:
            ConfigError: The layers to hold go beyond the model's.
        """
        fixed = self._config.holdings.layers
        if fixed is not None and fixed.stop > model.n_layers:
            raise ConfigError(f"layers to {fixed.stop} asked, {model.name} has {model.n_layers}")
        self._advert.model = model
        if hold and (fitting is None or fitting.layers or fixed is not None):
            self.holdings.use_model(model, now, fitting)
        else:
            self.holdings.reason = fitting.why_none if hold and fitting else AS_WAS_ASKED

    def loaded(self, layers: range, profile: EngineProfile, now: float) -> None:
        """The engine holds ``layers``, and ``profile`` is what it is: offer them."""
        self.layers = layers
        self._kv_per_token_layer = profile.kv_bytes_per_token_layer
        self._kv_sizes = profile.kv_sizes
        self._offer_kv()
        self._retries.loaded(now)
        self.holdings.loaded(now)
        self.speed.calibrated(profile.cost, now)
        self._advert.cost = profile.cost
        self._advert.engine = profile
        self.announce(now)

    def model_lost(self, reason: str, now: float) -> None:
        """The model's file is another: leave the layers, and say so. Sessions under way go on.

        They are computed with what was read before, which is still right.
        """
        self.is_model_lost = True
        self.layers = range(0)
        self._advert.engine = None
        self._offer_kv()
        self._retries.forget()
        self.holdings.model_lost(reason)
        self.announce(now)

    def memory_ran_out(self, now: float) -> None:
        """There was no memory for a session: offer less for a while."""
        self._counters["memory ran out: less is offered"] += 1
        self._kv.ran_out(self._inference.kv_spoken_for, now)
        self._offer_kv()
        self.announce(now)

    def engine_lost(self, reason: str, now: float) -> float:
        """Nothing computes here any more: leave the layers; return the seconds until another try.

        Sessions end by their requesters, who are told.
        """
        self.layers = range(0)
        self._advert.engine = None
        self._offer_kv()
        self.holdings.engine_lost(reason)
        self.announce(now)
        return self._retries.failed(now)

    def load_failed(self, reason: str, now: float) -> float | None:
        """The layers cannot be loaded; return the seconds until another try, None for never.

        They are tried again where they were loaded before: then it is the machine.
        """
        self.holdings.failed(reason)
        self.announce(now)
        return self._retries.failed(now) if self._retries.has_failed else None

    def model_restored(self, now: float) -> None:
        """The model's file is what was hashed: take on layers as at the start."""
        self.is_model_lost = False
        self.holdings.restart(now)

    def rest(self, rest: Rest | None, now: float) -> None:
        """Offer nothing to others, and look for nothing to hold, until ``rest`` is None."""
        before, self.resting = self.resting, rest
        if rest is not None and before is None:
            self.holdings.rest()
        elif rest is None and before is not None:
            self.holdings.resume(now)
        self.announce(now)

    def finished(self, job: int, result: WorkResult, now: float) -> None:
        """The engine has done a job."""
        if self.speed.finished(job, result, now):
            self._advert.cost = self.speed.cost
            self._announce_soon(now)

    def measured(self, cost: StageCost, now: float) -> None:
        """The engine was measured at rest."""
        if self.speed.measured(cost, now):
            self._advert.cost = cost
            self._announce_soon(now)

    def measurement_failed(self, now: float) -> None:
        """The engine could not be measured: what the swarm was told stands."""
        self._counters["measurement failed"] += 1
        self.speed.failed(now)

    def requests(self, now: float) -> Sequence[Asked]:
        """Return what others are to do now: the engine, or a planner; nearly always nothing."""
        due = earliest(self.holdings.due, self.speed.due)
        if due is None or now < due or self.resting is not None:
            return ()
        asked = (self.review(now), self.measurement(now))
        return [request for request in asked if request is not None]

    def measurement(self, now: float) -> MeasureRequested | None:
        """Ask for a measurement, if one is due."""
        if not self.layers or self.speed.due is None or now < self.speed.due:
            return None
        self.speed.asked()
        return MeasureRequested()

    def review(self, now: float) -> LoadRequested | PlacementRequested | None:
        """Look at what the swarm needs, if it is time."""
        if self.holdings.due is None or now < self.holdings.due:
            return None
        asked = self.holdings.review(self._planner.offers(), now)
        if isinstance(asked, PlacementRequested):
            return asked
        return self._decided(asked, now)

    def placed(self, ticket: int, placement: Placement | None, now: float) -> LoadRequested | None:
        """Take the answer to a :class:`PlacementRequested`."""
        return self._decided(self.holdings.placed(ticket, placement, now), now)

    def announce(self, now: float) -> None:
        """Publish our ad if what it says has changed."""
        claims = self._life.phase in {Phase.LISTENING, Phase.CLAIMING, Phase.LOADING, Phase.SERVING}
        self._advert.claimed = self.holdings.layers if claims and self.resting is None else None
        self._advert.served = self.layers
        self._advert.trouble = "" if self.layers else self.holdings.reason
        self._advert.kv_used = self._inference.kv_spoken_for
        self._advert.draining = self._life.is_leaving
        self._advert.resting = 0 if self.resting is None else self.resting.cause
        self._choose_version(now)
        ad = self._advert.encode()
        if self._advert.published != ad:
            self._advert.published = ad
            self._swim.update_ad(ad, now)

    def members_changed(self) -> None:
        """Somebody came, went or says something else."""
        self._are_members_others = True

    def plan_announcement(self, now: float) -> None:
        """See to it that the swarm hears of changed memory, before long and not too often.

        Whoever came or went may read another version of ads.
        """
        if self._are_members_others:
            self._are_members_others = False
            self._announce_at = earliest(self._announce_at, now + self._config.announce_every)
        used = self._inference.kv_spoken_for
        if used == self._advert.kv_used:
            return  # composing an ad at every datagram would cost more than the datagram
        self._advert.kv_used = used
        self._announce_soon(now)

    # Time

    def next_timeout(self) -> float | None:
        work_at = None  # while it rests, nothing is measured, and nothing taken on
        if self.resting is None:
            work_at = earliest(self.holdings.due, self.speed.due if self.layers else None)
        return earliest(work_at, self._announce_at, self._kv.due, self._retries.due)

    def handle_timeout(self, now: float) -> None:
        if self._announce_at is not None and now >= self._announce_at:
            self._announce_at = None
            self.announce(now)
        if self._kv.recover(now):
            self._offer_kv()
            self.announce(now)
        if self._retries.is_due(now):
            self.holdings.restart(now)

    def _offer_kv(self) -> None:
        """Offer as much memory as there is now for the layers held."""
        self._advert.kv_total = self._kv.total
        self._inference.serve(self.layers, self._kv.total, self._kv_per_token_layer, self._kv_sizes)

    def _choose_version(self, now: float) -> None:
        """Say what all can read: version 1 while somebody reads no other, and for a while after."""
        if self._planner.has_old_reader():
            self._old_until = now + self._config.old_ads
            if self._advert.version != 1:
                self._counters["ads of version 1, for an older node"] += 1
        is_old = now < self._old_until
        self._advert.version = 1 if is_old else NEWEST
        if is_old:
            self._announce_at = earliest(self._announce_at, self._old_until)

    def _announce_soon(self, now: float) -> None:
        if self._advert.stale():
            self._announce_at = earliest(self._announce_at, now + self._config.announce_every)

    def _decided(self, layers: range | None, now: float) -> LoadRequested | None:
        """Tell the swarm what was decided; return it where layers are to be loaded."""
        self.announce(now)
        return None if layers is None else LoadRequested(layers, self.holdings.reason)
