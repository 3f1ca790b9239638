"""Which products round a row by how many stand beside it.

Some kernels take another path for several rows than for one, and add in another order. Nobody
promises either, so it is tried on the library at hand, on the smallest weight of each kind.
"""

from typing import Final

import numpy as np

from p2pnode.engine.base import Floats
from p2pnode.engine.ggml.backend import Backend, Tensors, read, write
from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.ggml.ends import MOST_ROWS
from p2pnode.engine.ggml.functions import TensorHead
from p2pnode.engine.ggml.weights import Weights

_TRIED: Final = (2, 3, 8, 33, 70)  # rows: around the widths of tiles and blocks of kernels
_NODES: Final = 16


_FEW: Final = tuple(range(2, MOST_ROWS + 1))
_ROWS_OF_HEAD: Final = 256


def is_head_stable(backend: Backend, weight: int, kind: int | None, stored: int) -> bool:
    """Whether the output matrix gives a row alone what it gives it beside up to seven others.

    All of it may take long to multiply with, so its first rows are tried, held as it is.

    Args:
        backend: What computes.
        weight: The matrix.
        kind: The type of buffer that it lies in; None where it is mapped.
        stored: Address of its bytes as they are multiplied with.
    """
    ggml, head = backend.ggml, TensorHead.from_address(weight)
    width, rows = head.ne[0], min(_ROWS_OF_HEAD, head.ne[1])
    with Tensors(backend, 1) as group:
        some = ggml.new_tensor_2d(group.context, head.type, width, rows)
        group.allocate(kind or backend.buffer_type)
        ggml.backend_tensor_set(some, stored, 0, ggml.row_size(head.type, width) * rows)
        return _is_stable(backend, some, _FEW)


def unstable_products(backend: Backend, weights: Weights) -> frozenset[str]:
    """Return the names of the tensors whose products depend on the number of rows."""
    kinds: dict[tuple[int, int | None, bool], list[str]] = {}
    for name, place in weights.products.items():
        head = TensorHead.from_address(weights[name])
        kinds.setdefault((head.type, place, head.ne[2] > 1), []).append(name)
    unstable: list[str] = []
    for names in kinds.values():
        smallest = min(names, key=lambda name: backend.ggml.nelements(weights[name]))
        if not _is_stable(backend, weights[smallest]):
            unstable += names
    return frozenset(unstable)


def _is_stable(backend: Backend, weight: int, tried: tuple[int, ...] = _TRIED) -> bool:
    width = TensorHead.from_address(weight).ne[0]
    rows = np.random.default_rng(0).standard_normal((max(tried), width)).astype(np.float32)
    alone = np.concatenate([_product(backend, weight, row[None]) for row in rows])
    return all(
        np.array_equal(_product(backend, weight, rows[:count]), alone[:count]) for count in tried
    )


def _product(backend: Backend, weight: int, rows: Floats) -> Floats:
    """Multiply [rows, in] with a weight [in, out], or with the first of several."""
    ggml, (count, width) = backend.ggml, rows.shape
    head = TensorHead.from_address(weight)
    with (
        Tensors(backend, 2) as inputs,
        Tensors(backend, _NODES, graph_nodes=_NODES) as between,
    ):
        ids = None
        if head.ne[2] > 1:
            x = ggml.new_tensor_3d(inputs.context, Type.F32, width, 1, count)
            ids = ggml.new_tensor_2d(inputs.context, Type.I32, 1, count)
            product = ggml.mul_mat_id(between.context, weight, x, ids)
        else:
            x = ggml.new_tensor_2d(inputs.context, Type.F32, width, count)
            product = ggml.mul_mat(between.context, weight, x)
        inputs.allocate()
        write(ggml, x, rows)
        if ids is not None:
            write(ggml, ids, np.zeros(count, np.int32))
        graph = ggml.new_graph_custom(between.context, _NODES, False)
        ggml.set_output(product)
        ggml.build_forward_expand(graph, product)
        between.allocate()
        backend.compute(graph)
        out = np.empty((count, head.ne[1]), np.float32)
        read(ggml, product, out)
    return out
