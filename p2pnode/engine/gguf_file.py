"""An open GGUF file: typed access to its metadata, and its tensors as stored.

Nothing is mapped: where a file is cut short while it is mapped, the next look at it ends the
process (SIGBUS), and nobody can be told why.
"""

import os
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

from p2pnode.engine.gguf_header import (
    BROKEN,
    MAX_HEADER,
    SCALARS,
    STRING,
    U64,
    ArrayValue,
    Header,
    IncompleteError,
    TensorInfo,
    Value,
)
from p2pnode.errors import ModelError

_FIRST_READ: Final = 4 * 2**20
_LARGEST_READ: Final = 2**30  # a system call reads no more than 2 GiB
_PART: Final = 4 * 2**20

Check: TypeAlias = Callable[[TensorInfo, bytes], None]
"""Takes a tensor's bytes as they were read; raises ModelError where they are not the right ones."""


class GgufFile:
    """An open GGUF file, to be used in a ``with`` block.

    ``check`` sees every tensor's bytes before anybody else does.

    Raises:
        ModelError: The file is missing, truncated, not GGUF, or stores tensors in a way that
            cannot be read.
    """

    def __init__(self, path: Path, check: Check | None = None) -> None:
        self.path = path
        self._check = check
        self._descriptor = _open(path)
        try:
            header = _read_header(self._descriptor, path)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._data = header.data
        self.metadata: Mapping[str, Value] = header.metadata
        self.tensors: Mapping[str, TensorInfo] = header.tensors

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def tensor_bytes(self, tensor: TensorInfo) -> bytes:
        """Read a tensor as it is stored.

        Raises:
            ModelError: The file has become shorter since it was opened, or cannot be read.
        """
        data = b"".join(self.tensor_parts(tensor, _LARGEST_READ))  # of one part, no copy
        if self._check is not None:
            self._check(tensor, data)
        return data

    def tensor_parts(self, tensor: TensorInfo, size: int = _PART) -> Iterator[bytes]:
        """Read a tensor in parts of ``size`` bytes, unchecked; the last may be shorter.

        Raises:
            ModelError: As :meth:`tensor_bytes`.
        """
        end = tensor.offset + tensor.size
        for start in range(tensor.offset, end, size):
            yield _read(self._descriptor, self.path, start, min(size, end - start))

    def array_bytes(self, array: ArrayValue) -> bytes:
        """Return an array's elements as they are stored."""
        return self._data[array.offset : array.end]

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._unusable(key, value)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.metadata.get(key, default)
        if not isinstance(value, (int, float)):
            raise self._unusable(key, value)
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            raise self._unusable(key, value)
        return value

    def count(self, key: str) -> int:
        return self._array(key).count

    def texts(self, key: str) -> list[str]:
        """Read an array of strings."""
        array = self._array(key)
        if array.element_type != STRING:
            raise ModelError(f"{self.path.name}: {key} is not a list of strings")
        found, offset, data = [], array.offset, self._data
        for _ in range(array.count):
            start = offset + 8
            offset = start + U64.unpack_from(data, offset)[0]
            found.append(str(data[start:offset], "utf-8", "replace"))
        return found

    def integers(self, key: str) -> list[int]:
        """Read an array of whole numbers."""
        array = self._array(key)
        if not array.is_of_integers:
            raise ModelError(f"{self.path.name}: {key} is not a list of whole numbers")
        many = struct.Struct(f"<{array.count}{SCALARS[array.element_type].format[-1]}")
        return list(many.unpack_from(self._data, array.offset))

    def _unusable(self, key: str, value: object) -> ModelError:
        what = "a list" if isinstance(value, ArrayValue) else repr(value)
        return ModelError(f"{self.path.name} has no usable value for {key}: {what[:100]}")

    def _array(self, key: str) -> ArrayValue:
        value = self.metadata.get(key)
        if not isinstance(value, ArrayValue):
            raise ModelError(f"{self.path.name} has no list {key}")
        return value


def _open(path: Path) -> int:
    """Open a file for reading; without waiting, for a named pipe would be waited for for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}", hint="Check the path.") from None
    except OSError as error:
        raise _unreadable(path, error) from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise ModelError(f"{path} is no ordinary file", hint="Give the path of a .gguf file.")


def _read_header(descriptor: int, path: Path) -> Header:
    """Read as much of the file as its header takes."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        raise ModelError(f"{path.name} is empty", hint=BROKEN)
    read = _FIRST_READ
    while True:
        data = _read(descriptor, path, 0, min(read, size, MAX_HEADER))
        try:
            return Header(data, size, path.name)
        except IncompleteError:
            read *= 4


def _read(descriptor: int, path: Path, start: int, size: int) -> bytes:
    """Read exactly ``size`` bytes; less than a GiB comes in one call on every system we know."""
    try:
        data = os.pread(descriptor, size, start)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) < size:
        raise ModelError(
            f"{path.name} was cut short while it was read",
            hint="Put the file back whole, and start again.",
        )
    return data


def _unreadable(path: Path, error: OSError) -> ModelError:
    reason = error.strerror or str(error)
    return ModelError(f"cannot read {path}: {reason}", hint="Check its permissions.")
