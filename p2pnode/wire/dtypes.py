"""The element types a slice may have, and how many bytes they take.

0x01, 0x02, 0x03 and 0x10 are V-Frame's own; everything from 0x20 up is an extension, used only
where both sides advertised it (see :mod:`p2pnode.wire.agreement`). An extension of a program's
own is made known with :func:`register_dtype`, to writers and readers at once.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from types import MappingProxyType
from typing import TypeAlias

from p2pnode.errors import LocalProtocolError

PayloadRule: TypeAlias = Callable[[tuple[int, ...], int], str | None]
"""Given a shape and a payload's bytes, what is wrong with them, or None. It judges strangers'
numbers: dims up to 2^32 - 1 and 255 of them, zeros too, and it must raise nothing."""

CENTRED_HEAD = 8
"""Bytes of a centred payload before its outliers and its body."""

FIRST_EXTENSION = 0x20
FIRST_PRIVATE = 0x80
"""From here to 0xff no published type will ever be; the codes between are given out by the
protocol's pages."""


class DType(IntEnum):
    """The codes of the published element types."""

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
    CENTRED = 0x23
    """Steps away from a calibration's mean, entropy-coded. An extension."""


@dataclass(frozen=True, slots=True)
class DTypeInfo:
    """What the registry knows of an element type.

    Attributes:
        name: The word that a Capability's ``supports.dtype`` uses.
        bits: Bits per element; for COO, per non-zero element.
        mask_bit: The bit that stands for it in an ad's ``dtypes`` mask, or None where no bit
            does: for sparse layouts, which every node reads, and for extensions that are
            agreed on by name alone.
        extension: Whether both sides must have advertised it.
        auxiliary: What the slices behind it hold, in order, where there are any.
        rule: What a payload must be, where not ``ceil(elements * bits / 8)`` bytes.
        layout: The payload in words, for the protocol's pages and for people.
    """

    name: str
    bits: int
    mask_bit: int | None
    extension: bool = False
    auxiliary: tuple[str, ...] = ()
    rule: PayloadRule | None = None
    layout: str = ""


def register_dtype(
    code: int,
    name: str,
    *,
    bits: int,
    mask_bit: int | None = None,
    auxiliary: tuple[str, ...] = (),
    rule: PayloadRule | None = None,
    layout: str = "",
) -> DTypeInfo:
    """Make an extension type known in this process, for good.

    Args:
        code: From 0x20 up, and better from :data:`FIRST_PRIVATE`.
        name: Its word in ``supports.dtype``; small letters, digits, ``.``, ``_`` and ``-``.
        bits: Bits per element.
        mask_bit: Its bit in an ad's mask, if it is to have one.
        auxiliary: What the slices behind it hold, such as ``("scales",)``.
        rule: Where the payload's size does not follow from shape and ``bits``.
        layout: The payload in words.

    Raises:
        LocalProtocolError: The code, the name or the bit is taken or outside what extensions may
            have; nothing is ever registered over.
    """
    problem = _registration_problem(code, name, bits, mask_bit)
    if problem is not None:
        raise LocalProtocolError(f"dtype 0x{code:02x} {name!r}: {problem}")
    info = DTypeInfo(name, bits, mask_bit, True, auxiliary, rule, layout)
    _INFOS[code] = info
    return info


def dtype_label(code: int) -> str:
    """Return a type's name for people, such as ``F16``; of an unknown one its code."""
    info = _INFOS.get(code)
    if info is None:
        return f"0x{code:02x}"
    return DType(code).name if code in _PUBLISHED else info.name.upper()


def dtype_codes(names: Iterable[str]) -> frozenset[int]:
    """Return the types that these words of a Capability name; unknown words are passed over."""
    wanted = set(names)
    return frozenset(code for code, info in _INFOS.items() if info.name in wanted)


def payload_size(dtype: int, shape: tuple[int, ...]) -> int:
    """Return the bytes that a dense payload of this type and shape takes.

    Raises:
        LocalProtocolError: The type is unknown, or has a rule of its own, as COO has.
    """
    info = _INFOS.get(dtype)
    if info is None:
        raise LocalProtocolError(f"unknown dtype 0x{dtype:02x}")
    if info.rule is not None:
        raise LocalProtocolError(f"the size of a {info.name} payload is not the shape's alone")
    return (prod(shape) * info.bits + 7) >> 3


def payload_problem(dtype: int, shape: tuple[int, ...], size: int) -> str | None:
    """Say what is wrong with a payload of ``size`` bytes, or None where all is well."""
    if dtype == _F16:
        expected = prod(shape) << 1
    elif dtype == _I8:
        expected = prod(shape)
    elif dtype == _F32:
        expected = prod(shape) << 2
    else:
        info = _INFOS.get(dtype)
        if info is None:
            return f"unknown dtype 0x{dtype:02x}"
        if info.rule is not None:
            return info.rule(shape, size)
        expected = (prod(shape) * info.bits + 7) >> 3
    if size == expected:
        return None
    return f"{size} payload bytes, where dtype 0x{dtype:02x} and the shape say {_short(expected)}"


