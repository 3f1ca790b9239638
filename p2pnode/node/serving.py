"""What this node serves, and the ad that says so: its models, and the memory for all of them."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from p2pnode.engine.base import EngineProfile, ModelInfo, StageCost
from p2pnode.errors import ConfigError
from p2pnode.inference.core import Inference
from p2pnode.inference.work import Work, WorkResult
from p2pnode.membership.swim import Swim
from p2pnode.moments import earliest
from p2pnode.node.advert import Advert
from p2pnode.node.bundle import Asked, Bundle
from p2pnode.node.capacity import Capacity
from p2pnode.node.config import NodeConfig
from p2pnode.node.events import LoadRequested
from p2pnode.node.kv_offer import KvOffer
from p2pnode.node.life import Life
from p2pnode.node.memory_shares import share_memory
from p2pnode.node.planner import DirectoryPlanner
from p2pnode.node.resting import Rest
from p2pnode.sansio import NodeId, Rng
from p2pnode.scheduler.placement import Placement
from p2pnode.wire.ad import NEWEST


class Serving:
    """Chooses layers of each model, has them loaded and offered, and keeps the ad true.

    Attributes:
        bundles: The node's models, by space; the first is meant where none is named.
        resting: Why this node computes for nobody else now; None while it does.
        is_retiring: Whether some model is to be unloaded. Asked with every datagram, so kept.
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
        self._node_id = node_id
        self._life = life
        self._advert = advert
        self._swim = swim
        self._planner = planner
        self._inference = inference
        self._rng = rng
        self._is_heard = is_heard
        self._counters = counters
        self.bundles: dict[int, Bundle] = {}
        self.resting: Rest | None = None
        self.is_retiring = False
        self._announce_at: float | None = None
        self._are_members_others = False
        self._divide_at: float | None = None
        self._old_until = 0.0  # until when ads are of version 1, though none reads that alone
        self._kv = KvOffer(config.kv_bytes)

    # Commands

    def use_model(
        self,
        model: ModelInfo,
        *,
        hold: bool,
        now: float,
        fitting: Capacity | None = None,
        layers: range | None = None,
    ) -> None:
        """Advertise ``model``, too; with ``hold``, also take on some of its layers.

        ``fitting`` is what there is memory for; nothing is taken on where that is no layer, unless
        its owner chose them. ``layers`` are those that he chose, if not by the node's config.

        Raises:
            ConfigError: The layers to hold go beyond the model's, it is here already, or the ad
                has no room for one more.
        """
        config = self._config.holdings
        if layers is not None:
            config = replace(config, layers=layers)
        fixed = config.layers
        if fixed is not None and fixed.stop > model.n_layers:
            raise ConfigError(f"layers to {fixed.stop} asked, {model.name} has {model.n_layers}")
        if (known := self.bundles.get(model.space_hash32)) is not None:
            raise ConfigError(f"{model.name} has the space of {known.model.name}, which is here")
        bundle = Bundle(
            model,
            config,
            self._config.speed,
            self._node_id,
            self._rng,
            self._is_heard,
            self._counters,
        )
        self._advert.add(bundle.offer)
        self.bundles[bundle.space] = bundle
        bundle.capacity = fitting if hold else None
        bundle.take_up(fitting, hold=hold, now=now)
        self._divide(now)

    def drop_model(self, space: int, now: float) -> None:
        """Offer nothing of a model any more, and forget it."""
        bundle = self.bundles.pop(space)
        self._advert.remove(bundle.offer)
        self._divide(now)
        self.announce(now)

    def loaded(self, space: int, layers: range, profile: EngineProfile, now: float) -> None:
        """The engine holds ``layers``, and ``profile`` is what it is: offer them.

        Sessions that the engine before it had go on elsewhere, or begin anew here.
        """
        self._inference.reloaded(space)
        self.bundles[space].loaded(layers, profile, now)
        self._inference.measured(space, profile.cost)
        self._serve(self.bundles[space])
        self.announce(now)

    def model_lost(self, space: int, reason: str, now: float) -> None:
        """The model's file is another: leave the layers, and say so. Sessions under way go on."""
        self.bundles[space].lost(reason)
        self._serve(self.bundles[space])
        self.announce(now)

    def memory_ran_out(self, now: float) -> None:
        """There was no memory for a session: offer less for a while."""
        self._counters["memory ran out: less is offered"] += 1
        self._kv.ran_out(self._inference.kv_spoken_for, now)
        self._offer_kv()
        self.announce(now)

    def engine_lost(self, space: int, reason: str, now: float) -> float:
        """An engine computes no more: leave its layers; return the seconds until another try.

        Sessions end by their requesters, who are told.
        """
        again = self.bundles[space].engine_lost(reason, now)
        self._serve(self.bundles[space])
        self.announce(now)
        return again

    def load_failed(self, space: int, reason: str, now: float) -> float | None:
        """The layers cannot be loaded; return the seconds until another try, None for never."""
        again = self.bundles[space].load_failed(reason, now)
        self.announce(now)
        return again

    def model_restored(self, space: int, now: float) -> None:
        """The model's file is what was hashed: take on layers as at the start."""
        self.bundles[space].restored(now)

    def rest(self, rest: Rest | None, now: float) -> None:
        """Offer nothing to others, and look for nothing to hold, until ``rest`` is None."""
        before, self.resting = self.resting, rest
        for bundle in self.bundles.values():
            if rest is not None and before is None:
                bundle.holdings.rest()
            elif rest is None and before is not None:
                bundle.holdings.resume(now)
        self.announce(now)

    def asked(self, space: int, now: float) -> None:
        """An answer of a model is asked here: the swarm is to hear how much it is wanted."""
        bundle = self.bundles.get(space) or next(iter(self.bundles.values()), None)
        if bundle is not None:
            bundle.demand.asked(now)
            bundle.offer.demand = bundle.demand.level(now)
            self._divide_at = earliest(self._divide_at, now + self._config.holdings.divide)
            self._announce_soon(now)

    def started(self, job: int, space: int, work: Work) -> None:
        """An engine was given a job."""
        if (bundle := self.bundles.get(space)) is not None:
            bundle.speed.started(job, work)

    def finished(self, job: int, result: WorkResult, now: float) -> None:
        """An engine has done a job; whichever it was, the machine did not rest."""
        for bundle in self.bundles.values():
            if bundle.finished(job, result, now):
                self._believe(bundle, now)

    def measured(self, space: int, cost: StageCost, now: float) -> None:
        """An engine was measured at rest."""
        bundle = self.bundles.get(space)
        if bundle is not None and bundle.measured(cost, now):
            self._believe(bundle, now)

    def measurement_failed(self, space: int, now: float) -> None:
        """An engine could not be measured: what the swarm was told stands."""
        self._counters["measurement failed"] += 1
        if (bundle := self.bundles.get(space)) is not None:
            bundle.speed.failed(now)

    def requests(self, now: float) -> Sequence[Asked]:
        """Return what others are to do now: an engine, or a planner; nearly always nothing."""
        if self.resting is not None:
            return ()
        due = [one for one in self.bundles.values() if one.due is not None and now >= one.due]
        if not due:
            return ()
        asked: list[Asked] = []
        for bundle in due:
            asked += bundle.requests(partial(self._planner.offers, bundle.space), now)
        self.announce(now)  # what is claimed may have changed, though nothing is asked
        return asked

    def placed(
        self, space: int, ticket: int, placement: Placement | None, now: float
    ) -> LoadRequested | None:
        """Take the answer to a :class:`PlacementRequested`."""
        bundle = self.bundles.get(space)
        load = None if bundle is None else bundle.placed(ticket, placement, now)
        self.announce(now)
        return load

    def announce(self, now: float) -> None:
        """Publish our ad if what it says has changed."""
        claims = self.resting is None and not self._life.is_leaving
        for bundle in self.bundles.values():
            load = self._inference.decoding(bundle.space, now)
            bundle.describe(now, load, claims=claims)
        self.is_retiring = any(one.leave_by is not None for one in self.bundles.values())
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
        moments = [self._announce_at, self._kv.due, self._divide_at]
        for bundle in self.bundles.values():
            moments += (bundle.retry_at, bundle.leave_by)
            if self.resting is None:  # while it rests, nothing is measured, and nothing taken on
                moments.append(bundle.due)
        return earliest(*moments)

    def handle_timeout(self, now: float) -> None:
        if self._announce_at is not None and now >= self._announce_at:
            self._announce_at = None
            self.announce(now)
        if self._kv.recover(now):
            self._offer_kv()
            self.announce(now)
        for bundle in self.bundles.values():
            bundle.retry_if_due(now)
        if self._divide_at is not None and now >= self._divide_at:
            self._divide(now)
            self._announce_soon(now)

    def _divide(self, now: float) -> None:
        """See how much of each model there is memory for, now and every while."""
        share_memory(self.bundles.values(), self._planner.requests)
        is_shared = sum(one.capacity is not None for one in self.bundles.values()) > 1
        is_asked = any(one.offer.demand for one in self.bundles.values())
        again = now + self._config.holdings.divide
        self._divide_at = again if is_shared or is_asked else None

    def _believe(self, bundle: Bundle, now: float) -> None:
        """An engine is faster or slower than was thought."""
        if bundle.speed.cost is not None:
            self._inference.measured(bundle.space, bundle.speed.cost)
        self._announce_soon(now)

    def _serve(self, one: Bundle) -> None:
        """Offer the layers that a model's engine holds now."""
        self._advert.kv_total = self._kv.total
        self._inference.serve(
            one.model, one.layers, self._kv.total, one.kv_per_token_layer, one.kv_sizes
        )

    def _offer_kv(self) -> None:
        """Offer as much memory for sessions as there is now."""
        self._advert.kv_total = self._kv.total
        self._inference.share_kv(self._kv.total)

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
