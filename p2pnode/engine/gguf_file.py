"""An open GGUF model: typed access to its metadata, and its tensors as stored.

A model that is split into several files is opened as one, on any of them.

Nothing is mapped: where a file is cut short while it is mapped, the next look at it ends the
process (SIGBUS), and nobody can be told why.
"""

import os
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self, TypeAlias

from p2pnode import system
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
from p2pnode.engine.gguf_split import Joined, paths_of, whole_name
from p2pnode.errors import ModelError

_FIRST_READ: Final = 4 * 2**20
_FIRST_READ_OF_PART: Final = 2**18  # of a part after the first, which has no vocabulary
_LARGEST_READ: Final = 2**30  # a system call reads no more than 2 GiB
_PART: Final = 4 * 2**20

Check: TypeAlias = Callable[[TensorInfo, bytes], None]
"""Takes a tensor's bytes as they were read; raises ModelError where they are not the right ones."""


class GgufFile:
    """An open GGUF model, to be used in a ``with`` block.

    ``check`` sees every tensor's bytes before anybody else does.

    Attributes:
        path: The first of its files.
        paths: All of its files, in order; one, unless the model is split.
        metadata: What the first of them says of the model.
        tensors: Those of all the files, by name; ``part`` and ``offset`` say where one lies.

    Raises:
        ModelError: A file is missing, truncated, not GGUF, of another model than the first, or
            stores tensors in a way that cannot be read.
    """

    def __init__(self, path: Path, check: Check | None = None) -> None:
        self._check = check
        with ExitStack() as opening:
            descriptor = _open(path, opening)
            header = _read_header(descriptor, path)
            self.paths = paths_of(header, path)
            self.path = self.paths[0]
            self._descriptors = {self.paths.index(path): descriptor}
            if path != self.path:
                header = self._open_part(0, opening)
            self._data = header.data
            self.metadata: Mapping[str, Value] = header.metadata
            self.tensors: Mapping[str, TensorInfo] = self._join(header, opening)
            self._opened = opening.pop_all()

    def _join(self, first: Header, opening: ExitStack) -> Mapping[str, TensorInfo]:
        """Open what is not open yet; of the other parts' headers the tensors alone are kept."""
        joined = Joined(first, self.paths)
        joined.add(0, first)
        for part in range(1, len(self.paths)):
            joined.add(part, self._open_part(part, opening))
        joined.check_complete()
        return joined.tensors

    def _open_part(self, part: int, opening: ExitStack) -> Header:
        path = self.paths[part]
        if part not in self._descriptors:
            if not path.exists():
                raise ModelError(
                    f"part {part + 1} of {len(self.paths)} of {whole_name(path.name)} is missing: "
                    f"there is no file {path}",
                    hint="Fetch it, and put it beside the others.",
                )
            self._descriptors[part] = _open(path, opening)
        return _read_header(self._descriptors[part], path, _FIRST_READ_OF_PART if part else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

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
        descriptor, end = self._descriptors[tensor.part], tensor.offset + tensor.size
        for start in range(tensor.offset, end, size):
            yield _read(descriptor, self.paths[tensor.part], start, min(size, end - start))

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


def _open(path: Path, opening: ExitStack) -> int:
    """Open a file for reading; without waiting, for a named pipe would be waited for for ever.

    ``opening`` closes it.
    """
    try:
        descriptor = os.open(path, system.READ)
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}", hint="Check the path.") from None
    except OSError as error:
        raise _unreadable(path, error) from error
    opening.callback(os.close, descriptor)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    raise ModelError(f"{path} is no ordinary file", hint="Give the path of a .gguf file.")


def _read_header(descriptor: int, path: Path, first: int | None = None) -> Header:
    """Read as much of the file as its header takes."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        raise ModelError(f"{path.name} is empty", hint=BROKEN)
    read = first or _FIRST_READ
    while True:
        data = _read(descriptor, path, 0, min(read, size, MAX_HEADER))
        try:
            return Header(data, size, path.name)
        except IncompleteError:
            read *= 4


def _read(descriptor: int, path: Path, start: int, size: int) -> bytes:
    """Read exactly ``size`` bytes; less than a GiB comes in one call on every system we know."""
    try:
        data = system.read_at(descriptor, size, start)
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
