"""Which models are computed, and which are refused by name: nothing is computed wrongly in silence.

Whatever a file says about its arithmetic is known here or the file is refused: a key that nobody
knew when this was written may change everything.
"""

import re
import struct
from collections.abc import Mapping
from typing import Final

from p2pnode.engine.architectures import Architecture
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import ArrayValue, TensorInfo, Value
from p2pnode.engine.model_config import LEAST_FACTOR, MOST_FACTOR, ModelConfig
from p2pnode.errors import ModelError
from p2pnode.terminal import label

_READ: Final = frozenset(
    {
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.attn_factor",
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
        "rope.scale_linear",
        "vocab_size",
    }
)
"""What is read, or must agree with what is."""

_WINDOW: Final = frozenset(
    {"attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa"}
)
_EXPERTS: Final = frozenset({"expert_count", "expert_used_count", "expert_feed_forward_length"})

_WITHOUT_EFFECT: Final = frozenset(
    {
        "tensor_data_layout",  # a remark of old converters
        "attention.layer_norm_epsilon",  # of a norm that none of these has
        "rope.scaling.finetuned",
    }
)

_NEUTRAL: Final[Mapping[str, tuple[Value, ...]]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "expert_shared_count": (0,),
    "expert_weights_scale": (0, 1),
    "expert_weights_norm": (True,),
    "expert_gating_func": (1,),  # softmax
    "rope.scaling.yarn_ext_factor": (1,),
    "rope.scaling.yarn_attn_factor": (1,),
    "rope.scaling.yarn_log_multiplier": (0,),
    "attention.sliding_window": (0,),
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.scale": (0,),
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "logit_scale": (0, 1),
    "residual_scale": (0, 1),
    "embedding_scale": (0, 1),
    "use_parallel_residual": (False,),
}
"""Variations, and the values that mean that there is none."""

_NAMES: Final[Mapping[str, str]] = {
    "expert_count": "a mixture of experts",
    "attention.sliding_window": "a sliding window of attention",
    "attn_logit_softcapping": "capped attention scores",
    "final_logit_softcapping": "capped logits",
}

_LAYER_TENSOR: Final = re.compile(r"blk\.(\d{1,5})\.(\w+)\.(weight|bias)")
_OTHER: Final = "Use another file: one of a plain model of this architecture."


def refuse_variations(file: GgufFile, architecture: Architecture) -> None:
    """Refuse metadata that asks for arithmetic other than the architecture's.

    Raises:
        ModelError: It does; the message names the key.
    """
    read = _READ | _WITHOUT_EFFECT
    read |= _WINDOW if architecture.has_window else frozenset()
    read |= _EXPERTS if architecture.has_experts else frozenset()
    for key, value in file.metadata.items():
        name = key.removeprefix(f"{architecture.name}.")
        if name == key or name in read:
            continue
        neutral = _NEUTRAL.get(name)
        if neutral is None:
            raise ModelError(
                f"{file.path.name} says {label(key)} = {_shown(value)}, which this engine does not "
                "know",
                hint=_OTHER,
            )
        if value not in neutral:
            what = _NAMES.get(name, f"a variation of the {architecture.name} architecture")
            raise ModelError(
                f"{file.path.name} has {what} ({key} = {_shown(value)}), which this engine does "
                "not compute",
                hint=_OTHER,
            )


