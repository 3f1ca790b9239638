"""What a chain and its repair rest on: the same rows in the same batches give the same bits."""

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.engine.base import Array, Engine
from p2pnode.engine.numpy.engine import NumpyEngine
from p2pnode.engine.random_model import random_model
from p2pnode.engine.registry import load_engine
from p2pnode.engine.sampling.draw import sample
from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import CapacityError, LocalProtocolError, ModelError
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


def batches_of(rows: Array, sizes: list[int]) -> list[Array]:
    return [*np.split(rows, np.cumsum(sizes)[:-1])]


@given(cuts=st.sets(st.integers(1, 5)), seed=st.integers(0, 3))
def test_a_split_is_bit_equal_to_the_whole(cuts: set[int], seed: int) -> None:
    whole = random_model(seed).forward(b"s", ALL, [PROMPT], 0)[0]
    state: Array = PROMPT
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 6], strict=True):
        part = random_model(seed, layers=range(start, stop))
        state = part.forward(b"s", part.layers, [state], 0)[0]
    np.testing.assert_array_equal(state, whole)


@settings(max_examples=30)
@given(sizes=st.lists(st.sampled_from([1, 1, 2, 7, 40, 128, 150]), min_size=1, max_size=6))
def test_batches_at_once_are_bit_equal_to_one_by_one(sizes: list[int]) -> None:
    rows = np.random.default_rng(sum(sizes)).integers(0, 256, sum(sizes))
    engine = random_model(1, context_length=1024)
    batches = batches_of(rows, sizes)
    together = engine.forward(b"together", ALL, batches, 0)
    start = 0
    for batch, expected in zip(batches, together, strict=True):
        np.testing.assert_array_equal(engine.forward(b"s", ALL, [batch], start)[0], expected)
        start += len(batch)
    assert engine.length(b"s", 0) == engine.length(b"together", 0) == sum(sizes)


@settings(max_examples=20)
@given(others=st.lists(st.integers(1, 40), max_size=5))
def test_sessions_beside_change_nothing(others: list[int]) -> None:
    engine = random_model(2)
    alone = generate(engine, b"alone", PROMPT, 12)
    hidden = engine.forward(b"s", ALL, [PROMPT], 0)[0]
    tokens: list[int] = []
    for step in range(12):
        for number, size in enumerate(others):
            key = bytes([number])
            noise = np.full(size, (7 * step + number) % 256, np.int64)
            if engine.length(key, 0) + size < engine.info.context_length:
                engine.forward(key, ALL, [noise], engine.length(key, 0))
        tokens.append(sample(engine.logits(hidden[-1:])[0], Sampling(), 0))
        row = np.array(tokens[-1:], np.int64)
        hidden = engine.forward(b"s", ALL, [row], len(PROMPT) + step)[0]
    assert tokens == alone


def test_prefill_and_decoding_agree_but_for_rounding() -> None:
    engine = random_model(3)
    whole = engine.forward(b"whole", ALL, [PROMPT], 0)[0]
    rows = engine.forward(b"rows", ALL, batches_of(PROMPT, [1] * len(PROMPT)), 0)
    np.testing.assert_allclose(np.concatenate(rows), whole, atol=1e-5)


def test_a_session_may_run_two_separate_runs_of_one_engine() -> None:
    engine = random_model(4)
    expected = engine.forward(b"whole", ALL, [PROMPT], 0)[0]
    state = engine.forward(b"s", range(2), [PROMPT], 0)
    middle = random_model(4, layers=range(2, 4)).forward(b"s", range(2, 4), state, 0)
    state = engine.forward(b"s", range(4, 6), middle, 0)
    np.testing.assert_array_equal(state[0], expected)


def test_inputs_are_left_alone() -> None:
    engine = random_model(5, layers=range(2, 4))
    given_rows = np.ones((3, 32), np.float32)
    engine.forward(b"s", range(2, 4), [given_rows], 0)
    assert (given_rows == 1).all()


def test_a_random_model_answers_with_variety() -> None:
    assert len(set(generate(random_model(6), b"s", PROMPT, 40))) > 10


