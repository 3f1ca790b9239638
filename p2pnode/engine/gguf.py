"""What a GGUF file says about its model, and its weights as float32.

Quantised tensors are expanded by the ``gguf`` package, which knows every type and is kept up by
the format's authors. It is imported only when a tensor is read: it costs 0.18 s.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats, ModelInfo
from p2pnode.engine.gguf_file import GgufFile, TensorInfo
from p2pnode.engine.llama import LlamaConfig
from p2pnode.errors import ModelError
from p2pnode.wire.capability import space_hash32

ARCHITECTURES: Final = ("llama",)

Signature = Callable[[Path], str]
"""Gives a file's SHA-256 in hex; one that remembers spares reading the file again."""


def file_signature(path: Path) -> str:
    """Read the whole file and return its SHA-256 in hex."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error}") from error


def read_model_info(path: Path, signature: Signature = file_signature) -> ModelInfo:
    """Say what model a file holds.

    Raises:
        ModelError: It is truncated, of an unknown architecture, or quantised in an unknown way.
    """
    with GgufFile(path) as file:
        config = read_config(file)
        return model_info(
            config,
            name=_name(file),
            space_id=_space_id(file, config),
            data_sig=signature(path),
            eos_ids=_eos_ids(file),
        )


def model_info(
    config: LlamaConfig, *, name: str, space_id: str, data_sig: str, eos_ids: tuple[int, ...]
) -> ModelInfo:
    """Describe a llama-shaped model."""
    return ModelInfo(
        name=name,
        arch="llama",
        n_layers=config.n_layers,
        d_model=config.d_model,
        n_heads=config.n_heads,
        n_kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        context_length=config.context_length,
        vocab_size=config.vocab_size,
        eos_ids=eos_ids,
        space_id=space_id,
        data_sig=data_sig,
        space_hash32=space_hash32(space_id, "llama", data_sig),
        kv_bytes_per_token_layer=config.kv_bytes_per_token_layer,
    )


def read_config(file: GgufFile) -> LlamaConfig:
    """Read the model's shape, refusing every variation that would be computed wrongly."""
    arch = file.text("general.architecture")
    if arch not in ARCHITECTURES:
        raise ModelError(
            f"{file.path.name} is of the architecture {arch!r}, which this engine cannot run",
            hint=f"Use a model of one of these: {', '.join(ARCHITECTURES)}.",
        )
    _refuse_variations(file)
    n_layers = file.integer("llama.block_count")
    for index in range(n_layers):  # so the count is bounded by what is there
        find_tensor(file, f"blk.{index}.attn_norm.weight")
    heads = file.integer("llama.attention.head_count")
    d_model = file.integer("llama.embedding_length")
    head_dim = file.integer("llama.attention.key_length", d_model // max(heads, 1))
    if file.integer("llama.rope.dimension_count", head_dim) != head_dim:
        raise ModelError(f"{file.path.name} rotates a part of each head, which is not supported")
    return LlamaConfig(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=heads,
        n_kv_heads=file.integer("llama.attention.head_count_kv", heads),
        head_dim=head_dim,
        d_ff=file.integer("llama.feed_forward_length"),
        vocab_size=find_tensor(file, "token_embd.weight").shape[0],
        context_length=file.integer("llama.context_length"),
        rope_base=file.number("llama.rope.freq_base", 10_000.0),
        norm_eps=file.number("llama.attention.layer_norm_rms_epsilon"),
    )


def read_tensor(file: GgufFile, name: str, shape: tuple[int, ...]) -> Floats:
    """Read a tensor as float32.

    Raises:
        ModelError: It is missing or of another shape.
    """
    tensor = find_tensor(file, name)
    if tensor.shape != shape:
        raise ModelError(f"{file.path.name}: {name} has shape {tensor.shape}, expected {shape}")
    return dequantise(raw_rows(file, tensor), tensor).reshape(shape)


def raw_rows(file: GgufFile, tensor: TensorInfo) -> npt.NDArray[np.uint8]:
    """Return the tensor as stored: uint8 [rows, row_bytes]."""
    data = np.frombuffer(file.tensor_bytes(tensor), np.uint8)
    return data.reshape(tensor.rows, tensor.row_bytes)


def dequantise(rows: npt.NDArray[np.uint8], tensor: TensorInfo) -> Floats:
    """Expand stored rows [rows, row_bytes] to float32 [rows, width]."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(tensor.type.code)
    expanded: Floats = dequantize(rows, kind)  # [rows, width]
    return expanded


def find_tensor(file: GgufFile, name: str) -> TensorInfo:
    tensor = file.tensors.get(name)
    if tensor is None:
        raise ModelError(f"{file.path.name} has no tensor {name}")
    return tensor


def _refuse_variations(file: GgufFile) -> None:
    name = file.path.name
    if file.integer("llama.expert_count", 0):
        raise ModelError(f"{name} is a mixture of experts, which this engine cannot run")
    if (
        file.text("llama.rope.scaling.type", "none") != "none"
        or "rope_freqs.weight" in file.tensors
    ):
        raise ModelError(f"{name} scales its rotary embedding, which this engine does not support")
    for tensor in file.tensors:
        if tensor.endswith(".bias"):
            raise ModelError(f"{name} has biases ({tensor}), which this engine does not support")


def _name(file: GgufFile) -> str:
    parts = (file.text("general.basename", ""), file.text("general.size_label", ""))
    if all(parts):
        return _label("-".join(parts).lower())
    return _label(file.text("general.name", file.path.stem))


def _label(text: str) -> str:
    """Cut a name to what an ad can carry: 64 bytes, printable."""
    printable = "".join(letter for letter in text if letter.isprintable())
    return printable.encode()[:64].decode("utf-8", "ignore")


def _space_id(file: GgufFile, config: LlamaConfig) -> str:
    return f"{_slug(file.text('general.name', 'llama'))[:64]}-{config.n_layers}x{config.d_model}"


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _eos_ids(file: GgufFile) -> tuple[int, ...]:
    keys = ("eos_token_id", "eot_token_id", "eom_token_id")
    known = [f"tokenizer.ggml.{key}" for key in keys if f"tokenizer.ggml.{key}" in file.metadata]
    return tuple(sorted({file.integer(key) for key in known}))
