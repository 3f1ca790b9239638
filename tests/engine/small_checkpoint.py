"""A tiny checkpoint of Hugging Face's in a folder, without torch."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from p2pnode.engine.checkpoint import INDEX, SINGLE
from p2pnode.engine.checkpoint_config import read_checkpoint_config, tensor_shapes
from p2pnode.engine.model_paths import CONFIG

LLAMA: Mapping[str, Any] = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 10,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "eos_token_id": [2, 99],
    "torch_dtype": "float32",
}


PICTURES: dict[str, tuple[int, ...]] = {
    "vision_tower.vision_model.embeddings.patch_embedding.bias": (16,),
    "vision_tower.vision_model.encoder.layers.0.layer_norm1.weight": (16,),
    "multi_modal_projector.mm_input_projection_weight": (16, 32),
}
"""Some of the tensors that only pictures need, as they are published."""


def write_config(folder: Path, **changes: object) -> None:
    (folder / CONFIG).write_text(json.dumps({**LLAMA, **changes}))


def shapes(**changes: object) -> dict[str, tuple[int, ...]]:
    """Return all the tensors that the model has."""
    return shapes_of({**LLAMA, **changes})


def shapes_of(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return all the tensors that a model of this configuration has, of text alone."""
    model = read_checkpoint_config(dict(config), "tiny")
    layer, found = tensor_shapes(model)
    for index in range(model.config.n_layers):
        found |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    return found


def write_shard(path: Path, tensors: Mapping[str, tuple[int, ...]], dtype: str = "F32") -> None:
    size = {"F32": 4, "F16": 2, "BF16": 2}.get(dtype, 1)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for number, (name, shape) in enumerate(tensors.items()):
        stored = bytes([number % 251]) * (math.prod(shape) * size)
        offsets = [len(data), len(data) + len(stored)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        data += stored
    write_raw(path, json.dumps(header).encode(), data)


def write_raw(path: Path, header: bytes, data: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def write_checkpoint(folder: Path, **changes: object) -> Path:
    """Write a whole model in one file; return its path."""
    write_config(folder, **changes)
    write_shard(folder / SINGLE, shapes(**changes))
    return folder / SINGLE


def write_published(folder: Path, config: Mapping[str, Any]) -> None:
    """Write a model of this configuration, in one file, its numbers in two bytes."""
    (folder / CONFIG).write_text(json.dumps(config))
    tensors = shapes_of(config)
    if "text_config" in config:
        tensors = {f"language_model.{name}": shape for name, shape in tensors.items()} | PICTURES
    write_shard(folder / SINGLE, tensors, "BF16")


def write_sharded(folder: Path) -> dict[str, str]:
    """Write a model of two shards and their index; return which shard has which tensor."""
    write_config(folder)
    everything = shapes()
    first = {name: shape for name, shape in everything.items() if ".1." in name}
    parts = {"a.safetensors": first, "b.safetensors": everything.keys() - first.keys()}
    table = {name: shard for shard, names in parts.items() for name in names}
    for shard, names in parts.items():
        write_shard(folder / shard, {name: everything[name] for name in sorted(names)})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return table
