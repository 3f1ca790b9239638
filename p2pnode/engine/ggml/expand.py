"""Long batches by BLAS: a matrix is expanded to float32, a tile of its rows at a time.

Kernels that multiply blocks of integers as a file stores them unpack every block anew for one or a
few rows of a batch. In a long batch that costs more than unpacking each block once and multiplying
in float32: measured with AVX2 on one core, a product with 64 rows in Q8_0 takes 1.8 times as long
as BLAS's in float32, and expanding the matrix a tenth. A tile lies in the cache until BLAS has read
it, so it costs no memory worth naming. Figures: docs/figures.md, "Products in long batches".

What is computed depends on the library, the type and the count of rows alone: tiles are the same
whoever computes them.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import MOST_ROWS_TOGETHER, Floats
from p2pnode.engine.blas import has_blas
from p2pnode.engine.ggml.binding import Ggml, parse_version
from p2pnode.engine.ggml.constants import EVERY_THREAD, Type
from p2pnode.engine.ggml.functions import TensorHead, TypeTraits

_TILE: Final = 128  # rows of a matrix; 64 lose 4 % to copies that BLAS makes, and 16 lose a third
_STEP: Final = 16  # rows that BLAS's kernels take at once, or a multiple of it
_MOST_FLOATS: Final = 2**20  # of a tile: 4 MiB

_FROM: Final = MOST_ROWS_TOGETHER + 1
"""Rows from which a product is made so: those that stand beside other sessions never are."""

_SLOW_FROM: Final = 64
"""The same for types that take 1 to 4 ns a weight to expand: below, ggml's kernels win."""

_LATE_FROM: Final = 128
_LATE: Final = frozenset({Type.Q2_K, Type.Q6_K})
"""With 64 rows ggml's kernels are as fast or faster, with 128 BLAS is."""

_SLOW: Final = frozenset(
    {
        Type.IQ2_XXS,
        Type.IQ2_XS,
        Type.IQ2_S,
        Type.IQ3_XXS,
        Type.IQ3_S,
        Type.IQ4_XS,
    }
)
_OF_256: Final = frozenset(
    {*_SLOW, *_LATE, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.IQ1_S, Type.IQ1_M, Type.TQ1_0}
)
_OF_256_IS_TILED: Final = (0, 26)
"""The version that was seen to unpack blocks of 256 weights once for many rows; 0.20 does not."""

PRODUCT_RULES: Final = 3
"""Raised with every change to how weights are held and multiplied: part of the numerics."""

AFTER_SPLIT: Final = 128
"""The same for a matrix of :mod:`.split`: with 64 rows it is faster by that, with more by this."""

_NEVER: Final = frozenset({Type.TQ2_0, Type.NVFP4})
"""Its own kernel is as fast as BLAS; and what no library at hand could be tried with."""

OPERATION: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p
)
_TO_FLOAT: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


def expanded_from(ggml: Ggml, code: int, *, is_coded: bool = False) -> int | None:
    """Return the least rows of a batch that BLAS multiplies faster; None where it never does.

    Args:
        ggml: The library.
        code: Type of a matrix that the library multiplies with as it is stored.
        is_coded: Whether it is held in a second form too (:mod:`.coded`).
    """
    is_tiled = parse_version(ggml.version) >= _OF_256_IS_TILED
    custom: Callable[..., Any] | None = ggml.custom_4d
    if code in _NEVER or (is_tiled and code in _OF_256) or custom is None:
        return None
    if not has_blas():
        return None
    if is_coded:
        return _FROM
    if code != Type.F32 and to_float(ggml, code) is None:
        return None
    if code in _LATE:
        return _LATE_FROM
    return _SLOW_FROM if code in _SLOW else _FROM


def to_float(ggml: Ggml, code: int) -> Callable[[int, int, int], Any] | None:
    """Return what expands so many numbers of a type, from an address to another.

    None where the library has no such function, or describes types otherwise than we know.
    """
    if code == Type.F16:  # that of the table takes 1.3 ns a number, this one 0.1
        quick: Callable[[int, int, int], Any] | None = ggml.cpu_fp16_to_fp32
        return quick
    find: Callable[[int], Any] | None = ggml.get_type_traits
    address = None if find is None else find(code)
    if address is None:
        return None
    traits = TypeTraits.from_address(address)
    known = (ggml.blck_size(code), ggml.type_size(code), ggml.is_quantized(code))
    if (traits.blck_size, traits.type_size, traits.is_quantized) != known or not traits.to_float:
        return None
    return _TO_FLOAT(traits.to_float)


