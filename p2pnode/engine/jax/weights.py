"""Reads what a run of layers needs from a GGUF file onto a device, and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats
from p2pnode.engine.embedding import Embedding
from p2pnode.engine.gguf import find_tensor, raw_rows, read_tensor
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.jax.llama import Head, Layer
from p2pnode.engine.jax.runtime import DTYPES, Device, JaxArray
from p2pnode.engine.model_config import ModelConfig, RopeKind
from p2pnode.engine.variations import ROPE_FACTORS
from p2pnode.errors import ModelError

_EMBEDDING: Final = "token_embd.weight"
_HEAD: Final = "output.weight"
_COMPUTED: Final = (RopeKind.NONE, RopeKind.LINEAR)


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Consecutive layers, and the model's ends where these layers include them.

    Attributes:
        layers: Which layers.
        blocks: One for each, on the device.
        embedding: Turns ids [tokens] into hidden states [tokens, d_model], on the host; with
            layer 0.
        head: With the last layer, on the device.
        divisors: Of the rotary embedding's frequencies: float64 [head_dim / 2].
    """

    layers: range
    blocks: tuple[Layer, ...]
    embedding: Embedding | None
    head: Head | None
    divisors: npt.NDArray[np.float64]

    @property
    def bytes(self) -> int:
        """Memory that they take on the device."""
        parts = (*self.blocks, *(() if self.head is None else (self.head,)))
        return sum(array.nbytes for part in parts for array in part)


def what_jax_lacks(file: GgufFile, config: ModelConfig) -> str:
    """Say what of a model :mod:`p2pnode.engine.jax.llama` does not compute; empty for nothing."""
    factors = {name for name in file.tensors if name.startswith("rope_f")}
    odd = {
        f"the architecture {config.arch}": config.arch != "llama",
        f"a rotary embedding stretched by {config.rope.kind}": config.rope.kind not in _COMPUTED
        or not factors <= {ROPE_FACTORS},
        "a sliding window of attention": 0 < config.window < config.context_length,
    }
    return next((what for what, is_there in odd.items() if is_there), "")


def read_weights(
    file: GgufFile,
    config: ModelConfig,
    layers: range,
    *,
    device: Device,
    dtype: str,
    progress: Callable[[float], None],
) -> Weights:
    """Read ``layers`` onto a device; ``progress`` hears which part from 0 to 1 is done.

    Raises:
        ModelError: The file has no such layers, or something that is not computed here.
    """
    if lacking := what_jax_lacks(file, config):
        raise ModelError(
            f"{file.path.name} has {lacking}, which the jax engine does not compute",
            hint="Use the ggml engine: p2pnode doctor says what it lacks on this machine.",
        )
    if not (layers and layers.step == 1 and 0 <= layers.start < layers.stop <= config.n_layers):
        raise ModelError(
            f"{file.path.name} has layers 0:{config.n_layers}, not {layers.start}:{layers.stop}"
        )
    reader = _Reader(file, config, device, dtype)
    blocks = []
    for done, index in enumerate(layers):
        progress(done / len(layers))
        blocks.append(reader.layer(index))
    return Weights(
        layers,
        tuple(blocks),
        reader.embedding() if layers.start == 0 else None,
        reader.head() if layers.stop == config.n_layers else None,
        reader.divisors(),
    )


class _Reader:
    def __init__(self, file: GgufFile, config: ModelConfig, device: Device, dtype: str) -> None:
        self._file = file
        self._config = config
        self._device = device
        self._dtype = jnp.dtype(DTYPES[dtype])

    def layer(self, index: int) -> Layer:
        config = self._config
        queries, kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        d_model, d_ff = config.d_model, config.d_ff

        def read(name: str, *shape: int) -> Floats:
            return read_tensor(self._file, f"blk.{index}.{name}.weight", shape)

        qkv = [read("attn_q", queries, d_model), *(read(f"attn_{x}", kv, d_model) for x in "kv")]
        return Layer(
            attn_norm=self._norm(read("attn_norm", d_model)),
            qkv=self._matrix(*qkv),
            output=self._matrix(read("attn_output", d_model, queries)),
            ffn_norm=self._norm(read("ffn_norm", d_model)),
            gate_up=self._matrix(read("ffn_gate", d_ff, d_model), read("ffn_up", d_ff, d_model)),
            down=self._matrix(read("ffn_down", d_model, d_ff)),
        )

    def head(self) -> Head:
        """Read the output matrix, or the embedding where the two are tied."""
        config = self._config
        name = _EMBEDDING if config.is_tied else _HEAD
        return Head(
            norm=self._norm(read_tensor(self._file, "output_norm.weight", (config.d_model,))),
            weight=self._matrix(read_tensor(self._file, name, (config.vocab_size, config.d_model))),
        )

    def embedding(self) -> Embedding:
        tensor = find_tensor(self._file, _EMBEDDING)
        return Embedding(raw_rows(self._file, tensor), tensor)

    def divisors(self) -> npt.NDArray[np.float64]:
        half = self._config.head_dim // 2
        divisors = np.full(half, self._config.rope.factor, np.float64)
        if ROPE_FACTORS in self._file.tensors:
            divisors *= read_tensor(self._file, ROPE_FACTORS, (half,))
        return divisors

    def _matrix(self, *parts: Floats) -> JaxArray:
        """Put matrices [out, in] below each other, onto the device: [all out, in]."""
        whole = np.concatenate([part.astype(self._dtype) for part in parts])
        return jax.device_put(whole, self._device)

    def _norm(self, weight: Floats) -> JaxArray:
        return jax.device_put(weight, self._device)
