"""Of a checkpoint that reads pictures the text part is read, and nothing of the pictures."""

import json
from pathlib import Path
from typing import Any

import pytest

from p2pnode.engine.checkpoint import INDEX, SINGLE, Checkpoint
from p2pnode.engine.checkpoint_config import read_checkpoint_config
from p2pnode.engine.checkpoint_tree import CheckpointTree, hash_checkpoint, write_note
from p2pnode.engine.model_paths import CONFIG
from p2pnode.errors import ModelError
from tests.engine.published_configs import PUBLISHED, small
from tests.engine.small_checkpoint import PICTURES, shapes_of, write_published, write_shard

FULL = small(PUBLISHED["gemma-3-12b-it, written anew"])
PREFIXES = {"published": "language_model.", "since transformers 4.52": "model.language_model."}


def named(tensor: str, prefix: str) -> str:
    is_inside = prefix.startswith("model.") and tensor.startswith("model.")
    return prefix + tensor.removeprefix("model.") if is_inside else prefix + tensor


def write_shards(folder: Path) -> dict[str, str]:
    """Write a shard of each layer, one of the ends and one of pictures; return their index."""
    (folder / CONFIG).write_text(json.dumps(FULL))
    parts: dict[str, dict[str, tuple[int, ...]]] = {"pictures": dict(PICTURES)}
    for name, shape in shapes_of(FULL).items():
        part = f"layer-{name.split('.')[2]}" if ".layers." in name else "ends"
        parts.setdefault(part, {})[f"language_model.{name}"] = shape
    for part, tensors in parts.items():
        write_shard(folder / f"{part}.safetensors", tensors)
    table = {name: f"{part}.safetensors" for part in parts for name in parts[part]}
    (folder / INDEX).write_text(json.dumps({"weight_map": table}))
    return table


def tree_of(folder: Path) -> CheckpointTree:
    with Checkpoint(folder) as checkpoint:
        return hash_checkpoint(checkpoint)


def test_its_settings_are_those_that_transformers_fills_in() -> None:
    said = read_checkpoint_config(dict(PUBLISHED["gemma-3-4b-it"]), "4b")
    text = {**FULL["text_config"], **PUBLISHED["gemma-3-4b-it"]["text_config"]}
    text |= {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
    text |= {"max_position_embeddings": 131072, "vocab_size": 262208, "query_pre_attn_scalar": 256}
    spelt = read_checkpoint_config({**FULL, "text_config": text}, "4b")
    assert (said.model_type, said.config) == ("gemma3_text", spelt.config)
    assert said.config.is_tied
    assert said.settings == {**spelt.settings, "tie_word_embeddings": True}
    assert (said.eos_ids, said.bos_id) == ((1, 106), 2)


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_either_way_of_naming_its_tensors_is_read(prefix: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps(FULL))
    pictures = {prefix.partition("language")[0] + name: PICTURES[name] for name in PICTURES}
    tensors = {named(name, prefix): shape for name, shape in shapes_of(FULL).items()}
    write_shard(tmp_path / SINGLE, tensors | pictures)
    with Checkpoint(tmp_path) as checkpoint:
        assert checkpoint.tensors.keys() == shapes_of(FULL).keys()
        assert checkpoint.find("model.norm.weight")[1].name == named("model.norm.weight", prefix)
    assert tree_of(tmp_path).tensors.keys() == tensors.keys()


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("language_model.model.layers.9.mlp.up_proj.weight", "which nobody here computes"),
        ("audio_tower.x", "which nobody here computes"),
        ("model.language_model.norm.weight", "has model.norm.weight twice"),
    ],
)
def test_tensors_that_nobody_knows_are_refused_still(odd: str, said: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps(FULL))
    shapes = shapes_of(FULL)
    tensors = {f"language_model.{name}": shape for name, shape in shapes.items()}
    write_shard(tmp_path / SINGLE, {**tensors, odd: shapes["model.norm.weight"]})
    with pytest.raises(ModelError, match=said):
        Checkpoint(tmp_path)


def test_names_with_pictures_are_not_known_in_a_model_of_text(tmp_path: Path) -> None:
    write_published(tmp_path, FULL)
    (tmp_path / CONFIG).write_text(json.dumps({**FULL["text_config"], "model_type": "gemma3_text"}))
    with pytest.raises(ModelError, match="which nobody here computes"):
        Checkpoint(tmp_path)


def test_no_stage_needs_a_shard_of_pictures_and_the_root_is_over_it(tmp_path: Path) -> None:
    write_shards(tmp_path)
    whole = tree_of(tmp_path)
    assert "pictures.safetensors" in whole.shards
    assert not {*whole.tensors} & {*PICTURES}
    write_note(tmp_path, {shard: whole.shards[shard].hex() for shard in whole.shards})
    (tmp_path / "pictures.safetensors").unlink()
    (tmp_path / "layer-3.safetensors").unlink()
    assert tree_of(tmp_path).root == whole.root
    with Checkpoint(tmp_path) as checkpoint:
        assert checkpoint.missing(None) == ["layer-3.safetensors"]
        assert checkpoint.missing(range(4, 7)) == []
        assert checkpoint.missing(range(3, 7)) == ["layer-3.safetensors"]
        with pytest.raises(ModelError, match=r"its shard layer-3\.safetensors is missing"):
            checkpoint.find("model.layers.3.mlp.up_proj.weight")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no text part": ({"text_config": None}, "does not say text_config"),
    "a list for one": ({"text_config": []}, "does not say text_config"),
    "an empty one": ({"text_config": {}}, "does not say hidden_size"),
    "another kind of text": ({"text_config": {"model_type": "llama"}}, "text part of another type"),
    "two minds": ({"tie_word_embeddings": False}, "contradicts itself: tie_word_embeddings"),
    "quantised": ({"quantization_config": {"quant_method": "gptq"}}, "quantised .gptq"),
}
INSIDE: dict[str, tuple[dict[str, Any], str]] = {
    "quantised text": ({"quantization_config": {"quant_method": "awq"}}, "quantised .awq"),
    "both ways": ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    "capped": ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    "a text for a number": ({"head_dim": "16"}, "no usable head_dim"),
    "a broken rope": ({"rope_scaling": {"type": "linear", "factor": 0}}, "by factor = 0"),
    "a long rope": ({"rope_scaling": {"type": "longrope"}}, "scaled as 'longrope'"),
}


@pytest.mark.parametrize("what", [*REFUSED, *INSIDE])
def test_what_is_not_computed_is_refused_by_name(what: str) -> None:
    changes, said = REFUSED.get(what) or INSIDE[what]
    body = {**FULL, **changes}
    if what in INSIDE:
        body = {**FULL, "text_config": {**FULL["text_config"], **changes}}
    with pytest.raises(ModelError, match=said):
        read_checkpoint_config(body, "tiny")