@dataclass(slots=True)
class Scratch:
    """Room for a tile for each thread, made when it is first needed, as large as ever was."""

    arrays: dict[int, Floats]

    def of(self, thread: int, size: int) -> Floats:
        """Return ``size`` numbers that only ``thread`` uses."""
        array = self.arrays.get(thread)
        if array is None or len(array) < size:
            array = self.arrays[thread] = np.empty(size, np.float32)
        return array[:size]


class Matrix(Protocol):
    """A matrix [in, out] that is expanded a tile at a time."""

    @property
    def width(self) -> int: ...

    @property
    def out(self) -> int: ...

    def room(self, rows: int) -> int:
        """Return the floats that a product with so many rows needs besides: with a tile, above all.

        The same memory serves every product: a new piece of it comes in pages that the system
        fills first, and 200 KB take 0.1 ms so.
        """

    def prepared(self, inputs: Floats, floats: Floats) -> Floats:
        """Return what tiles are multiplied with, of inputs [rows, width], maybe in the room."""

    def multiply(self, inputs: Floats, start: int, floats: Floats, product: Floats) -> None:
        """Multiply with one tile.

        Args:
            inputs: As they were prepared.
            start: The tile's first column; tiles have :func:`tile_rows` of them, or what is left.
            floats: The room.
            product: [rows, columns of the tile]: filled.
        """


@dataclass(frozen=True, slots=True)
class StoredMatrix:
    """A matrix that lies at ``address`` as a file has it; ``expand`` is None for float32."""

    address: int
    width: int
    out: int
    row_bytes: int
    expand: Callable[[int, int, int], Any] | None

    @classmethod
    def of(cls, ggml: Ggml, weight: int) -> "StoredMatrix":
        """Describe a contiguous tensor that has memory."""
        head = TensorHead.from_address(weight)
        expand = to_float(ggml, head.type)
        return cls(ggml.get_data(weight), head.ne[0], head.ne[1], head.nb[1], expand)

    def room(self, rows: int) -> int:
        del rows
        return 0 if self.expand is None else tile_rows(self.width) * self.width

    def prepared(self, inputs: Floats, floats: Floats) -> Floats:
        del floats
        return inputs

    def multiply(self, inputs: Floats, start: int, floats: Floats, product: Floats) -> None:
        count, stored = product.shape[1], self.address + start * self.row_bytes
        if self.expand is None:
            tile = floats_at(stored, count, self.width)
        else:
            tile = floats[: count * self.width].reshape(count, self.width)
            self.expand(stored, tile.ctypes.data, count * self.width)
        np.matmul(inputs, tile.T, out=product)


def expanded_product(
    ggml: Ggml, context: int, matrix: Matrix, x: int, rows: int, scratch: Scratch
) -> tuple[int, object]:
    """Add the product of a matrix [in, out] with x [in, rows], contiguous, to a graph.

    Returns:
        The product [out, rows], and what must live as long as the graph.
    """
    width, out = matrix.width, matrix.out
    tile = tile_rows(width)

    def multiply(target: int, thread: int, threads: int, _data: int | None) -> None:
        product = floats_at(ggml.get_data(target), rows, out)
        try:
            floats = scratch.of(thread, matrix.room(rows))
            with np.errstate(all="ignore"):  # what is not finite is refused where states leave
                inputs = matrix.prepared(floats_at(ggml.get_data(x), rows, width), floats)
                for start in range(thread * tile, out, threads * tile):
                    matrix.multiply(inputs, start, floats, product[:, start : start + tile])
        except BaseException:  # C does not hear of it
            product.fill(np.nan)
            raise

    operation = OPERATION(multiply)
    return add_operation(ggml, context, operation, (x,), out, rows, EVERY_THREAD), operation


def add_operation(
    ggml: Ggml,
    context: int,
    operation: object,
    sources: tuple[int, ...],
    out: int,
    rows: int,
    tasks: int,
) -> int:
    """Add a node that ``operation`` computes of ``sources``: float32 [out, rows]."""
    array = (ctypes.c_void_p * len(sources))(*sources)
    function = ctypes.cast(operation, ctypes.c_void_p)  # type: ignore[arg-type]
    at = ctypes.addressof(array)
    added: int = ggml.custom_4d(
        context, Type.F32, out, rows, 1, 1, at, len(sources), function, tasks, None
    )
    return added


def tile_rows(width: int) -> int:
    """Return how many rows of a matrix are expanded at once."""
    return max(_STEP, min(_TILE, _MOST_FLOATS // width // _STEP * _STEP))


def floats_at(address: int, rows: int, width: int) -> Floats:
    """Return contiguous float32 in our own memory as [rows, width]."""
    numbers = (ctypes.c_float * (rows * width)).from_address(address)
    return np.ctypeslib.as_array(numbers).reshape(rows, width)


def bytes_at(address: int, size: int) -> npt.NDArray[np.uint8]:
    """Return so many bytes of our own memory, to be written to."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
