"""The JAX engine computes what transformers does, whole, in stages and after a stage of ggml."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2pnode.engine.base import Engine
from p2pnode.engine.ggml.finding import find_library
from p2pnode.engine.ggml.load import load_ggml
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import hash_file
from p2pnode.engine.jax.load import load_jax
from p2pnode.engine.numpy.engine import NumpyEngine
from p2pnode.errors import ModelError
from tests.engines.needs import require_references

require_references("jax")

from tests.engines.quantised import MIXTURE  # noqa: E402  after the skip
from tests.engines.recipes import LONG  # noqa: E402
from tests.engines.reference import FLOAT_CASES, Case, figures  # noqa: E402
from tests.engines.test_ggml import answer  # noqa: E402

BUDGET = 1 << 28
NOT_COMPUTED = {
    "llama-yarn": "stretched by yarn",
    "mistral-window": "a sliding window",
}
"""Llamas that are refused, by recipe, and what the refusal says."""

LLAMAS = [
    case
    for case in FLOAT_CASES
    if case.recipe.architecture == "llama" and case.recipe.name not in NOT_COMPUTED
]
QUANTISED = [Case(LLAMAS[0].recipe, kind) for kind in ("BF16", "Q4_1", "Q8_0", MIXTURE)]
"""A few: every type is expanded by the code that test_quantised.py compares with ggml's."""

NUMPYS = {"llama-grouped", "llama-plain-heads", "llama-one-kv-head", "llama-wide-heads"}
"""What numpy computes as well."""

REFUSED = [case for case in FLOAT_CASES if case not in LLAMAS]

FROM_NUMPY = 1e-5
"""How far float32 results may be from numpy's: root mean square, relative to theirs."""


def engine(path: Path, layers: range = range(4), dtype: str = "f32") -> Engine:
    with GgufFile(path) as file:
        tree = hash_file(file)
    return load_jax(path, layers, tree, device="cpu", dtype=dtype, kv_budget_bytes=BUDGET)


@cache
def whole(path: Path) -> Engine:
    return engine(path)


@cache
def expected_answer(case: Case, models: Path) -> Any:
    """Return the whole engine's logits [tokens, vocab] of the longest sequence."""
    return answer([whole(case.path(models))], case.ids(LONG))


@pytest.mark.parametrize("case", LLAMAS, ids=str)
def test_float_models_answer_as_transformers_does(
    case: Case, models: Path, record_property: Any
) -> None:
    ids, found = case.ids(LONG), expected_answer(case, models)
    measured = figures(case.reference(ids), found)
    record_property("figures", str(measured))
    assert measured.apart < 1e-3
    assert measured.kl < 1e-8


@pytest.mark.parametrize("case", QUANTISED, ids=str)
def test_quantised_models_answer_as_transformers_does_with_those_weights(
    case: Case, models: Path, record_property: Any
) -> None:
    measured = figures(case.reference(case.ids(LONG)), expected_answer(case, models))
    record_property("figures", str(measured))
    assert measured.kl < 1e-8


@pytest.mark.parametrize("case", [case for case in LLAMAS if case.recipe.name in NUMPYS], ids=str)
def test_results_are_as_near_to_numpys_as_is_said(
    case: Case, models: Path, record_property: Any
) -> None:
    reference = NumpyEngine.load(case.path(models), range(4))
    theirs = answer([reference], case.ids(LONG))
    distance = np.linalg.norm(expected_answer(case, models) - theirs) / np.linalg.norm(theirs)
    record_property("figures", f"from numpy {distance:.1e}")
    assert distance < FROM_NUMPY


@pytest.mark.parametrize("case", LLAMAS, ids=str)
def test_a_split_computes_what_the_whole_does(case: Case, models: Path) -> None:
    path, ids = case.path(models), case.ids(LONG)
    expected = expected_answer(case, models)
    for cut in range(1, 4):
        stages = [engine(path, range(cut)), engine(path, range(cut, 4))]
        np.testing.assert_array_equal(answer(stages, ids), expected)


@pytest.mark.parametrize("cut", [1, 3])
@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_a_chain_of_ggml_and_jax_answers_near_the_reference(
    cut: int, kind: str, models: Path, record_property: Any
) -> None:
    case = Case(LLAMAS[0].recipe, kind)
    path, ids = case.path(models), case.ids(LONG)
    with GgufFile(path) as file:
        tree = hash_file(file)
    library = find_library(None).chosen
    assert library is not None
    first = load_ggml(library, path, range(cut), tree, kv_budget_bytes=BUDGET)
    try:
        found = answer([first, engine(path, range(cut, 4))], ids)
    finally:
        first.shut()
    measured = figures(case.reference(ids), found)
    record_property("figures", str(measured))
    assert measured.kl < (1e-5 if kind == "F32" else 1e-2)
    assert measured.argmax > 0.95


def test_bfloat16_is_near(models: Path, record_property: Any) -> None:
    case = LLAMAS[0]
    path, ids = case.path(models), case.ids(100)
    half = engine(path, dtype="bf16")
    measured = figures(case.reference(ids), answer([half], ids))
    record_property("figures", str(measured))
    assert half.weight_bytes < 0.51 * whole(path).weight_bytes
    assert half.numerics.endswith("/bf16")
    assert measured.kl < 1e-3
    stages = [engine(path, range(2), "bf16"), engine(path, range(2, 4), "bf16")]
    np.testing.assert_array_equal(answer(stages, ids), answer([half], ids))


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_is_not_computed_is_refused_by_name(case: Case, models: Path) -> None:
    said = NOT_COMPUTED.get(case.recipe.name, f"the architecture {case.recipe.architecture}")
    with pytest.raises(ModelError, match=said) as caught:
        engine(case.path(models))
    assert "ggml" in caught.value.hint
