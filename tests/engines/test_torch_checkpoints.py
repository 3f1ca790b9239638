"""Checkpoints of Hugging Face's in the torch engine: transformers' own numbers, bit for bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2pnode.engine.checkpoint import INDEX, Checkpoint
from p2pnode.engine.checkpoint_tree import CheckpointTree, hash_checkpoint, write_note
from p2pnode.engine.torch.load import load_torch
from p2pnode.errors import ModelChangedError, ModelError
from tests.engines.needs import require_references

require_references()

import torch  # noqa: E402  after the skip

from tests.engines.reference import Case, hidden_states  # noqa: E402
from tests.engines.test_ggml import answer  # noqa: E402
from tests.engines.test_torch import AMPLE, KNOWN, LAST, in_one_call  # noqa: E402


def saved(case: Case, models: Path, *, shard: str = "50GB", dtype: Any = torch.float32) -> Path:
    """Return the folder of the case's model as transformers writes it."""
    folder = models / f"{case}-{shard}-{str(dtype).rpartition('.')[2]}"
    if not folder.exists():
        model = case.model().to(dtype)
        model.save_pretrained(folder, max_shard_size=shard)
        case.model().float()
    return folder


def hashed(folder: Path) -> CheckpointTree:
    with Checkpoint(folder) as checkpoint:
        return hash_checkpoint(checkpoint)


def engine(folder: Path, layers: range | None = None, dtype: str = "f32") -> Any:
    with Checkpoint(folder) as checkpoint:
        tree = hash_checkpoint(checkpoint)
        count = checkpoint.model.config.n_layers
    run = range(count) if layers is None else layers
    return load_torch(
        folder, run, tree, device="cpu", dtype=dtype, threads=1, kv_budget_bytes=AMPLE
    )


def reference(case: Case, dtype: Any = torch.float32) -> Any:
    """Return transformers' model with the attention that we use."""
    model = case.model().to(dtype)
    model.set_attn_implementation("sdpa")
    return model


@pytest.mark.parametrize("case", KNOWN, ids=str)
def test_the_whole_is_transformers_bit_for_bit(case: Case, models: Path) -> None:
    folder = saved(case, models)
    model = reference(case)
    try:
        one = engine(folder)
        for length in case.lengths:
            ids = case.ids(length)
            expected = hidden_states(model, ids, len(one.layers))
            hidden = in_one_call(one, ids)
            assert np.abs(hidden - expected).max() == 0
            with torch.no_grad():
                row = model.lm_head(model.model.norm(torch.from_numpy(expected[None, -1:])))
            assert np.abs(one.logits(hidden[-1:]) - row[0].numpy()).max() == 0
    finally:
        model.set_attn_implementation("eager")


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("case", LAST.values(), ids=str)
def test_a_split_computes_what_the_whole_does(case: Case, dtype: str, models: Path) -> None:
    folder, ids = saved(case, models, shard="1MB"), case.ids(case.lengths[-1])
    assert (folder / INDEX).exists()
    whole = engine(folder, None, dtype)
    expected = answer([whole], ids)
    count = whole.info.n_layers
    for cut in range(1, count):
        stages = [engine(folder, run, dtype) for run in (range(cut), range(cut, count))]
        np.testing.assert_array_equal(answer(stages, ids), expected)


def test_a_checkpoint_and_a_gguf_are_two_spaces(models: Path) -> None:
    case = LAST["qwen3"]
    folder = saved(case, models)
    info = engine(folder).info
    assert info.data_sig == hashed(folder).root
    assert info.data_sig != hashed(saved(case, models, dtype=torch.bfloat16)).root
    assert (info.arch, info.n_layers, info.eos_ids) == ("qwen3", 4, (0,))


def test_a_stage_needs_the_shards_of_its_layers_alone(models: Path, tmp_path: Path) -> None:
    case = LAST["llama"]
    folder = saved(case, models, shard="1MB")
    tree = hashed(folder)
    for one in folder.iterdir():
        (tmp_path / one.name).write_bytes(one.read_bytes())
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    needed = {shard for name, shard in weight_map.items() if ".layers.1." in name}
    assert needed < {*weight_map.values()}
    for shard in {*weight_map.values()} - needed:
        (tmp_path / shard).unlink()
    with pytest.raises(ModelError, match="has no shard"):
        hashed(tmp_path)
    write_note(tmp_path, {shard: tree.shards[shard].hex() for shard in tree.shards})
    assert hashed(tmp_path).root == tree.root
    middle, ours = engine(folder, range(1, 2)), engine(tmp_path, range(1, 2))
    rows = np.random.default_rng(0).standard_normal((9, 256)).astype(np.float32)
    for one, other in zip(
        middle.forward(b"s", range(1, 2), [rows], 0),
        ours.forward(b"s", range(1, 2), [rows], 0),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ModelError, match=r"its shard .* is missing"):
        engine(tmp_path, range(1))


def test_a_tensor_that_changed_is_not_served(models: Path, tmp_path: Path) -> None:
    case = LAST["qwen2"]
    folder = saved(case, models)
    for one in folder.iterdir():
        (tmp_path / one.name).write_bytes(one.read_bytes())
    tree = hashed(tmp_path)
    path = tmp_path / "model.safetensors"
    with Checkpoint(tmp_path) as checkpoint:
        _, stored = checkpoint.find("model.layers.2.mlp.up_proj.weight")
    data = bytearray(path.read_bytes())
    data[stored.start + 5] ^= 1
    path.write_bytes(data)
    load_torch(tmp_path, range(2), tree, device="cpu", kv_budget_bytes=AMPLE)
    with pytest.raises(ModelChangedError, match=r"model.layers.2.mlp.up_proj.weight"):
        load_torch(tmp_path, range(2, 4), tree, device="cpu", kv_budget_bytes=AMPLE)
    said = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(said | {"rms_norm_eps": 1e-3}))
    with pytest.raises(ModelChangedError, match="are not those that were hashed"):
        load_torch(tmp_path, range(2), tree, device="cpu", kv_budget_bytes=AMPLE)
