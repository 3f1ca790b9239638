"""The real model against what transformers computes: tokens exactly, states closely."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2pnode.engine.base import Array
from p2pnode.engine.blas import limit_blas_threads
from p2pnode.engine.numpy.engine import NumpyEngine
from p2pnode.engine.sampling.draw import sample
from p2pnode.engine.sampling.options import Sampling
from p2pnode.node.model_cache import pull
from p2pnode.text.tokenizer import Tokenizer

pytestmark = pytest.mark.e2e

REFERENCE = Path(__file__).parent.parent / "reference"
CASES: list[dict[str, Any]] = json.loads((REFERENCE / "smollm2-135m.json").read_text())["cases"]
ALL = range(30)


@pytest.fixture(scope="module")
def path() -> Path:
    return pull("smollm2-135m")


@pytest.fixture(scope="module")
def engine(path: Path) -> NumpyEngine:
    limit_blas_threads(1)
    return NumpyEngine.load(path, ALL)


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.from_model(path)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"][:20])
def test_tokens_are_exactly_those_of_transformers(
    case: dict[str, Any], engine: NumpyEngine
) -> None:
    expected: list[int] = case["greedy_ids"]
    prompt = np.array(case["prompt_ids"])
    logits = engine.logits(engine.forward(b"s", ALL, [prompt], 0)[0][-1:])[0]
    first = case["first_logits"]
    np.testing.assert_allclose(logits[first["ids"]], first["values"], atol=1e-3)
    tokens = [sample(logits, Sampling(), len(prompt))]
    while len(tokens) < len(expected):
        row, position = np.array(tokens[-1:]), len(prompt) + len(tokens) - 1
        logits = engine.logits(engine.forward(b"s", ALL, [row], position)[0][-1:])[0]
        tokens.append(sample(logits, Sampling(), position + 1))
    engine.close(b"s")
    assert tokens == expected


def test_hidden_states_are_close_in_parts_and_equal_whole(engine: NumpyEngine) -> None:
    reference = np.load(REFERENCE / "smollm2-135m-hidden.npz")
    state: Array = reference["ids"].astype(np.int64)
    whole = engine.forward(b"whole", ALL, [state], 0)[0]
    for layers in (range(10), range(10, 20), range(20, 30)):
        state = engine.forward(b"parts", layers, [state], 0)[0]
        expected = reference[f"after_layer_{layers[-1]}"]  # [rows, d_model]
        error = np.linalg.norm(state[reference["rows"]] - expected, axis=1)
        assert (error / np.linalg.norm(expected, axis=1)).max() < 1e-3
    np.testing.assert_array_equal(state, whole)
    engine.close(b"whole")
    engine.close(b"parts")


def test_a_replay_in_the_first_batching_is_bit_equal(engine: NumpyEngine) -> None:
    rows = np.array(CASES[0]["prompt_ids"] + CASES[0]["greedy_ids"])
    prompt = len(CASES[0]["prompt_ids"])
    batches: list[Array] = [rows[:20], rows[20:prompt], *np.split(rows[prompt:], 8)]
    replayed = engine.forward(b"replay", ALL, batches, 0)
    start = 0
    for batch, expected in zip(batches, replayed, strict=True):
        np.testing.assert_array_equal(engine.forward(b"s", ALL, [batch], start)[0], expected)
        start += len(batch)
    engine.close(b"replay")
    engine.close(b"s")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"][:20])
def test_the_tokenizer_is_that_of_transformers(case: dict[str, Any], tokenizer: Tokenizer) -> None:
    text = tokenizer.chat([{"role": "user", "content": case["prompt"]}])
    assert text == case["chat_text"]
    assert tokenizer.encode(text) == case["prompt_ids"]
    assert tokenizer.decode(case["greedy_ids"], control=True) == case["text"]
