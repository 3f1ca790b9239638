"""The default engine: numpy on float32 weights of the layers held, and of nothing else."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, Self

import numpy as np

from p2pnode.engine.base import (
    MOST_NUMERICS_BYTES,
    Array,
    Floats,
    KvBlock,
    ModelInfo,
    SessionKey,
    SessionRows,
    StageCost,
    check_together,
)
from p2pnode.engine.calibration import calibrate
from p2pnode.engine.gguf import read_config, read_model_info
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import HashTree, hash_file
from p2pnode.engine.kv_slots import KvSlots
from p2pnode.engine.model_config import ModelConfig
from p2pnode.engine.numpy.blas import blas_name, blas_threads as threads_of_blas, limit_blas_threads
from p2pnode.engine.numpy.kv_cache import NumpySlot
from p2pnode.engine.numpy.llama import Rotation, rotation_table, run_head, run_layer
from p2pnode.engine.numpy.weights import Progress, Weights, read_weights
from p2pnode.errors import LocalProtocolError

DEFAULT_KV_BUDGET: Final = 512 * 2**20
"""Bytes; one whole 8192-token session of the default model in all its layers is 377 MB."""


class NumpyEngine:
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
        self.info = info
        self.layers = weights.layers
        self.numerics = numerics or _numerics()
        self.device = "cpu" if numerics else f"cpu x{max(1, threads_of_blas())}"
        self.kv_bytes_per_token_layer = config.kv_bytes_per_token_layer
        self.weight_bytes = weights.bytes
        self._config = config
        self._weights = weights
        self._rotation: Rotation = rotation_table(config, range(0))
        self._cache = KvSlots(
            partial(NumpySlot, n_kv_heads=config.n_kv_heads, head_dim=config.head_dim),
            width=config.n_kv_heads * config.head_dim,
            dtype=np.float32,
            max_positions=config.context_length,
            budget_bytes=kv_budget_bytes,
        )

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

    def forward(
        self, session: SessionKey, layers: range, batches: Sequence[Array], start: int
    ) -> list[Floats]:
        self._check(layers)
        self._check_start(session, layers, start)
        if not batches:
            raise LocalProtocolError("a call has at least one batch")
        states = [self._enter(batch, layers) for batch in batches]  # [tokens, d_model] each
        slot = self._cache.slot(session, layers, start + sum(map(len, states)))
        return self._run(slot, layers, states)

    def forward_many(self, layers: range, parts: Sequence[SessionRows]) -> list[Floats]:
        """Compute one session after the other: BLAS rounds a row by who stands beside it."""
        self._check(layers)
        check_together(parts)
        states = []
        for part in parts:
            self._check_start(part.session, layers, part.start)
            states.append(self._enter(part.rows, layers))  # [tokens, d_model]
        ends = {part.session: part.start + len(part.rows) for part in parts}
        slots = self._cache.slots(layers, ends)  # for all or for none
        return [
            self._run(slot, layers, [state])[0] for slot, state in zip(slots, states, strict=True)
        ]

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

    def truncate(self, session: SessionKey, length: int) -> None:
        self._cache.truncate(session, length)

    def logits(self, hidden: Floats) -> Floats:
        head = self._weights.head
        if head is None:
            raise LocalProtocolError(f"layers {self.layers} do not include the last one")
        if not self._is_hidden(hidden):
            raise LocalProtocolError(f"no hidden states: {hidden.dtype}{list(hidden.shape)}")
        logits = np.empty((len(hidden), self._config.vocab_size), np.float32)  # [n, vocab]
        with np.errstate(all="ignore"):
            for number, row in enumerate(hidden):
                logits[number] = run_head(row[None], head, self._config)[0]
        return logits

    def reserve(self, session: SessionKey, layers: range, tokens: int) -> None:
        self._check(layers)
        self._cache.reserve(session, layers, tokens)

    def length(self, session: SessionKey, first_layer: int) -> int:
        return self._cache.length(session, first_layer)

    def export_kv(self, session: SessionKey, layers: range, positions: range) -> KvBlock:
        return self._cache.export(session, layers, positions)

    def import_kv(self, session: SessionKey, layers: range, start: int, block: KvBlock) -> None:
        self._check(layers)
        self._check_start(session, layers, start)
        self._cache.append(session, layers, block)

    def close(self, session: SessionKey) -> None:
        self._cache.close(session)

    def shut(self) -> None:
        self._cache.close_all()

    def kv_bytes(self) -> int:
        return self._cache.reserved_bytes()

    @property
    def kv_budget_bytes(self) -> int:
        return self._cache.budget_bytes

    def measure(self) -> StageCost:
        return calibrate(self)

    def _check(self, layers: range) -> None:
        held = self.layers
        if not (
            layers and layers.step == 1 and held.start <= layers.start < layers.stop <= held.stop
        ):
            raise LocalProtocolError(f"asked for layers {layers}, holding {held}")

    def _check_start(self, session: SessionKey, layers: range, start: int) -> None:
        cached = self._cache.length(session, layers.start)
        if start != cached:
            raise LocalProtocolError(f"rows start at {start}, the session's cache at {cached}")

    def _enter(self, batch: Array, layers: range) -> Floats:
        """Return the batch as hidden states [tokens, d_model] of our own."""
        embed = self._weights.embed
        if self._is_hidden(batch) and len(batch):
            return batch.copy("C")  # layers write into it
        if batch.ndim == 1 and batch.dtype == np.int64 and len(batch) and layers.start == 0:
            if batch.min() < 0 or batch.max() >= self._config.vocab_size:
                raise LocalProtocolError(f"token ids must be below {self._config.vocab_size}")
            if embed is not None:
                return embed(batch)
        raise LocalProtocolError(
            f"a batch of {batch.dtype}{list(batch.shape)} cannot enter layer {layers.start}"
        )

    def _is_hidden(self, rows: Array) -> bool:
        width = self._config.d_model
        return rows.ndim == 2 and rows.shape[1] == width and rows.dtype == np.float32

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
