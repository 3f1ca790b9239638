"""Blocks of the types whose weights are picked from grids, 4 or 8 at a time, as :mod:`.unpacking`.

The grids are those of the ``gguf`` package, which the numpy engine expands the same types with.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats
from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.ggml.unpacking import Bytes, Codes, Unpacked, half, nibbles_in_turn

_Table: TypeAlias = npt.NDArray[np.uint32] | npt.NDArray[np.uint64]
"""Runs of 4 or 8 integers of a byte, each as one number: taken whole."""

_IN_A_WORD: Final = np.array([0, 7, 14, 21], np.uint32)  # where four signs of seven bits lie
_SEVEN: Final = np.uint32(127)
_THREES: Final = np.array([0, 3, 6, 9], np.uint16)
_NEGATIVE: Final = np.uint16(2**11)  # in the tables of IQ1: from there on an eighth is taken off


def _unpack_iq2_xxs(blocks: Bytes) -> Unpacked:
    words = blocks[:, 2:].copy().view("<u4").reshape(-1, 8, 2)
    codes = _grid("IQ2_XXS", 1)[words[..., :1].copy().view(np.uint8)]  # [blocks, 8, 4]
    scale = _steps(words[..., 1] >> np.uint32(28), 1 / 8) * half(blocks[:, :2])
    return Unpacked(_signed(codes, _signs_of(words[..., 1])), scale)


def _unpack_iq2_xs(blocks: Bytes) -> Unpacked:
    words = blocks[:, 2:66].copy().view("<u2")  # [blocks, 32]
    codes = _grid("IQ2_XS", 1)[words & np.uint16(511)]
    scale = _steps(nibbles_in_turn(blocks[:, 66:]), 1 / 8) * half(blocks[:, :2])
    return Unpacked(_signed(codes, _even()[words >> np.uint16(9)]), scale)


def _unpack_iq2_s(blocks: Bytes) -> Unpacked:
    high = blocks[:, 66:74, None] >> np.array([0, 2, 4, 6], np.uint8) & np.uint8(3)
    codes = _grid("IQ2_S", 1)[_wide(blocks[:, 2:34], high)]
    scale = _steps(nibbles_in_turn(blocks[:, 74:]), 1 / 8) * half(blocks[:, :2])
    return Unpacked(_signed(codes, blocks[:, 34:66]), scale)


def _unpack_iq3_xxs(blocks: Bytes) -> Unpacked:
    """Every number of the grid is even: its half is kept, and the scale stays the larger."""
    words = blocks[:, 66:].copy().view("<u4")  # [blocks, 8]
    codes = _grid("IQ3_XXS", 1 / 2)[blocks[:, 2:66]]
    scale = _steps(words >> np.uint32(28), 1 / 2) * half(blocks[:, :2])
    return Unpacked(_signed(codes, _signs_of(words)), scale)


def _unpack_iq3_s(blocks: Bytes) -> Unpacked:
    high = np.unpackbits(blocks[:, 66:74], axis=-1, bitorder="little")
    codes = _grid("IQ3_S", 1)[_wide(blocks[:, 2:66], high)]
    scale = _steps(nibbles_in_turn(blocks[:, 106:]), 1) * half(blocks[:, :2])
    return Unpacked(_signed(codes, blocks[:, 74:106]), scale)


def _unpack_iq1_s(blocks: Bytes) -> Unpacked:
    """A weight is -1, 0 or 1, and an eighth more or less: eight times that is an integer."""
    words = blocks[:, 34:].copy().view("<u2")  # [blocks, 8]
    high = (words[..., None] >> _THREES & np.uint16(7)).astype(np.uint8)  # [blocks, 8, 4]
    picks = _wide(blocks[:, 2:34], high).reshape(high.shape)
    picks |= (words >> np.uint16(15))[..., None] * _NEGATIVE
    scale = _steps(words >> np.uint16(12) & np.uint16(7), 1 / 8) * half(blocks[:, :2])
    return Unpacked(_grid_and_eighths()[picks].view(np.int8), scale)


def _unpack_iq1_m(blocks: Bytes) -> Unpacked:
    """As IQ1_S, but the scale's 16 bits are the highest of four words of small scales."""
    words = blocks[:, 48:].copy().view("<u2")  # [blocks, 4]
    own = (words[..., None] >> _THREES & np.uint16(7)).reshape(-1, 16)
    parts = (words >> np.uint16(12)) << np.array([0, 4, 8, 12], np.uint16)
    whole = np.bitwise_or.reduce(parts, axis=-1, keepdims=True)
    picks = _wide(blocks[:, :32], nibbles_in_turn(blocks[:, 32:48]))
    scale = _steps(own, 1 / 8) * whole.view(np.float16).astype(np.float32)
    return Unpacked(_grid_and_eighths()[picks].view(np.int8), scale)


