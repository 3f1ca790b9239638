"""What a model's file holds, as a tree of hashes: one for each tensor, and a root over them all.

The root is the model's name for machines: two files with one root compute the same. A stage that
reads a few layers checks just those tensors against their hashes, which the root vouches for.

All numbers are little-endian; a text is its length (u32) and its UTF-8::

    tensor   = SHA-256(text name, type u32, n_dims u32, dims u64 x n_dims, stored bytes)
    metadata = SHA-256(for each key, in the order of their bytes: text key, value)
    root     = SHA-256("p2pnode model 1" and a zero byte, metadata,
                       the hash of each tensor, in the order of their names' bytes)

The keys are ``general.architecture`` and those of the architecture, such as
``llama.rope.freq_base``: they change what is computed, the others do not. How a model is split into
files stands in others: the root of a split model is that of the merged file. A dimension stands as
in the file, innermost first. A value is a letter and its content, so that the width in which a file
stores a number makes no difference::

    b and u8 0 or 1 | i and text of the decimal number | f and f64 | s and text
    a and element type u32, count u64, the elements as stored
"""

import hashlib
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from queue import SimpleQueue
from typing import Any, Final, Self

from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import ArrayValue, TensorInfo, Value
from p2pnode.errors import ModelChangedError, ModelError

HASH_BYTES: Final = 32

MOST_THREADS: Final = 4
"""Hashing goes on beside the interpreter's lock; a disk feeds no more."""

_ARCHITECTURE: Final = "general.architecture"
_LAST_PART: Final = 1.0  # seconds for what a thread still reads when nobody wants it any more
_ROOT: Final = b"p2pnode model 1\0"


@dataclass(frozen=True)
class HashTree:
    """The hashes of one model's file.

    Attributes:
        tensors: The hash of each tensor, by its name.
        metadata: The hash of the metadata that changes the arithmetic.
    """

    tensors: Mapping[str, bytes]
    metadata: bytes

    @cached_property
    def root(self) -> str:
        """The root, 64 hexadecimal digits."""
        root = hashlib.sha256(_ROOT + self.metadata)
        for name in sorted(self.tensors, key=str.encode):
            root.update(self.tensors[name])
        return root.hexdigest()

    def noted(self) -> dict[str, Any]:
        """Return it as JSON."""
        tensors = {name: found.hex() for name, found in self.tensors.items()}
        return {"metadata": self.metadata.hex(), "tensors": tensors}

    @classmethod
    def of_note(cls, noted: Mapping[str, Any]) -> Self:
        """Read what :meth:`noted` returned.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: It is none.
        """
        metadata = hashes_of({"metadata": noted["metadata"]})["metadata"]
        return cls(hashes_of(noted["tensors"]), metadata)

    def check(self, tensor: TensorInfo, data: bytes | memoryview) -> None:
        """Take a tensor's bytes as they were read.

        Raises:
            ModelChangedError: They are not those that were hashed.
        """
        if self.tensors.get(tensor.name) != tensor_hash(tensor, (data,)):
            raise ModelChangedError(f"the tensor {tensor.name} is not the one that was hashed")

    def check_metadata(self, file: GgufFile) -> None:
        """Take an open file's header.

        Raises:
            ModelChangedError: It is not the one that was hashed.
        """
        if metadata_hash(file) != self.metadata or file.tensors.keys() != self.tensors.keys():
            raise ModelChangedError("the header is not the one that was hashed")


def hashes_of(noted: Mapping[str, Any]) -> dict[str, bytes]:
    """Read hashes in hex.

    Raises:
        ValueError, TypeError, AttributeError: One is none.
    """
    found = {str(name): bytes.fromhex(said) for name, said in noted.items()}
    if any(len(one) != HASH_BYTES for one in found.values()):
        raise ValueError("a hash has another length")
    return found


