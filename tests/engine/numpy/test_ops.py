"""Each operation against the same written out by hand, in float64."""

import numpy as np
import pytest

from p2pnode.engine.base import Floats
from p2pnode.engine.numpy import ops


def draw(*shape: int) -> Floats:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def test_rms_norm() -> None:
    x, weight = draw(5, 16), draw(16)
    for ours, row in zip(ops.rms_norm(x, weight, 1e-5), x.astype(np.float64), strict=True):
        expected = row / np.sqrt(np.mean(row**2) + 1e-5) * weight
        np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_swiglu() -> None:
    x = draw(3, 20).astype(np.float64)
    gate, up = x[:, :10], x[:, 10:]
    expected = gate / (1 + np.exp(-gate)) * up
    np.testing.assert_allclose(ops.swiglu(x.astype(np.float32)), expected, rtol=1e-5)


def test_swiglu_of_the_very_large_is_not_nan() -> None:
    with np.errstate(over="ignore"):
        x = np.array([[-1000.0, 1000.0, 2.0, 2.0]], np.float32)
        np.testing.assert_array_equal(ops.swiglu(x), [[-0.0, 2000.0]])


def test_rotate_turns_neighbouring_pairs() -> None:
    heads = draw(2, 3, 8)  # [tokens, heads, head_dim]
    angles = draw(2, 4)  # [tokens, pairs]
    turned = heads.copy()
    ops.rotate(turned, np.exp(1j * angles).astype(np.complex64))
    for token in range(2):
        for pair in range(4):
            cos, sin = np.cos(angles[token, pair]), np.sin(angles[token, pair])
            even, odd = heads[token, :, 2 * pair], heads[token, :, 2 * pair + 1]
            both = turned[token, :, 2 * pair], turned[token, :, 2 * pair + 1]
            np.testing.assert_allclose(both[0], even * cos - odd * sin, atol=1e-6)
            np.testing.assert_allclose(both[1], even * sin + odd * cos, atol=1e-6)


@pytest.mark.parametrize(("tokens", "past"), [(1, 0), (1, 9), (7, 0), (7, 5), (300, 3), (256, 0)])
def test_attention_sees_the_past_and_nothing_else(tokens: int, past: int) -> None:
    heads, kv_heads, head_dim = 4, 2, 8
    queries = draw(tokens, heads, head_dim)
    keys, values = draw(kv_heads, past + tokens, head_dim), -draw(kv_heads, past + tokens, head_dim)
    ours = ops.attend(queries, keys, values).reshape(tokens, heads, head_dim)
    for token in {0, tokens // 2, tokens - 1}:
        for head in range(heads):
            seen = past + token + 1
            key, value = keys[head // 2, :seen], values[head // 2, :seen]
            weight = np.exp(key.astype(np.float64) @ queries[token, head])
            expected = weight @ value / weight.sum()
            np.testing.assert_allclose(ours[token, head], expected, rtol=1e-4, atol=1e-5)
