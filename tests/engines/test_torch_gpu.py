"""The torch engine on a GPU, where there is one: the same promises as on the CPU.

It needs torch and transformers alone, so that it runs on a machine that has no more::

    python -m pytest -c /dev/null --rootdir . tests/engines/test_torch_gpu.py
"""

import importlib.util
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2pnode.engine.base import Engine, SessionRows
from p2pnode.engine.checkpoint import Checkpoint
from p2pnode.engine.checkpoint_tree import hash_checkpoint
from p2pnode.engine.torch.finding import PACKAGES, find_place
from p2pnode.engine.torch.load import load_torch
from p2pnode.errors import CapacityError

if any(importlib.util.find_spec(name) is None for name in PACKAGES):
    pytest.skip(f"needs {', '.join(PACKAGES)}: make test-engines", allow_module_level=True)

DEVICE = os.environ.get("P2PNODE_TEST_DEVICE", "auto")  # "cpu" shows that the tests themselves work
if DEVICE == "auto" and find_place("auto", "auto").is_cpu:
    pytest.skip("torch finds no GPU here", allow_module_level=True)

import torch  # noqa: E402  after the skip

from tests.engines.checkpoints import build  # noqa: E402
from tests.engines.recipes import CONTEXT, LONG, RECIPES, VOCAB_SIZE  # noqa: E402

NAMES = ("llama-3-rope", "mistral-window", "qwen2", "qwen3-yarn", "gemma3-window-64", "phi4-mini")
KNOWN = {recipe.name: recipe for recipe in RECIPES if recipe.name in NAMES}
IDS = np.random.default_rng(5).integers(10, VOCAB_SIZE, LONG)


def folder_of(name: str, models: Path) -> Path:
    folder = models / f"gpu-{name}"
    if not folder.exists():
        build(KNOWN[name]).save_pretrained(folder)
    return folder


def engine(
    name: str, models: Path, layers: range | None = None, dtype: str = "bf16", device: str = DEVICE
) -> Any:
    folder = folder_of(name, models)
    with Checkpoint(folder) as checkpoint:
        tree, count = hash_checkpoint(checkpoint), checkpoint.model.config.n_layers
    run = range(count) if layers is None else layers
    return load_torch(folder, run, tree, device=device, dtype=dtype, kv_budget_bytes=1 << 30)


def answer(stages: list[Any], ids: Any, chunk: int = 64) -> Any:
    """Return the hidden states of a chain: a prompt in chunks, then ten tokens one by one."""
    cuts = [*range(0, len(ids) - 10, chunk), *range(len(ids) - 10, len(ids) + 1)]
    for stage in stages:
        stage.reserve(b"s", stage.layers, CONTEXT)
    found = []
    for start, end in pairwise(cuts):
        x = ids[start:end]
        for stage in stages:
            (x,) = stage.forward(b"s", stage.layers, [x], start)
        found.append(x)
    for stage in stages:
        stage.close(b"s")
    return np.concatenate(found)


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("name", NAMES)
def test_a_split_computes_what_the_whole_does(name: str, dtype: str, models: Path) -> None:
    whole = engine(name, models, None, dtype)
    expected = answer([whole], IDS)
    np.testing.assert_array_equal(answer([whole], IDS), expected)  # and so again
    count = whole.info.n_layers
    for cut in (1, count // 2, count - 1):
        stages = [engine(name, models, run, dtype) for run in (range(cut), range(cut, count))]
        np.testing.assert_array_equal(answer(stages, IDS), expected)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_near_the_cpu(name: str, models: Path) -> None:
    expected = answer([engine(name, models, None, "f32", "cpu")], IDS)
    for dtype, most in (("f32", 1e-4), ("f16", 1e-2), ("bf16", 5e-2)):
        found = answer([engine(name, models, None, dtype)], IDS)
        assert np.linalg.norm(found - expected) < most * np.linalg.norm(expected)


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
@pytest.mark.parametrize("name", NAMES)
def test_neighbours_room_and_the_past_change_no_bit(name: str, dtype: str, models: Path) -> None:
    one, prompt = engine(name, models, None, dtype), IDS[:150]
    (expected,) = one.forward(b"a", one.layers, [prompt], 0)
    one.reserve(b"b", one.layers, 400)  # below what LongRoPE calls long
    np.testing.assert_array_equal(one.forward(b"b", one.layers, [prompt], 0)[0], expected)
    (after,) = one.forward(b"a", one.layers, [IDS[150:153]], 150)
    parts = [SessionRows(b"b", IDS[150:153], 150)]
    np.testing.assert_array_equal(one.forward_many(one.layers, parts)[0], after)
    one.truncate(b"a", 150)
    one.truncate(b"b", 150)
    parts.append(SessionRows(b"a", IDS[150:153], 150))
    for rows in one.forward_many(one.layers, parts):
        np.testing.assert_array_equal(rows, after)
    block = one.export_kv(b"a", one.layers, range(150))
    one.import_kv(b"c", one.layers, 0, block)
    np.testing.assert_array_equal(one.forward(b"c", one.layers, [IDS[150:153]], 150)[0], after)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="its memory can be bounded on CUDA alone")
def test_too_little_memory_is_one_line_and_the_device_goes_on(models: Path) -> None:
    one = engine("qwen2", models)
    (expected,) = one.forward(b"s", one.layers, [IDS], 0)
    one.truncate(b"s", 0)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        with pytest.raises(CapacityError, match="has not enough memory to load"):
            engine("gemma3-window-64", models)
        with pytest.raises(CapacityError, match="has not enough memory to hold a session"):
            _reserve_many(one)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_array_equal(one.forward(b"s", one.layers, [IDS], 0)[0], expected)


def _reserve_many(one: Engine) -> None:
    for number in range(64):
        one.reserve(bytes([number]), one.layers, CONTEXT)
