"""The engine that computes with JAX: float32 or bfloat16 weights on whatever device JAX has."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import jax
import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Array, Floats, ModelInfo
from p2pnode.engine.jax.kv_cache import JaxSlot
from p2pnode.engine.jax.llama import Shape, run_norm
from p2pnode.engine.jax.programs import (
    ROWS,
    Program,
    Programs,
    kv_dtype,
    kv_sizes,
    padded_rows,
    programs_of,
)
from p2pnode.engine.jax.runtime import (
    Device,
    JaxArray,
    device_errors,
    name_of_device,
    name_of_numerics,
)
from p2pnode.engine.jax.weights import Weights
from p2pnode.engine.kv_slots import KvSlots
from p2pnode.engine.model_config import ModelConfig
from p2pnode.engine.slotted import SlottedEngine
from p2pnode.errors import CapacityError, EngineError, LocalProtocolError

_ALIGNMENT: Final = 64
"""Bytes: JAX on a CPU takes numpy's memory as it is where it begins at a multiple of this."""

_WARM_ROWS: Final = (1, 8, 64)
"""What is compiled before the first session comes: decoding, speculation, a chain's chunk."""

_COMPUTING: Final = "to compute"


@dataclass(slots=True, eq=False)
class _Cut:
    """Rows of one call of each layer."""

    rows: Floats  # [count, d_model]: whence they come, and where the results go
    program: Program
    segments: int
    x: JaxArray  # [padded, d_model]: what the layers made of them so far
    turn: JaxArray  # [2, padded, head_dim / 2]
    place: JaxArray  # [2]


