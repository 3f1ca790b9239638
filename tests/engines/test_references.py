"""The two references agree on every file, so what an engine is compared with is true."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2pnode.engine.stored_model import open_stored
from p2pnode.text.stored_vocabulary import check_words
from tests.engines.needs import require_references

require_references()

from tests.engines.reference import (  # noqa: E402  after the skip
    FLOAT_CASES,
    Case,
    divergence,
    figures,
    libllama,
    transformers_logits,
)

ROWS = [(case, length) for case in FLOAT_CASES for length in case.lengths]
FOLLOWED = [
    (case, length)
    for case, length in ROWS
    if not case.recipe.libllama_until or length <= case.recipe.libllama_until
]
LONGEST = list(dict(FOLLOWED).items())
NOT_FOLLOWED = [row for row in ROWS if row not in FOLLOWED]
LOGITS_APART = {"gemma3": 1e-2}
"""The most that float32 logits may differ, else 3e-3: ggml reads GELU from a table of float16."""


@pytest.mark.parametrize(("case", "length"), FOLLOWED, ids=str)
def test_transformers_and_libllama_compute_the_same(
    case: Case, length: int, models: Path, record_property: Any
) -> None:
    ids = case.ids(length)
    expected, found = case.reference(ids), case.libllama(models, ids)
    measured = figures(expected, found)
    record_property("figures", str(measured))
    assert measured.apart < LOGITS_APART.get(case.recipe.architecture, 3e-3)
    assert measured.kl < 3e-6


@pytest.mark.parametrize("flash", [False, True], ids=["plain", "flash"])
@pytest.mark.parametrize(("case", "length"), LONGEST, ids=str)
def test_keys_and_values_in_float16_change_little(
    case: Case, length: int, flash: bool, models: Path, record_property: Any
) -> None:
    ids = case.ids(length)
    expected, found = case.reference(ids), case.libllama(models, ids, kv="f16", flash=flash)
    measured = figures(expected, found)
    record_property("figures", str(measured))
    experts = case.recipe.architecture == "qwen3moe"  # rounding picks another expert in some rows
    assert measured.kl < (1e-2 if experts else 1e-4)


@pytest.mark.parametrize(("case", "length"), NOT_FOLLOWED, ids=str)
def test_libllama_still_ignores_the_window_of_mistral(
    case: Case, length: int, models: Path
) -> None:
    ids = case.ids(length)
    expected, found = case.reference(ids), case.libllama(models, ids)
    inside = case.recipe.window
    assert divergence(expected[:inside], found[:inside]).max() < 3e-6
    assert divergence(expected[inside:], found[inside:]).mean() > 0.1


@pytest.mark.parametrize("case", FLOAT_CASES, ids=str)
def test_logits_are_neither_flat_nor_saturated(case: Case) -> None:
    logits = case.reference(case.ids(case.lengths[-1])).astype(np.float64)
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    odds /= odds.sum(axis=-1, keepdims=True)
    entropy = -(odds * np.log(np.maximum(odds, 1e-300))).sum(axis=-1).mean()
    assert 1.0 < entropy < 4.0  # nats; an even choice among all tokens would be 5.8
    assert len(set(logits.argmax(axis=-1).tolist())) > 10


@pytest.mark.parametrize("case", FLOAT_CASES, ids=str)
def test_states_after_the_layers_lead_to_the_logits(case: Case) -> None:
    import torch

    ids, model = case.ids(case.lengths[0]), case.model()
    layers = model.config.num_hidden_layers
    last, before = case.hidden(ids, layers), case.hidden(ids, layers - 1)
    with torch.no_grad():
        found = model.lm_head(model.model.norm(torch.from_numpy(last)[None]))[0].numpy()
        embedded = model.get_input_embeddings()(torch.tensor(ids)).numpy()
    np.testing.assert_allclose(found, case.reference(ids), atol=1e-4)
    np.testing.assert_array_equal(case.hidden(ids, 0), embedded)
    assert np.abs(last - before).max() > 0.1


@pytest.mark.parametrize("case", FLOAT_CASES, ids=str)
def test_our_own_readers_accept_the_files(case: Case, models: Path) -> None:
    with open_stored(case.path(models)) as model:
        check_words(model)


def test_a_file_is_the_same_every_time(tmp_path: Path) -> None:
    case = FLOAT_CASES[0]
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
    assert case.path(first).read_bytes() == case.path(second).read_bytes()


@pytest.mark.parametrize("case", FLOAT_CASES, ids=str)
def test_the_folder_is_the_same_model(case: Case, tmp_path: Path) -> None:
    import transformers

    read = transformers.AutoModelForCausalLM.from_pretrained(
        case.folder(tmp_path), attn_implementation="eager"
    )
    ids = case.ids(case.lengths[0])
    np.testing.assert_array_equal(transformers_logits(read, ids), case.reference(ids))


def test_batches_and_threads_are_the_callers(models: Path) -> None:
    case = FLOAT_CASES[0]
    ids = case.ids(100)
    whole = case.libllama(models, ids)
    cut = case.libllama(models, ids, cuts=(1, 50), threads=2)
    assert figures(whole, cut).kl < 1e-7


def test_what_llama_cpp_refuses_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    with pytest.raises(RuntimeError, match="refuses"):
        libllama().logits(broken, [3], n_ctx=256)
