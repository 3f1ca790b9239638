"""Loads what a run of layers needs from a GGUF file, and nothing else."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats
from p2pnode.engine.embedding import Embedding
from p2pnode.engine.gguf import find_tensor, raw_rows, read_tensor
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.model_config import ModelConfig, RopeKind
from p2pnode.engine.numpy.llama import LlamaHead, LlamaLayer
from p2pnode.errors import ModelError

Progress: TypeAlias = Callable[[float], None]

TokenIds: TypeAlias = npt.NDArray[np.int64]

_EMBEDDING: Final = "token_embd.weight"
_HEAD: Final = "output.weight"
_MATRICES: Final = (
    "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down",
)  # fmt: skip
_HUGE_PAGE: Final = 2 * 2**20  # bytes: that of x86-64, and of arm64 with small pages of 4 KiB


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Consecutive layers, and the model's ends where these layers include them.

    Attributes:
        layers: Which layers.
        blocks: One for each.
        embed: Turns ids [tokens] into hidden states [tokens, d_model]; with layer 0.
        head: With the last layer.
    """

    layers: range
    blocks: tuple[LlamaLayer, ...]
    embed: Callable[[TokenIds], Floats] | None
    head: LlamaHead | None

    @property
    def bytes(self) -> int:
        """Memory that they take, but for the embedding's."""
        parts = (*self.blocks, *(() if self.head is None else (self.head,)))
        arrays = (getattr(part, field.name) for part in parts for field in fields(part))
        return sum(array.nbytes for array in arrays)


def read_weights(file: GgufFile, config: ModelConfig, layers: range, progress: Progress) -> Weights:
    """Read ``layers``; ``progress`` hears which part from 0 to 1 is done.

    Raises:
        ModelError: The file has no such layers, or they lack a tensor.
    """
    if lacking := what_numpy_lacks(file, config):
        raise ModelError(
            f"{file.path.name} has {lacking}, which the numpy engine does not compute",
            hint="Use the ggml engine: p2pnode doctor says what it lacks on this machine.",
        )
    if not (layers and layers.step == 1 and 0 <= layers.start < layers.stop <= config.n_layers):
        raise ModelError(
            f"{file.path.name} has layers 0:{config.n_layers}, not {layers.start}:{layers.stop}"
        )
    last = layers.stop == config.n_layers
    # A tied head has about as many numbers as this many layers; it counts in the progress.
    head_share = config.vocab_size // (4 * config.d_ff + 4 * config.d_model) if last else 0
    total = len(layers) + head_share
    arena = Arena(sum(_matrix_floats(file, index) for index in layers))
    blocks = []
    for done, index in enumerate(layers):
        progress(done / total)
        blocks.append(_read_layer(file, config, index, arena))
    progress(len(layers) / total)
    head = _read_head(file, config) if last else None
    embed = _read_embedding(file, config) if layers.start == 0 else None
    progress(1.0)
    return Weights(layers, tuple(blocks), embed, head)


def what_numpy_lacks(file: GgufFile, config: ModelConfig) -> str:
    """Say what of a model :mod:`p2pnode.engine.numpy.llama` does not compute; empty for nothing."""
    odd = {
        f"the architecture {config.arch}": config.arch != "llama",
        "a stretched rotary embedding": config.rope.kind is not RopeKind.NONE
        or any(name.startswith("rope_f") for name in file.tensors),
        "a sliding window of attention": 0 < config.window < config.context_length,
    }
    return next((what for what, is_there in odd.items() if is_there), "")


class Arena:
    """One allocation for the matrices of all layers, so that all of it lies in huge pages.

    numpy asks for huge pages from 4 MiB on, but only whole ones count, and the ends of each
    allocation lie in small ones: a sixth of a small model's layers, when each has its own. A
    stage that has slept finds its translations of addresses gone, and one page in 2 MiB is found
    sooner than 512.
    """

    def __init__(self, floats: int) -> None:
        memory = np.empty(floats + _HUGE_PAGE // 4, np.float32)
        skip = -memory.ctypes.data % _HUGE_PAGE // 4
        self._free = memory[skip : skip + floats]

    def keep(self, *parts: Floats) -> Floats:
        """Return a copy in here of matrices [out, in] put below each other."""
        size = sum(part.size for part in parts)
        taken, self._free = self._free[:size], self._free[size:]
        stacked = taken.reshape(-1, parts[0].shape[1])  # [all out, in]
        return np.concatenate(parts, out=stacked)


def _matrix_floats(file: GgufFile, index: int) -> int:
    """Return how many numbers a layer's matrices have; the file has been found to hold them."""
    return sum(
        math.prod(find_tensor(file, f"blk.{index}.{name}.weight").shape) for name in _MATRICES
    )


def _read_layer(file: GgufFile, config: ModelConfig, index: int, arena: Arena) -> LlamaLayer:
    d_model, d_ff = config.d_model, config.d_ff
    queries = config.n_heads * config.head_dim
    kv = config.n_kv_heads * config.head_dim

    def read(name: str, *shape: int) -> Floats:
        return read_tensor(file, f"blk.{index}.{name}.weight", shape)

    return LlamaLayer(
        attn_norm=read("attn_norm", d_model),
        qkv=arena.keep(
            read("attn_q", queries, d_model),
            read("attn_k", kv, d_model),
            read("attn_v", kv, d_model),
        ),  # [queries + 2 * kv, d_model]
        output=arena.keep(read("attn_output", d_model, queries)),
        ffn_norm=read("ffn_norm", d_model),
        gate_up=arena.keep(read("ffn_gate", d_ff, d_model), read("ffn_up", d_ff, d_model)),
        down=arena.keep(read("ffn_down", d_model, d_ff)),
    )


def _read_head(file: GgufFile, config: ModelConfig) -> LlamaHead:
    """Read the output matrix, or the embedding where the two are tied."""
    name = _HEAD if _HEAD in file.tensors else _EMBEDDING
    stored = read_tensor(file, name, (config.vocab_size, config.d_model))
    return LlamaHead(
        norm=read_tensor(file, "output_norm.weight", (config.d_model,)),
        weight=np.ascontiguousarray(stored.T),  # [d_model, vocab]
    )


def _read_embedding(file: GgufFile, config: ModelConfig) -> Embedding:
    tensor = find_tensor(file, _EMBEDDING)
    if tensor.shape != (config.vocab_size, config.d_model):
        raise ModelError(f"{file.path.name}: {_EMBEDDING} has shape {tensor.shape}")
    return Embedding(raw_rows(file, tensor), tensor)
