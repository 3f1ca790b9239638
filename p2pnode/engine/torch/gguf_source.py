"""The swarm's GGUF as transformers' modules want it: names, layout and numbers."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
import transformers

from p2pnode.engine.base import Floats
from p2pnode.engine.gguf import read_tensor
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.model_config import ModelConfig, RopeKind
from p2pnode.engine.torch.build import settings_of
from p2pnode.engine.torch.rotary import Turning
from p2pnode.engine.variations import (
    ROPE_FACTORS,
    ROPE_FACTORS_LONG,
    ROPE_FACTORS_SHORT,
    layer_shapes,
    shared_shapes,
)
from p2pnode.errors import ModelError

_MODEL_TYPES: Final = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3": "gemma3_text",
    "phi3": "phi3",
}
_NAMES: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_WITH_POST_NORMS: Final = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


class GgufSource:
    """An open GGUF file; see :class:`p2pnode.engine.torch.build.Source`.

    Raises:
        ModelError: Its architecture is not among those that this engine computes.
    """

    def __init__(self, file: GgufFile, config: ModelConfig) -> None:
        self.config = config
        self._file = file
        self._shapes = layer_shapes(config) | shared_shapes(config)
        model_type = _MODEL_TYPES.get(config.arch)
        if model_type is None:
            raise ModelError(
                f"{file.path.name} is a {config.arch}, which the torch engine does not compute",
                hint=f"It knows {', '.join(_MODEL_TYPES)}; the ggml engine knows this one too.",
            )
        self.settings = _settings(model_type, config)
        self._turnings: dict[tuple[float, RopeKind], Turning] = {}

    def window_of(self, layer: int) -> int:
        return self.config.window_of(layer)

    def turning_of(self, layer: int) -> Turning:
        config, base = self.config, self.config.rope_base_of(layer)
        has_own = config.window_of(layer) > 0 and config.window_rope_base > 0
        kind = RopeKind.NONE if has_own else config.rope.kind
        if (base, kind) not in self._turnings:
            self._turnings[base, kind] = self._turning(base, kind)
        return self._turnings[base, kind]

    def layer(self, index: int) -> Mapping[str, torch.Tensor]:
        names = _NAMES | (_WITH_POST_NORMS if self.config.architecture.has_post_norms else {})
        if self.config.architecture.is_fused:
            names = {**names, "ffn_up": "mlp.gate_up_proj"}
        found = {}
        for tensor in layer_shapes(self.config):
            name, _, kind = tensor.rpartition(".")
            rows = self._read(f"blk.{index}.{tensor}", tensor)
            found[f"{names[name]}.{kind}"] = torch.from_numpy(self._laid_out(name, rows))
        return found

    def embedding(self) -> torch.Tensor:
        return torch.from_numpy(self._read("token_embd.weight"))

    def norm(self) -> torch.Tensor:
        return torch.from_numpy(self._laid_out("output_norm", self._read("output_norm.weight")))

    def head(self) -> torch.Tensor:
        name = "token_embd.weight" if self.config.is_tied else "output.weight"
        return torch.from_numpy(self._read(name))

    def _read(self, tensor: str, of_layer: str = "") -> Floats:
        found = read_tensor(self._file, tensor, self._shapes[of_layer or tensor])
        return np.require(found, requirements=("C", "W"))  # torch wants memory it could write to

    def _laid_out(self, name: str, rows: Floats) -> Floats:
        """Undo what files of this format do to a tensor."""
        config = self.config
        if config.arch == "gemma3" and name.endswith("norm"):
            return rows - np.float32(1.0)  # the modules add it
        if name in ("attn_q", "attn_k") and not config.architecture.turns_halves:
            heads = config.n_heads if name == "attn_q" else config.n_kv_heads
            return _halves_apart(rows, heads)
        return rows

    def _turning(self, base: float, kind: RopeKind) -> Turning:
        config = self.config
        speeds, scale = _speeds(config, base, kind)
        if kind is RopeKind.LONGROPE:
            short, long = (self._divisors(name) for name in (ROPE_FACTORS_SHORT, ROPE_FACTORS_LONG))
            return Turning(speeds / short, speeds / long, config.rope.attn_factor)
        if ROPE_FACTORS in self._file.tensors:
            speeds = speeds / self._divisors(ROPE_FACTORS)
        return Turning(speeds, speeds, scale)

    def _divisors(self, name: str) -> torch.Tensor:
        return torch.from_numpy(
            np.array(read_tensor(self._file, name, (self.config.turned // 2,)), np.float32)
        )


def _halves_apart(rows: Floats, heads: int) -> Floats:
    """Reorder rows [heads * head_dim, d_model]: turned pairs (2i, 2i + 1) become (i, i + half)."""
    beside = rows.reshape(heads, -1, 2, rows.shape[1])  # [heads, half, 2, d_model]
    return np.ascontiguousarray(beside.swapaxes(1, 2)).reshape(rows.shape)


def _settings(model_type: str, config: ModelConfig) -> transformers.PreTrainedConfig:
    options: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": 1,  # the right one comes below
        "num_key_value_heads": config.n_kv_heads,
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_eps,
        "pad_token_id": None,
    }
    if model_type == "gemma3_text":
        options["query_pre_attn_scalar"] = round(config.score_scale**-2)
        options["layer_types"] = [
            "sliding_attention" if config.window_of(layer) else "full_attention"
            for layer in range(config.n_layers)
        ]
    settings = settings_of(model_type, options)
    # After the checks, which refuse widths that are no multiple of the heads: files have them.
    settings.num_attention_heads = config.n_heads
    settings.head_dim = config.head_dim
    return settings


def _speeds(config: ModelConfig, base: float, kind: RopeKind) -> tuple[torch.Tensor, float]:
    """Return radians a position of each pair, float32 [pairs], and the scale of the turning."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": base}
    if kind in (RopeKind.LINEAR, RopeKind.YARN):
        rope |= {"rope_type": str(kind), "factor": config.rope.factor}
    if kind is RopeKind.YARN:
        rope |= {
            "original_max_position_embeddings": config.rope.original_context
            or config.context_length,
            "beta_fast": config.rope.beta_fast,
            "beta_slow": config.rope.beta_slow,
        }
    options = {
        "hidden_size": config.turned,
        "num_attention_heads": 1,
        "head_dim": config.turned,
        "max_position_embeddings": config.context_length,
        "rope_parameters": rope,
    }
    made = LlamaRotaryEmbedding(settings_of("llama", options))
    return made.inv_freq.float(), float(made.attention_scaling)
