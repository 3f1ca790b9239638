"""Which llamas are computed, and which are refused by name: nothing is computed wrongly in silence.

Whatever a file says about its arithmetic is known here or the file is refused: a key that nobody
knew when this was written may change everything.
"""

import re
from collections.abc import Mapping
from typing import Final

from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import ArrayValue, Value
from p2pnode.engine.numpy.llama import LlamaConfig
from p2pnode.errors import ModelError
from p2pnode.terminal import label

_READ: Final = {
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
}
"""What is read, or must agree with what is."""

_WITHOUT_EFFECT: Final = {
    "vocab_size",  # the embedding's rows count
    "tensor_data_layout",  # a remark of old converters
    "attention.layer_norm_epsilon",  # of a norm that a llama has not
    "rope.scaling.original_context_length",  # says something only where scaling has a type
    "rope.scaling.finetuned",
}

_NEUTRAL: Final[Mapping[str, tuple[Value, ...]]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "rope.scaling.type": ("none", ""),
    "rope.scaling.factor": (0, 1),
    "rope.scale_linear": (0, 1),
    "rope.scaling.attn_factor": (0, 1),
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
    "rope.scaling.type": "a scaled rotary embedding",
    "rope.scaling.factor": "a scaled rotary embedding",
    "rope.scale_linear": "a scaled rotary embedding",
    "attention.sliding_window": "a sliding window of attention",
    "attn_logit_softcapping": "capped attention scores",
    "final_logit_softcapping": "capped logits",
}

_LAYER_TENSOR: Final = re.compile(r"blk\.(\d{1,5})\.(\w+)\.weight")


def refuse_variations(file: GgufFile) -> None:
    """Refuse metadata that asks for arithmetic other than a plain llama's.

    Raises:
        ModelError: It does; the message names the key.
    """
    for key, value in file.metadata.items():
        name = key.removeprefix("llama.")
        if name == key or name in _READ or name in _WITHOUT_EFFECT:
            continue
        neutral = _NEUTRAL.get(name)
        if neutral is None:
            raise ModelError(
                f"{file.path.name} says {label(key)} = {_shown(value)}, which this engine does not "
                "know",
                hint="Use a file of a plain llama model.",
            )
        if value not in neutral:
            what = _NAMES.get(name, "a variation of the llama architecture")
            raise ModelError(
                f"{file.path.name} has {what} ({key} = {_shown(value)}), which this engine does "
                "not compute",
                hint="Use a file of a plain llama model.",
            )


def tensor_shapes(config: LlamaConfig, *, is_tied: bool) -> dict[str, tuple[int, ...]]:
    """Return every tensor that such a model has, with its shape [out, in] or [width]."""
    d_model, d_ff = config.d_model, config.d_ff
    queries, kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    of_layer = {
        "attn_norm": (d_model,),
        "attn_q": (queries, d_model),
        "attn_k": (kv, d_model),
        "attn_v": (kv, d_model),
        "attn_output": (d_model, queries),
        "ffn_norm": (d_model,),
        "ffn_gate": (d_ff, d_model),
        "ffn_up": (d_ff, d_model),
        "ffn_down": (d_model, d_ff),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (config.vocab_size, d_model),
        "output_norm.weight": (d_model,),
    }
    if not is_tied:
        shapes["output.weight"] = (config.vocab_size, d_model)
    for index in range(config.n_layers):
        shapes |= {f"blk.{index}.{name}.weight": shape for name, shape in of_layer.items()}
    return shapes


def check_tensors(file: GgufFile, config: LlamaConfig) -> None:
    """Refuse a file that lacks a tensor, has one of another shape, or one that nobody would read.

    Raises:
        ModelError: It does; the message names the tensor.
    """
    name = file.path.name
    for index in range(config.n_layers):  # so that their count is bounded by what is there
        if f"blk.{index}.attn_norm.weight" not in file.tensors:
            raise ModelError(f"{name} has no tensor blk.{index}.attn_norm.weight")
    shapes = tensor_shapes(config, is_tied="output.weight" not in file.tensors)
    for tensor, shape in shapes.items():
        found = file.tensors.get(tensor)
        if found is None:
            raise ModelError(f"{name} has no tensor {tensor}")
        if found.shape != shape:
            raise ModelError(f"{name}: {tensor} has shape {found.shape}, expected {shape}")
    for tensor in file.tensors:
        if tensor not in shapes:
            raise ModelError(
                f"{name} has {_unread(tensor, config)}, which this engine does not compute",
                hint="Use a file of a plain llama model.",
            )


def _unread(tensor: str, config: LlamaConfig) -> str:
    if tensor.endswith(".bias"):
        return f"biases ({tensor})"
    if tensor.startswith("rope_freqs"):
        return f"a scaled rotary embedding ({tensor})"
    layer = _LAYER_TENSOR.fullmatch(tensor)
    if layer is not None and int(layer[1]) >= config.n_layers:
        return f"a tensor beyond its {config.n_layers} layers ({tensor})"
    return f"a tensor {tensor!r}"


def _shown(value: Value) -> str:
    return f"a list of {value.count}" if isinstance(value, ArrayValue) else repr(value)[:60]
