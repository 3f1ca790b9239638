"""One layer and the head of the llama architecture, as functions that XLA compiles.

Read :func:`run_layer` top to bottom; the shape stands on every line that changes one. All that
lies between the products is float32, whatever type the weights have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import lax

from p2pnode.engine.jax.runtime import JaxArray


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model is compiled in: two models of one shape share their programs."""

    d_model: int
    d_ff: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    norm_eps: float
    score_scale: float
    vocab_size: int


class Layer(NamedTuple):
    """One layer's weights; what is applied to the same input is one matrix.

    Norms are float32, matrices of the type that is computed with.
    """

    attn_norm: Any  # [d_model]
    qkv: Any  # [(n_heads + 2 * n_kv_heads) * head_dim, d_model]
    output: Any  # [d_model, n_heads * head_dim]
    ffn_norm: Any  # [d_model]
    gate_up: Any  # [2 * d_ff, d_model]
    down: Any  # [d_model, d_ff]


class Head(NamedTuple):
    """What turns the last hidden state into logits."""

    norm: Any  # [d_model]
    weight: Any  # [vocab, d_model]


_Dimensions: TypeAlias = tuple[tuple[Sequence[int], ...], tuple[Sequence[int], ...]]
"""Which axes are contracted, and which are batches, as ``lax.dot_general`` has it."""

Segments: TypeAlias = Sequence[JaxArray]
"""One layer's keys, or values: arrays [n_kv_heads, size, head_dim] of consecutive positions."""


def run_layer(
    shape: Shape,
    layer: Layer,
    keys: Segments,
    values: Segments,
    x: JaxArray,
    turn: JaxArray,
    place: JaxArray,
) -> tuple[JaxArray, Segments, Segments]:
    """Run one layer over the rows at the end of a cache.

    Args:
        shape: The model's.
        layer: The weights.
        keys: This layer's cache, of so many positions that the rows fit; their memory is reused.
        values: Likewise.
        x: float32 [rows, d_model]; rows from ``count`` on are padding, and so are their results.
        turn: float32 [2, rows, head_dim / 2]: cosines and sines of the rotary embedding.
        place: int32 [2]: the first row's position, and ``count``.

    Returns:
        float32 [rows, d_model], the keys and the values.
    """
    rows, heads = x.shape[0], shape.n_heads
    turned = heads + shape.n_kv_heads
    start, count = place[0], place[1]

    normed = _rms_norm(x, layer.attn_norm, shape.norm_eps)  # [rows, d_model]
    qkv = _project(normed, layer.qkv)  # [rows, (n_heads + 2 * n_kv_heads) * head_dim]
    qkv = qkv.reshape(rows, -1, shape.head_dim)  # [rows, n_heads + 2 * n_kv_heads, head_dim]
    both = _rotate(qkv[:, :turned], turn)  # [rows, n_heads + n_kv_heads, head_dim]
    keys = _written(keys, both[:, heads:], start, count)
    values = _written(values, qkv[:, turned:], start, count)
    queries = both[:, :heads] * jnp.float32(shape.score_scale)  # [rows, n_heads, head_dim]
    mixed = _attend(queries, keys, values, start)  # [rows, n_heads * head_dim]
    x = x + _project(mixed, layer.output)  # [rows, d_model]

    normed = _rms_norm(x, layer.ffn_norm, shape.norm_eps)  # [rows, d_model]
    gate_up = _project(normed, layer.gate_up)  # [rows, 2 * d_ff]
    gate, up = gate_up[:, : shape.d_ff], gate_up[:, shape.d_ff :]  # [rows, d_ff] each
    hidden = gate / (1.0 + jnp.exp(-gate)) * up  # [rows, d_ff]
    return x + _project(hidden, layer.down), keys, values


def run_head(shape: Shape, head: Head, x: JaxArray) -> JaxArray:
    """Turn x [rows, d_model] into logits [rows, vocab]."""
    return _project(run_norm(shape, head, x), head.weight)


def run_norm(shape: Shape, head: Head, x: JaxArray) -> JaxArray:
    """Apply the last norm to x [rows, d_model]: [rows, d_model]."""
    return _rms_norm(x, head.norm, shape.norm_eps)


def _rms_norm(x: JaxArray, weight: JaxArray, eps: float) -> JaxArray:
    """Scale each row of x [rows, d] to root mean square 1, then by ``weight`` [d]."""
    square = jnp.mean(x * x, axis=-1, keepdims=True)  # [rows, 1]
    return x * lax.rsqrt(square + jnp.float32(eps)) * weight  # [rows, d]


