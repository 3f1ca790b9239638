"""The header of a GGUF file: metadata and where each tensor lies.

Layout (the format's specification, version 3; version 2 differs in nothing we read)::

    magic "GGUF", version u32, n_tensors u64, n_pairs u64
    n_pairs   x (key: string, type u32, value)
    n_tensors x (name: string, n_dims u32, dims u64 x n_dims, type u32, offset u64)
    padding to general.alignment, then the tensors' bytes

The ``gguf`` package reads the same and takes 1.9 s to open a 98 MB model; walking the header here
takes some 30 ms, because strings are skipped until somebody asks for them.
"""

import struct
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from p2pnode.engine.other_formats import foreign
from p2pnode.errors import ModelError

MAX_PAIRS: Final = 65_536
MAX_TENSORS: Final = 65_536
MAX_DIMS: Final = 4  # GGML_MAX_DIMS
MAX_KEY: Final = 65_535  # the specification's bound of a key
MAX_HEADER: Final = 64 * 2**20
"""Bytes; a vocabulary of 256,000 tokens with its merges takes some 15 MB."""
MAX_NESTING: Final = 200  # lists in lists; nobody ships more than one

_ALIGNMENTS: Final = tuple(1 << power for power in range(3, 21))  # bytes; ggml wants powers of 2
_OTHER: Final = "Fetch another file of this model, or convert it anew."
BROKEN = "The download may be incomplete: fetch the file again."
ARRAY: Final = 9
STRING: Final = 8
SCALARS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
U32: Final = SCALARS[4]
U64: Final = SCALARS[10]


@dataclass(frozen=True, slots=True)
class TensorType:
    """A way to store numbers: ``block`` of them in ``size`` bytes."""

    code: int
    name: str
    block: int
    size: int


# Copied from ggml's type table so that opening a header need not import gguf (0.18 s). A test holds
# it to gguf: every type of which that knows the size and that it can dequantise, and no other.
TENSOR_TYPES: Final = {
    kind.code: kind
    for kind in (
        TensorType(0, "F32", 1, 4),
        TensorType(1, "F16", 1, 2),
        TensorType(2, "Q4_0", 32, 18),
        TensorType(3, "Q4_1", 32, 20),
        TensorType(6, "Q5_0", 32, 22),
        TensorType(7, "Q5_1", 32, 24),
        TensorType(8, "Q8_0", 32, 34),
        TensorType(10, "Q2_K", 256, 84),
        TensorType(11, "Q3_K", 256, 110),
        TensorType(12, "Q4_K", 256, 144),
        TensorType(13, "Q5_K", 256, 176),
        TensorType(14, "Q6_K", 256, 210),
        TensorType(16, "IQ2_XXS", 256, 66),
        TensorType(17, "IQ2_XS", 256, 74),
        TensorType(18, "IQ3_XXS", 256, 98),
        TensorType(19, "IQ1_S", 256, 50),
        TensorType(20, "IQ4_NL", 32, 18),
        TensorType(21, "IQ3_S", 256, 110),
        TensorType(22, "IQ2_S", 256, 82),
        TensorType(23, "IQ4_XS", 256, 136),
        TensorType(29, "IQ1_M", 256, 56),
        TensorType(30, "BF16", 1, 2),
        TensorType(34, "TQ1_0", 256, 54),
        TensorType(35, "TQ2_0", 256, 66),
        TensorType(39, "MXFP4", 32, 17),
        TensorType(40, "NVFP4", 64, 36),
    )
}


@dataclass(frozen=True, slots=True)
class ArrayValue:
    """An array of the metadata, not read yet.

    Attributes:
        element_type: As the file numbers types; 9 where its elements are lists themselves.
        count: Elements.
        offset: Where the first begins, from the start of the file.
        end: Where the last ends.
    """

    element_type: int
    count: int
    offset: int
    end: int

    @property
    def is_of_integers(self) -> bool:
        scalar = SCALARS.get(self.element_type)
        return scalar is not None and scalar.format[-1] not in "fd?"


