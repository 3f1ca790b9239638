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

MOST_ROWS: Final = 8
"""Rows that the head multiplies at once: what it gives for each is as large as the vocabulary."""


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

    def give(
        self,
        output: int,
        given: tuple[int, ...],
        found: tuple[int, ...],
        kind: npt.DTypeLike = np.float32,
    ) -> None:
        """Finish the graph.

        Args:
            output: The output's tensor, of float32.
            given: The shape of the input.
            found: The shape of the output.
            kind: What the input's numbers are.
        """
        ggml = self.ggml
        self._graph: int = ggml.new_graph_custom(self.context, _NODES, False)
        ggml.set_output(output)
        ggml.build_forward_expand(self._graph, output)
        self._allocator = allocate_graph(self.backend, self._graph)
        self._given = Mirror(self.backend, self.input, given, kind)
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
                graph.give(found, (count,), (count, self._d_model), np.int32)
                made.pop_all()
            self._graphs[count] = graph  # with its memory: one without would end the process
        return graph


class Head:
    """Norms hidden states and multiplies them with the output matrix [d_model, vocab].

    The matrix is large, and read once for all rows of a product: eight take 4 to 6 times what one
    takes (AVX2, measured).
    """

    def __init__(
        self,
        backend: Backend,
        norm: int,
        matrix: int,
        d_model: int,
        vocab_size: int,
        eps: float,
        *,
        is_stable: bool = False,
    ) -> None:
        """``is_stable``: the product of a row does not depend on those beside it."""
        self._backend = backend
        self._norm = norm
        self._matrix = matrix
        self._d_model = d_model
        self._vocab_size = vocab_size
        self._eps = eps
        self._most = MOST_ROWS if is_stable else 1
        self._graphs: dict[int, _Graph] = {}  # by rows; without the product at 0
        with ExitStack() as made:
            made.callback(self.close)
            self._graph(0)
            self._graph(1)
            made.pop_all()

    def fill(self, rows: Floats, logits: Floats) -> None:
        """Turn hidden states [n, d_model] into logits [n, vocab], each as if alone."""
        for start in range(0, len(rows), self._most):
            some = rows[start : start + self._most]
            self._graph(len(some)).run(some, logits[start : start + len(some)])

    def fill_normed(self, rows: Floats, out: Floats) -> None:
        """Put the norm alone of hidden states [n, d_model] into ``out`` [n, d_model]."""
        for number in range(len(rows)):
            self._graph(0).run(rows[number : number + 1], out[number : number + 1])

    def close(self) -> None:
        for graph in self._graphs.values():
            graph.close()
        self._graphs.clear()

    def _graph(self, count: int) -> _Graph:
        graph = self._graphs.get(count)
        if graph is None:
            with ExitStack() as made:
                graph = made.enter_context(closing(_Graph(self._backend)))
                ggml, rows = graph.ggml, max(1, count)
                x = graph.take(Type.F32, self._d_model, rows)
                normed = ggml.rms_norm(graph.context, x, self._eps)
                found = ggml.mul(graph.context, normed, self._norm)  # [d_model, rows]
                if count:
                    found = ggml.mul_mat(graph.context, self._matrix, found)  # [vocab, rows]
                width = self._vocab_size if count else self._d_model
                graph.give(found, (rows, self._d_model), (rows, width))
                made.pop_all()
            self._graphs[count] = graph
        return graph
