"""The ggml engine computes what transformers does, whole and in stages, on every architecture."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2pnode.engine.base import Engine
from p2pnode.engine.ggml.engine import GgmlEngine
from p2pnode.engine.ggml.finding import find_library
from p2pnode.engine.ggml.load import load_ggml
from p2pnode.engine.ggml.probe import Candidate
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import hash_file
from tests.engines.needs import require_references

require_references()

from tests.engines.reference import (  # noqa: E402  after the skip
    CASES,
    FLOAT_CASES,
    QUANTISED_CASES,
    Case,
    figures,
)

CHUNK = 64


@lru_cache(maxsize=1)
def library() -> Candidate:
    """Return the library that comes with p2pnode: llama.cpp's own runs in another process."""
    (candidate,) = [
        one for one in find_library(None).candidates if one.provider.name.startswith("libggml")
    ]
    return candidate


def engine(path: Path, layers: range | None = None) -> GgmlEngine:
    with GgufFile(path) as file:
        tree = hash_file(file)
        count = file.integer(f"{file.text('general.architecture')}.block_count")
    run = range(count) if layers is None else layers
    return load_ggml(library(), path, run, tree, kv_budget_bytes=1 << 28)


def answer(stages: Sequence[Engine], ids: Sequence[int], chunk: int = CHUNK) -> Any:
    """Return logits [tokens, vocab] of a chain of stages, fed in chunks."""
    for stage in stages:
        stage.reserve(b"s", stage.layers, len(ids))
    found = []
    for start in range(0, len(ids), chunk):
        x: Any = np.array(ids[start : start + chunk], np.int64)
        for stage in stages:
            (x,) = stage.forward(b"s", stage.layers, [x], start)
        found.append(stages[-1].logits(x))
    for stage in stages:
        stage.close(b"s")
    return np.concatenate(found)


@pytest.fixture(autouse=True)
def shut_what_was_loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    loaded: list[GgmlEngine] = []
    original = globals()["engine"]

    def keeping(*arguments: Any) -> GgmlEngine:
        loaded.append(original(*arguments))
        return loaded[-1]

    monkeypatch.setitem(globals(), "engine", keeping)
    yield
    for one in loaded:
        one.shut()


ROWS = [(case, length) for case in FLOAT_CASES for length in case.lengths]


@pytest.mark.parametrize(("case", "length"), ROWS, ids=str)
def test_float_models_answer_as_transformers_does(
    case: Case, length: int, models: Path, record_property: Any
) -> None:
    ids = case.ids(length)
    measured = figures(case.reference(ids), answer([engine(case.path(models))], ids))
    record_property("figures", str(measured))
    experts = case.recipe.architecture == "qwen3moe"  # rounding picks another expert in some rows
    assert measured.kl < (1e-2 if experts else 1e-4)


@pytest.mark.parametrize("case", QUANTISED_CASES, ids=str)
def test_quantised_models_answer_as_llama_cpp_does(
    case: Case, models: Path, record_property: Any
) -> None:
    ids = case.ids(case.lengths[-1])
    found = answer([engine(case.path(models))], ids)
    theirs = case.libllama(models, ids, kv="f16", flash=True)
    expected = case.reference(ids)
    ours, llama = figures(expected, found), figures(expected, theirs)
    record_property("figures", f"ours {ours}; llama.cpp's {llama}")
    assert ours.kl < 1.5 * llama.kl + 1e-4


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_split_computes_what_the_whole_does(case: Case, models: Path) -> None:
    path, ids = case.path(models), case.ids(case.lengths[-1])
    whole = engine(path)
    expected = answer([whole], ids)
    count = whole.info.n_layers
    for cut in {1, count // 2, count - 1}:
        stages = [engine(path, range(cut)), engine(path, range(cut, count))]
        np.testing.assert_array_equal(answer(stages, ids), expected)