def dtype_mask(dtypes: Iterable[int]) -> int:
    """Return the bit mask that an ad carries for these types."""
    bits = (_INFOS[dtype].mask_bit for dtype in dtypes)
    return sum({1 << bit for bit in bits if bit is not None})


def dtypes_of_mask(mask: int) -> frozenset[int]:
    """Return the types a mask names; bits of a later protocol are passed over."""
    return frozenset(
        code
        for code, info in _INFOS.items()
        if info.mask_bit is not None and mask >> info.mask_bit & 1
    )


def _sparse_problem(shape: tuple[int, ...], size: int) -> str | None:
    if size & 1:
        return f"{size} bytes are not whole half-precision values"
    if size >> 1 > prod(shape):
        return f"{size >> 1} non-zero values, more than the dense shape holds"
    return None


def _centred_problem(shape: tuple[int, ...], size: int) -> str | None:
    if len(shape) != 2:
        return f"centred states of {len(shape)} dims"
    most = 2 * prod(shape)
    if not CENTRED_HEAD < size < most:
        return f"{size} payload bytes, where the shape allows {CENTRED_HEAD} to {_short(most)}"
    return None


def _short(number: int) -> str:
    # 255 dims of 2^32 multiply to 2,456 digits, which no log wants.
    return str(number) if number < 1 << 64 else "more than 2^64"


def _registration_problem(code: int, name: str, bits: int, mask_bit: int | None) -> str | None:
    if not FIRST_EXTENSION <= code <= 0xFF:
        return f"extensions have codes from 0x{FIRST_EXTENSION:02x} to 0xff"
    if code == _ZSTD_BYTE:
        return "a raw body would begin as a zstd frame does"
    if code in _INFOS:
        return f"the code is that of {_INFOS[code].name}"
    if not _NAME.fullmatch(name):
        return "a name has 1 to 32 of a-z, 0-9, '.', '_' and '-'"
    if not 1 <= bits <= _MAX_BITS:
        return f"an element has 1 to {_MAX_BITS} bits"
    if mask_bit is not None and not 0 <= mask_bit < _MASK_BITS:
        return f"a mask has {_MASK_BITS} bits"
    taken = {info.name: info.mask_bit for info in _INFOS.values()}
    if name in taken:
        return "the name is taken"
    if mask_bit is not None and mask_bit in taken.values():
        return f"bit {mask_bit} of the mask is taken"
    return None


_SCALED = ("scales", "minima")
_INFOS: dict[int, DTypeInfo] = {
    DType.F16: DTypeInfo("f16", 16, 0, layout="IEEE half precision"),
    DType.I8: DTypeInfo(
        "i8",
        8,
        1,
        auxiliary=_SCALED,
        layout="a signed byte of a tensor, or any byte at all (JSON, text, hashes, indices)",
    ),
    DType.Q4: DTypeInfo(
        "q4",
        4,
        2,
        auxiliary=_SCALED,
        layout="two a byte, the first in the high nibble; an odd count rounds up",
    ),
    DType.COO: DTypeInfo(
        "sparse",
        16,
        None,
        auxiliary=("indices",),
        rule=_sparse_problem,
        layout="only the non-zero values, in half precision; the shape is the dense one",
    ),
    DType.F32: DTypeInfo("f32", 32, 3, extension=True, layout="IEEE single precision"),
    DType.BF16: DTypeInfo("bf16", 16, 4, extension=True, layout="the upper half of an F32"),
    DType.Q2: DTypeInfo(
        "q2",
        2,
        5,
        extension=True,
        auxiliary=_SCALED,
        layout="four a byte, the first in the highest bits",
    ),
    DType.CENTRED: DTypeInfo(
        "centred",
        8,
        6,
        extension=True,
        rule=_centred_problem,
        layout="entropy-coded steps from a calibration's mean; fewer bytes than F16 would take",
    ),
}
_PUBLISHED = frozenset(_INFOS)

REGISTRY: Mapping[int, DTypeInfo] = MappingProxyType(_INFOS)
"""Every type known, by code, the published ones first. To be read; only
:func:`register_dtype` adds to it."""

# Plain ints: every slice of every frame passes through payload_problem.
_F16, _I8, _F32 = int(DType.F16), int(DType.I8), int(DType.F32)
_ZSTD_BYTE = 0x28  # zstd's first magic byte: how a raw body under a ZSTD flag is told
_NAME = re.compile(r"[a-z0-9._-]{1,32}")
_MAX_BITS = 1024  # a guess, so that a slip of the pen is seen
_MASK_BITS = 24  # in an ad of version 1, those above say other things