def layer_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the tensors of one layer, without ``blk.N.``, with their shapes.

    Shapes are [out, in], [experts, out, in] or [width].
    """
    of, d_model, d_ff = config.architecture, config.d_model, config.d_ff
    queries, kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (d_model,),
        "attn_output.weight": (d_model, queries),
        "ffn_norm.weight": (d_model,),
    }
    projections = {"attn_q": queries, "attn_k": kv, "attn_v": kv}
    if of.is_fused:
        projections = {"attn_qkv": queries + 2 * kv}
    for name, width in projections.items():
        shapes[f"{name}.weight"] = (width, d_model)
        if of.has_qkv_bias:
            shapes[f"{name}.bias"] = (width,)
    if of.has_qk_norm:
        shapes |= dict.fromkeys(("attn_q_norm.weight", "attn_k_norm.weight"), (config.head_dim,))
    if of.has_post_norms:
        norms = ("post_attention_norm.weight", "post_ffw_norm.weight")
        shapes |= dict.fromkeys(norms, (d_model,))
    if of.has_experts:
        count = config.n_experts
        shapes["ffn_gate_inp.weight"] = (count, d_model)
        shapes["ffn_gate_exps.weight"] = shapes["ffn_up_exps.weight"] = (count, d_ff, d_model)
        shapes["ffn_down_exps.weight"] = (count, d_model, d_ff)
    else:
        shapes["ffn_up.weight"] = ((2 if of.is_fused else 1) * d_ff, d_model)
        shapes["ffn_down.weight"] = (d_model, d_ff)
        if not of.is_fused:
            shapes["ffn_gate.weight"] = (d_ff, d_model)
    return shapes


def shared_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the tensors that belong to no layer and must be there, with their shapes."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (config.vocab_size, config.d_model),
        "output_norm.weight": (config.d_model,),
    }
    if not config.is_tied:
        shapes["output.weight"] = (config.vocab_size, config.d_model)
    return shapes


ROPE_FACTORS: Final = "rope_freqs.weight"
ROPE_FACTORS_SHORT: Final = "rope_factors_short.weight"
ROPE_FACTORS_LONG: Final = "rope_factors_long.weight"


def check_tensors(file: GgufFile, config: ModelConfig) -> None:
    """Refuse a file that lacks a tensor, has one of another shape, or one that nobody would read.

    Raises:
        ModelError: It does; the message names the tensor.
    """
    name = file.path.name
    for index in range(config.n_layers):  # so that their count is bounded by what is there
        if f"blk.{index}.attn_norm.weight" not in file.tensors:
            raise ModelError(f"{name} has no tensor blk.{index}.attn_norm.weight")
    shapes = shared_shapes(config)
    of_layer = layer_shapes(config)
    for index in range(config.n_layers):
        shapes |= {f"blk.{index}.{tensor}": shape for tensor, shape in of_layer.items()}
    for tensor, shape in shapes.items():
        found = file.tensors.get(tensor)
        if found is None:
            raise ModelError(f"{name} has no tensor {tensor}")
        if found.shape != shape:
            raise ModelError(f"{name}: {tensor} has shape {found.shape}, expected {shape}")
        if len(shape) == 1:
            _check_plain(name, found)
    optional = _rope_factors(file, config)
    for tensor in file.tensors:
        if tensor not in shapes and tensor not in optional:
            raise ModelError(
                f"{name} has {_unread(tensor, config)}, which this engine does not compute",
                hint=_OTHER,
            )


def _check_plain(name: str, tensor: TensorInfo) -> None:
    """Refuse a norm, a bias or divisors stored otherwise than every converter does.

    ggml adds and multiplies nothing else to a row: it ends the process.
    """
    if tensor.type.name != "F32":
        raise ModelError(
            f"{name}: {tensor.name} is stored as {tensor.type.name}; norms, biases and divisors "
            "are F32 in every model",
            hint="Convert the model anew, or fetch another file of it.",
        )


def _rope_factors(file: GgufFile, config: ModelConfig) -> set[str]:
    """Return the tensors of divisors that the file has; they are whole or not there at all."""
    if not config.architecture.has_rope_factors:
        return set()
    pair = {ROPE_FACTORS_SHORT, ROPE_FACTORS_LONG}
    found = {name for name in (ROPE_FACTORS, *pair) if name in file.tensors}
    for tensor in found:
        shape = file.tensors[tensor].shape
        if shape != (config.turned // 2,):
            raise ModelError(
                f"{file.path.name}: {tensor} has shape {shape}, expected ({config.turned // 2},)"
            )
        _check_plain(file.path.name, file.tensors[tensor])
        _check_divisors(file, file.tensors[tensor])
    if found & pair not in (set(), pair):
        raise ModelError(f"{file.path.name} has one of {' and '.join(sorted(pair))}, not both")
    return found


def _check_divisors(file: GgufFile, tensor: TensorInfo) -> None:
    """Refuse divisors that would make answers of NaN: nothing that computes looks at them."""
    divisors = struct.unpack(f"<{tensor.shape[0]}f", file.tensor_bytes(tensor))
    wrong = [one for one in divisors if not LEAST_FACTOR <= one <= MOST_FACTOR]
    if wrong:
        raise ModelError(
            f"{file.path.name}: {tensor.name} divides a frequency by {wrong[0]:g}",
            hint="Convert the model anew, or fetch another file of it.",
        )


def _unread(tensor: str, config: ModelConfig) -> str:
    layer = _LAYER_TENSOR.fullmatch(tensor)
    if layer is not None and int(layer[1]) >= config.n_layers:
        return f"a tensor beyond its {config.n_layers} layers ({tensor})"
    if tensor.endswith(".bias"):
        return f"biases ({tensor})"
    if tensor.startswith("rope_f"):
        return f"a scaled rotary embedding ({tensor})"
    return f"a tensor {tensor!r}"


def _shown(value: Value) -> str:
    return f"a list of {value.count}" if isinstance(value, ArrayValue) else repr(value)[:60]
