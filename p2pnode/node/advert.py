"""This node's capability ad: what is true now, and what the swarm has been told.

Figures are rounded before they are published, so that small changes cost no gossip.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from p2pnode.engine.base import EngineProfile, ModelInfo, StageCost
from p2pnode.errors import ConfigError
from p2pnode.inference.terms import DTYPES as RUNG_DTYPES
from p2pnode.terminal import label
from p2pnode.wire.ad import (
    MAX_AD,
    MAX_OFFERS,
    NEWEST,
    Ability,
    AdState,
    CapabilityAd,
    ModelOffer,
    numerics_hash32,
)
from p2pnode.wire.dtypes import DType, dtype_mask

_KV_STEPS = 16  # free KV memory is published in sixteenths of the whole
DTYPES = dtype_mask((DType.F32, DType.CENTRED, *RUNG_DTYPES.values()))
"""What this node reads."""
ABILITIES = Ability.SAMPLING | Ability.SCHEMAS | Ability.MEANS
"""What this version can, with all that it depends on."""
_LONGEST_DEVICE = 48  # bytes, in an ad
_PEER_MOST = 146
"""Bytes of an ad beside its offers and the names of numerics, at the most."""
_OFFER_MOST = 85
"""Bytes of an offer beside the model's name, at the most."""
_OFFER_NAMES = tuple(each.name for each in fields(ModelOffer))


@dataclass(slots=True)
class AdvertOffer:
    """What the ad says of one model.

    Attributes:
        model: The model.
        cost: Measured cost of the layers served; None until measured.
        engine: What computes them; None until they are loaded.
        loaded: The engine that was loaded last, which may have failed since.
        claimed: Layers being claimed or loaded; None when none are.
        served: Layers the engine holds.
        trouble: Why nothing is served; empty while something is. It stands in no ad.
        is_leaving: Whether no session of it is admitted any more.
        demand: How much this node asks of it, as :class:`p2pnode.scheduler.demand.Demand` says it.
        load: Sessions that it decodes for.
    """

    model: ModelInfo
    cost: StageCost | None = None
    engine: EngineProfile | None = None
    loaded: EngineProfile | None = None
    claimed: range | None = None
    served: range = range(0)
    trouble: str = ""
    is_leaving: bool = False
    demand: int = 0
    load: int = 0

    @property
    def decode_us(self) -> int:
        """Microseconds a token takes through the layers served, by measurement; 0 before."""
        if self.cost is None or not self.served:
            return 0
        head = self.cost.head_us if self.served.stop == self.model.n_layers else 0
        return self.cost.decode_fixed_us + self.cost.decode_layer_us * len(self.served) + head

    def compose(self, *, is_draining: bool) -> ModelOffer:
        """Return the offer; ``is_draining`` where no session at all is admitted any more."""
        cost, engine = self.cost or StageCost(0, 0, 0, 0), self.engine
        layers = self.served or self.claimed or range(0)
        state = AdState.SERVING if self.served else AdState.JOINING
        return ModelOffer(
            space_hash32=self.model.space_hash32,
            model=self.model.name,
            n_layers=self.model.n_layers,
            d_model=self.model.d_model,
            first_layer=layers.start,
            layer_count=len(layers),
            state=AdState.DRAINING if is_draining or self.is_leaving else state,
            decode_fixed_us=cost.decode_fixed_us,
            decode_layer_us=cost.decode_layer_us,
            head_us=cost.head_us,
            prefill_layer_ns=cost.prefill_layer_ns,
            rows4_layer_us=cost.rows4_layer_us,
            rows8_layer_us=cost.rows8_layer_us,
            numerics=0 if engine is None else numerics_hash32(engine.numerics),
            kv_bytes_per_token_layer=0 if engine is None else engine.kv_bytes_per_token_layer,
            demand=self.demand,
            load=min(self.load, 255),
        )


