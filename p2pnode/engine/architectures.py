"""The architectures that can be computed, and what each is made of.

All are decoders of one family: norm, attention with rotary embedding, norm, feed-forward network,
each added to what came in. What differs is named here; a tensor or a key that nobody knows here is
refused (:mod:`p2pnode.engine.variations`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Architecture:
    """What one architecture is made of.

    Attributes:
        name: As GGUF's ``general.architecture`` has it.
        turns_halves: The rotary embedding turns (i, i + n/2), not (2i, 2i + 1).
        has_qkv_bias: Queries, keys and values have biases.
        has_qk_norm: Each head's queries and keys are normed before they are turned.
        has_post_norms: What attention and feed-forward network return is normed before it is added.
        is_fused: One matrix makes queries, keys and values, and one gate and up.
        has_experts: The feed-forward network is a mixture of experts.
        is_gelu: The gate is a GELU (tanh), not a SiLU.
        scales_embedding: Embeddings are multiplied by the root of their width.
        has_window: It may have a sliding window of attention.
        window_period: Every so many layers the last one sees everything, where the file is silent.
        window: The window, where the file is silent.
        window_rope_base: Base of the rotary embedding in layers with a window, likewise.
        has_rope_factors: It may have divisors of the rotary embedding's frequencies, as tensors.
    """

    name: str
    turns_halves: bool = True
    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    has_post_norms: bool = False
    is_fused: bool = False
    has_experts: bool = False
    is_gelu: bool = False
    scales_embedding: bool = False
    has_window: bool = False
    window_period: int = 1
    window: int = 0
    window_rope_base: float = 0.0
    has_rope_factors: bool = False


ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType(
    {
        one.name: one
        for one in (
            Architecture("llama", turns_halves=False, has_window=True, has_rope_factors=True),
            Architecture("qwen2", has_qkv_bias=True),
            Architecture("qwen3", has_qk_norm=True),
            Architecture("qwen3moe", has_qk_norm=True, has_experts=True),
            Architecture(
                "gemma3",
                has_qk_norm=True,
                has_post_norms=True,
                is_gelu=True,
                scales_embedding=True,
                has_window=True,
                window_period=6,
                window=512,
                window_rope_base=10_000.0,
            ),
            Architecture("phi3", is_fused=True, has_window=True, has_rope_factors=True),
        )
    }
)
