"""BERT in numpy says what its formulas say, whatever texts are computed beside each other."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.engine.bert.encoder import Bert, embed, normalised
from p2pnode.engine.bert.gelu import gelu
from p2pnode.engine.bert.load import load_bert
from p2pnode.engine.safetensors_file import SafetensorsFile
from p2pnode.errors import ModelError
from tests.engine.bert.small_bert import SMALL, Tensors, plainly, small_tensors, write_small_bert

TENSORS = small_tensors()


def load(path: Path, tensors: Tensors) -> Bert:
    write_small_bert(path, tensors)
    with SafetensorsFile(path) as file:
        return load_bert(file, SMALL)


@pytest.fixture(name="bert", scope="module")
def _bert(tmp_path_factory: pytest.TempPathFactory) -> Bert:
    return load(tmp_path_factory.mktemp("bert") / "small.safetensors", TENSORS)


@pytest.mark.parametrize("ids", [[3], [1, 2], [29, 0, 7, 7, 3], [*range(16)]])
def test_a_vector_is_what_the_formulas_say(bert: Bert, ids: list[int]) -> None:
    [vector] = embed(bert, [ids])
    assert vector == pytest.approx(plainly(TENSORS, SMALL, ids), abs=2e-6)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


texts = st.lists(st.lists(st.integers(0, 29), min_size=1, max_size=16), min_size=1, max_size=9)


@settings(max_examples=50)
@given(texts)
def test_texts_do_not_look_at_each_other(bert: Bert, texts: list[list[int]]) -> None:
    together = embed(bert, texts)
    assert together.dtype == np.float32
    alone = np.concatenate([embed(bert, [text]) for text in texts])
    assert together == pytest.approx(alone, abs=1e-5)


def test_order_counts(bert: Bert) -> None:
    one, other = embed(bert, [[1, 2, 3], [3, 2, 1]])
    assert np.abs(one - other).max() > 0.01


def test_gelu_is_as_defined() -> None:
    given = np.concatenate([np.linspace(-8, 8, 100_001), [-1e30, 1e30, 0.0, -0.0]])
    x = given.astype(np.float32)[None]
    exact = np.array([value * 0.5 * math.erfc(-value / math.sqrt(2)) for value in x[0].tolist()])
    gelu(x)
    assert (np.abs(x[0] - exact) <= 3e-7 * np.maximum(1, np.abs(exact))).all()


def test_a_vector_of_zeros_stays_one() -> None:
    found = normalised(np.array([[0, 0], [3, 4]], np.float32))
    assert found.tolist() == [[0, 0], pytest.approx([0.6, 0.8])]


@pytest.mark.parametrize("name", TENSORS)
def test_a_file_that_lacks_a_weight_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    rest = {other: tensor for other, tensor in TENSORS.items() if other != name}
    with pytest.raises(ModelError, match=f"{name} is missing"):
        load(tmp_path / "small.safetensors", rest)


def test_a_weight_of_another_shape_or_that_is_no_number_is_refused(tmp_path: Path) -> None:
    name = "encoder.layer.1.output.dense.weight"
    with pytest.raises(ModelError, match=r"F32 \[3\], not F32 \[12, 20\]"):
        load(tmp_path / "a", TENSORS | {name: np.zeros(3, np.float32)})
    with pytest.raises(ModelError, match="numbers that are none"):
        load(tmp_path / "b", TENSORS | {name: TENSORS[name] * np.float32(np.nan)})
