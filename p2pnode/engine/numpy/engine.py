"""The default engine: numpy on float32 weights of the layers held, and of nothing else."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, Self

import numpy as np

from p2pnode.engine.base import MOST_NUMERICS_BYTES, Array, Floats, ModelInfo
from p2pnode.engine.blas import blas_name, blas_threads as threads_of_blas, limit_blas_threads
from p2pnode.engine.gguf import read_config, read_model_info
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import HashTree, hash_file
from p2pnode.engine.kv_slots import KvSlots
from p2pnode.engine.model_config import ModelConfig
from p2pnode.engine.numpy.kv_cache import NumpySlot
from p2pnode.engine.numpy.llama import (
    LlamaHead,
    Rotation,
    rotation_table,
    run_head,
    run_layer,
)
from p2pnode.engine.numpy.ops import rms_norm
from p2pnode.engine.numpy.weights import Progress, Weights, read_weights
from p2pnode.engine.slotted import SlottedEngine
from p2pnode.errors import LocalProtocolError

DEFAULT_KV_BUDGET: Final = 512 * 2**20
"""Bytes; one whole 8192-token session of the default model in all its layers is 377 MB."""


class NumpyEngine(SlottedEngine[NumpySlot]):
    """Runs layers of a llama-shaped model; see :class:`p2pnode.engine.base.Engine`."""

    def __init__(
        self,
        info: ModelInfo,
        config: ModelConfig,
        weights: Weights,
        *,
        kv_budget_bytes: int = DEFAULT_KV_BUDGET,
        numerics: str | None = None,
    ) -> None:
        """``numerics``: a name of its own, for simulations that tell the same story anywhere."""
        slots = KvSlots(
            partial(NumpySlot, n_kv_heads=config.n_kv_heads, head_dim=config.head_dim),
            width=config.n_kv_heads * config.head_dim,
            dtype=np.float32,
            max_positions=config.context_length,
            budget_bytes=kv_budget_bytes,
        )
        super().__init__(
            info,
            weights.layers,
            slots,
            numerics=numerics or _numerics(),
            device="cpu" if numerics else f"cpu x{max(1, threads_of_blas())}",
            weight_bytes=weights.bytes,
        )
        self._config = config
        self._weights = weights
        self._rotation: Rotation = rotation_table(config, range(0))

    @classmethod
    def load(
        cls,
        path: Path,
        layers: range,
        *,
        kv_budget_bytes: int = DEFAULT_KV_BUDGET,
        blas_threads: int = 1,
        progress: Progress | None = None,
        tree: HashTree | None = None,
    ) -> Self:
        """Load ``layers`` of a GGUF file; see :func:`p2pnode.engine.registry.load_engine`.

        Raises:
            ModelError: The file cannot be run, or has no such layers.
            ModelChangedError: It is not the file that was hashed.
        """
        limit_blas_threads(blas_threads)
        if tree is None:
            with GgufFile(path) as file:
                tree = hash_file(file)
        info = read_model_info(path, tree)
        with GgufFile(path, tree.check) as file:
            tree.check_metadata(file)
            config = read_config(file)
            weights = read_weights(file, config, layers, progress or (lambda _: None))
        return cls(info, config, weights, kv_budget_bytes=kv_budget_bytes)

    def _embed(self, ids: Array) -> Floats:
        if self._weights.embed is None:
            raise LocalProtocolError("the first layer is held without the embedding")
        return self._weights.embed(ids)

    def _run(self, slot: NumpySlot, layers: range, states: list[Floats]) -> list[Floats]:
        """Run batches [tokens, d_model], which are overwritten, at the end of a slot with room."""
        starts = [slot.length]
        for state in states:
            starts.append(starts[-1] + len(state))
        rotation = self._rotations(starts[-1])  # [>= positions, head_dim / 2]
        with np.errstate(all="ignore"):  # a silu of -100 overflows on its way to -0
            for keys, values, index in zip(slot.keys, slot.values, layers, strict=True):
                layer = self._weights.blocks[index - self.layers.start]
                for number, state in enumerate(states):
                    at = starts[number]
                    turn = rotation[at : starts[number + 1]]
                    run_layer(state, layer, keys, values, at, turn, self._config)
        slot.length = starts[-1]
        return [*states]

    def _run_together(
        self, slots: Sequence[NumpySlot], layers: range, states: Sequence[Floats]
    ) -> list[Floats]:
        """Compute one session after the other: BLAS rounds a row by who stands beside it."""
        return [
            self._run(slot, layers, [state])[0] for slot, state in zip(slots, states, strict=True)
        ]

    def _fill_logits(self, hidden: Floats, logits: Floats) -> None:
        head = self._head()
        with np.errstate(all="ignore"):
            for number, row in enumerate(np.ascontiguousarray(hidden)):
                logits[number] = run_head(row[None], head, self._config)[0]

    def _fill_normed(self, hidden: Floats, rows: Floats) -> None:
        norm = self._head().norm  # [d_model]
        with np.errstate(all="ignore"):
            for number, row in enumerate(np.ascontiguousarray(hidden)):
                rows[number] = rms_norm(row[None], norm, self._config.norm_eps)[0]

    def _head(self) -> LlamaHead:
        head = self._weights.head
        if head is None:
            raise LocalProtocolError("the last layer is held without the head")
        return head

    def _rotations(self, positions: int) -> Rotation:
        if len(self._rotation) < positions:
            ample = range(max(256, 2 * positions))
            self._rotation = rotation_table(self._config, ample)
        return self._rotation


def _numerics() -> str:
    """Name the arithmetic; BLAS's name gives way where an unusual one would make it too long."""
    ends = f"numpy {np.__version__}/", "/kv-f32"
    room = MOST_NUMERICS_BYTES - sum(map(len, ends))
    return blas_name()[:room].join(ends)
