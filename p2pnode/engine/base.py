"""What every engine promises, whatever it computes with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from p2pnode.errors import ConfigError

Array: TypeAlias = npt.NDArray[Any]
"""Either int64 token ids [tokens] or float32 hidden states [tokens, d_model]."""

Floats: TypeAlias = npt.NDArray[np.float32]

SessionKey: TypeAlias = bytes
"""Opaque to the engine; two sessions with one key are one session."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model is, without its weights.

    Attributes:
        name: What people call it; a label, not an identity.
        arch: The architecture as its file names it, for example ``llama``.
        n_layers: Transformer blocks, at least 1.
        d_model: Width of a hidden state.
        n_heads: Query heads.
        n_kv_heads: Key and value heads; divides ``n_heads``.
        head_dim: Width of a head.
        context_length: The most positions a session may have.
        vocab_size: Token ids are below this.
        eos_ids: Tokens that end an answer.
        space_id: Name of the embedding space, derived from the file's content.
        data_sig: The root over the hashes of its tensors (:mod:`p2pnode.engine.hash_tree`), in hex:
            two models that compute differently differ here.
        space_hash32: Peers whose values differ must not exchange hidden states.
        kv_bytes_per_token_layer: What one position costs in one layer's KV cache.
    """

    name: str
    arch: str
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    context_length: int
    vocab_size: int
    eos_ids: tuple[int, ...]
    space_id: str
    data_sig: str
    space_hash32: int
    kv_bytes_per_token_layer: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn from the logits.

    Attributes:
        temperature: 0 takes the likeliest token; 1 draws from the model's own distribution.
        top_k: Draw among the k likeliest only; 0 means all.
        top_p: Draw among the fewest likeliest that together reach this probability.
        seed: The same seed draws the same token at the same position, wherever it runs.

    Raises:
        ConfigError: A value is out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= 100):
            raise ConfigError(f"temperature must be between 0 and 100, not {self.temperature}")
        if self.top_k < 0:
            raise ConfigError(f"top-k must be 0 (all) or more, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top-p must be above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"the seed must be between 0 and 2**64 - 1, not {self.seed}")


@dataclass(frozen=True, slots=True)
class StageCost:
    """What a visit costs on this machine, measured warm.

    Attributes:
        decode_fixed_us: Microseconds of one token's visit that do not depend on the layers.
        decode_layer_us: Microseconds of one token in one layer.
        head_us: Microseconds of the final norm and head; 0 where they are not held.
        prefill_layer_ns: Nanoseconds of one prompt token in one layer, in a batch.
    """

    decode_fixed_us: int
    decode_layer_us: int
    head_us: int
    prefill_layer_ns: int


class Engine(Protocol):
    """A run of a model's layers, and the KV caches of the sessions that use it.

    Not thread-safe: one thread at a time.
    """

    @property
    def info(self) -> ModelInfo: ...

    @property
    def layers(self) -> range:
        """All the layers held."""

    def forward(
        self, session: SessionKey, layers: range, batches: Sequence[Array], start: int
    ) -> list[Array]:
        """Run consecutive batches of one session through ``layers``.

        Each batch is computed exactly as if it were a call of its own, bit for bit, but layer
        by layer rather than batch by batch, so that a layer's weights stay in the cache: a
        replay after a failover repeats the batching first used, and is still fast.

        Args:
            session: Whose KV cache to read and extend; one per (session, ``layers.start``).
            layers: Which of the held layers to run.
            batches: int64 [tokens] ids (only where ``layers`` starts at 0) or float32
                [tokens, d_model] hidden states.
            start: Position of the first row; must be the length of the session's KV cache.

        Returns:
            float32 [tokens, d_model] for each batch.

        Raises:
            LocalProtocolError: Layers that are not held, a wrong shape or a wrong ``start``.
            CapacityError: The KV budget or the context is full. Nothing changed.
        """

    def logits(self, hidden: Floats) -> Floats:
        """Turn one hidden state [d_model] after the last layer into logits [vocab]."""

    def reserve(self, session: SessionKey, layers: range, tokens: int) -> None:
        """Set aside KV memory for ``tokens`` positions in all.

        Raises:
            CapacityError: There is not enough; nothing was reserved.
        """

    def close(self, session: SessionKey) -> None:
        """Free the session's memory; closing what is not open is harmless."""

    def kv_bytes(self) -> int:
        """Return how much KV memory the sessions hold."""

    def measure(self) -> StageCost:
        """Run a short warm calibration, under half a second on a small model."""
