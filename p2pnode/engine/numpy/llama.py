"""The llama architecture, whole: what it is made of and what one layer does.

Read :func:`run_layer` top to bottom; the shape stands on every line that changes one. Weights
lie as [out, in], as GGUF stores them: for one row that streams memory as fast as this machine
can (measured against [in, out]: 31.7 and 36.6 ms for 30 layers), and decoding is nothing but
streaming. Only the head lies as [in, out], where it measured faster (8.4 against 10.0 ms).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats
from p2pnode.engine.model_config import ModelConfig
from p2pnode.engine.numpy.ops import attend, rms_norm, rotate, swiglu

Rotation = npt.NDArray[np.complex64]


@dataclass(frozen=True, slots=True, eq=False)
class LlamaLayer:
    """One layer's weights, float32; what is applied to the same input is one matrix."""

    attn_norm: Floats  # [d_model]
    qkv: Floats  # [(n_heads + 2 * n_kv_heads) * head_dim, d_model]
    output: Floats  # [d_model, n_heads * head_dim]
    ffn_norm: Floats  # [d_model]
    gate_up: Floats  # [2 * d_ff, d_model]
    down: Floats  # [d_model, d_ff]


@dataclass(frozen=True, slots=True, eq=False)
class LlamaHead:
    """What turns the last hidden state into logits."""

    norm: Floats  # [d_model]
    weight: Floats  # [d_model, vocab]


def run_layer(
    x: Floats,
    layer: LlamaLayer,
    keys: Floats,
    values: Floats,
    start: int,
    rotation: Rotation,
    config: ModelConfig,
) -> Floats:
    """Run one layer over the rows at positions ``start`` and following.

    Args:
        x: [tokens, d_model]; overwritten.
        layer: The weights.
        keys: This layer's cache [n_kv_heads, capacity, head_dim]; rows from ``start`` are written.
        values: Likewise.
        start: How many positions the cache holds already.
        rotation: [tokens, head_dim / 2], of these positions.
        config: The model's shape.

    Returns:
        [tokens, d_model]
    """
    tokens = x.shape[0]
    end = start + tokens
    heads, turned = config.n_heads, config.n_heads + config.n_kv_heads

    normed = rms_norm(x, layer.attn_norm, config.norm_eps)  # [tokens, d_model]
    qkv = project(normed, layer.qkv)  # [tokens, (n_heads + 2 * n_kv_heads) * head_dim]
    qkv = qkv.reshape(tokens, -1, config.head_dim)  # [tokens, n_heads + 2 * n_kv_heads, head_dim]
    rotate(qkv[:, :turned], rotation)
    keys[:, start:end] = qkv[:, heads:turned].transpose(1, 0, 2)  # [n_kv_heads, tokens, head_dim]
    values[:, start:end] = qkv[:, turned:].transpose(1, 0, 2)  # [n_kv_heads, tokens, head_dim]
    queries = qkv[:, :heads]  # [tokens, n_heads, head_dim]
    queries *= np.float32(1.0 / math.sqrt(config.head_dim))
    mixed = attend(queries, keys[:, :end], values[:, :end])  # [tokens, n_heads * head_dim]
    x += project(mixed, layer.output)  # [tokens, d_model]

    normed = rms_norm(x, layer.ffn_norm, config.norm_eps)  # [tokens, d_model]
    hidden = swiglu(project(normed, layer.gate_up))  # [tokens, d_ff]
    x += project(hidden, layer.down)  # [tokens, d_model]
    return x


def run_head(x: Floats, head: LlamaHead, config: ModelConfig) -> Floats:
    """Turn x [tokens, d_model] into logits [tokens, vocab]."""
    logits: Floats = rms_norm(x, head.norm, config.norm_eps) @ head.weight  # [tokens, vocab]
    return logits


def project(x: Floats, weight: Floats) -> Floats:
    """Return x [tokens, in] times the transpose of weight [out, in]: [tokens, out]."""
    return x @ weight.T


def rotation_table(config: ModelConfig, positions: range) -> Rotation:
    """Return the turn of each pair at each position: complex64 [positions, head_dim / 2].

    Computed in float64, so that a position's turn does not depend on how the table was cut.
    """
    pair = np.arange(config.head_dim // 2, dtype=np.float64)  # [head_dim / 2]
    frequency = config.rope_base ** (-2.0 * pair / config.head_dim)
    angle = np.arange(positions.start, positions.stop)[:, None] * frequency
    turns: Rotation = np.exp(1j * angle).astype(np.complex64)  # [positions, head_dim / 2]
    return turns