def _project(x: JaxArray, weight: JaxArray) -> JaxArray:
    """Return x [rows, in] times the transpose of weight [out, in]: float32 [rows, out]."""
    return _product(x.astype(weight.dtype), weight, (((1,), (1,)), ((), ())))


def _product(a: JaxArray, b: JaxArray, dimensions: _Dimensions) -> JaxArray:
    # HIGHEST: a GPU's or TPU's own choice for float32 are products of 10 or 8 bits of mantissa.
    return lax.dot_general(
        a, b, dimensions, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32
    )


def _rotate(heads: JaxArray, turn: JaxArray) -> JaxArray:
    """Turn pairs (2i, 2i + 1) of heads [rows, heads, head_dim]: RoPE as GGUF has it."""
    pairs = heads.reshape(*heads.shape[:-1], -1, 2)  # [rows, heads, head_dim / 2, 2]
    even, odd = pairs[..., 0], pairs[..., 1]  # [rows, heads, head_dim / 2] each
    cosine, sine = turn[0][:, None], turn[1][:, None]  # [rows, 1, head_dim / 2] each
    turned = jnp.stack((even * cosine - odd * sine, even * sine + odd * cosine), axis=-1)
    return turned.reshape(heads.shape)


def _written(segments: Segments, new: JaxArray, start: JaxArray, count: JaxArray) -> list[JaxArray]:
    """Return segments with rows of ``new`` [rows, n_kv_heads, head_dim] at ``start`` and after.

    The rows may reach over the end of one segment. In each, as many places as there are rows are
    written, near ``start``: those that no row belongs to keep what they have, so that padding
    leaves no trace.
    """
    rows, fresh = new.shape[0], new.transpose(1, 0, 2)  # [n_kv_heads, rows, head_dim]
    written, offset = [], 0
    for segment in segments:
        heads, size, head_dim = segment.shape
        first = jnp.clip(start - offset, 0, size - rows)
        source = offset + first + jnp.arange(rows) - start  # [rows]: which new row belongs there
        belongs = (source >= 0) & (source < count)  # [rows]
        old = lax.dynamic_slice(segment, (0, first, 0), (heads, rows, head_dim))
        moved = fresh[:, jnp.clip(source, 0, rows - 1)].astype(segment.dtype)
        part = jnp.where(belongs[None, :, None], moved, old)  # [n_kv_heads, rows, head_dim]
        written.append(lax.dynamic_update_slice(segment, part, (0, first, 0)))
        offset += size
    return written


def _attend(queries: JaxArray, keys: Segments, values: Segments, start: JaxArray) -> JaxArray:
    """Causal grouped-query attention of queries [rows, n_heads, head_dim], scaled already.

    Scores are made segment by segment, so that no keys or values are copied together.

    Returns:
        [rows, n_heads * head_dim]
    """
    rows, heads, head_dim = queries.shape
    kv_heads = keys[0].shape[0]
    group = heads // kv_heads
    # The query heads that share a KV head become the rows of one matrix.
    grouped = queries.reshape(rows, kv_heads, group, head_dim).transpose(1, 2, 0, 3)
    grouped = grouped.reshape(kv_heads, group * rows, head_dim)
    scores = jnp.concatenate(
        [
            _product(grouped, part.astype(jnp.float32), (((2,), (2,)), ((0,), (0,))))
            for part in keys
        ],
        axis=-1,
    )  # [kv_heads, group * rows, positions]
    sees = jnp.arange(scores.shape[-1])[None] <= start + jnp.arange(rows)[:, None]
    scores = scores.reshape(kv_heads, group, rows, -1)
    scores = jnp.where(sees, scores, -jnp.inf).reshape(kv_heads, group * rows, -1)
    odds = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed, offset = jnp.zeros(grouped.shape, jnp.float32), 0
    for part in values:
        seen = odds[..., offset : offset + part.shape[1]]  # [kv_heads, group * rows, size]
        mixed += _product(seen, part.astype(jnp.float32), (((2,), (1,)), ((0,), (0,))))
        offset += part.shape[1]
    mixed /= odds.sum(axis=-1, keepdims=True)  # [kv_heads, group * rows, head_dim]
    mixed = mixed.reshape(kv_heads, group, rows, head_dim).transpose(2, 0, 1, 3)
    return mixed.reshape(rows, heads * head_dim)
