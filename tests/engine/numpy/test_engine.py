"""What is numpy's own: the arithmetic written out by hand, random models, and what is no model.

What every engine promises is tested in tests/engine/conformance.
"""

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from p2pnode.engine.base import Array, Engine
from p2pnode.engine.numpy.engine import NumpyEngine
from p2pnode.engine.random_model import random_model
from p2pnode.engine.registry import load_engine
from p2pnode.engine.sampling.draw import sample
from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import ModelError
from p2pnode.testing.tiny_gguf import write_tiny_gguf

ALL = range(6)
PROMPT = np.array([5, 200, 17, 3, 90, 41, 41, 250], np.int64)


def generate(engine: Engine, session: bytes, prompt: Array, count: int) -> list[int]:
    """Decode greedily, one token a call."""
    hidden = engine.forward(session, engine.layers, [prompt], 0)[0]
    tokens: list[int] = []
    for position in range(len(prompt), len(prompt) + count):
        tokens.append(sample(engine.logits(hidden[-1:])[0], Sampling(), position))
        row = np.array(tokens[-1:], np.int64)
        hidden = engine.forward(session, engine.layers, [row], position)[0]
    return tokens


@given(cuts=st.sets(st.integers(1, 5)), seed=st.integers(0, 3))
def test_a_split_is_bit_equal_to_the_whole(cuts: set[int], seed: int) -> None:
    whole = random_model(seed).forward(b"s", ALL, [PROMPT], 0)[0]
    state: Array = PROMPT
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 6], strict=True):
        part = random_model(seed, layers=range(start, stop))
        state = part.forward(b"s", part.layers, [state], 0)[0]
    np.testing.assert_array_equal(state, whole)


def test_a_random_model_answers_with_variety() -> None:
    assert len(set(generate(random_model(6), b"s", PROMPT, 40))) > 10


def test_a_random_model_is_made_at_once_and_shares_its_weights() -> None:
    random_model(7)
    start = time.perf_counter()
    first = random_model(7)
    assert time.perf_counter() - start < 0.05
    assert first.info == random_model(7, layers=range(2, 3)).info
    assert first.info.space_hash32 != random_model(8).info.space_hash32


def test_loading_says_how_far_it_is(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    heard: list[float] = []
    load_engine(path, range(4), progress=heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == 1.0


def test_an_engine_agrees_with_llama_written_out_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, tensor_type="F16", n_layers=2)
    engine = NumpyEngine.load(path, range(2))
    hidden = engine.forward(b"s", range(2), [PROMPT], 0)[0]
    expected = llama_by_hand(path, PROMPT)
    np.testing.assert_allclose(engine.logits(hidden[-1:])[0], expected[-1], rtol=1e-4, atol=1e-4)


def llama_by_hand(path: Path, tokens: Array) -> Array:
    """Compute the logits with loops, in float64, from gguf's own reading of the file."""
    import gguf

    weights = {
        tensor.name.removesuffix(".weight"): gguf.quants.dequantize(
            tensor.data, tensor.tensor_type
        ).astype(np.float64)
        for tensor in gguf.GGUFReader(path).tensors
    }

    def norm(x: Array, weight: Array) -> Array:
        scaled: Array = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight
        return scaled

    def turn(heads: Array) -> Array:
        turned = heads.copy()
        for position in range(len(heads)):
            for pair in range(8):
                angle = position * 10_000 ** (-2 * pair / 16)
                even, odd = heads[position, :, 2 * pair], heads[position, :, 2 * pair + 1]
                turned[position, :, 2 * pair] = even * np.cos(angle) - odd * np.sin(angle)
                turned[position, :, 2 * pair + 1] = even * np.sin(angle) + odd * np.cos(angle)
        return turned

    x = weights["token_embd"][tokens]
    for index in range(2):
        layer = {
            name.removeprefix(f"blk.{index}."): weight
            for name, weight in weights.items()
            if name.startswith(f"blk.{index}.")
        }
        normed = norm(x, layer["attn_norm"])
        queries = turn((normed @ layer["attn_q"].T).reshape(-1, 4, 16))
        keys = turn((normed @ layer["attn_k"].T).reshape(-1, 2, 16))
        values = (normed @ layer["attn_v"].T).reshape(-1, 2, 16)
        mixed = np.zeros_like(queries)
        for row in range(len(tokens)):
            for head in range(4):
                scores = keys[: row + 1, head // 2] @ queries[row, head] / 4
                odds = np.exp(scores - scores.max())
                mixed[row, head] = odds @ values[: row + 1, head // 2] / odds.sum()
        x = x + mixed.reshape(len(tokens), -1) @ layer["attn_output"].T
        normed = norm(x, layer["ffn_norm"])
        gate, up = normed @ layer["ffn_gate"].T, normed @ layer["ffn_up"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ layer["ffn_down"].T
    logits: Array = norm(x, weights["output_norm"]) @ weights["output"].T
    return logits


@pytest.mark.parametrize("layers", [range(5), range(-1, 2), range(2, 2), range(0, 4, 2)])
def test_a_file_has_no_other_layers(layers: range, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    with pytest.raises(ModelError, match="layers 0:4"):
        load_engine(path, layers)


def test_other_files_are_not_models(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    with pytest.raises(ModelError, match="there is no file"):
        load_engine(path, range(1))
    path.write_bytes(b"no model" * 100)
    with pytest.raises(ModelError, match="not a GGUF file"):
        load_engine(path, range(1))
