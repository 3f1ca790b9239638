"""Blocks of quantised weights as integers of a byte and scales: what each type's bytes mean.

Every function takes blocks as a file has them, [blocks, bytes], and returns :class:`Unpacked`. An
integer times its scale is exactly what the type stores, but where a type has a rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats
from p2pnode.engine.ggml.constants import Type

Bytes: TypeAlias = npt.NDArray[np.uint8]
Codes: TypeAlias = npt.NDArray[np.int8]

LOW: Final = np.uint8(15)
_LOW_PAIRS: Final = np.uint64(0x0303030303030303)
_OF_IQ4: Final = (
    np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
    .astype(np.int8)
    .tobytes()
    .ljust(256, b"\0")
)
"""What the sixteen codes of IQ4_XS stand for, as a table for ``bytes.translate``."""


@dataclass(frozen=True, slots=True, eq=False)
class Unpacked:
    """Some blocks.

    Attributes:
        codes: The integers, in the order of the weights, of any shape.
        scale: [blocks, groups]: a block's weights are so many groups of equal size.
        rest: [blocks, groups, maybe others]: added to each weight of a group; None for nothing.
    """

    codes: Codes
    scale: Floats
    rest: Floats | None = None


def _unpack_q5_0(blocks: Bytes) -> Unpacked:
    codes = _five_bits(blocks[:, 2:6], blocks[:, 6:])
    codes -= np.uint8(16)
    return Unpacked(codes.view(np.int8), half(blocks[:, :2]))


def _unpack_q5_1(blocks: Bytes) -> Unpacked:
    codes = _five_bits(blocks[:, 4:8], blocks[:, 8:])
    return Unpacked(codes.view(np.int8), half(blocks[:, :2]), half(blocks[:, 2:4]))


def _unpack_q2_k(blocks: Bytes) -> Unpacked:
    """Sixteen groups of 16, each with a scale and what is taken off, of four bits each.

    A weight of two bits times its scale is at most 45: one scale is left for the block.
    """
    own = blocks[:, :16]
    codes = _two_bits(blocks[:, 16:80]).reshape(-1, 16, 16)
    codes *= (own & LOW)[..., None]
    rest = (own >> np.uint8(4)) * -half(blocks[:, 82:])
    return Unpacked(codes.view(np.int8), half(blocks[:, 80:82]), rest)


def _unpack_q3_k(blocks: Bytes) -> Unpacked:
    """Sixteen groups of 16, each with a scale of six bits.

    A weight lies from -4 to 3 and its scale from -32 to 31: their product's negative is a byte.
    """
    bits = np.uint8(1) << np.arange(8, dtype=np.uint8)[:, None]
    codes = (blocks[:, None, :32] & bits == 0).view(np.uint8)  # [blocks, 8, 32]
    codes *= np.uint8(4)
    codes -= _two_bits(blocks[:, 32:96]).reshape(-1, 8, 32)
    low = blocks[:, None, 96:104] >> np.array([[0], [4]], np.uint8) & LOW  # [blocks, 2, 8]
    shifts = np.array([[0], [2], [4], [6]], np.uint8)
    two = blocks[:, None, 104:108] >> shifts & np.uint8(3)  # [blocks, 4, 4]
    own = low.reshape(-1, 16) | two.reshape(-1, 16) << np.uint8(4)
    grouped = codes.reshape(-1, 16, 16)
    grouped *= (own - np.uint8(32))[..., None]  # modulo 256, as the product's byte is
    return Unpacked(grouped.view(np.int8), -half(blocks[:, 108:]))


def _unpack_q6_k(blocks: Bytes) -> Unpacked:
    """Two halves of 128 weights, each four runs of 32: low bits in nibbles, high bits in pairs."""
    codes = nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 8, 32)
    codes |= _two_bits(blocks[:, 128:192]).reshape(-1, 8, 32) << np.uint8(4)
    codes -= np.uint8(32)
    return Unpacked(codes.view(np.int8), blocks[:, 192:208].view(np.int8) * half(blocks[:, 208:]))


def _unpack_iq4_xs(blocks: Bytes) -> Unpacked:
    """Eight blocks of 32 under one scale, each with six bits of its own."""
    picks = nibbles(blocks[:, 8:].reshape(-1, 8, 16))
    codes = np.frombuffer(picks.tobytes().translate(_OF_IQ4), np.int8)
    pairs = np.arange(0, 16, 2, dtype=np.uint16)
    high = blocks[:, 2:4].copy().view("<u2") >> pairs & np.uint16(3)  # [blocks, 8]
    own = nibbles_in_turn(blocks[:, 4:8]) | high << np.uint16(4)
    return Unpacked(codes, (own.astype(np.float32) - 32) * half(blocks[:, :2]))


def half(of: Bytes) -> Floats:
    """Read float16 [..., 1] from its two bytes."""
    return of.copy().view("<f2").astype(np.float32)


def nibbles(packed: Bytes) -> Bytes:
    """Return the low halves of bytes, then the high ones, along the last axis."""
    run = np.dtype((np.void, packed.shape[-1]))
    whole = packed.view(run).copy().view(np.uint8)  # whole runs are copied six times as fast
    both = np.empty((*packed.shape[:-1], 2), run)
    both[..., 0] = (whole & LOW).view(run)[..., 0]
    both[..., 1] = (whole >> np.uint8(4)).view(run)[..., 0]
    return both.view(np.uint8)


def nibbles_in_turn(packed: Bytes) -> Bytes:
    """Return each byte's low half and then its high one: [..., bytes] to [..., 2 * bytes]."""
    turns = packed[..., None] >> np.array([0, 4], np.uint8) & LOW
    return turns.reshape(*packed.shape[:-1], -1)


def _two_bits(packed: Bytes) -> Bytes:
    """Return the lowest pairs of bits of each 32 bytes, then the next: [n, 64] to [n, 2, 4, 32]."""
    words = packed.copy().view(np.uint64).reshape(-1, 2, 1, 4)  # eight bytes are shifted at once
    pairs = words >> np.array([[0], [2], [4], [6]], np.uint64) & _LOW_PAIRS
    return pairs.view(np.uint8)


def _five_bits(high: Bytes, low: Bytes) -> Bytes:
    """Return numbers from 0 to 31 of their fifth bits [..., 4] and their nibbles [..., 16]."""
    fifth = np.unpackbits(high, axis=-1, bitorder="little")
    fifth *= np.uint8(16)  # a shift of bytes takes eight times as long
    fifth |= nibbles(low)
    return fifth


UNPACK: Final[dict[Type, Callable[[Bytes], Unpacked]]] = {
    Type.Q5_0: _unpack_q5_0,
    Type.Q5_1: _unpack_q5_1,
    Type.Q2_K: _unpack_q2_k,
    Type.Q3_K: _unpack_q3_k,
    Type.Q6_K: _unpack_q6_k,
    Type.IQ4_XS: _unpack_iq4_xs,
}
