"""The few operations a transformer is made of, on numpy arrays.

Each is written for one row as much as for many: in decoding a call handles some hundreds of
numbers, so what counts is how many calls there are.
"""

import math

import numpy as np

from p2pnode.engine.base import Floats

BLOCK = 128
"""Query rows that attend at once. Bounds the scores to heads x 128 x context numbers; measured
here on 512 tokens, 64 to 256 are equally fast and no blocks at all is slower."""

# Added to the scores of a block against itself: a row sees no position after its own.
_CAUSAL = np.triu(np.full((BLOCK, BLOCK), -np.inf, np.float32), k=1)  # [block, block]


def rms_norm(x: Floats, weight: Floats, eps: float) -> Floats:
    """Scale each row of x [tokens, d] to root mean square 1, then by ``weight`` [d]."""
    if len(x) == 1:  # decoding: Python's floats take half the time of arrays of one number
        row = x[0]  # [d]
        scale = 1.0 / math.sqrt(float(row.dot(row)) / row.size + eps)
        normed = x * scale  # [1, d]
    else:
        square: Floats = np.vecdot(x, x)  # [tokens]
        square *= 1.0 / x.shape[1]
        square += eps
        normed = x / np.sqrt(square)[:, None]  # [tokens, d]
    normed *= weight
    return normed


def rotate(heads: Floats, rotation: np.ndarray[tuple[int, ...], np.dtype[np.complex64]]) -> None:
    """Turn pairs (2i, 2i + 1) of heads [tokens, heads, head_dim] in place: RoPE as GGUF has it.

    A pair is one complex number, and turning it is one multiplication by ``rotation``
    [tokens, head_dim / 2].
    """
    pairs = heads.view(np.complex64)  # [tokens, heads, head_dim / 2]
    pairs *= rotation[:, None, :]


def swiglu(gate_up: Floats) -> Floats:
    """Return silu(gate) * up of [tokens, 2 * d_ff], whose halves they are."""
    half = gate_up.shape[-1] // 2
    gate, up = gate_up[:, :half], gate_up[:, half:]  # [tokens, d_ff] each
    sigmoid = np.negative(gate)
    np.exp(sigmoid, out=sigmoid)
    sigmoid += 1.0
    np.divide(gate, sigmoid, out=sigmoid)
    sigmoid *= up
    return sigmoid  # [tokens, d_ff]


def attend(queries: Floats, keys: Floats, values: Floats) -> Floats:
    """Causal grouped-query attention of the last positions on all.

    Args:
        queries: [tokens, heads, head_dim], scaled already; of the last ``tokens`` positions.
        keys: [kv_heads, positions, head_dim]
        values: [kv_heads, positions, head_dim]

    Returns:
        [tokens, heads * head_dim]
    """
    tokens = queries.shape[0]
    if tokens <= BLOCK:
        return _attend_block(queries, keys, values)
    past = keys.shape[1] - tokens
    blocks = []
    for first in range(0, tokens, BLOCK):
        last = min(first + BLOCK, tokens)
        seen = past + last
        blocks.append(_attend_block(queries[first:last], keys[:, :seen], values[:, :seen]))
    return np.concatenate(blocks)  # [tokens, heads * head_dim]


def _attend_block(queries: Floats, keys: Floats, values: Floats) -> Floats:
    tokens, heads, head_dim = queries.shape
    kv_heads, positions, _ = keys.shape
    group = heads // kv_heads
    # The query heads that share a KV head become the rows of one matrix.
    grouped = queries.reshape(tokens, kv_heads, group, head_dim)
    grouped = grouped.transpose(1, 2, 0, 3)  # [kv_heads, group, tokens, head_dim]
    rows = grouped.reshape(kv_heads, group * tokens, head_dim)
    scores: Floats = np.matmul(
        rows, keys.transpose(0, 2, 1)
    )  # [kv_heads, group * tokens, positions]
    if tokens > 1:
        by_token = scores.reshape(kv_heads, group, tokens, positions)
        by_token[..., positions - tokens :] += _CAUSAL[:tokens, :tokens]
    _softmax(scores)
    mixed: Floats = np.matmul(scores, values)  # [kv_heads, group * tokens, head_dim]
    mixed = mixed.reshape(kv_heads, group, tokens, head_dim)
    mixed = mixed.transpose(2, 0, 1, 3)  # [tokens, kv_heads, group, head_dim]
    return mixed.reshape(tokens, heads * head_dim)


def _softmax(scores: Floats) -> None:
    """Make the last axis sum to 1, in place."""
    scores -= np.maximum.reduce(scores, axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores, axis=-1, keepdims=True)
