"""Checkpoints of Hugging Face's: what is opened, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from p2pnode.engine.checkpoint import INDEX, SINGLE, Checkpoint
from p2pnode.engine.model_paths import CONFIG
from p2pnode.errors import ModelError
from tests.engine.small_checkpoint import (
    LLAMA,
    shapes,
    write_checkpoint,
    write_config,
    write_shard,
    write_sharded,
)


def test_a_checkpoint_says_what_it_is(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    with Checkpoint(tmp_path) as checkpoint:
        info = checkpoint.info("ab" * 32)
        assert (info.arch, info.n_layers, info.head_dim, info.eos_ids) == ("llama", 2, 4, (2,))
        assert checkpoint.find("lm_head.weight")[1].shape == (10, 8)


def test_shards_are_found_by_their_tensors(tmp_path: Path) -> None:
    table = write_sharded(tmp_path)
    with Checkpoint(tmp_path) as checkpoint:
        for name, shard in table.items():
            assert checkpoint.find(name)[0].path.name == shard
    (tmp_path / "a.safetensors").unlink()
    with Checkpoint(tmp_path) as checkpoint:
        checkpoint.find("model.layers.0.input_layernorm.weight")
        with pytest.raises(ModelError, match=r"its shard a\.safetensors is missing"):
            checkpoint.find("model.layers.1.input_layernorm.weight")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "remote code": (
        {"model_type": "mine", "auto_map": {"AutoModel": "x.py"}},
        "needs code of its own",
    ),
    "gptq": ({"quantization_config": {"quant_method": "gptq"}}, "quantised .gptq"),
    "awq": ({"quantization_config": {"quant_method": "awq"}}, "quantised .awq"),
    "fp8": ({"quantization_config": {"quant_method": "fp8"}}, "quantised .fp8"),
    "an odd quantisation": ({"quantization_config": [1]}, "quantised"),
    "another architecture": ({"model_type": "mamba"}, "is a mamba"),
    "gemma3 with pictures": ({"model_type": "gemma3"}, "does not say text_config"),
    "no architecture": ({"model_type": None}, "config.json of .* names no architecture"),
    "a number for one": ({"model_type": 7}, "is a 7"),
    "capped scores": ({"attn_logit_softcapping": 30.0}, "attn_logit_softcapping"),
    "capped logits": ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    "both ways": ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    "not causal": ({"is_causal": False, "auto_map": {}}, "is_causal"),
    "dynamic rope": ({"rope_scaling": {"type": "dynamic", "factor": 2}}, "scaled as 'dynamic'"),
    "pictures' rope": ({"rope_scaling": {"rope_type": "mrope"}}, "scaled as 'mrope'"),
    "an endless rope": ({"rope_scaling": {"type": "linear", "factor": 1e400}}, "no usable JSON"),
    "a rope of words": ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor = '2'"),
    "long factors": ({"rope_scaling": {"type": "longrope", "a": [1] * 9999}}, "rotary"),
    "a part turned": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    "another activation": ({"hidden_act": "relu"}, "hidden_act = relu"),
    "a text for a number": ({"hidden_size": "8"}, "no usable hidden_size"),
    "a flag for a number": ({"hidden_size": True}, "no usable hidden_size"),
    "a broken number": ({"hidden_size": 8.5}, "no whole number for hidden_size"),
    "no layers": ({"num_hidden_layers": 0}, "n_layers 0"),
    "endless layers": ({"num_hidden_layers": 10**9}, "layers"),
    "a missing number": ({"vocab_size": None}, "does not say vocab_size"),
    "odd layer types": ({"layer_types": ["chunked_attention"] * 2}, "no usable layer_types"),
    "too few types": ({"layer_types": ["full_attention"]}, "not as many types"),
    "heads that do not fit": ({"num_key_value_heads": 3}, "heads do not fit"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_computed_is_refused_by_name(what: str, tmp_path: Path) -> None:
    changes, said = REFUSED[what]
    write_checkpoint(tmp_path)
    write_config(tmp_path, **changes)
    with pytest.raises(ModelError, match=said) as caught:
        Checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "x.pth", "y.ckpt", "pytorch_model.bin.index.json"]
)
def test_pickles_are_refused_by_name(name: str, tmp_path: Path) -> None:
    write_config(tmp_path)
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(ModelError, match="only safetensors and GGUF are read: pickles run code"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("shard", "said"),
    [
        ("pytorch_model-00001-of-00002.bin", "pickles run code"),
        ("../x.safetensors", "in the same folder"),
        ("/etc/x.safetensors", "in the same folder"),
        ("sub/x.safetensors", "in the same folder"),
        ("..\\x.safetensors", "in the same folder"),
        (".safetensors", "in the same folder"),
        ("x.txt", "in the same folder"),
        ("x\0.safetensors", "names no file"),
        (7, "names no file"),
    ],
)
def test_an_index_names_files_in_its_folder_alone(shard: object, said: str, tmp_path: Path) -> None:
    write_config(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"lm_head.weight": shard}}))
    with pytest.raises(ModelError, match=said):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("body", ["[]", "{}", '{"weight_map": []}', "{", '{"weight_map": {}}'])
def test_an_index_of_nothing_is_refused(body: str, tmp_path: Path) -> None:
    write_config(tmp_path)
    (tmp_path / INDEX).write_text(body)
    with pytest.raises(ModelError, match=r"index\.json"):
        Checkpoint(tmp_path)


def test_shapes_and_names_must_be_those_of_the_configuration(tmp_path: Path) -> None:
    write_config(tmp_path)
    good = shapes()
    name = "model.layers.1.mlp.up_proj.weight"
    for tensors, said in (
        ({**good, name: (8, 16)}, r"has shape \(8, 16\), its config.json expects \(16, 8\)"),
        ({key: good[key] for key in good if key != name}, f"has no tensor {name}"),
        ({**good, "model.layers.2.mlp.up_proj.weight": (1,)}, "has a tensor"),
        ({**good, "model.layers.0.self_attn.q_proj.bias": (8,)}, "has a tensor"),
    ):
        write_shard(tmp_path / SINGLE, tensors)
        with pytest.raises(ModelError, match=said):
            Checkpoint(tmp_path)
    write_shard(tmp_path / SINGLE, good, "F8_E4M3")
    with pytest.raises(ModelError, match="is stored as F8_E4M3"):
        Checkpoint(tmp_path)
    write_shard(tmp_path / SINGLE, {**good, "model.layers.0.self_attn.rotary_emb.inv_freq": (2,)})
    with Checkpoint(tmp_path) as checkpoint:
        assert len(checkpoint.tensors) == len(good)


def test_a_tied_head_is_the_embedding_whatever_the_file_has(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)  # with lm_head.weight
    write_config(tmp_path, tie_word_embeddings=True)
    with Checkpoint(tmp_path) as checkpoint:
        assert "lm_head.weight" not in checkpoint.tensors


def test_a_tensor_in_another_shard_than_the_index_says_is_refused(tmp_path: Path) -> None:
    table = write_sharded(tmp_path)
    table["lm_head.weight"] = "a.safetensors"
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": table}))
    with pytest.raises(ModelError, match=r"lm_head\.weight is in b\.safetensors"):
        Checkpoint(tmp_path)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no file .*config\.json"):
        Checkpoint(tmp_path)
    with pytest.raises(ModelError, match="no folder"):
        Checkpoint(tmp_path / "nowhere")
    write_config(tmp_path)
    with pytest.raises(ModelError, match=r"holds no model\.safetensors"):
        Checkpoint(tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps({**LLAMA, "junk": "x" * 2**20}))
    with pytest.raises(ModelError, match="larger than 1 MiB"):
        Checkpoint(tmp_path)
    (tmp_path / CONFIG).write_text("[" * 100_000)
    with pytest.raises(ModelError, match="nested too deeply"):
        Checkpoint(tmp_path)
