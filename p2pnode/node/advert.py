"""This node's capability ad: what is true now, and what the swarm has been told.

Figures are rounded before they are published, so that small changes cost no gossip.
"""

from dataclasses import dataclass

from p2pnode.engine.base import EngineProfile, ModelInfo, StageCost
from p2pnode.inference.terms import DTYPES as RUNG_DTYPES
from p2pnode.terminal import label
from p2pnode.wire.ad import NEWEST, Ability, AdState, CapabilityAd, numerics_hash32
from p2pnode.wire.dtypes import DType, dtype_mask

_KV_STEPS = 16  # free KV memory is published in sixteenths of the whole
DTYPES = dtype_mask((DType.F32, DType.CENTRED, *RUNG_DTYPES.values()))
"""What this node reads."""
ABILITIES = Ability.SAMPLING | Ability.SCHEMAS | Ability.MEANS
"""What this version can, with all that it depends on."""
_LONGEST_DEVICE = 48  # bytes, in an ad


@dataclass(slots=True)
class Advert:
    """Composes the ad.

    Attributes:
        name: The node's name.
        device: What it computes on, for as long as no engine says it better.
        kv_total: Bytes offered for KV caches.
        kv_used: Bytes of those reserved.
        model: The model; None without one.
        cost: Measured cost of the layers served; None until measured.
        engine: What computes them; None until they are loaded.
        claimed: Layers being claimed or loaded; None when none are.
        served: Layers the engine holds.
        trouble: Why nothing is served; empty while something is. It stands in no ad.
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
    model: ModelInfo | None = None
    cost: StageCost | None = None
    engine: EngineProfile | None = None
    claimed: range | None = None
    served: range = range(0)
    trouble: str = ""
    draining: bool = False
    resting: int = 0
    abilities: Ability = ABILITIES
    software: str = ""
    version: int = NEWEST
    published: bytes = b""

    def encode(self) -> bytes:
        return self.compose().encode(self.version)

    def compose(self, *, is_for_us: bool = False) -> CapabilityAd:
        """Return the ad; ``is_for_us`` as its own node sees it, whose answers it never refuses."""
        resting = 0 if is_for_us or self.draining else self.resting
        model, cost = self.model, self.cost or StageCost(0, 0, 0, 0)
        layers = self.served or self.claimed or range(0)
        engine = self.engine
        return CapabilityAd(
            name=self.name,
            model="" if model is None else model.name,
            space_hash32=0 if model is None else model.space_hash32,
            n_layers=0 if model is None else model.n_layers,
            d_model=0 if model is None else model.d_model,
            first_layer=layers.start,
            layer_count=len(layers),
            state=AdState.DRAINING if resting else self._state(),
            decode_fixed_us=cost.decode_fixed_us,
            decode_layer_us=cost.decode_layer_us,
            head_us=cost.head_us,
            prefill_layer_ns=cost.prefill_layer_ns,
            rows4_layer_us=cost.rows4_layer_us,
            rows8_layer_us=cost.rows8_layer_us,
            numerics=0 if engine is None else numerics_hash32(engine.numerics),
            numerics_names=() if engine is None else (engine.numerics,),
            kv_bytes_per_token_layer=0 if engine is None else engine.kv_bytes_per_token_layer,
            kv_free_bytes=self._kv_free(),
            kv_total_bytes=self.kv_total,
            device=self.shown_device,
            dtypes=DTYPES,
            abilities=self.abilities,
            resting=resting,
            software=self.software,
        )

    @property
    def shown_device(self) -> str:
        """What it computes on, by its engine's word once there is one."""
        return self.device if self.engine is None else _fitting(self.engine.device)

    def stale(self) -> bool:
        """Whether the swarm was told something else."""
        return self.encode() != self.published

    @property
    def decode_us(self) -> int:
        """Microseconds a token takes through the layers served, by measurement; 0 before."""
        if self.cost is None or not self.served or self.model is None:
            return 0
        head = self.cost.head_us if self.served.stop == self.model.n_layers else 0
        return self.cost.decode_fixed_us + self.cost.decode_layer_us * len(self.served) + head

    def _state(self) -> AdState:
        if self.draining:
            return AdState.DRAINING
        return AdState.SERVING if self.served else AdState.JOINING

    def _kv_free(self) -> int:
        step = max(1, self.kv_total // _KV_STEPS)
        return max(0, self.kv_total - self.kv_used) // step * step


def _fitting(device: str) -> str:
    """Return as much of what a driver calls its device as an ad may say."""
    return label(device).encode()[:_LONGEST_DEVICE].decode(errors="ignore")