Value: TypeAlias = int | float | bool | str | ArrayValue


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies.

    Attributes:
        name: For example ``blk.0.attn_q.weight``.
        shape: Row-major, the longest-striding axis first: the reverse of the file's order.
        type: How its numbers are stored.
        offset: From the start of the file that it lies in.
        part: Which of the model's files that is: a place in ``GgufFile.paths``.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    part: int = 0

    def in_part(self, part: int) -> "TensorInfo":
        """Return it as a tensor of another of the model's files."""
        return replace(self, part=part)

    @property
    def row_bytes(self) -> int:
        return self.shape[-1] // self.type.block * self.type.size

    @property
    def rows(self) -> int:
        rows = 1
        for size in self.shape[:-1]:
            rows *= size
        return rows

    @property
    def size(self) -> int:
        return self.rows * self.row_bytes


class IncompleteError(Exception):
    """The header goes on beyond what was read of the file."""


class Header:
    """Walks the header once; every length is checked before it is believed.

    Args:
        data: The first bytes of the file.
        size: How many bytes the whole file has.
        name: Of the file.

    Raises:
        IncompleteError: ``data`` ends within the header, and the file does not.
        ModelError: It is not a header that can be read.
    """

    def __init__(self, data: bytes, size: int, name: str) -> None:
        self.data = data
        self._size = size
        self._name = name
        if data[:4] != b"GGUF":
            raise foreign(data, name)
        self._at = 4
        self._check_version(self._number(U32))
        n_tensors = self._bounded(MAX_TENSORS, "tensors")
        n_pairs = self._bounded(MAX_PAIRS, "metadata entries")
        self.metadata = self._pairs(n_pairs)
        self.tensors = self._place([self._tensor() for _ in range(n_tensors)])

    def _check_version(self, version: int) -> None:
        if version in (2, 3):
            return
        if version & 0xFFFF == 0:
            raise ModelError(
                f"{self._name} is a big-endian GGUF file, which cannot be read",
                hint="Convert it with gguf-convert-endian, or fetch the usual little-endian file.",
            )
        raise ModelError(
            f"{self._name} is GGUF version {version}; only 2 and 3 can be read",
            hint="Convert the model anew, or fetch a newer file of it.",
        )

    def _pairs(self, count: int) -> dict[str, Value]:
        pairs: dict[str, Value] = {}
        for _ in range(count):
            key = self._string(MAX_KEY)
            value = self._value(self._number(U32))
            if key in pairs:
                raise ModelError(f"{self._name} says {key!r} twice; it is broken", hint=_OTHER)
            pairs[key] = value
        return pairs

    def _value(self, kind: int) -> Value:
        if kind == STRING:
            return self._string(self._size)
        if kind == ARRAY:
            return self._skip_array()
        scalar = SCALARS.get(kind)
        if scalar is None:
            raise ModelError(f"{self._name} has metadata of the unknown type {kind}", hint=BROKEN)
        value: int | float | bool = scalar.unpack_from(self.data, self._take(scalar.size))[0]
        return value

    def _skip_array(self, depth: int = 1) -> ArrayValue:
        element_type = self._number(U32)
        count = self._number(U64)
        offset = self._at
        if element_type == STRING:
            self._skip_strings(count)
        elif element_type in SCALARS:
            self._take(count * SCALARS[element_type].size)
        elif element_type == ARRAY and depth < MAX_NESTING:
            self._fits(count, 12)  # each has a type and a count at least
            for _ in range(count):
                self._skip_array(depth + 1)
        else:
            raise ModelError(f"{self._name} has a list of the unknown type {element_type}")
        return ArrayValue(element_type, count, offset, self._at)

    def _skip_strings(self, count: int) -> None:
        self._fits(count, 8)  # each has a length at least
        data, size, at, length_at = self.data, len(self.data), self._at, U64.unpack_from
        for _ in range(count):
            if at + 8 > size:
                raise self._beyond(at + 8)
            at += 8 + length_at(data, at)[0]
        if at > size:
            raise self._beyond(at)
        self._at = at

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string(MAX_KEY)
        n_dims = self._number(U32)
        if not 1 <= n_dims <= MAX_DIMS:
            raise ModelError(f"{self._name}: tensor {name!r} has {n_dims} dimensions", hint=BROKEN)
        dims = tuple(self._number(U64) for _ in range(n_dims))
        return name, dims[::-1], self._number(U32), self._number(U64)

    def _place(self, raw: list[tuple[str, tuple[int, ...], int, int]]) -> dict[str, TensorInfo]:
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment not in _ALIGNMENTS:
            raise ModelError(
                f"{self._name} asks for the impossible alignment {alignment!r}", hint=_OTHER
            )
        base = -(-self._at // alignment) * alignment
        placed = {}
        for name, shape, code, offset in raw:
            if name in placed:
                raise ModelError(
                    f"{self._name} has two tensors {name!r}; it is broken", hint=_OTHER
                )
            tensor = TensorInfo(name, shape, self._type(name, code), base + offset)
            if 0 in shape or shape[-1] % tensor.type.block:
                raise ModelError(f"{self._name}: tensor {name!r} has an impossible shape {shape}")
            if tensor.offset + tensor.size > self._size:
                raise ModelError(
                    f"{self._name} is truncated: tensor {name!r} ends at byte "
                    f"{tensor.offset + tensor.size}, the file at {self._size}",
                    hint=BROKEN,
                )
            placed[name] = tensor
        self._refuse_displaced(placed, base, alignment)
        return placed

    def _refuse_displaced(self, placed: dict[str, TensorInfo], base: int, alignment: int) -> None:
        """Refuse tensors that lie where none can: their numbers would be those of others."""
        end = base
        for tensor in sorted(placed.values(), key=lambda one: one.offset):
            if tensor.offset < end or tensor.offset % alignment:
                raise ModelError(
                    f"{self._name}: tensor {tensor.name!r} begins at byte {tensor.offset}, within "
                    "another one or between two",
                    hint=_OTHER,
                )
            end = tensor.offset + tensor.size

    def _type(self, name: str, code: int) -> TensorType:
        if code not in TENSOR_TYPES:
            known = ", ".join(kind.name for kind in TENSOR_TYPES.values())
            raise ModelError(
                f"{self._name}: tensor {name!r} is quantised in a way this engine does not know "
                f"(type {code})",
                hint=f"Use a file of one of these types: {known}.",
            )
        return TENSOR_TYPES[code]

    def _bounded(self, limit: int, what: str) -> int:
        count = self._number(U64)
        if count > limit:
            raise ModelError(f"{self._name} claims {count} {what}; it is broken", hint=BROKEN)
        return count

    def _number(self, layout: struct.Struct) -> int:
        value: int = layout.unpack_from(self.data, self._take(layout.size))[0]
        return value

    def _string(self, limit: int) -> str:
        length = self._number(U64)
        if length > limit:
            raise self._truncated()
        start = self._take(length)
        return str(self.data[start : start + length], "utf-8", "replace")

    def _take(self, size: int) -> int:
        """Step over ``size`` bytes and return where they start."""
        start = self._at
        if size > len(self.data) - start:
            raise self._beyond(start + size)
        self._at = start + size
        return start

    def _fits(self, count: int, size: int) -> None:
        """Refuse a count of things, each of ``size`` bytes at least, that cannot be in the file."""
        if count > (self._size - self._at) // size:
            raise self._truncated()

    def _beyond(self, end: int) -> Exception:
        """Return what it means that the header goes on to ``end`` at least."""
        if end > self._size:
            return self._truncated()
        if end > MAX_HEADER:
            return ModelError(
                f"{self._name} has a header of more than {MAX_HEADER >> 20} MiB; it is broken",
                hint=BROKEN,
            )
        return IncompleteError()

    def _truncated(self) -> ModelError:
        return ModelError(f"{self._name} is truncated within its header", hint=BROKEN)
