"""The tiny random models that engines are compared on: shapes and scalings, no weights yet.

Widths are multiples of 256, so that every row can be cut into the blocks of K-quants. Sizes are
otherwise the smallest that still show what an architecture does differently.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

VOCAB_SIZE: Final = 320
CONTEXT: Final = 2048
SHORT: Final = 24
"""Tokens of the shortest comparison: below every window and original length."""

MIDDLE: Final = 100
"""Past the small windows, and otherwise short."""

LONG: Final = 600
"""Tokens of the longest: past 512 positions, every window and every original length but one."""


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """One tiny model.

    Attributes:
        name: How tests call it.
        architecture: As GGUF names it (``general.architecture``).
        config: Class of transformers' configuration, by name.
        options: What the configuration gets beside the common sizes.
        window: Positions that a layer with a sliding window sees, itself included; 0 is no window.
        original: Length before rope scaling, or 0 where it changes nothing at once.
        lengths: Tokens of the sequences to compare.
        pattern: Every which layer sees everything, where the file says it; gemma's is 6 unsaid.
        local_base: Whether the file says the rope base of layers with a window (older ones don't).
        libllama_until: The longest sequence for which libllama computes the same function, or 0
            where it always does; the reason stands beside the recipe.
    """

    name: str
    architecture: str
    config: str
    options: Mapping[str, Any] = field(default_factory=dict)
    window: int = 0
    original: int = 0
    lengths: tuple[int, ...] = (SHORT, LONG)
    pattern: int = 0
    local_base: bool = False
    libllama_until: int = 0

    @property
    def seed(self) -> int:
        """Seed of the weights: the name's bytes, so that a new recipe changes no other."""
        return int.from_bytes(self.name.encode(), "big") % 2**31

    @property
    def tied(self) -> bool:
        """Whether the embedding is the head as well."""
        return bool(self.options.get("tie_word_embeddings", self.architecture == "gemma3"))


def _llama(name: str, **options: Any) -> Recipe:
    return Recipe(name, "llama", "LlamaConfig", {"tie_word_embeddings": False, **options})


def _gemma3(
    name: str, window: int, *, pattern: int = 0, local_base: bool = True, **options: Any
) -> Recipe:
    sizes = {"head_dim": 128, "num_key_value_heads": 1, "num_hidden_layers": 7}
    given: dict[str, Any] = {"query_pre_attn_scalar": 128, "sliding_window": window}
    if pattern:
        at = range(1, 8)
        given["layer_types"] = [f"{'sliding' if i % pattern else 'full'}_attention" for i in at]
    return Recipe(
        name,
        "gemma3",
        "Gemma3TextConfig",
        {**sizes, **given, **options},
        window=window,
        lengths=(SHORT, LONG) if window > MIDDLE else (SHORT, MIDDLE, LONG),
        pattern=pattern,
        local_base=local_base,
    )


def _phi3(name: str, rotary: float, heads: int, **options: Any) -> Recipe:
    pairs = int(rotary * 64) // 2
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "partial_rotary_factor": rotary,
        "short_factor": [1.0 + 0.02 * pair for pair in range(pairs)],
        "long_factor": [1.0 + 0.5 * pair for pair in range(pairs)],
    }
    given = {
        "rope_parameters": rope,
        "num_key_value_heads": heads,
        "original_max_position_embeddings": CONTEXT // 4,
        "pad_token_id": 0,
    }
    return Recipe(name, "phi3", "Phi3Config", {**given, **options}, original=CONTEXT // 4)


_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
_LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 1_000_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": CONTEXT // 4,
}
_QWEN3 = {"head_dim": 128, "tie_word_embeddings": True}
_MOE = {
    "head_dim": 128,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 256,
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
}
_GEMMA_LINEAR = {
    "full_attention": {"rope_type": "linear", "rope_theta": 20_000.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
}

RECIPES: Final = (
    _llama("llama-grouped"),
    _llama("llama-plain-heads", num_key_value_heads=4),
    _llama("llama-one-kv-head", num_key_value_heads=1, tie_word_embeddings=True),
    _llama("llama-linear", rope_parameters=_LINEAR),
    _llama("llama-3-rope", rope_parameters=_LLAMA3, tie_word_embeddings=True),
    _llama("llama-yarn", rope_parameters=_YARN),
    _llama("llama-wide-heads", head_dim=128),
    # llama.cpp knows no window in its graph of `llama`, and its converter writes none.
    Recipe(
        "mistral-window",
        "llama",
        "MistralConfig",
        {"sliding_window": 64, "head_dim": 64, "tie_word_embeddings": False},
        window=64,
        lengths=(SHORT, MIDDLE, LONG),
        libllama_until=64,
    ),
    Recipe("qwen2", "qwen2", "Qwen2Config", {"tie_word_embeddings": True}),
    Recipe("qwen2-untied", "qwen2", "Qwen2Config", {"tie_word_embeddings": False}),
    Recipe("qwen3", "qwen3", "Qwen3Config", _QWEN3),
    Recipe("qwen3-yarn", "qwen3", "Qwen3Config", {**_QWEN3, "rope_parameters": _YARN}),
    _gemma3("gemma3", 512),
    _gemma3(
        "gemma3-window-64",
        64,
        local_base=False,
        num_key_value_heads=4,
        head_dim=64,
        query_pre_attn_scalar=64,
    ),
    _gemma3("gemma3-pattern", 64, pattern=3),
    _gemma3("gemma3-linear", 512, pattern=2, rope_parameters=_GEMMA_LINEAR),
    _phi3("phi3-longrope", 1.0, 4),
    _phi3("phi4-mini", 0.75, 2, tie_word_embeddings=True),
    Recipe(
        "phi3-plain",
        "phi3",
        "Phi3Config",
        {"num_key_value_heads": 2, "pad_token_id": 0, "sliding_window": None},
    ),
    Recipe("qwen3moe", "qwen3moe", "Qwen3MoeConfig", _MOE),
)
