"""Matrices as integers of a byte and scales, for types that the library is slow to expand.

Most types of two, three, five and six bits take 1 to 4 ns a weight to expand (measured with AVX2),
where BLAS takes 1.7 for a product with 64 rows. Each is an integer of at most 8 bits times a scale
for 16 of them or more. So they are unpacked once, when they are loaded. A tile of them becomes
float32 in 0.4 ns a weight if the numbers of one input lie beside each other: a row of scales is
multiplied with rows of integers then. numpy does that; no number is rounded otherwise than by the
library, but that what Q5_1 and Q2_K add to each number of a block is added to the product, times
the sum of its inputs, where rows are few.

Q5_0 and IQ3, with one scale for 32 weights, are held as Q8_0 instead: the library multiplies with
that faster, also for one row. Q5_0 computes the same bits so. IQ3's scales have up to 16 bits, and
Q8_0's have 11: they are rounded by at most one part in 2 ** 11, or by 2 ** -25 where they are below
2 ** -14, too small for float16's whole precision (those of IQ3_S are exact there). What they are
multiplied with, the library rounds to 8 bits. A scale above 65,504, that of weights of thousands,
is infinite, and what is computed with it is refused. (A row of IQ2_XXS takes as long in Q8_0, which
is four times as many bytes: more threads than one or two would wait for memory.)
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats
from p2pnode.engine.ggml import grids, unpacking
from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.ggml.expand import tile_rows
from p2pnode.engine.ggml.unpacking import Bytes, Codes
from p2pnode.engine.gguf_header import TENSOR_TYPES, TensorInfo

AS_Q8_0: Final = frozenset({Type.Q5_0, Type.IQ3_XXS, Type.IQ3_S})
"""Held as Q8_0 instead of as they are stored."""

ROUNDED: Final = AS_Q8_0 - {Type.Q5_0}
"""Those whose scales Q8_0 rounds."""

_UNPACK: Final = {**unpacking.UNPACK, **grids.UNPACK}
_Q8_0: Final = TENSOR_TYPES[Type.Q8_0]
_AT_ONCE: Final = 2**18  # weights that are unpacked together: 256 KiB of codes
_TURNED: Final = (
    32  # rows that are put as columns at once: all 128 of 1536 numbers take thrice as long
)
_RUN: Final = np.dtype((np.void, _Q8_0.block))  # copied whole: four times as fast as byte by byte


_ADDED_FROM: Final = 256
"""Rows from which on what a block adds is added to each of its numbers. That takes 0.2 ns a weight;
in the product it takes up to 0.15 with 64 rows, 0.2 with 128 and 1 with 512."""


@dataclass(frozen=True, slots=True, eq=False)
class _Tile:
    """Some rows of a matrix.

    Attributes:
        codes: [groups, inputs of a group, rows].
        scale: [groups, 1, rows].
        rest: [blocks, rows]: what is added to each number of a block; None for nothing.
    """

    codes: Codes
    scale: Floats
    rest: Floats | None


@dataclass(frozen=True, slots=True, eq=False)
class CodedMatrix:
    """A matrix [in, out] in tiles; see :class:`p2pnode.engine.ggml.expand.Matrix`."""

    width: int
    out: int
    tiles: tuple[_Tile, ...]

    def room(self, rows: int) -> int:
        wide = self._wide(rows)
        return tile_rows(self.width) * wide + (rows * wide if wide > self.width else 0)

    def prepared(self, inputs: Floats, floats: Floats) -> Floats:
        """Put the sums of each block's inputs behind them where the product is to add the rest."""
        rows, width = inputs.shape
        wide = self._wide(rows)
        if wide == width:
            return inputs
        ones = np.ones(width // (wide - width), np.float32)
        both = floats[len(floats) - rows * wide :].reshape(rows, wide)
        both[:, :width] = inputs
        both[:, width:] = (inputs.reshape(-1, len(ones)) @ ones).reshape(rows, -1)
        return both

    def multiply(self, inputs: Floats, start: int, floats: Floats, product: Floats) -> None:
        tile, count = self.tiles[start // tile_rows(self.width)], product.shape[1]
        expanded = floats[: inputs.shape[1] * count].reshape(-1, count)  # [in, rows of the tile]
        numbers = expanded[: self.width].reshape(tile.codes.shape)
        np.copyto(numbers, tile.codes)
        numbers *= tile.scale
        if tile.rest is not None and inputs.shape[1] > self.width:
            expanded[self.width :] = tile.rest
        elif tile.rest is not None:
            blocks = expanded.reshape(len(tile.rest), -1, count)  # [blocks, inputs of one, rows]
            blocks += tile.rest[:, None]
        np.matmul(inputs, expanded, out=product)

    def _wide(self, rows: int) -> int:
        """Return how wide what is multiplied is: so many inputs, and the sums of each block's."""
        rest = self.tiles[0].rest
        return self.width + (0 if rest is None or rows >= _ADDED_FROM else len(rest))


def is_coded(code: int) -> bool:
    """Whether a matrix of this type can be held as :class:`CodedMatrix`, beside what is stored."""
    return code in _UNPACK and code not in AS_Q8_0


def coded(info: TensorInfo, stored: memoryview, room: Bytes) -> CodedMatrix:
    """Unpack a matrix that lies as it is stored into ``room``, of as many bytes as it takes."""
    out, width = info.shape
    unpack, step = _UNPACK[Type(info.type.code)], tile_rows(width)
    rows = np.frombuffer(stored, np.uint8).reshape(out, -1, info.type.size)  # [out, blocks, bytes]
    tiles, at = [], 0

    def keep(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Keep an array [rows, numbers] as [numbers, rows]."""
        nonlocal at
        kept = room[at : at + array.nbytes].view(array.dtype).reshape(array.shape[::-1])
        for some in range(0, len(array), _TURNED):
            kept[:, some : some + _TURNED] = array[some : some + _TURNED].T
        at += array.nbytes
        return kept

    for start in range(0, out, step):
        some = rows[start : start + step]
        count = len(some)
        with np.errstate(all="ignore"):  # what is not finite is refused where states leave
            unpacked = unpack(some.reshape(-1, info.type.size))
        scale, rest = keep(unpacked.scale.reshape(count, -1)), unpacked.rest
        rests = None if rest is None else keep(rest.reshape(count, -1))
        codes = keep(unpacked.codes.reshape(count, width)).reshape(len(scale), -1, count)
        tiles.append(_Tile(codes, scale[:, None], rests))
    return CodedMatrix(width, out, tuple(tiles))


def put_as_q8_0(info: TensorInfo, stored: memoryview, room: Bytes) -> None:
    """Write a matrix of a type of :data:`AS_Q8_0`, as it is stored, into ``room`` in Q8_0."""
    unpack, step = _UNPACK[Type(info.type.code)], _AT_ONCE // info.type.block
    blocks = np.frombuffer(stored, np.uint8).reshape(-1, info.type.size)
    eight = room.reshape(len(blocks), -1, _Q8_0.size)  # [blocks, those of Q8_0, bytes]
    for start in range(0, len(blocks), step):
        target = eight[start : start + step].reshape(-1, _Q8_0.size)
        with np.errstate(all="ignore"):  # what is not finite is refused where states leave
            unpacked = unpack(blocks[start : start + step])
            scale = unpacked.scale.astype("<f2").reshape(-1, 1)
        target[:, :2] = scale.view(np.uint8)
        runs = np.ndarray(len(target), _RUN, target.data, 2, target.strides[:1])
        runs[:] = unpacked.codes.reshape(-1, _Q8_0.block).view(_RUN)[:, 0]