def test_a_random_model_is_made_at_once_and_shares_its_weights() -> None:
    random_model(7)
    start = time.perf_counter()
    first = random_model(7)
    assert time.perf_counter() - start < 0.05
    assert first.info == random_model(7, layers=range(2, 3)).info
    assert first.info.space_hash32 != random_model(8).info.space_hash32


@pytest.mark.parametrize("start", [-1, 1, 9])
def test_rows_start_where_the_cache_ends(start: int) -> None:
    with pytest.raises(LocalProtocolError, match="cache at 0"):
        random_model(1).forward(b"s", ALL, [PROMPT], start)


@pytest.mark.parametrize(
    "rows",
    [
        np.array([256]),
        np.array([-1]),
        np.empty(0, np.int64),
        np.ones((2, 31), np.float32),
        np.ones(3, np.float32),
        np.ones((1, 1, 32), np.float32),
    ],
)
def test_rows_that_cannot_enter_are_refused(rows: Array) -> None:
    engine = random_model(1)
    with pytest.raises(LocalProtocolError):
        engine.forward(b"s", ALL, [PROMPT[:1], rows], 0)
    assert engine.length(b"s", 0) == 0
    assert engine.kv_bytes() == 0


@pytest.mark.parametrize("layers", [range(5), range(2, 7), range(4, 4), range(2, 6, 2)])
def test_layers_that_are_not_held_are_refused(layers: range) -> None:
    engine = random_model(1, layers=range(2, 6))
    with pytest.raises(LocalProtocolError):
        engine.forward(b"s", layers, [np.ones((1, 32), np.float32)], 0)


def test_tokens_enter_at_layer_0_alone() -> None:
    with pytest.raises(LocalProtocolError):
        random_model(1).forward(b"s", range(1, 6), [PROMPT], 0)


def test_logits_need_the_last_layer() -> None:
    with pytest.raises(LocalProtocolError):
        random_model(1, layers=range(5)).logits(np.ones((1, 32), np.float32))


def test_a_full_budget_refuses_and_changes_nothing() -> None:
    per_position = 6 * random_model(1).info.kv_bytes_per_token_layer
    engine = random_model(1, kv_budget_bytes=20 * per_position)
    before = engine.forward(b"s", ALL, [PROMPT], 0)[0]
    held = engine.kv_bytes()
    with pytest.raises(CapacityError, match="KV cache"):
        engine.forward(b"s", ALL, [np.zeros(20, np.int64)], len(PROMPT))
    assert (engine.length(b"s", 0), engine.kv_bytes()) == (len(PROMPT), held)
    with pytest.raises(CapacityError):
        engine.forward(b"t", ALL, [np.zeros(18, np.int64)], 0)
    engine.close(b"s")
    assert engine.kv_bytes() == 0
    np.testing.assert_array_equal(engine.forward(b"t", ALL, [PROMPT], 0)[0], before)


def test_a_full_context_refuses() -> None:
    engine = random_model(1, context_length=16)
    with pytest.raises(CapacityError, match="context is full"):
        engine.forward(b"s", ALL, [np.zeros(17, np.int64)], 0)


def test_calibration_measures_and_leaves_nothing() -> None:
    engine = random_model(1)
    cost = engine.measure()
    assert cost.decode_layer_us > 0
    assert cost.prefill_layer_ns > 0
    assert cost.head_us > 0
    assert engine.kv_bytes() == 0
    assert random_model(1, layers=range(2)).measure().head_us == 0


@pytest.mark.parametrize("kind", ["F32", "Q4_1"])
@pytest.mark.parametrize("tied", [False, True])
def test_parts_of_a_file_agree_with_the_whole(kind: str, tied: bool, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, tensor_type=kind, tied=tied)
    heard: list[float] = []
    whole = load_engine(path, range(4), progress=heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    first, last = load_engine(path, range(1)), load_engine(path, range(1, 4))
    expected = whole.forward(b"s", range(4), [PROMPT], 0)[0]
    state = last.forward(b"s", range(1, 4), first.forward(b"s", range(1), [PROMPT], 0), 0)[0]
    np.testing.assert_array_equal(state, expected)
    np.testing.assert_array_equal(last.logits(state[-1:]), whole.logits(expected[-1:]))


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
    with pytest.raises(ModelError, match="not a GGUF file"):
        load_engine(tmp_path / "model.safetensors", range(1))
