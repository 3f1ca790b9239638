"""The root of a checkpoint: which changes it sees, and what it needs."""

import hashlib
import json
from pathlib import Path

import pytest

from p2pnode.engine.checkpoint import SINGLE, Checkpoint
from p2pnode.engine.checkpoint_tree import CheckpointTree, hash_checkpoint, write_note
from p2pnode.engine.model_paths import SHARDS_NOTE
from p2pnode.errors import ModelChangedError, ModelError
from tests.engine.small_checkpoint import write_checkpoint, write_config, write_sharded


def tree_of(folder: Path) -> CheckpointTree:
    with Checkpoint(folder) as checkpoint:
        return hash_checkpoint(checkpoint)


def test_the_root_is_what_its_page_says(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path)
    said = {
        "hidden_act": "silu", "hidden_size": 8, "intermediate_size": 16,
        "max_position_embeddings": 64, "model_type": "llama", "num_attention_heads": 2,
        "num_hidden_layers": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-05, "vocab_size": 10,
    }  # fmt: skip
    metadata = hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).digest()
    shard = hashlib.sha256(path.read_bytes()).digest()
    root = hashlib.sha256(b"p2pnode safetensors 1\0" + metadata + shard).hexdigest()
    assert tree_of(tmp_path).root == root


def test_what_changes_the_arithmetic_changes_the_root(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path)
    roots = {tree_of(tmp_path).root}
    write_config(tmp_path, eos_token_id=3, torch_dtype="bfloat16", max_position_embeddings=64.0)
    with pytest.raises(ModelError, match="no whole number"):
        tree_of(tmp_path)
    write_config(tmp_path, eos_token_id=3, torch_dtype="bfloat16", use_cache=False)
    roots.add(tree_of(tmp_path).root)
    assert len(roots) == 1  # those have no effect
    write_config(tmp_path, rope_theta=10_000)
    roots.add(tree_of(tmp_path).root)
    write_config(tmp_path, rope_theta=10_000.0)
    roots.add(tree_of(tmp_path).root)
    assert len(roots) == 2
    write_config(tmp_path, rms_norm_eps=1e-6)
    roots.add(tree_of(tmp_path).root)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    roots.add(tree_of(tmp_path).root)
    assert len(roots) == 4


def test_a_part_of_the_shards_has_the_root_of_the_whole(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    heard: list[float] = []
    with Checkpoint(tmp_path) as checkpoint:
        whole = hash_checkpoint(checkpoint, heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == 1
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no shard a\.safetensors here"):
        tree_of(tmp_path)
    write_note(tmp_path, {name: digest.hex() for name, digest in whole.shards.items()})
    part = tree_of(tmp_path)
    assert part.root == whole.root
    assert part.tensors.items() < whole.tensors.items()


def test_a_shard_that_is_not_what_the_hub_says_is_refused(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    write_note(tmp_path, {"b.safetensors": "00" * 32})
    with pytest.raises(ModelChangedError, match=r"b\.safetensors is not what the hub says"):
        tree_of(tmp_path)
    for broken in ("[]", '{"b.safetensors": 7}', "{"):
        (tmp_path / SHARDS_NOTE).write_text(broken)
        with pytest.raises(ModelError, match=SHARDS_NOTE):
            tree_of(tmp_path)


def test_tensors_are_checked_as_they_are_read(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    tree = tree_of(tmp_path)
    with Checkpoint(tmp_path) as checkpoint:
        file, stored = checkpoint.find("model.norm.weight")
        data = file.read(stored)
        tree.check(stored, data)
        data[0] ^= 1
        with pytest.raises(ModelChangedError, match=r"model\.norm\.weight"):
            tree.check(stored, data)
        tree.check_metadata(checkpoint)
    write_config(tmp_path, rope_theta=5.0)
    with Checkpoint(tmp_path) as checkpoint, pytest.raises(ModelChangedError, match="hashed"):
        tree.check_metadata(checkpoint)
    assert [*tree.shards] == [SINGLE]
