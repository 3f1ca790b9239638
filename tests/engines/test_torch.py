"""The torch engine computes what transformers computes, whole and as stages, beside ggml too."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2pnode.engine.base import Engine, SessionRows
from p2pnode.engine.gguf import read_config
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import HashTree, hash_file
from p2pnode.engine.torch.load import load_torch
from p2pnode.errors import CapacityError, EngineError, ModelError, UsageError
from tests.engines.needs import require_references

require_references()

import torch  # noqa: E402  after the skip

from tests.engines.reference import CASES, FLOAT_CASES, Case, figures  # noqa: E402
from tests.engines.test_ggml import answer, engine as ggml_engine  # noqa: E402

AMPLE = 1 << 28
KNOWN = tuple(case for case in FLOAT_CASES if case.recipe.architecture != "qwen3moe")
QUANTISED = tuple(
    case for case in CASES if case.kind != "F32" and case.recipe.architecture != "qwen3moe"
)
LAST = {case.recipe.architecture: case for case in KNOWN}
"""One case of each architecture."""


def hashed(path: Path) -> tuple[HashTree, int]:
    with GgufFile(path) as file:
        return hash_file(file), read_config(file).n_layers


def engine(path: Path, layers: range | None = None, dtype: str = "f32") -> Any:
    tree, count = hashed(path)
    return load_torch(
        path,
        range(count) if layers is None else layers,
        tree,
        device="cpu",
        dtype=dtype,
        threads=1,
        kv_budget_bytes=AMPLE,
    )


def in_one_call(one: Engine, ids: Sequence[int]) -> Any:
    """Return the hidden states [tokens, width] of a session computed in one batch."""
    one.reserve(b"s", one.layers, len(ids))
    (hidden,) = one.forward(b"s", one.layers, [np.array(ids, np.int64)], 0)
    one.close(b"s")
    return hidden


ROWS = [(case, length) for case in KNOWN for length in case.lengths]


@pytest.mark.parametrize(("case", "length"), ROWS, ids=str)
def test_gguf_models_answer_as_transformers_does(
    case: Case, length: int, models: Path, record_property: Any
) -> None:
    ids = case.ids(length)
    measured = figures(case.reference(ids), answer([engine(case.path(models))], ids))
    record_property("figures", str(measured))
    assert measured.kl < 1e-9


@pytest.mark.parametrize("case", QUANTISED, ids=str)
def test_quantised_models_are_expanded_exactly(
    case: Case, models: Path, record_property: Any
) -> None:
    ids = case.ids(case.lengths[0])
    measured = figures(case.reference(ids), answer([engine(case.path(models))], ids))
    record_property("figures", str(measured))
    assert measured.kl < 1e-9


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("case", KNOWN, ids=str)
def test_a_split_computes_what_the_whole_does(case: Case, dtype: str, models: Path) -> None:
    path, ids = case.path(models), case.ids(case.lengths[-1])
    whole = engine(path, None, dtype)
    expected = answer([whole], ids)
    count = whole.info.n_layers
    cuts = range(1, count) if LAST[case.recipe.architecture] is case else {count // 2}
    for cut in cuts:
        stages = [engine(path, run, dtype) for run in (range(cut), range(cut, count))]
        np.testing.assert_array_equal(answer(stages, ids), expected)


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("case", LAST.values(), ids=str)
def test_sessions_do_not_depend_on_their_neighbours(case: Case, dtype: str, models: Path) -> None:
    one = engine(case.path(models), None, dtype)
    prompts = {bytes([n]): np.array(case.ids(90 + 7 * n)[n:], np.int64) for n in range(4)}
    steps = [np.array(case.ids(3 + n), np.int64) for n in range(4)]
    alone, beside = [], []
    for key, prompt in prompts.items():
        one.reserve(key, one.layers, 200)
        one.forward(key, one.layers, [prompt], 0)
        alone += one.forward(key, one.layers, [steps[key[0]]], len(prompt))
        one.truncate(key, len(prompt))
    parts = [SessionRows(key, steps[key[0]], len(prompts[key])) for key in prompts]
    beside = one.forward_many(one.layers, parts)
    for ours, theirs in zip(beside, alone, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("case", LAST.values(), ids=str)
def test_short_numbers_stay_near(case: Case, dtype: str, models: Path) -> None:
    ids = case.ids(case.lengths[0])
    found = answer([engine(case.path(models), None, dtype)], ids)
    assert figures(case.reference(ids), found).kl < (3e-2 if dtype == "bf16" else 1e-3)


@pytest.mark.parametrize("is_ggml_first", [True, False])
@pytest.mark.parametrize("case", LAST.values(), ids=str)
def test_a_chain_of_ggml_and_torch_answers(
    case: Case, is_ggml_first: bool, models: Path, record_property: Any
) -> None:
    path, ids = case.path(models), case.ids(case.lengths[-1])
    count = hashed(path)[1]
    makers = [ggml_engine, engine] if is_ggml_first else [engine, ggml_engine]
    cut = count // 2
    stages = [make(path, run) for make, run in zip(makers, (range(cut), range(cut, count)))]  # noqa: B905
    try:
        assert stages[0].info.space_hash32 == stages[1].info.space_hash32
        measured = figures(case.reference(ids), answer(stages, ids))
    finally:
        for stage in stages:
            stage.shut()
    record_property("figures", str(measured))
    assert measured.kl < 1e-4


def test_keys_and_values_travel_in_every_type(models: Path) -> None:
    case = LAST["gemma3"]
    ids = np.array(case.ids(80), np.int64)
    for dtype, size in (("f32", 4), ("bf16", 2), ("f16", 2)):
        one, other = (engine(case.path(models), None, dtype) for _ in range(2))
        assert one.numerics == other.numerics
        assert one.numerics.endswith(f"/{dtype}/sdpa")
        width = one.info.n_kv_heads * one.info.head_dim
        assert one.kv_bytes_per_token_layer == 2 * width * size
        one.forward(b"s", one.layers, [ids[:70]], 0)
        block = one.export_kv(b"s", one.layers, range(70))
        other.import_kv(b"s", one.layers, 0, block)
        for ours, theirs in zip(
            one.forward(b"s", one.layers, [ids[70:]], 70),
            other.forward(b"s", one.layers, [ids[70:]], 70),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_weight_bytes_are_those_of_the_parts(models: Path) -> None:
    case = LAST["llama"]
    whole, short = engine(case.path(models)), engine(case.path(models), None, "bf16")
    assert whole.weight_bytes == sum(p.nbytes for p in case.model().parameters())
    assert 2 * short.weight_bytes == whole.weight_bytes
    count = whole.info.n_layers
    parts = [engine(case.path(models), run) for run in (range(1), range(1, count))]
    assert sum(part.weight_bytes for part in parts) == whole.weight_bytes


def test_others_are_refused_by_name(models: Path) -> None:
    (case,) = (case for case in FLOAT_CASES if case.recipe.architecture == "qwen3moe")
    with pytest.raises(ModelError, match="is a qwen3moe, which the torch engine does not compute"):
        engine(case.path(models))
    path = LAST["llama"].path(models)
    with pytest.raises(ModelError, match="has layers 0:4, not 2:5"):
        engine(path, range(2, 5))
    tree, _ = hashed(path)
    with pytest.raises(EngineError, match="torch finds no device"):
        load_torch(path, range(1), tree, device="cuda:9", kv_budget_bytes=AMPLE)
    for device in ("rocm", "cpu:x", "vulkan:0", "auto:3", "cuda:-1", "cuda:0:1", "CPU", "", ":"):
        with pytest.raises(UsageError, match="knows no device"):
            load_torch(path, range(1), tree, device=device, kv_budget_bytes=AMPLE)
    with pytest.raises(UsageError, match="computes in no type 'int4'"):
        load_torch(path, range(1), tree, device="cpu", dtype="int4", kv_budget_bytes=AMPLE)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), CapacityError, "memory"),
        (RuntimeError("MPS backend out of memory (MPS allocated"), CapacityError, "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), CapacityError, "memory"),
        (MemoryError(), CapacityError, "memory"),
        (RuntimeError("CUDA error: unspecified launch failure\nmore"), EngineError, "launch"),
        (RuntimeError("CUDA driver shutting down"), EngineError, "cpu cannot compute a step"),
    ],
)
def test_a_device_that_fails_says_so_in_one_line(
    error: Exception,
    kind: type[Exception],
    text: str,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = LAST["llama"]
    one = engine(case.path(models))
    ids = np.array(case.ids(20), np.int64)
    expected = one.forward(b"t", one.layers, [ids], 0)[0]
    one.truncate(b"t", 0)

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("p2pnode.engine.torch.slot.TorchSlot.write", fail)
        with pytest.raises(kind, match=text) as caught:
            one.forward(b"s", one.layers, [ids], 0)
    assert "\n" not in str(caught.value)
    assert one.length(b"s", 0) == 0
    one.close(b"s")
    np.testing.assert_array_equal(one.forward(b"t", one.layers, [ids], 0)[0], expected)
    with monkeypatch.context() as patch:
        patch.setattr("p2pnode.engine.torch.build.fill", fail)
        with pytest.raises(kind):
            engine(case.path(models))
