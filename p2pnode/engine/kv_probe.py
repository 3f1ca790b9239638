"""A llama looked into: its queries, keys and values, and what it answers on another's cache.

Everything here runs on arrays of its own, beside any engine: for calibrating and measuring.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats
from p2pnode.engine.blas import limit_blas_threads
from p2pnode.engine.gguf import read_config
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.model_config import ModelConfig
from p2pnode.engine.numpy.llama import (
    LlamaLayer,
    Rotation,
    project,
    rotation_table,
    run_head,
    run_layer,
)
from p2pnode.engine.numpy.ops import rms_norm, rotate
from p2pnode.engine.numpy.weights import Progress, TokenIds, Weights, read_weights
from p2pnode.errors import ModelError


@dataclass(frozen=True, slots=True, eq=False)
class KvCache:
    """Keys, with RoPE, and values [layers, kv_heads, positions, head_dim] of one text."""

    keys: Floats
    values: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Observed(KvCache):
    """A text's cache, and its queries [layers, positions, heads, head_dim], turned and scaled."""

    queries: Floats


class KvProbe:
    """All layers of a model.

    Args:
        config: The model's shape.
        weights: Of all its layers.

    Raises:
        ModelError: The weights lack a layer.
    """

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        if weights.embed is None or weights.head is None:
            raise ModelError("looking into a model needs all its layers")
        self.config = config
        self.blocks = weights.blocks
        self._embed = weights.embed
        self._head = weights.head

    @classmethod
    def load(cls, path: Path, *, progress: Progress | None = None) -> Self:
        """Load every layer of a GGUF file.

        Raises:
            ModelError: The file cannot be run.
        """
        limit_blas_threads(1)
        with GgufFile(path) as file:
            config = read_config(file)
            layers = range(config.n_layers)
            return cls(config, read_weights(file, config, layers, progress or (lambda _: None)))

    def rotation(self, positions: int) -> Rotation:
        """Return the turn of each pair at the first positions [positions, head_dim / 2]."""
        return rotation_table(self.config, range(positions))

    def observe(self, tokens: TokenIds) -> Observed:
        """Run a text of ids [positions] from its start."""
        config, count = self.config, len(tokens)
        shape = (config.n_layers, config.n_kv_heads, count, config.head_dim)
        keys, values = np.empty(shape, np.float32), np.empty(shape, np.float32)
        queries = np.empty((shape[0], count, config.n_heads, config.head_dim), np.float32)
        rotation = self.rotation(count)
        x = self._embed(tokens)  # [positions, d_model]
        with np.errstate(all="ignore"):  # a silu of -100 overflows on its way to -0
            for index, layer in enumerate(self.blocks):
                queries[index] = self._queries(x, layer, rotation)
                x = run_layer(x, layer, keys[index], values[index], 0, rotation, config)
        return Observed(keys, values, queries)

    def answer(self, cache: KvCache, tokens: TokenIds) -> Floats:
        """Go on after a cache, which does not change, with ids [tokens].

        Returns:
            Log probabilities of the token after each, [tokens, vocab].
        """
        config = self.config
        start = cache.keys.shape[2]
        end = start + len(tokens)
        room = ((0, 0), (0, len(tokens)), (0, 0))
        rotation = self.rotation(end)[start:]
        x = self._embed(tokens)  # [tokens, d_model]
        with np.errstate(all="ignore"):
            for layer, old_keys, old_values in zip(
                self.blocks, cache.keys, cache.values, strict=True
            ):
                keys, values = np.pad(old_keys, room), np.pad(old_values, room)
                x = run_layer(x, layer, keys, values, start, rotation, config)
            logits = run_head(x, self._head, config)  # [tokens, vocab]
        logits -= logits.max(axis=-1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        return logits

    def output_of(self, layer: int, head: int) -> Floats:
        """Return the output projection of one query head [d_model, head_dim]."""
        first = head * self.config.head_dim
        return self.blocks[layer].output[:, first : first + self.config.head_dim]

    def _queries(self, x: Floats, layer: LlamaLayer, rotation: Rotation) -> Floats:
        config = self.config
        normed = rms_norm(x, layer.attn_norm, config.norm_eps)  # [positions, d_model]
        width = config.n_heads * config.head_dim
        queries = project(normed, layer.qkv[:width])  # [positions, heads * head_dim]
        queries = queries.reshape(len(x), config.n_heads, config.head_dim)
        rotate(queries, rotation)
        queries *= np.float32(1.0 / math.sqrt(config.head_dim))
        return queries


def divergence(clean: Floats, other: Floats) -> float:
    """Return the mean KL(clean || other) in nats of log probabilities [tokens, vocab]."""
    gap = np.einsum("tv,tv->t", np.exp(clean), clean - other)  # [tokens]
    return float(gap.mean(dtype=np.float64))


def without_rope(keys: Floats, rotation: Rotation) -> npt.NDArray[np.float32]:
    """Turn keys [..., positions, head_dim] back by ``rotation`` [positions, head_dim / 2]."""
    pairs = np.ascontiguousarray(keys).view(np.complex64)
    return (pairs * rotation.conj()).view(np.float32)