class JaxEngine(SlottedEngine[JaxSlot]):
    """Runs layers of a llama; see :class:`p2pnode.engine.base.Engine`.

    Each layer is a call of its own, and each row of logits; sessions are computed one after the
    other. Padding and the length of the cache that a call looks at depend on the rows and their
    position alone.
    """

    def __init__(
        self,
        info: ModelInfo,
        config: ModelConfig,
        weights: Weights,
        *,
        device: Device,
        dtype: str,
        kv_budget_bytes: int,
    ) -> None:
        slots = KvSlots(
            partial(
                JaxSlot,
                heads=config.n_kv_heads,
                head_dim=config.head_dim,
                dtype=kv_dtype(dtype),
                context=config.context_length,
                device=device,
            ),
            width=config.n_kv_heads * config.head_dim,
            dtype=kv_dtype(dtype),
            max_positions=config.context_length,
            budget_bytes=kv_budget_bytes,
            sizes=kv_sizes(config.context_length),
        )
        super().__init__(
            info,
            weights.layers,
            slots,
            numerics=name_of_numerics(device, dtype),
            device=name_of_device(device),
            weight_bytes=weights.bytes,
        )
        self._weights = weights
        self._jax_device = device
        self._shape = _shape(config)
        self._programs = programs_of(self._shape, config.context_length, dtype, device)
        self._frequencies = _frequencies(config, weights)  # [head_dim / 2]

    @property
    def programs(self) -> Programs:
        """What was compiled for models of this shape, in this process."""
        return self._programs

    def warm(self) -> None:
        """Compile what the first answers need.

        Raises:
            CapacityError: There is no memory for it.
            EngineError: It cannot be compiled.
        """
        for rows in _WARM_ROWS:
            self._programs.layer(rows, 1)
        if self._weights.head is not None:
            self._programs.head()

    def shut(self) -> None:
        super().shut()
        self._weights = replace(self._weights, blocks=(), embedding=None, head=None)

    def _embed(self, ids: Array) -> Floats:
        if self._weights.embedding is None:
            raise LocalProtocolError("the first layer is held without the embedding")
        return self._weights.embedding(ids)

    def _run(self, slot: JaxSlot, layers: range, states: list[Floats]) -> list[Floats]:
        slot.clean_rest()
        try:
            with device_errors(_COMPUTING):
                cuts = self._cuts(slot, states)
                self._run_layers(slot, layers, cuts)
                found = [np.asarray(cut.x) for cut in cuts]  # on a CPU, views
        except CapacityError as error:
            slot.taint_rest()
            if slot.is_whole:
                raise
            raise EngineError(str(error), hint=error.hint) from None
        for cut, hidden in zip(cuts, found, strict=True):
            cut.rows[:] = hidden[: len(cut.rows)]
        slot.is_tainted |= not all(np.isfinite(state).all() for state in states)
        slot.length += sum(map(len, states))
        return states

    def _run_layers(self, slot: JaxSlot, layers: range, cuts: Sequence[_Cut]) -> None:
        """Run all cuts through a layer before the next: its weights stay in the cache."""
        for number, index in enumerate(layers):
            layer = self._weights.blocks[index - self.layers.start]
            keys, values = slot.keys[number], slot.values[number]
            for cut in cuts:
                seen = slice(0, cut.segments)
                cut.x, keys[seen], values[seen] = cut.program(
                    layer, keys[seen], values[seen], cut.x, cut.turn, cut.place
                )

    def _cuts(self, slot: JaxSlot, states: Sequence[Floats]) -> list[_Cut]:
        """Cut batches at the end of a slot into calls, each batch from its own start on."""
        cuts, start = [], slot.length
        for state in states:
            for first in range(0, len(state), ROWS[-1]):
                rows = state[first : first + ROWS[-1]]
                cuts.append(self._cut(rows, start, slot.segments(start + len(rows))))
                start += len(rows)
        return cuts

    def _cut(self, rows: Floats, start: int, segments: int) -> _Cut:
        padded = padded_rows(len(rows))
        x = _aligned(padded, self.info.d_model)
        x[: len(rows)], x[len(rows) :] = rows, 0.0
        angle = np.arange(start, start + padded)[:, None] * self._frequencies
        turn = np.stack((np.cos(angle), np.sin(angle))).astype(np.float32)
        place = np.array((start, len(rows)), np.int32)
        program = self._programs.layer(padded, segments)
        # On a CPU this shares x as jax.dlpack.from_dlpack would: all three take 66 % of its time.
        return _Cut(rows, program, segments, *jax.device_put((x, turn, place), self._jax_device))

    def _run_together(
        self, slots: Sequence[JaxSlot], layers: range, states: Sequence[Floats]
    ) -> list[Floats]:
        """Compute one session after the other: products round a row by how many stand beside it."""
        lengths = [slot.length for slot in slots]
        try:
            return [
                self._run(slot, layers, [state])[0]
                for slot, state in zip(slots, states, strict=True)
            ]
        except CapacityError:
            for slot, length in zip(slots, lengths, strict=True):
                slot.truncate(length)
            raise

    def _fill_logits(self, hidden: Floats, logits: Floats) -> None:
        head = self._weights.head
        if head is None:
            raise LocalProtocolError("the last layer is held without the head")
        program = self._programs.head()
        with device_errors(_COMPUTING):
            for number in range(len(hidden)):
                row = np.ascontiguousarray(hidden[number : number + 1])
                logits[number] = np.asarray(
                    program(head, jax.device_put(row, self._jax_device, may_alias=False))
                )[0]

    def _fill_normed(self, hidden: Floats, rows: Floats) -> None:
        head = self._weights.head
        if head is None:
            raise LocalProtocolError("the last layer is held without the head")
        with device_errors(_COMPUTING):
            for number in range(len(hidden)):
                row = np.ascontiguousarray(hidden[number : number + 1])  # [1, d_model]
                given = jax.device_put(row, self._jax_device, may_alias=False)
                rows[number] = np.asarray(run_norm(self._shape, head, given))[0]


def _shape(config: ModelConfig) -> Shape:
    return Shape(
        d_model=config.d_model,
        d_ff=config.d_ff,
        n_heads=config.n_heads,
        n_kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        norm_eps=config.norm_eps,
        score_scale=config.score_scale,
        vocab_size=config.vocab_size,
    )


def _frequencies(config: ModelConfig, weights: Weights) -> npt.NDArray[np.float64]:
    """Return by what each pair turns at each position: float64 radians [head_dim / 2]."""
    pair = np.arange(config.head_dim // 2, dtype=np.float64)
    turns: npt.NDArray[np.float64] = config.rope_base ** (-2.0 * pair / config.head_dim)
    return turns / weights.divisors


def _aligned(rows: int, width: int) -> Floats:
    """Return an array that JAX on a CPU takes without a copy; nobody writes into it later."""
    memory = np.empty(rows * width * 4 + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + rows * width * 4].view(np.float32).reshape(rows, width)
