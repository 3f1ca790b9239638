"""What makes each model special changes its answers enough for a comparison to notice.

Each row writes a file that is wrong in one thing, and libllama then computes something else: a
comparison that stays below the bounds of the other tests proves that this thing is done right.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.engines.needs import require_references

require_references()

from tests.engines.checkpoints import build  # noqa: E402  after the skip
from tests.engines.gguf_files import write_gguf  # noqa: E402
from tests.engines.recipes import LONG, RECIPES, SHORT  # noqa: E402
from tests.engines.reference import Case, figures, libllama  # noqa: E402

BY_NAME = {recipe.name: recipe for recipe in RECIPES}
PLAIN = {"rope_type": "default"}

WRONG_ROPE: list[tuple[str, int, Mapping[str, Any]]] = [
    ("llama-grouped", LONG, {"rope_theta": 20_000.0}),
    ("llama-linear", SHORT, PLAIN),
    ("llama-3-rope", SHORT, PLAIN),
    ("llama-yarn", SHORT, PLAIN),
    ("llama-yarn", SHORT, {"rope_type": "linear"}),
    ("qwen2", LONG, {"rope_theta": 20_000.0}),
    ("qwen3-yarn", SHORT, PLAIN),
    ("gemma3-linear", LONG, PLAIN),
    ("phi3-longrope", SHORT, {"short_factor": [1.0] * 32}),
    ("phi3-longrope", LONG, {"long_factor": [1.0] * 32}),
    ("phi4-mini", LONG, {"rope_theta": 20_000.0}),
]
WRONG_WINDOW: list[tuple[str, int, Mapping[str, Any]]] = [
    ("gemma3", LONG, {"window": 256}),
    ("gemma3", SHORT, {"window": 0}),
    ("gemma3-window-64", LONG, {"window": 65}),
    ("gemma3-pattern", LONG, {"pattern": 0}),
]


@pytest.mark.parametrize(("name", "length", "wrong"), WRONG_ROPE)
def test_rope_shows(
    name: str, length: int, wrong: Mapping[str, Any], tmp_path: Path, record_property: Any
) -> None:
    recipe = BY_NAME[name]
    model = build(recipe)
    rope = dict(model.config.rope_parameters)
    if "full_attention" in rope:
        rope["full_attention"] = {**rope["full_attention"], **wrong}
    else:
        rope.update(wrong)
    model.config.rope_parameters = rope
    write_gguf(tmp_path / "wrong.gguf", recipe, model, {})
    _expect_another_answer(Case(recipe), length, tmp_path / "wrong.gguf", record_property)


@pytest.mark.parametrize(("name", "length", "wrong"), WRONG_WINDOW)
def test_the_window_shows(
    name: str, length: int, wrong: Mapping[str, Any], tmp_path: Path, record_property: Any
) -> None:
    recipe = BY_NAME[name]
    other = dataclasses.replace(recipe, **wrong)
    write_gguf(tmp_path / "wrong.gguf", other, build(recipe), {})
    _expect_another_answer(Case(recipe), length, tmp_path / "wrong.gguf", record_property)


def _expect_another_answer(case: Case, length: int, path: Path, record_property: Any) -> None:
    ids = case.ids(length)
    found = libllama().logits(path, ids, n_ctx=case.n_ctx(length))
    measured = figures(case.reference(ids), found)
    record_property("figures", str(measured))
    assert measured.kl > 0.02  # above what int8 activations and float16 keys may change
