"""Checkpoints as GGUF files, laid out as llama.cpp's converter lays them out."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.engines.gguf_sizes import add_sizes, end
from tests.engines.recipes import Recipe
from tests.engines.tiny_vocabulary import add_vocabulary

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]
Stored = Mapping[str, tuple[Any, Bytes]]
"""Matrices kept in another type than float32: by transformers' name, the type and the rows."""

_ROPE_TYPES = {"linear": gguf.RopeScalingType.LINEAR, "yarn": gguf.RopeScalingType.YARN}
"""What the metadata name. llama3's and longrope's factors are tensors, and tell by being there."""


def write_gguf(path: Path, recipe: Recipe, model: Any, stored: Stored) -> None:
    """Write a model of transformers to ``path``, with the matrices of ``stored`` as given."""
    writer = gguf.GGUFWriter(str(path), recipe.architecture)
    writer.add_name("tiny")  # a name with "phi3" in it makes llama.cpp look for that model's tokens
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_sizes(writer, recipe, model.config)
    _add_rope(writer, recipe, model.config)
    add_vocabulary(writer)
    for name, kind, data in _tensors(recipe, model, stored):
        writer.add_tensor(name, data, raw_dtype=kind)
    for name, factors in _rope_factors(recipe, model.config):
        writer.add_tensor(name, np.array(factors, np.float32))
    end(writer)


def _add_sizes(writer: Any, recipe: Recipe, config: Any) -> None:
    if recipe.architecture == "llama":
        writer.add_vocab_size(config.vocab_size)  # the others leave it to the embedding's rows
    add_sizes(
        writer,
        layers=config.num_hidden_layers,
        context=config.max_position_embeddings,
        d_model=config.hidden_size,
        d_ff=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        norm_eps=config.rms_norm_eps,
        head_dim=getattr(config, "head_dim", None),
    )
    if (experts := getattr(config, "num_experts", None)) is not None:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)


def _add_rope(writer: Any, recipe: Recipe, config: Any) -> None:
    rope = _main_rope(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    if recipe.architecture in ("llama", "phi3"):
        writer.add_rope_dimension_count(_rotated(config))
    if (kind := _ROPE_TYPES.get(rope["rope_type"])) is not None:
        writer.add_rope_scaling_type(kind)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if recipe.architecture == "phi3":
        _add_longrope(writer, rope, config.max_position_embeddings)
        writer.add_sliding_window(0)  # none, as in phi-4; llama.cpp ignores any other number
    elif recipe.window:
        writer.add_sliding_window(recipe.window)
    if recipe.local_base:
        writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
    if recipe.pattern:
        writer.add_sliding_window_pattern(recipe.pattern)


def _add_longrope(writer: Any, rope: Mapping[str, Any], context: int) -> None:
    original = rope.get("original_max_position_embeddings", context)
    writer.add_rope_scaling_orig_ctx_len(original)
    if rope["rope_type"] == "longrope":
        factor = math.sqrt(1 + math.log(context / original) / math.log(original))
        writer.add_rope_scaling_attn_factors(factor)


def _main_rope(config: Any) -> dict[str, Any]:
    rope: dict[str, Any] = config.rope_parameters
    main: dict[str, Any] = rope.get("full_attention", rope)
    return main


def _head_dim(config: Any) -> int:
    stated: int | None = getattr(config, "head_dim", None)
    return stated or int(config.hidden_size // config.num_attention_heads)


def _rotated(config: Any) -> int:
    return int(_main_rope(config).get("partial_rotary_factor", 1.0) * _head_dim(config))


def _rope_factors(recipe: Recipe, config: Any) -> Iterator[tuple[str, list[float]]]:
    rope = _main_rope(config)
    if rope["rope_type"] == "longrope":
        yield "rope_factors_long.weight", rope["long_factor"]
        yield "rope_factors_short.weight", rope["short_factor"]
    if rope["rope_type"] == "llama3":
        dims = _head_dim(config)
        turns = [rope["rope_theta"] ** (-at / dims) for at in range(0, dims, 2)]
        yield "rope_freqs.weight", [_llama3_divisor(turn, rope) for turn in turns]


def _llama3_divisor(turn: float, rope: Mapping[str, float]) -> float:
    """Return what a frequency (radians a position) is divided by.

    Those that turn often within the original length stay, those that turn less than once are
    divided by the whole factor, and between the two the inverse is mixed linearly.
    """
    rounds = rope["original_max_position_embeddings"] * turn / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    kept = min(max((rounds - low) / (high - low), 0.0), 1.0)
    return 1.0 / (kept + (1.0 - kept) / rope["factor"])


def _tensors(
    recipe: Recipe, model: Any, stored: Stored
) -> Iterator[tuple[str, Any, Bytes | Floats]]:
    config = model.config
    names = gguf.get_tensor_name_map(_architecture(recipe), config.num_hidden_layers)
    for name, weight in model.named_parameters():
        kind, data = stored.get(name, (None, weight.detach().numpy()))
        for source, rows in _parts(name, data, config):
            target = names.get_name(source, try_suffixes=(".weight", ".bias"))
            assert target is not None, f"{source} has no name in GGUF"
            yield target, kind, np.ascontiguousarray(_laid_out(recipe, config, source)(rows))


def _parts(name: str, data: Any, config: Any) -> Iterator[tuple[str, Any]]:
    """Split what newer versions of transformers keep fused and GGUF keeps apart."""
    if name.endswith("mlp.experts.gate_up_proj"):
        gate, up = np.split(data, 2, axis=1)  # [experts, rows, width or bytes]
        yield name.replace("gate_up_proj", "gate_proj.weight"), gate
        yield name.replace("gate_up_proj", "up_proj.weight"), up
    elif name.endswith("mlp.experts.down_proj"):
        yield f"{name}.weight", data
    else:
        yield name, data


def _laid_out(recipe: Recipe, config: Any, name: str) -> Callable[[Any], Any]:
    """Return what is done to a tensor's rows on the way; it never changes a row's inside."""
    if recipe.architecture == "gemma3" and name.endswith("norm.weight"):
        return lambda rows: rows + np.float32(1.0)
    if recipe.architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        return lambda rows: _pairs_beside_each_other(rows, heads)
    return lambda rows: rows


def _pairs_beside_each_other(rows: Any, heads: int) -> Any:
    """Reorder rows [heads * head_dim, ...]: rotated pairs (i, i + half) become (2i, 2i + 1)."""
    apart = rows.reshape(heads, 2, -1, *rows.shape[1:])  # [heads, 2, half, ...]
    return apart.swapaxes(1, 2).reshape(rows.shape)


def _architecture(recipe: Recipe) -> Any:
    by_name = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}
    return by_name[recipe.architecture]
