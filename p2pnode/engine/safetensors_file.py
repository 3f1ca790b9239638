"""One file of safetensors: its header, bounded and checked, and its tensors as they are stored.

The format: the header's length (u64, little-endian), the header as JSON, and the tensors' bytes.
It is read here and not by the library of that name, which maps the file: one that is cut short
while it is mapped ends the process.
"""

import json
import math
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

from p2pnode import system
from p2pnode.errors import ModelError
from p2pnode.terminal import label

MOST_HEADER: Final = 100_000_000
"""Bytes of a header: what the format itself allows."""

ITEM_BYTES: Final[Mapping[str, int]] = {"F32": 4, "F16": 2, "BF16": 2}
"""The types of numbers that are read, and their size."""

Json: TypeAlias = Any
"""What a JSON text may hold."""

_MOST_TENSORS: Final = 200_000
_MOST_NAME: Final = 512  # characters
_MOST_DIMS: Final = 8
_PART: Final = 4 * 2**20
_BROKEN: Final = "Fetch it again."


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies.

    Attributes:
        name: As the file has it.
        dtype: As the file has it: ``BF16``.
        shape: Outermost dimension first.
        start: Offset of its first byte in the file.
        size: Bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


class SafetensorsFile:
    """An open file, to be used in a ``with`` block.

    Attributes:
        path: The file.
        tensors: What it holds, by name.
        size: Its bytes.
        end: Where the last tensor ends, and the file too, unless something ``follows``.

    Raises:
        ModelError: It is not there, truncated, or not of this format.
    """

    def __init__(self, path: Path, *, follows: bool = False) -> None:
        self.path = path
        self._follows = follows
        self._descriptor = open_to_read(path)
        try:
            self.size = os.fstat(self._descriptor).st_size
            self.tensors: Mapping[str, StoredTensor] = self._read_header()
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self, tensor: StoredTensor) -> bytearray:
        """Read a tensor's bytes, unchecked.

        Raises:
            ModelError: The file has become shorter, or cannot be read.
        """
        data = bytearray(tensor.size)
        view = memoryview(data)
        at = 0
        for part in self.parts(tensor.start, tensor.size):
            view[at : at + len(part)] = part
            at += len(part)
        return data

    def parts(self, start: int, size: int) -> Iterator[bytes]:
        """Read a range of bytes in pieces; raises as :meth:`read`."""
        while size > 0:
            part = self._pread(start, min(size, _PART))
            yield part
            start += len(part)
            size -= len(part)

    def _pread(self, start: int, size: int) -> bytes:
        try:
            data = system.read_at(self._descriptor, size, start)
        except OSError as error:
            raise ModelError(f"cannot read {self.path}: {error.strerror}") from error
        if not data:
            raise ModelError(f"{self.path.name} was cut short while it was read", hint=_BROKEN)
        return data

    def _read_header(self) -> Mapping[str, StoredTensor]:
        name = label(self.path.name)
        if self.size < 8:
            raise ModelError(f"{name} is too short for a safetensors file", hint=_BROKEN)
        (length,) = struct.unpack("<Q", b"".join(self.parts(0, 8)))
        if length > min(MOST_HEADER, self.size - 8):
            raise ModelError(f"{name} is truncated, or no safetensors file", hint=_BROKEN)
        body = parse_json(b"".join(self.parts(8, length)), name)
        if not isinstance(body, dict) or len(body) > _MOST_TENSORS:
            raise ModelError(f"{name} has no usable header", hint=_BROKEN)
        body.pop("__metadata__", None)
        room = self.size - 8 - length
        found = {key: _tensor(key, said, 8 + length, room, name) for key, said in body.items()}
        self.end = _check_layout(found.values(), 8 + length, name)
        if self.end > self.size or (self.end < self.size and not self._follows):
            raise ModelError(f"{name} is truncated, or longer than its header says", hint=_BROKEN)
        return found


def open_to_read(path: Path) -> int:
    """Open an ordinary file.

    Raises:
        ModelError: It is none, is not there, or may not be read.
    """
    try:
        descriptor = os.open(path, system.READ)
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}", hint="Check the path.") from None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise ModelError(f"{path} is no ordinary file")


def parse_json(data: bytes, name: str) -> Json:
    """Parse JSON of bounded length from a stranger.

    Raises:
        ModelError: It is none, nested too deeply, names a key twice, or has numbers that are none.
    """
    try:
        return json.loads(data, object_pairs_hook=_no_twins, parse_constant=_no_constants)
    except (ValueError, RecursionError) as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ModelError(f"{name} holds no usable JSON: {said[:100]}", hint=_BROKEN) from None


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constants(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _tensor(key: str, said: object, first: int, room: int, file: str) -> StoredTensor:
    """Read one entry of a header; ``room`` is how many bytes of tensors there are."""
    match said:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise ModelError(f"{file} has a broken entry for {label(key[:80])!r}", hint=_BROKEN)
    is_named = 0 < len(key) <= _MOST_NAME and key.isprintable()
    is_shaped = len(shape) <= _MOST_DIMS and all(
        isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 40
        for size in shape
    )
    if not (is_named and is_shaped and 0 <= begin <= end <= room):
        raise ModelError(f"{file} has a broken entry for {label(key[:80])!r}", hint=_BROKEN)
    item = ITEM_BYTES.get(dtype)
    if item is not None and math.prod(shape) * item != end - begin:
        raise ModelError(
            f"{file}: {label(key)} has shape {shape} and {end - begin} bytes of {dtype}",
            hint=_BROKEN,
        )
    return StoredTensor(key, dtype, tuple(shape), first + begin, end - begin)


def _check_layout(tensors: Iterable[StoredTensor], first: int, file: str) -> int:
    """Refuse tensors that overlap, and bytes between them; return where the last one ends."""
    at = first
    for tensor in sorted(tensors, key=lambda one: (one.start, one.size)):
        if tensor.start != at:
            raise ModelError(
                f"{file}: {label(tensor.name)} does not lie where it must", hint=_BROKEN
            )
        at += tensor.size
    return at