def _steps(count: npt.NDArray[Any], unit: float) -> Floats:
    """Return the odd multiple of ``unit`` that a small scale stands for."""
    return (2 * count.astype(np.float32) + 1) * np.float32(unit)


def _wide(low: Bytes, high: Bytes) -> npt.NDArray[np.uint16]:
    """Return numbers of 16 bits of their low and their high bytes, in the shape of ``low``."""
    both = np.empty((*low.shape, 2), np.uint8)
    both[..., 0] = low
    both[..., 1] = high.reshape(low.shape)
    return both.view("<u2")[..., 0].astype(np.uint16, copy=False)


def _signs_of(words: npt.NDArray[np.uint32]) -> Bytes:
    """Return four bytes of signs a word."""
    signs: Bytes = _even()[words[..., None] >> _IN_A_WORD & _SEVEN]
    return signs


def _signed(picked: _Table, signs: Bytes) -> Codes:
    """Negate those of runs whose bit of ``signs``, a byte for every 8 of them, is one."""
    codes: Codes = picked.view(np.int8).reshape(-1)
    masks = _masks()[signs].view(np.int8).reshape(-1)
    codes ^= masks
    codes -= masks
    return codes


@cache
def _masks() -> npt.NDArray[np.uint64]:
    """Return for each byte eight of them: all ones where its bit is one."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return (bits * np.uint8(255)).view(np.uint64)[:, 0]


@cache
def _even() -> Bytes:
    """Return seven bits as eight of which an even count is one."""
    seven = np.arange(128, dtype=np.uint8)
    ones = np.unpackbits(seven[:, None], axis=1).sum(axis=1, dtype=np.uint8)
    even: Bytes = seven | (ones & np.uint8(1)) << np.uint8(7)
    return even


@cache
def _grid(name: str, times: float) -> _Table:
    """Return a grid whose numbers, so many times as large, are integers of a byte."""
    return _as_runs(_floats(name) * times)


@cache
def _grid_and_eighths() -> _Table:
    """Return eight times IQ1_S's grid and one more; then, from ``_NEGATIVE`` on, one less."""
    grid = 8 * _floats("IQ1_S")
    return _as_runs(np.concatenate([grid + 1, grid - 1]))


def _as_runs(numbers: Floats) -> _Table:
    codes = numbers.astype(np.int8)
    return (codes.view(np.uint32) if codes.shape[1] == 4 else codes.view(np.uint64))[:, 0]


def _floats(name: str) -> Floats:
    """Return a grid [entries, 4 or 8]."""
    from gguf import quants  # takes 0.2 s

    kind = getattr(quants, name)
    kind.init_grid()
    grid: Floats = kind.grid.reshape(kind.grid_shape)
    return grid


UNPACK: Final[dict[Type, Callable[[Bytes], Unpacked]]] = {
    Type.IQ2_XXS: _unpack_iq2_xxs,
    Type.IQ2_XS: _unpack_iq2_xs,
    Type.IQ2_S: _unpack_iq2_s,
    Type.IQ3_XXS: _unpack_iq3_xxs,
    Type.IQ3_S: _unpack_iq3_s,
    Type.IQ1_S: _unpack_iq1_s,
    Type.IQ1_M: _unpack_iq1_m,
}
