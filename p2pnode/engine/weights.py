"""Loads what a run of layers needs from a GGUF file, and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats
from p2pnode.engine.gguf import dequantise, find_tensor, raw_rows, read_tensor
from p2pnode.engine.gguf_file import GgufFile, TensorInfo
from p2pnode.engine.llama import LlamaConfig, LlamaHead, LlamaLayer
from p2pnode.errors import ModelError

Progress: TypeAlias = Callable[[float], None]

TokenIds: TypeAlias = npt.NDArray[np.int64]

_EMBEDDING: Final = "token_embd.weight"
_HEAD: Final = "output.weight"


class Embedding:
    """The rows of the embedding, still as stored: a token needs one row of 49,152.

    The default model's takes 30 MB so, and 113 MB in float32.
    """

    def __init__(self, rows: npt.NDArray[np.uint8], tensor: TensorInfo) -> None:
        self._rows = rows  # [vocab, row_bytes]
        self._tensor = tensor

    def __call__(self, tokens: TokenIds) -> Floats:
        """Return the hidden states [tokens, d_model] of ids [tokens]."""
        return np.array(dequantise(self._rows[tokens], self._tensor), np.float32)


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


def read_weights(file: GgufFile, config: LlamaConfig, layers: range, progress: Progress) -> Weights:
    """Read ``layers``; ``progress`` hears which part from 0 to 1 is done.

    Raises:
        ModelError: The file has no such layers, or they lack a tensor.
    """
    if not (layers and layers.step == 1 and 0 <= layers.start < layers.stop <= config.n_layers):
        raise ModelError(
            f"{file.path.name} has layers 0:{config.n_layers}, not {layers.start}:{layers.stop}"
        )
    last = layers.stop == config.n_layers
    # A tied head has about as many numbers as this many layers; it counts in the progress.
    head_share = config.vocab_size // (4 * config.d_ff + 4 * config.d_model) if last else 0
    total = len(layers) + head_share
    blocks = []
    for done, index in enumerate(layers):
        progress(done / total)
        blocks.append(_read_layer(file, config, index))
    progress(len(layers) / total)
    head = _read_head(file, config) if last else None
    embed = _read_embedding(file, config) if layers.start == 0 else None
    progress(1.0)
    return Weights(layers, tuple(blocks), embed, head)


def _read_layer(file: GgufFile, config: LlamaConfig, index: int) -> LlamaLayer:
    d_model, d_ff = config.d_model, config.d_ff
    queries = config.n_heads * config.head_dim
    kv = config.n_kv_heads * config.head_dim

    def read(name: str, *shape: int) -> Floats:
        return read_tensor(file, f"blk.{index}.{name}.weight", shape)

    qkv = [
        read("attn_q", queries, d_model),
        read("attn_k", kv, d_model),
        read("attn_v", kv, d_model),
    ]
    gate_up = [read("ffn_gate", d_ff, d_model), read("ffn_up", d_ff, d_model)]
    packed = _in_one_block(
        np.concatenate(qkv),  # [queries + 2 * kv, d_model]
        read("attn_output", d_model, queries),
        np.concatenate(gate_up),  # [2 * d_ff, d_model]
        read("ffn_down", d_model, d_ff),
    )
    return LlamaLayer(
        attn_norm=read("attn_norm", d_model),
        qkv=packed[0],
        output=packed[1],
        ffn_norm=read("ffn_norm", d_model),
        gate_up=packed[2],
        down=packed[3],
    )


def _in_one_block(*matrices: Floats) -> list[Floats]:
    """Return copies that lie side by side in one allocation.

    numpy asks for huge pages from 4 MiB on, which most matrices of a small model stay below. A
    stage that has slept finds its translations of addresses gone, and one page in 2 MiB is found
    sooner than 512: 58 ms a token instead of 61 with 20 ms of sleep between thirds of the layers.
    """
    block = np.empty(sum(matrix.size for matrix in matrices), np.float32)
    copies, at = [], 0
    for matrix in matrices:
        copy = block[at : at + matrix.size].reshape(matrix.shape)
        copy[...] = matrix
        copies.append(copy)
        at += matrix.size
    return copies


def _read_head(file: GgufFile, config: LlamaConfig) -> LlamaHead:
    """Read the output matrix, or the embedding where the two are tied."""
    name = _HEAD if _HEAD in file.tensors else _EMBEDDING
    stored = read_tensor(file, name, (config.vocab_size, config.d_model))
    return LlamaHead(
        norm=read_tensor(file, "output_norm.weight", (config.d_model,)),
        weight=np.ascontiguousarray(stored.T),  # [d_model, vocab]
    )


def _read_embedding(file: GgufFile, config: LlamaConfig) -> Embedding:
    tensor = find_tensor(file, _EMBEDDING)
    if tensor.shape != (config.vocab_size, config.d_model):
        raise ModelError(f"{file.path.name}: {_EMBEDDING} has shape {tensor.shape}")
    return Embedding(raw_rows(file, tensor), tensor)
