"""The numbers that shape a model's computation, whoever computes it."""

import math
from dataclasses import dataclass, fields
from enum import StrEnum

from p2pnode.engine.architectures import ARCHITECTURES, Architecture
from p2pnode.errors import ModelError

MOST_EXPERTS = 1024

LEAST_FACTOR = 1e-6
MOST_FACTOR = 1e6
"""What divides a frequency: beyond, angles would leave float32; published ones are 1 to 65."""

LEAST_BASE = 2.0
MOST_BASE = float(1 << 40)
"""Of the rotary embedding: YaRN divides by its logarithm; published ones lie from 1e4 to 1e8."""


class RopeKind(StrEnum):
    """How the rotary embedding is stretched beyond the context it was trained for."""

    NONE = "none"
    LINEAR = "linear"
    """Positions are divided by the factor (Chen et al., "Extending context window", 2023)."""
    YARN = "yarn"
    """Slow frequencies are divided, fast ones stay (Peng et al., "YaRN", 2023)."""
    LONGROPE = "longrope"
    """Each frequency has a divisor: one set for short sessions, one for long ones (Ding et al.,
    "LongRoPE", 2024)."""


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How the rotary embedding is stretched; names as in GGUF's metadata.

    Attributes:
        kind: By which rule. The divisors of llama 3 are a tensor of the file, and no kind.
        factor: By how much; at least 1 where it matters.
        original_context: Positions that the model was trained for at first.
        attn_factor: Scales queries and keys, for LongRoPE.
        beta_fast: Turns in the original context above which a frequency stays, for YaRN.
        beta_slow: Turns below which it is divided whole, for YaRN.

    Raises:
        ModelError: A number makes no sense.
    """

    kind: RopeKind = RopeKind.NONE
    factor: float = 1.0
    original_context: int = 0
    attn_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    def __post_init__(self) -> None:
        for name in ("factor", "attn_factor", "beta_fast", "beta_slow"):
            number = getattr(self, name)
            if not LEAST_FACTOR <= number <= MOST_FACTOR:
                raise ModelError(f"the rotary embedding cannot be scaled by {name} {number}")
        if not 0 <= self.original_context < 1 << 31:
            raise ModelError(f"no model was trained for {self.original_context} positions")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder of one of the known architectures.

    Attributes:
        n_layers: Transformer blocks.
        d_model: Width of a hidden state.
        n_heads: Query heads.
        n_kv_heads: Heads of keys and values; divides ``n_heads``.
        head_dim: Width of a head.
        d_ff: Width of the feed-forward network; of one expert's where there are experts.
        vocab_size: Tokens.
        context_length: The most positions of a session.
        rope_base: Base of the rotary embedding's frequencies.
        norm_eps: Added to the mean square in the norms.
        arch: The architecture, as GGUF names it.
        rope_dims: How many of a head's numbers are turned; 0 for all.
        rope: How the rotary embedding is stretched.
        window: Positions that a layer with a sliding window sees, its own included; 0 for none.
        window_period: Every so many layers the last one sees everything; 1 where each has the
            window.
        window_rope_base: ``rope_base`` of the layers with a window; 0 for the same.
        attention_scale: What scores are multiplied by; 0 for one over the root of ``head_dim``.
        n_experts: Experts of a layer; 0 for a plain feed-forward network.
        n_experts_used: Of those, how many each token asks.
        is_tied: Whether the embedding is the output matrix as well.

    Raises:
        ModelError: They contradict each other.
    """

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    vocab_size: int
    context_length: int
    rope_base: float
    norm_eps: float
    arch: str = "llama"
    rope_dims: int = 0
    rope: RopeScaling = RopeScaling()
    window: int = 0
    window_period: int = 1
    window_rope_base: float = 0.0
    attention_scale: float = 0.0
    n_experts: int = 0
    n_experts_used: int = 0
    is_tied: bool = False

    def __post_init__(self) -> None:
        may_be_none = {"rope_dims", "window", "n_experts", "n_experts_used"}
        for field in fields(self):
            size = getattr(self, field.name)
            least = 0 if field.name in may_be_none else 1
            if field.type is int and not least <= size < 1 << 31:
                raise ModelError(f"the model cannot have {field.name} {size}")
        if self.n_heads % self.n_kv_heads or self.head_dim % 2:
            raise ModelError(
                f"the heads do not fit together: {self.n_heads} of {self.head_dim}, "
                f"{self.n_kv_heads} for keys and values"
            )
        for base in (self.rope_base, self.window_rope_base or self.rope_base):
            if not LEAST_BASE <= base <= MOST_BASE:
                raise ModelError(f"the rotary embedding cannot have the base {base}")
        if self.rope_dims % 2 or self.rope_dims > self.head_dim:
            raise ModelError(f"{self.rope_dims} of a head's {self.head_dim} numbers cannot turn")
        if not 0 < self.norm_eps < 1:
            raise ModelError(f"the norms cannot have the epsilon {self.norm_eps}")
        if not 0 <= self.attention_scale < math.inf:
            raise ModelError(f"scores cannot be multiplied by {self.attention_scale}")
        if self.n_experts_used > self.n_experts or self.n_experts > MOST_EXPERTS:
            raise ModelError(f"no token can ask {self.n_experts_used} of {self.n_experts} experts")
        if bool(self.n_experts_used) != self.architecture.has_experts:
            raise ModelError(f"a {self.arch} has no {self.n_experts} experts")

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.arch]

    @property
    def turned(self) -> int:
        """How many of a head's numbers the rotary embedding turns."""
        return self.rope_dims or self.head_dim

    @property
    def score_scale(self) -> float:
        """What scores are multiplied by before the softmax."""
        return self.attention_scale or 1.0 / math.sqrt(self.head_dim)

    @property
    def kv_bytes_per_token_layer(self) -> int:
        return 2 * self.n_kv_heads * self.head_dim * 4  # keys and values, float32

    def window_of(self, layer: int) -> int:
        """Return how many positions a layer sees at the most; 0 for all."""
        sees_all = self.window_period > 1 and (layer + 1) % self.window_period == 0
        return 0 if sees_all else self.window

    def rope_base_of(self, layer: int) -> float:
        return (self.window_of(layer) and self.window_rope_base) or self.rope_base

    def rope_factor_of(self, layer: int) -> float:
        """Return what positions or slow frequencies are divided by in a layer."""
        has_own = self.window_of(layer) > 0 and self.window_rope_base > 0
        return 1.0 if has_own or self.rope.kind is RopeKind.LONGROPE else self.rope.factor

    def is_long(self, positions: int) -> bool:
        """Whether a session of so many positions takes LongRoPE's divisors for long ones."""
        return 0 < self.long_from < positions

    @property
    def long_from(self) -> int:
        """The most positions of a session that takes those for short ones; 0 for any number."""
        if self.rope.kind is not RopeKind.LONGROPE:
            return 0
        return self.rope.original_context or self.context_length
