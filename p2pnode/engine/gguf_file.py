"""The GGUF container: metadata and where each tensor lies.

Layout (the format's specification, version 3; version 2 differs in nothing we read)::

    magic "GGUF", version u32, n_tensors u64, n_pairs u64
    n_pairs   x (key: string, type u32, value)
    n_tensors x (name: string, n_dims u32, dims u64 x n_dims, type u32, offset u64)
    padding to general.alignment, then the tensors' bytes

The ``gguf`` package reads the same and takes 1.9 s to open a 98 MB model; walking the header here
takes some 30 ms, because strings are skipped until somebody asks for them.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

from p2pnode.errors import ModelError

MAX_PAIRS: Final = 65_536
MAX_TENSORS: Final = 65_536
MAX_DIMS: Final = 4  # GGML_MAX_DIMS
MAX_KEY: Final = 65_535  # the specification's bound of a key

_BROKEN = "The download may be incomplete: fetch the file again."
_ARRAY: Final = 9
_STRING: Final = 8
_SCALARS: Final = {
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
_U32: Final = _SCALARS[4]
_U64: Final = _SCALARS[10]


@dataclass(frozen=True, slots=True)
class TensorType:
    """A way to store numbers: ``block`` of them in ``size`` bytes."""

    code: int
    name: str
    block: int
    size: int


# Copied from ggml's type table so that opening a header need not import gguf (0.18 s); a test
# holds it to gguf.GGML_QUANT_SIZES. Types that gguf cannot dequantise are left out.
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
        TensorType(20, "IQ4_NL", 32, 18),
        TensorType(23, "IQ4_XS", 256, 136),
        TensorType(30, "BF16", 1, 2),
    )
}


@dataclass(frozen=True, slots=True)
class ArrayValue:
    """An array of the metadata, not read yet."""

    element_type: int
    count: int
    offset: int


Value: TypeAlias = int | float | bool | str | ArrayValue


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies.

    Attributes:
        name: For example ``blk.0.attn_q.weight``.
        shape: Row-major, the longest-striding axis first: the reverse of the file's order.
        type: How its numbers are stored.
        offset: From the start of the file.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int

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


class GgufFile:
    """An open GGUF file, to be used in a ``with`` block.

    Raises:
        ModelError: The file is missing, truncated, not GGUF, or stores tensors in a way that
            cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map = _map_file(path)
        try:
            header = _Header(self._map, path)
            self.metadata: Mapping[str, Value] = header.metadata
            self.tensors: Mapping[str, TensorInfo] = header.tensors
        except BaseException:
            self._map.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._map.close()

    def tensor_bytes(self, tensor: TensorInfo) -> bytes:
        return self._map[tensor.offset : tensor.offset + tensor.size]

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ModelError(f"{self.path.name} has no usable value for {key}: {value!r}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.metadata.get(key, default)
        if not isinstance(value, (int, float)):
            raise ModelError(f"{self.path.name} has no usable value for {key}: {value!r}")
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            raise ModelError(f"{self.path.name} has no usable value for {key}: {value!r}")
        return value

    def count(self, key: str) -> int:
        return self._array(key).count

    def texts(self, key: str) -> list[str]:
        """Read an array of strings."""
        array = self._array(key)
        if array.element_type != _STRING:
            raise ModelError(f"{self.path.name}: {key} is not a list of strings")
        found, offset, data = [], array.offset, self._map
        for _ in range(array.count):
            start = offset + 8
            offset = start + _U64.unpack_from(data, offset)[0]
            found.append(str(data[start:offset], "utf-8", "replace"))
        return found

    def integers(self, key: str) -> list[int]:
        """Read an array of whole numbers."""
        array = self._array(key)
        one = _SCALARS.get(array.element_type)
        if one is None or one.format[-1] in "fd?":
            raise ModelError(f"{self.path.name}: {key} is not a list of whole numbers")
        many = struct.Struct(f"<{array.count}{one.format[-1]}")
        return list(many.unpack_from(self._map, array.offset))

    def _array(self, key: str) -> ArrayValue:
        value = self.metadata.get(key)
        if not isinstance(value, ArrayValue):
            raise ModelError(f"{self.path.name} has no list {key}")
        return value


class _Header:
    """Walks the header once; every length is checked before it is believed."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data = data
        self._size = len(data)
        self._name = path.name
        self._at = 0
        if data[:4] != b"GGUF":
            raise ModelError(
                f"{path.name} is not a GGUF file", hint="Give the path of a .gguf file."
            )
        self._at = 4
        version = self._number(_U32)
        if version not in (2, 3):
            raise ModelError(f"{path.name} is GGUF version {version}; only 2 and 3 can be read")
        n_tensors = self._bounded(MAX_TENSORS, "tensors")
        n_pairs = self._bounded(MAX_PAIRS, "metadata entries")
        self.metadata = dict(self._pair() for _ in range(n_pairs))
        raw = [self._tensor() for _ in range(n_tensors)]
        self.tensors = self._place(raw)

    def _pair(self) -> tuple[str, Value]:
        key = self._string(MAX_KEY)
        return key, self._value(self._number(_U32))

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string(self._size)
        if kind == _ARRAY:
            return self._skip_array()
        scalar = _SCALARS.get(kind)
        if scalar is None:
            raise ModelError(f"{self._name} has metadata of the unknown type {kind}", hint=_BROKEN)
        value: int | float | bool = scalar.unpack_from(self._data, self._take(scalar.size))[0]
        return value

    def _skip_array(self) -> ArrayValue:
        element_type = self._number(_U32)
        count = self._number(_U64)
        offset = self._at
        if element_type == _STRING:
            self._skip_strings(count)
        elif element_type in _SCALARS:
            self._take(count * _SCALARS[element_type].size)
        else:
            raise ModelError(f"{self._name} has a list of the unknown type {element_type}")
        return ArrayValue(element_type, count, offset)

    def _skip_strings(self, count: int) -> None:
        if count > (self._size - self._at) // 8:  # each has a length of 8 bytes at least
            raise self._truncated()
        data, size, at, length_at = self._data, self._size, self._at, _U64.unpack_from
        for _ in range(count):
            if at + 8 > size:
                raise self._truncated()
            at += 8 + length_at(data, at)[0]
        if at > size:
            raise self._truncated()
        self._at = at

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string(MAX_KEY)
        n_dims = self._number(_U32)
        if not 1 <= n_dims <= MAX_DIMS:
            raise ModelError(f"{self._name}: tensor {name!r} has {n_dims} dimensions", hint=_BROKEN)
        dims = tuple(self._number(_U64) for _ in range(n_dims))
        return name, dims[::-1], self._number(_U32), self._number(_U64)

    def _place(self, raw: list[tuple[str, tuple[int, ...], int, int]]) -> dict[str, TensorInfo]:
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 2**20:
            raise ModelError(f"{self._name} asks for the impossible alignment {alignment!r}")
        base = -(-self._at // alignment) * alignment
        placed = {}
        for name, shape, code, offset in raw:
            tensor = TensorInfo(name, shape, self._type(name, code), base + offset)
            if 0 in shape or shape[-1] % tensor.type.block:
                raise ModelError(f"{self._name}: tensor {name!r} has an impossible shape {shape}")
            if tensor.offset + tensor.size > self._size:
                raise ModelError(
                    f"{self._name} is truncated: tensor {name!r} ends at byte "
                    f"{tensor.offset + tensor.size}, the file at {self._size}",
                    hint=_BROKEN,
                )
            placed[name] = tensor
        return placed

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
        count = self._number(_U64)
        if count > limit:
            raise ModelError(f"{self._name} claims {count} {what}; it is broken", hint=_BROKEN)
        return count

    def _number(self, layout: struct.Struct) -> int:
        value: int = layout.unpack_from(self._data, self._take(layout.size))[0]
        return value

    def _string(self, limit: int) -> str:
        length = self._number(_U64)
        if length > limit:
            raise self._truncated()
        start = self._take(length)
        return str(self._data[start : start + length], "utf-8", "replace")

    def _take(self, size: int) -> int:
        """Step over ``size`` bytes and return where they start."""
        start = self._at
        if size > self._size - start:
            raise self._truncated()
        self._at = start + size
        return start

    def _truncated(self) -> ModelError:
        return ModelError(f"{self._name} is truncated within its header", hint=_BROKEN)


def _map_file(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}", hint="Check the path.") from None
    except (OSError, ValueError) as error:  # ValueError: the file is empty
        raise ModelError(f"cannot read {path}: {error}", hint=_BROKEN) from error