@dataclass(slots=True)
class Advert:
    """Composes the ad.

    Attributes:
        name: The node's name.
        device: What it computes on, for as long as no engine says it better.
        kv_total: Bytes offered for KV caches.
        kv_used: Bytes of those reserved.
        offers: What it says of each model, the first one first.
        draining: Whether no session is admitted any more.
        resting: Why none of others is for now, as a :class:`~p2pnode.wire.rest.RestCause`; 0 while
            they are.
        abilities: What this node can beyond what every node can.
        software: The version of p2pnode that it runs; empty says nothing.
        version: Of the ad, so that all in the swarm can read it.
        published: The bytes the swarm has.
    """

    name: str
    device: str
    kv_total: int
    kv_used: int = 0
    offers: list[AdvertOffer] = field(default_factory=list)
    draining: bool = False
    resting: int = 0
    abilities: Ability = ABILITIES
    software: str = ""
    version: int = NEWEST
    published: bytes = b""

    def add(self, offer: AdvertOffer) -> None:
        """Tell of one more model.

        Raises:
            ConfigError: The ad has no room for it.
        """
        offers = (*self.offers, offer)
        if len(offers) > MAX_OFFERS or _most_bytes(offers) > MAX_AD:
            named = ", ".join(one.model.name for one in self.offers)
            raise ConfigError(
                f"{offer.model.name} is one model too many: what a node tells the swarm has no "
                f"room beside {named}",
                hint="unload one of them: p2pnode models unload NAME",
            )
        self.offers.append(offer)

    def remove(self, offer: AdvertOffer) -> None:
        """Tell of a model no more."""
        self.offers.remove(offer)

    def encode(self) -> bytes:
        return self.compose().encode(self.version)

    def compose(self, *, is_for_us: bool = False) -> CapabilityAd:
        """Return the ad; ``is_for_us`` as its own node sees it, whose answers it never refuses."""
        resting = 0 if is_for_us or self.draining else self.resting
        is_draining = self.draining or bool(resting)
        composed = [one.compose(is_draining=is_draining) for one in self.offers]
        first, *others = composed or [_no_offer(is_draining=is_draining)]
        return CapabilityAd(
            **{name: getattr(first, name) for name in _OFFER_NAMES},
            name=self.name,
            numerics_names=self._numerics_names(),
            kv_free_bytes=self._kv_free(),
            kv_total_bytes=self.kv_total,
            device=self.shown_device,
            dtypes=DTYPES,
            abilities=self.abilities,
            resting=resting,
            software=self.software,
            others=tuple(others),
        )

    @property
    def shown_device(self) -> str:
        """What it computes on, by its engine's word once there is one."""
        loaded = [one.engine for one in self.offers if one.engine is not None]
        return _fitting(loaded[0].device) if loaded else self.device

    def stale(self) -> bool:
        """Whether the swarm was told something else."""
        return self.encode() != self.published

    def offer_of(self, space: int) -> AdvertOffer | None:
        """Return what is said of one model."""
        return next((one for one in self.offers if one.model.space_hash32 == space), None)

    def _numerics_names(self) -> tuple[str, ...]:
        """Return the names that people may read of each arithmetic, as far as there is room."""
        names = (one.engine.numerics for one in self.offers if one.engine is not None)
        room, told = MAX_AD - _most_bytes(self.offers), list[str]()
        for name in dict.fromkeys(names):
            room -= 2 + len(name.encode())
            if room >= 0:
                told.append(name)
        return tuple(told)

    def _kv_free(self) -> int:
        step = max(1, self.kv_total // _KV_STEPS)
        return max(0, self.kv_total - self.kv_used) // step * step


def _no_offer(*, is_draining: bool) -> ModelOffer:
    """Return what a node without a model offers."""
    return ModelOffer(
        space_hash32=0,
        model="",
        n_layers=0,
        d_model=0,
        first_layer=0,
        layer_count=0,
        state=AdState.DRAINING if is_draining else AdState.JOINING,
        decode_fixed_us=0,
        decode_layer_us=0,
        head_us=0,
        prefill_layer_ns=0,
    )


def _fitting(device: str) -> str:
    """Return as much of what a driver calls its device as an ad may say."""
    return label(device).encode()[:_LONGEST_DEVICE].decode(errors="ignore")


def _most_bytes(offers: Sequence[AdvertOffer]) -> int:
    """Return the bytes of the largest ad with these offers, names of numerics left out."""
    return _PEER_MOST + sum(_OFFER_MOST + len(one.model.name.encode()) for one in offers)
