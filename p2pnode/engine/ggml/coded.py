"""Matrices as integers of a byte and scales, for types that the library is slow to expand.

Q5_0, Q5_1, Q6_K and IQ4_XS take 1.0 to 1.5 ns a weight to expand (measured with AVX2), where BLAS
takes 1.7 for a product with 64 rows. Each is an integer of at most 8 bits times a scale for 16 or
32 of them. So they are unpacked once, when they are loaded. A tile of them becomes float32 in 0.4
ns a weight if the numbers of one input lie beside each other: a row of scales is multiplied with
rows of integers then. numpy does that; no number is rounded otherwise than by the library, but that
what Q5_1 adds to each number of a block is added to the product, times the sum of its inputs.

Q5_0 is Q8_0 with small numbers: it is held so instead, and the library computes the same bits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats
from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.ggml.expand import tile_rows
from p2pnode.engine.gguf_header import TENSOR_TYPES, TensorInfo

Bytes: TypeAlias = npt.NDArray[np.uint8]
Codes: TypeAlias = npt.NDArray[np.int8]

_BLOCK: Final = 32  # weights of a block of Q5_0, Q5_1 and Q8_0
_AT_ONCE: Final = 2**13  # blocks that are unpacked together: 256 KiB of codes
_TURNED: Final = (
    32  # rows that are put as columns at once: all 128 of 1536 numbers take thrice as long
)
_ONES: Final = np.ones(_BLOCK, np.float32)
_RUN: Final = np.dtype((np.void, _BLOCK))  # copied whole: four times as fast as byte by byte
_LOW: Final = np.uint8(15)
_OF_IQ4: Final = (
    np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
    .astype(np.int8)
    .tobytes()
    .ljust(256, b"\0")
)
"""What the sixteen codes of IQ4_XS stand for, as a table for ``bytes.translate``."""


@dataclass(frozen=True, slots=True, eq=False)
class _Tile:
    """Some rows of a matrix.

    Attributes:
        codes: [blocks, inputs of a block, rows].
        scale: [blocks, 1, rows].
        rest: [blocks, rows]: what each block adds for its inputs' sum; None for nothing.
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

    @property
    def room(self) -> int:
        rest = self.tiles[0].rest
        return tile_rows(self.width) * (self.width + (0 if rest is None else len(rest)))

    def prepared(self, inputs: Floats) -> Floats:
        """Put the sums of each block's inputs behind them where there is a rest."""
        if self.tiles[0].rest is None:
            return inputs
        sums = (inputs.reshape(-1, _BLOCK) @ _ONES).reshape(len(inputs), -1)  # [rows, blocks]
        return np.concatenate([inputs, sums], axis=1)  # [rows, width + blocks]

    def multiply(self, inputs: Floats, start: int, floats: Floats, product: Floats) -> None:
        tile, count = self.tiles[start // tile_rows(self.width)], product.shape[1]
        expanded = floats[: inputs.shape[1] * count].reshape(-1, count)  # [in, rows of the tile]
        numbers = expanded[: self.width].reshape(tile.codes.shape)
        np.copyto(numbers, tile.codes)
        numbers *= tile.scale
        if tile.rest is not None:
            expanded[self.width :] = tile.rest
        np.matmul(inputs, expanded, out=product)


def is_coded(code: int) -> bool:
    """Whether a matrix of this type can be held as :class:`CodedMatrix`."""
    return code in _UNPACK


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
        with np.errstate(all="ignore"):  # what is not finite is refused where states leave
            codes, scale, rest = unpack(rows[start : start + step])
        count, blocks = scale.shape
        scales, rests = keep(scale)[:, None], None if rest is None else keep(rest)
        integers = keep(codes.reshape(count, width)).reshape(blocks, -1, count)
        tiles.append(_Tile(integers, scales, rests))
    return CodedMatrix(width, out, tuple(tiles))


def put_as_q8_0(stored: memoryview, room: Bytes) -> None:
    """Write a Q5_0 matrix in Q8_0 into ``room``: the same scales and the same numbers."""
    five = np.frombuffer(stored, np.uint8).reshape(-1, TENSOR_TYPES[Type.Q5_0].size)
    eight = room.reshape(-1, TENSOR_TYPES[Type.Q8_0].size)
    for start in range(0, len(five), _AT_ONCE):
        some, target = five[start : start + _AT_ONCE], eight[start : start + _AT_ONCE]
        codes = _five_bits(some[:, 2:6], some[:, 6:])
        codes -= np.uint8(16)
        target[:, :2] = some[:, :2]
        runs = np.ndarray(len(some), _RUN, target.data, 2, target.strides[:1])
        runs[:] = codes.view(_RUN)[:, 0]


_Unpacked: TypeAlias = tuple[Codes, Floats, Floats | None]
"""Codes [rows, ...], scales [rows, blocks], and the rest likewise or None."""


def _unpack_q5_1(rows: Bytes) -> _Unpacked:
    head = rows[..., :4].copy().view(np.float16).astype(np.float32)  # [rows, blocks, 2]
    codes = _five_bits(rows[..., 4:8], rows[..., 8:])
    return codes.view(np.int8), head[..., 0], head[..., 1]


def _unpack_q6_k(rows: Bytes) -> _Unpacked:
    """Two halves of 128 weights, each four runs of 32: low bits in nibbles, high bits in pairs."""
    shape = (*rows.shape[:2], 2)
    low = rows[..., :128].reshape(*shape, 64)
    high = rows[..., 128:192].reshape(*shape, 1, 32)
    codes = _nibbles(low).reshape(*shape, 4, 32)
    codes |= (high >> np.array([0, 2, 4, 6], np.uint8)[:, None] & np.uint8(3)) << np.uint8(4)
    codes -= np.uint8(32)
    scale = rows[..., 192:208].view(np.int8) * _half(rows[..., 208:])
    return codes.view(np.int8), scale.reshape(len(rows), -1), None


def _unpack_iq4_xs(rows: Bytes) -> _Unpacked:
    """Eight blocks of 32 under one scale, each with six bits of its own."""
    picks = _nibbles(rows[..., 8:].reshape(*rows.shape[:2], 8, 16))
    codes = np.frombuffer(picks.tobytes().translate(_OF_IQ4), np.int8)
    low = rows[..., 4:8, None] >> np.array([0, 4], np.uint8) & _LOW  # [rows, blocks, 4, 2]
    pairs = np.arange(0, 16, 2, dtype=np.uint16)
    high = rows[..., 2:4].copy().view("<u2") >> pairs & np.uint16(3)  # [rows, blocks, 8]
    own = low.reshape(high.shape) | high << np.uint16(4)
    scale = (own.astype(np.float32) - 32) * _half(rows[..., :2])
    return codes, scale.reshape(len(rows), -1), None


def _half(of: Bytes) -> Floats:
    """Read float16 [..., 1] from its two bytes."""
    return of.copy().view("<f2").astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """Return the low halves of bytes, then the high ones, along the last axis."""
    run = np.dtype((np.void, packed.shape[-1]))
    whole = packed.view(run).copy().view(np.uint8)  # whole runs are copied six times as fast
    both = np.empty((*packed.shape[:-1], 2), run)
    both[..., 0] = (whole & _LOW).view(run)[..., 0]
    both[..., 1] = (whole >> np.uint8(4)).view(run)[..., 0]
    return both.view(np.uint8)


def _five_bits(high: Bytes, low: Bytes) -> Bytes:
    """Return numbers from 0 to 31 of their fifth bits [..., 4] and their nibbles [..., 16]."""
    fifth = np.unpackbits(high, axis=-1, bitorder="little")
    fifth *= np.uint8(16)  # a shift of bytes takes eight times as long
    fifth |= _nibbles(low)
    return fifth


_UNPACK: Final[dict[Type, Callable[[Bytes], _Unpacked]]] = {
    Type.Q5_1: _unpack_q5_1,
    Type.Q6_K: _unpack_q6_k,
    Type.IQ4_XS: _unpack_iq4_xs,
}
