"""The element types a slice may have, and how many bytes they take.

0x01, 0x02, 0x03 and 0x10 are V-Frame's own; everything from 0x20 up is an extension, used only
where both sides advertised it (see :mod:`p2pnode.wire.capability`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from types import MappingProxyType

from p2pnode.errors import LocalProtocolError


class DType(IntEnum):
    """The codes of the element types this node reads and writes."""

    F16 = 0x01
    """IEEE half precision, little-endian."""
    I8 = 0x02
    """A signed byte of a tensor, or any byte at all (JSON, text, hashes, indices)."""
    Q4 = 0x03
    """A 4-bit code, two a byte, the first in the high nibble; an odd count rounds up."""
    COO = 0x10
    """Sparse: the dense shape, and the non-zero values alone in half precision."""
    F32 = 0x20
    """IEEE single precision, little-endian. An extension."""
    BF16 = 0x21
    """The upper half of an F32, little-endian. An extension."""
    Q2 = 0x22
    """A 2-bit code, four a byte, the first in the highest bits. An extension."""


@dataclass(frozen=True, slots=True)
class DTypeInfo:
    """What the registry knows of an element type.

    Attributes:
        name: The word that a Capability's ``supports.dtype`` uses.
        bits: Bits per element; for COO, per non-zero element.
        mask_bit: The bit that stands for it in an ad's ``dtypes`` mask, or None for sparse
            layouts, which every node reads.
        extension: Whether both sides must have advertised it.
    """

    name: str
    bits: int
    mask_bit: int | None
    extension: bool = False


REGISTRY: Mapping[DType, DTypeInfo] = MappingProxyType(
    {
        DType.F16: DTypeInfo("f16", 16, 0),
        DType.I8: DTypeInfo("i8", 8, 1),
        DType.Q4: DTypeInfo("q4", 4, 2),
        DType.COO: DTypeInfo("sparse", 16, None),
        DType.F32: DTypeInfo("f32", 32, 3, extension=True),
        DType.BF16: DTypeInfo("bf16", 16, 4, extension=True),
        DType.Q2: DTypeInfo("q2", 2, 5, extension=True),
    }
)

# Plain ints as keys: every slice of every frame passes through payload_problem.
_BITS: dict[int, int] = {int(dtype): info.bits for dtype, info in REGISTRY.items()}
_F16, _I8, _COO = int(DType.F16), int(DType.I8), int(DType.COO)


def payload_size(dtype: int, shape: tuple[int, ...]) -> int:
    """Return the bytes that a dense payload of this type and shape takes.

    Raises:
        LocalProtocolError: The type is unknown, or is COO, whose size the shape does not give.
    """
    bits = _BITS.get(dtype)
    if bits is None:
        raise LocalProtocolError(f"unknown dtype 0x{dtype:02x}")
    if dtype == _COO:
        raise LocalProtocolError("a sparse payload's size follows from its non-zero count")
    return (prod(shape) * bits + 7) >> 3


def payload_problem(dtype: int, shape: tuple[int, ...], size: int) -> str | None:
    """Say what is wrong with a payload of ``size`` bytes, or None where all is well."""
    if dtype == _F16:
        expected = prod(shape) << 1
    elif dtype == _I8:
        expected = prod(shape)
    elif dtype == _COO:
        return _sparse_problem(shape, size)
    else:
        bits = _BITS.get(dtype)
        if bits is None:
            return f"unknown dtype 0x{dtype:02x}"
        expected = (prod(shape) * bits + 7) >> 3
    if size == expected:
        return None
    return f"{size} payload bytes, where dtype 0x{dtype:02x} and the shape say {_short(expected)}"


def dtype_mask(dtypes: Iterable[DType]) -> int:
    """Return the bit mask that an ad carries for these types."""
    bits = (REGISTRY[dtype].mask_bit for dtype in dtypes)
    return sum({1 << bit for bit in bits if bit is not None})


def dtypes_of_mask(mask: int) -> frozenset[DType]:
    """Return the types a mask names; bits of a later protocol are passed over."""
    return frozenset(
        dtype
        for dtype, info in REGISTRY.items()
        if info.mask_bit is not None and mask >> info.mask_bit & 1
    )


def _sparse_problem(shape: tuple[int, ...], size: int) -> str | None:
    if size & 1:
        return f"{size} bytes are not whole half-precision values"
    if size >> 1 > prod(shape):
        return f"{size >> 1} non-zero values, more than the dense shape holds"
    return None


def _short(number: int) -> str:
    # 255 dims of 2^32 multiply to 2,456 digits, which no log wants.
    return str(number) if number < 1 << 64 else "more than 2^64"
