"""Q4_1 matrices for long batches: a Q4_0 matrix that the CPU rearranges, and what it lacks.

Where the CPU has no rearranged kernel for Q4_1, its product with 64 rows takes 2.4 times as long as
that with Q4_0 (measured: 33 and 80 billion operations a second on one core with AVX2). A block of
32 weights is d * q + m in Q4_1 and d * (q - 8) in Q4_0, with q from 0 to 15 and d alike. So a Q4_1
matrix is a Q4_0 matrix plus one number a block, m + 8 d, times the sum of the block's inputs. That
rest is a product a thirty-second as large, which BLAS does in float32. From 128 rows on BLAS does
the whole: see :mod:`.expand`.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats
from p2pnode.engine.ggml.binding import Ggml
from p2pnode.engine.ggml.expand import OPERATION, add_operation, floats_at

BLOCK: Final = 32  # weights of a block of either type
_Q4_1_BYTES: Final = 20  # d and m in float16, then two weights a byte
_Q4_0_BYTES: Final = 18  # d, then the same

_ONES: Final = np.ones(BLOCK, np.float32)  # a product with it sums five times as fast as a sum

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One matrix.

    Attributes:
        tensor: Q4_0, rearranged, [in, out].
        rest: float32 [in / 32, out]: what each block adds for its inputs' sum.
    """

    tensor: int
    rest: Floats


def split_blocks(stored: memoryview, width: int) -> tuple[Bytes, Floats]:
    """Return a Q4_1 matrix of rows ``width`` wide as Q4_0 blocks, and its rest [in / 32, out]."""
    blocks = np.frombuffer(stored, np.uint8).reshape(-1, _Q4_1_BYTES)  # [blocks, bytes]
    scale, least = blocks[:, :4].copy().view(np.float16).astype(np.float32).T  # [blocks] each
    plain = np.empty((len(blocks), _Q4_0_BYTES), np.uint8)
    plain[:, :2] = blocks[:, :2]
    plain[:, 2:] = blocks[:, 4:]
    rest = (least + 8 * scale).reshape(-1, width // BLOCK)  # [out, in / 32]
    return plain, np.ascontiguousarray(rest.T)


def add_product(ggml: Ggml, context: int, split: Split, x: int, rows: int) -> tuple[int, object]:
    """Add the product with x [in, rows] to a graph.

    Returns:
        The product [out, rows], and what must live as long as the graph.
    """
    most = ggml.mul_mat(context, split.tensor, x)
    width, out = split.rest.shape[0] * BLOCK, split.rest.shape[1]

    def finish(target: int, thread: int, _of: int, _data: int | None) -> None:
        if thread:  # each thread is asked, however many tasks were named
            return
        inputs = floats_at(ggml.get_data(x), rows, width)  # [rows, in]
        sums = (inputs.reshape(-1, BLOCK) @ _ONES).reshape(rows, -1)  # [rows, in / 32]
        product = floats_at(ggml.get_data(target), rows, out)  # [rows, out]
        np.matmul(sums, split.rest, out=product)
        product += floats_at(ggml.get_data(most), rows, out)

    operation = OPERATION(finish)
    return add_operation(ggml, context, operation, (most, x), out, rows, 1), operation
