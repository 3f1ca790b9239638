"""One graph over rows of one or several sessions, built once and run for token after token."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import MOST_ROWS_TOGETHER, Floats
from p2pnode.engine.ggml.backend import Backend, Mirror, Tensors, allocate_graph
from p2pnode.engine.ggml.cache_places import CachePlaces
from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.ggml.layers import LayerBuilder, PartInputs
from p2pnode.engine.ggml.slot import CELLS, GgmlSlot
from p2pnode.engine.ggml.weights import Weights
from p2pnode.engine.model_config import ModelConfig

TILE: Final = 64
"""Rows from which on the CPU attends in tiles: 46 billion operations a second on one core, and 10
below (measured with AVX2). Batches that never stand beside others are filled up to it."""

_FEW_CELLS: Final = 64
_ROWS: Final = 16  # of which one goes the long way
_LAYER_NODES: Final = 48  # of one layer of the largest kind, but for what each session adds
_PART_NODES: Final = 24  # that a session adds to a layer
_SPLIT_NODES: Final = 28  # that it adds where each product is computed for it by itself
_EXPERTS_NODES: Final = 32  # and where all that experts compute is, but for what each of them adds
_HIDDEN: Final = np.float16(-np.inf)  # added to the score of what a row does not see
_SEEN: Final = np.float16(0)
_HIDDEN_BITS: Final = int(_HIDDEN.view(np.uint16))
_SEEN_BITS: Final = int(_SEEN.view(np.uint16))


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one session: whose, and how many."""

    slot: GgmlSlot
    rows: int

    @property
    def cells(self) -> int:
        """Positions that the last row looks at, and some more: whole blocks of them.

        Tokens that follow each other look at the same many, so that a graph serves for all of
        them; a long batch comes once, and every position costs it time.
        """
        unit = CELLS if self.rows <= MOST_ROWS_TOGETHER else _FEW_CELLS
        return -(-(self.slot.length + self.rows) // unit) * unit


class StepGraph:
    """Runs layers over the rows of some sessions, wherever in the same blocks they stand.

    Args:
        backend: What computes.
        config: The model.
        weights: Of the layers.
        layers: To run; all on this device.
        parts: The sessions.
        unstable: See :class:`~p2pnode.engine.ggml.layers.LayerBuilder`.
        is_for_any: Whether it is to run for other sessions too, of as many rows that look at as
            many positions; on a CPU where :func:`~p2pnode.engine.ggml.cache_places.data_offset`
            is known.

    Raises:
        CapacityError: No memory for what lies between the layers.
    """

    def __init__(
        self,
        backend: Backend,
        config: ModelConfig,
        weights: Weights,
        layers: range,
        parts: Sequence[Part],
        unstable: frozenset[str],
        *,
        is_for_any: bool = False,
    ) -> None:
        self._backend = backend
        self._places: CachePlaces | None = None
        self._ggml = ggml = backend.ggml
        self._rows = sum(part.rows for part in parts)
        nodes = len(layers) * _most_nodes(config, len(parts), is_split=bool(unstable))
        self._allocator: int | None = None
        with ExitStack() as made:
            caches = 2 * len(parts) * len(layers) if is_for_any else 0
            self._in = made.enter_context(Tensors(backend, 2 + 3 * len(parts) + caches))
            self._between = made.enter_context(Tensors(backend, nodes, graph_nodes=nodes))
            made.callback(self.close)
            self._x = ggml.new_tensor_2d(self._in.context, Type.F32, config.d_model, self._rows)
            self._positions = ggml.new_tensor_1d(self._in.context, Type.I32, self._rows)
            self._masks = [_Masks(self._backend, self._in, config, part, layers) for part in parts]
            if is_for_any:
                kv_dim = config.n_kv_heads * config.head_dim
                slots = [part.slot for part in parts]
                self._places = CachePlaces(backend, self._in, slots, layers, kv_dim)
            self._in.allocate()
            for masks in self._masks:
                masks.mirror()
            self._graph = ggml.new_graph_custom(self._between.context, nodes, False)
            builder = LayerBuilder(
                ggml,
                self._between.context,
                self._graph,
                config,
                weights,
                self._inputs(parts, layers),
                self._positions,
                unstable,
            )
            x = self._x
            for index in layers:
                x = builder.layer(index, x)
            self._operations = builder.operations
            self._out = x
            ggml.set_output(x)
            ggml.build_forward_expand(self._graph, x)
            self._allocator = allocate_graph(backend, self._graph)
            if self._places is not None:
                self._places.find(self._graph)
            shape = (self._rows, config.d_model)
            self._given = Mirror(backend, self._x, shape, np.float32)
            self._found = Mirror(backend, self._out, shape, np.float32)
            self._stand = Mirror(backend, self._positions, (self._rows,), np.int32)
            self._stand_items = self._stand.array.data
            made.pop_all()

    @property
    def is_closed(self) -> bool:
        """Whether its memory is given back, so that it cannot run any more."""
        return self._allocator is None

    def bind(self, parts: Sequence[Part]) -> None:
        """Run for these from now on: each as the part that it was made for in its place."""
        if self._places is not None:
            self._places.bind([part.slot for part in parts])

    def run(self, x: Floats, starts: Sequence[int]) -> Floats:
        """Compute x [rows, d_model], each part of which begins at one of ``starts``.

        Raises:
            EngineError: The device failed.
        """
        self._given.array[:] = x
        self._given.write()
        at = 0
        for masks, start in zip(self._masks, starts, strict=True):
            masks.move(start)
            self._stand.array[at : at + masks.rows] = masks.positions
            at += masks.rows
        return self._compute()

    def run_row(self, x: Floats, start: int) -> Floats:
        """Do the same for the one row of one part."""
        self._given.array[:] = x
        self._given.write()
        self._masks[0].move(start)
        self._stand_items[0] = start
        return self._compute()

    def _compute(self) -> Floats:
        self._stand.write()
        self._backend.compute(self._graph)
        self._found.read()
        return self._found.array.copy()

    def close(self) -> None:
        allocator, self._allocator = self._allocator, None
        if allocator is not None:
            self._ggml.gallocr_free(allocator)
        self._between.close()
        self._in.close()

    def _inputs(self, parts: Sequence[Part], layers: range) -> list[PartInputs]:
        found, first = [], 0
        places = self._places
        for number, (part, masks) in enumerate(zip(parts, self._masks, strict=True)):
            tensors: Mapping[int, tuple[int, int]] = (
                {layer: part.slot.tensors(layer) for layer in layers}
                if places is None
                else places.tensors[number]
            )
            found.append(
                PartInputs(
                    first,
                    part.rows,
                    masks.attended,
                    part.cells,
                    masks.index,
                    masks.tensors,
                    tensors,
                    part.slot.is_long,
                )
            )
            first += part.rows
        return found


class NextRow:
    """The graph that ran a session's last row, and runs the next ones in the same cells.

    Now and then it lets a row go the long way, where the graphs used last are told from others.
    """

    def __init__(self, graph: StepGraph, end: int) -> None:
        """``end``: as many positions as it has cells for, and the session memory."""
        self._graph = graph
        self._end = end

    def fits(self, start: int) -> bool:
        """Whether it can run the row at ``start``; its graph may have made room for others."""
        return start < self._end and start % _ROWS != 0 and not self._graph.is_closed

    def run(self, x: Floats, start: int) -> Floats:
        """Compute x [1, d_model], which is left as it is."""
        return self._graph.run_row(x, start)


class _Masks:
    """Where one session's rows are written, and what each of them sees.

    Attributes:
        rows: How many rows.
        attended: Rows that attention is given.
        index: I64 [rows].
        tensors: F16 [cells, attended], by window.
    """

    def __init__(
        self, backend: Backend, tensors: Tensors, config: ModelConfig, part: Part, layers: range
    ) -> None:
        ggml = backend.ggml
        self._backend = backend
        self.rows = part.rows
        self.attended = max(part.rows, TILE) if part.rows > MOST_ROWS_TOGETHER else part.rows
        if part.rows == 1:
            self.attended = max(2, config.n_heads // config.n_kv_heads)
        self.index: int = ggml.new_tensor_1d(tensors.context, Type.I64, part.rows)
        windows = sorted({config.window_of(layer) for layer in layers})
        self.tensors: Mapping[int, int] = {
            window: ggml.new_tensor_2d(tensors.context, Type.F16, part.cells, self.attended)
            for window in windows
        }
        self._shape = (self.attended, part.cells)
        self._rows_from_0 = np.arange(part.rows, dtype=np.int64)
        self._start: int | None = None

    def mirror(self) -> None:
        """Make the arrays that are copied into the tensors, which have memory by now."""
        self._where = Mirror(self._backend, self.index, (self.rows,), np.int64)
        self._seen = {
            window: Mirror(self._backend, tensor, self._shape, np.float16)
            for window, tensor in self.tensors.items()
        }
        # To set an item so runs a fraction of what numpy runs, all of it cold by then.
        self._where_items = self._where.array.data
        self._seen_items = {
            window: mirror.array.view(np.uint16).data for window, mirror in self._seen.items()
        }

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """Where the rows stand, [rows]."""
        positions: npt.NDArray[np.int64] = self._where.array
        return positions

    def move(self, start: int) -> None:
        """Let the first row stand at position ``start``."""
        rows, previous = self.rows, self._start
        self._start = start
        if rows == 1:
            self._where_items[0] = start
        else:
            np.add(self._rows_from_0, start, out=self._where.array)
        self._where.write()
        is_next = rows == 1 and previous is not None and start == previous + 1
        for window, mirror in self._seen.items():
            if is_next:
                self._see_one_more(start, window)
            else:
                _fill(mirror.array, start, rows, window)
            mirror.write()

    def _see_one_more(self, start: int, window: int) -> None:
        """Move the one row from the position before ``start`` to it."""
        seen = self._seen_items[window]
        for row in range(self.attended):
            seen[row, start] = _SEEN_BITS
            if window and start >= window:
                seen[row, start - window] = _HIDDEN_BITS


def _most_nodes(config: ModelConfig, sessions: int, *, is_split: bool) -> int:
    """Return more nodes than a layer has: ggml ends the process where one finds no room."""
    of_part, of_experts = _PART_NODES, 2 * config.n_experts_used
    if is_split:
        of_part += _SPLIT_NODES
        of_part += _EXPERTS_NODES + of_experts if config.n_experts_used else 0
    return _LAYER_NODES + of_experts + of_part * sessions


def _fill(seen: npt.NDArray[np.float16], start: int, rows: int, window: int) -> None:
    """Let each row see all up to itself, or the last ``window`` of that; [attended, cells]."""
    seen[:] = _HIDDEN
    for row in range(len(seen)):
        end = start + min(row, rows - 1) + 1
        seen[row, max(0, end - window) if window else 0 : end] = _SEEN