def hash_file(
    file: GgufFile,
    progress: Callable[[float], None] | None = None,
    *,
    threads: int = MOST_THREADS,
) -> HashTree:
    """Read a whole file and return its tree; ``progress`` hears which part from 0 to 1 is done.

    Raises:
        ModelError: The file cannot be read to its end.
    """
    threads = min(threads, os.cpu_count() or 1)
    tensors = sorted(file.tensors.values(), key=lambda one: (one.part, one.offset))  # as on disk
    total = max(1, sum(tensor.size for tensor in tensors))
    hashes: dict[str, bytes] = {}
    done = 0
    for tensor, found in _Hashing(file, tensors).results(threads):
        hashes[tensor.name] = found
        done += tensor.size
        if progress is not None:
            progress(done / total)
    return HashTree(hashes, metadata_hash(file))


class _Hashing:
    """Hashes tensors in threads of their own, which keep no process from ending.

    A pool's threads would be waited for at the end of the process, with all that was given them.
    """

    def __init__(self, file: GgufFile, tensors: Sequence[TensorInfo]) -> None:
        self._file = file
        self._count = len(tensors)
        self._left = iter(tensors)
        self._lock = threading.Lock()
        self._done: SimpleQueue[tuple[TensorInfo, bytes | ModelError]] = SimpleQueue()
        self._is_over = False

    def results(self, threads: int) -> Iterator[tuple[TensorInfo, bytes]]:
        """Yield each tensor and its hash, in no order.

        Raises:
            ModelError: One cannot be read.
        """
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        try:
            for worker in workers:
                worker.start()
            for _ in range(self._count):
                tensor, found = self._done.get()
                if isinstance(found, ModelError):
                    raise found
                yield tensor, found
        finally:
            self._is_over = True
            for worker in workers:
                worker.join(_LAST_PART)

    def _work(self) -> None:
        while (tensor := self._next()) is not None:
            found: bytes | ModelError
            try:
                found = tensor_hash(tensor, self._parts(tensor))
            except ModelError as error:
                found = error
            self._done.put((tensor, found))

    def _next(self) -> TensorInfo | None:
        with self._lock:
            return None if self._is_over else next(self._left, None)

    def _parts(self, tensor: TensorInfo) -> Iterator[bytes]:
        for part in self._file.tensor_parts(tensor):
            if self._is_over:
                return
            yield part


def tensor_hash(tensor: TensorInfo, parts: Iterable[bytes | memoryview]) -> bytes:
    """Return the 32 bytes that stand for a tensor's name, type, shape and stored bytes.

    ``parts`` are its bytes, in pieces of any length.
    """
    head = _text(tensor.name) + struct.pack("<II", tensor.type.code, len(tensor.shape))
    head += struct.pack(f"<{len(tensor.shape)}Q", *reversed(tensor.shape))
    found = hashlib.sha256(head)
    for part in parts:
        found.update(part)
    return found.digest()


def metadata_hash(file: GgufFile) -> bytes:
    """Return the 32 bytes that stand for the metadata that changes the arithmetic.

    Raises:
        ModelError: The file does not name its architecture.
    """
    prefix = file.text(_ARCHITECTURE) + "."
    return _hash_of(file, [key for key in file.metadata if key.startswith(prefix)], _ARCHITECTURE)


def vocabulary_hash(file: GgufFile) -> bytes:
    """Return the 32 bytes that stand for vocabulary and chat template: no part of a root."""
    return _hash_of(file, [key for key in file.metadata if key.startswith("tokenizer.")])


def _hash_of(file: GgufFile, keys: Iterable[str], *more: str) -> bytes:
    """Hash these keys, in the order of their bytes, each with its value."""
    found = hashlib.sha256()
    for key in sorted((*keys, *more), key=str.encode):
        found.update(_text(key) + _value(file, file.metadata[key]))
    return found.digest()


def _value(file: GgufFile, value: Value) -> bytes:
    match value:
        case bool():
            return struct.pack("<cB", b"b", value)
        case int():
            return b"i" + _text(str(value))
        case float():
            return struct.pack("<cd", b"f", value)
        case str():
            return b"s" + _text(value)
        case ArrayValue(element_type=kind, count=count):
            return struct.pack("<cIQ", b"a", kind, count) + file.array_bytes(value)
    raise ModelError(f"{file.path.name} has metadata of an unknown kind: {value!r}")


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return struct.pack("<I", len(data)) + data
