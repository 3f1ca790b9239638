"""The two ends of a model: ids to hidden states, and hidden states to logits."""

from contextlib import ExitStack, closing
from typing import Final

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats
from p2pnode.engine.ggml.backend import Backend, Mirror, Tensors, allocate_graph
from p2pnode.engine.ggml.constants import Type

_NODES: Final = 16
_AT_ONCE: Final = 64  # ids; longer batches are looked up in several runs


class _Graph:
    """A small graph of one input and one output."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.ggml = backend.ggml
        self._allocator: int | None = None
        with ExitStack() as made:
            self._in = made.enter_context(Tensors(backend, 1))
            self._between = made.enter_context(Tensors(backend, _NODES, graph_nodes=_NODES))
            made.pop_all()

    def take(self, kind: Type, *sizes: int) -> int:
        """Return the input's tensor."""
        rows = [*sizes, 1][:2]
        made: int = self.ggml.new_tensor_2d(self._in.context, kind, *rows)
        self.input = made
        self._in.allocate()
        return made

    @property
    def context(self) -> int:
        return self._between.context

    def give(self, output: int, given: tuple[int, npt.DTypeLike], found: tuple[int, ...]) -> None:
        """Finish the graph.

        Args:
            output: The output's tensor, of float32.
            given: How many numbers the input has, and of which type.
            found: The shape of the output.
        """
        ggml = self.ggml
        self._graph: int = ggml.new_graph_custom(self.context, _NODES, False)
        ggml.set_output(output)
        ggml.build_forward_expand(self._graph, output)
        self._allocator = allocate_graph(self.backend, self._graph)
        self._given = Mirror(self.backend, self.input, given[:1], given[1])
        self._found = Mirror(self.backend, output, found, np.float32)

    def run(self, x: npt.NDArray[np.generic], out: Floats) -> None:
        """Compute ``out`` of ``x``."""
        self._given.array[:] = x
        self._given.write()
        self.backend.compute(self._graph)
        self._found.read()
        out[:] = self._found.array

    def close(self) -> None:
        allocator, self._allocator = self._allocator, None
        if allocator is not None:
            self.ggml.gallocr_free(allocator)
        self._between.close()
        self._in.close()


class Embedding:
    """Looks up the rows of ids in a tensor [d_model, vocab] that the CPU can reach."""

    def __init__(self, backend: Backend, table: int, d_model: int) -> None:
        self._backend = backend
        self._table = table
        self._d_model = d_model
        self._graphs: dict[int, _Graph] = {}

    def rows(self, ids: npt.NDArray[np.int64]) -> Floats:
        """Return the hidden states [tokens, d_model] of ids [tokens]."""
        rows = np.empty((len(ids), self._d_model), np.float32)
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            self._graph(len(some)).run(some, rows[start : start + len(some)])
        return rows

    def close(self) -> None:
        for graph in self._graphs.values():
            graph.close()
        self._graphs.clear()

    def _graph(self, count: int) -> _Graph:
        graph = self._graphs.get(count)
        if graph is None:
            with ExitStack() as made:
                graph = made.enter_context(closing(_Graph(self._backend)))
                ids = graph.ggml.reshape_1d(graph.context, graph.take(Type.I32, count), count)
                found = graph.ggml.get_rows(graph.context, self._table, ids)
                graph.give(found, (count, np.int32), (count, self._d_model))
                made.pop_all()
            self._graphs[count] = graph  # with its memory: one without would end the process
        return graph


class Head:
    """Norms a hidden state and multiplies it with the output matrix [d_model, vocab]."""

    def __init__(
        self, backend: Backend, norm: int, matrix: int, d_model: int, vocab_size: int, eps: float
    ) -> None:
        with ExitStack() as made:
            graph = self._graph = made.enter_context(closing(_Graph(backend)))
            ggml = graph.ggml
            normed = ggml.rms_norm(graph.context, graph.take(Type.F32, d_model, 1), eps)
            normed = ggml.mul(graph.context, normed, norm)
            found = ggml.mul_mat(graph.context, matrix, normed)
            graph.give(found, (d_model, np.float32), (vocab_size,))
            alone = self._norm = made.enter_context(closing(_Graph(backend)))
            normed = ggml.rms_norm(alone.context, alone.take(Type.F32, d_model, 1), eps)
            normed = ggml.mul(alone.context, normed, norm)
            alone.give(normed, (d_model, np.float32), (d_model,))
            made.pop_all()

    def fill(self, row: Floats, logits: Floats) -> None:
        """Turn one hidden state [d_model] into logits [vocab]."""
        self._graph.run(row, logits)

    def fill_normed(self, row: Floats, out: Floats) -> None:
        """Put the norm alone of one hidden state [d_model] into ``out`` [d_model]."""
        self._norm.run(row, out)

    def close(self) -> None:
        self._norm.close()
        self._graph.close()
