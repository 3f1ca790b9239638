"""What a Hugging Face checkpoint holds, as a tree of hashes; for a GGUF see ``hash_tree``.

All numbers are little-endian; a text is its length (u32) and its UTF-8::

    tensor   = SHA-256(text name, text type, n_dims u32, dims u64 x n_dims, stored bytes)
    shard    = SHA-256(the whole file)
    metadata = SHA-256(the settings of config.json that change the arithmetic, as JSON)
    root     = SHA-256("p2pnode safetensors 1" and a zero byte, metadata,
                       the hash of each shard, in the order of their names' bytes)

The root is over shards, not tensors, so that a stage that fetched a few of them can compute it: the
hub says the SHA-256 of the others. The hashes of tensors are taken in the same pass; with them each
tensor is checked when it is read. A dimension stands outermost first. The JSON has sorted keys, no
spaces, and whole numbers without a fraction. Of a model that reads pictures they are the settings
of its text part, with the values that ``checkpoint_text_part`` names where the file is silent.
Nulls are left out, unless they say something. A GGUF of the same model has another root: its
numbers are others, and it is another space.
"""

import hashlib
import json
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

from p2pnode.engine.checkpoint import Checkpoint
from p2pnode.engine.hash_tree import hashes_of
from p2pnode.engine.model_paths import SHARDS_NOTE
from p2pnode.engine.safetensors_file import Json, SafetensorsFile, StoredTensor, parse_json
from p2pnode.errors import ModelChangedError, ModelError
from p2pnode.replacing import replace_file

_ROOT: Final = b"p2pnode safetensors 1\0"
_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class CheckpointTree:
    """The hashes of one checkpoint.

    Attributes:
        shards: The hash of each shard, by its name.
        tensors: The hash of each tensor of the shards that are here, by its name.
        metadata: The hash of the settings that change the arithmetic.
    """

    shards: Mapping[str, bytes]
    tensors: Mapping[str, bytes]
    metadata: bytes

    @cached_property
    def root(self) -> str:
        """The root, 64 hexadecimal digits."""
        root = hashlib.sha256(_ROOT + self.metadata)
        for name in sorted(self.shards, key=str.encode):
            root.update(self.shards[name])
        return root.hexdigest()

    def noted(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "metadata": self.metadata.hex(),
            "shards": {name: found.hex() for name, found in self.shards.items()},
            "tensors": {name: found.hex() for name, found in self.tensors.items()},
        }

    @classmethod
    def of_note(cls, noted: Mapping[str, Any]) -> Self:
        """Read what :meth:`noted` returned.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: It is none.
        """
        metadata = hashes_of({"metadata": noted["metadata"]})["metadata"]
        return cls(hashes_of(noted["shards"]), hashes_of(noted["tensors"]), metadata)

    def check(self, tensor: StoredTensor, data: bytes | bytearray) -> None:
        """Take a tensor's bytes as they were read.

        Raises:
            ModelChangedError: They are not those that were hashed.
        """
        found = hashlib.sha256(_head(tensor))
        found.update(data)
        if self.tensors.get(tensor.name) != found.digest():
            raise ModelChangedError(f"the tensor {tensor.name} is not the one that was hashed")

    def check_metadata(self, checkpoint: Checkpoint) -> None:
        """Take an open checkpoint's settings.

        Raises:
            ModelChangedError: They are not those that were hashed.
        """
        if settings_hash(checkpoint) != self.metadata or [*checkpoint.shards] != [*self.shards]:
            raise ModelChangedError("config.json or the shards are not those that were hashed")


def hash_checkpoint(
    checkpoint: Checkpoint, progress: Callable[[float], None] | None = None
) -> CheckpointTree:
    """Read all shards that are here; of the others the hub's word is taken.

    Raises:
        ModelError: A shard cannot be read, or is not here and nobody said its hash.
        ModelChangedError: One is not what the hub says.
    """
    said = read_note(checkpoint.path)
    total = sum(file.size for file in checkpoint.shards.values() if file is not None) or 1
    done = 0
    shards: dict[str, bytes] = {}
    tensors: dict[str, bytes] = {}
    used = {stored.name for _, stored in checkpoint.tensors.values()}
    for name, file in checkpoint.shards.items():
        if file is None:
            if name not in said:
                raise ModelError(
                    f"{checkpoint.name} has no shard {name} here",
                    hint="Fetch it, and put it beside the others.",
                )
            shards[name] = said[name]
            continue

        def heard(size: int) -> None:
            nonlocal done
            done += size
            if progress is not None:
                progress(done / total)

        shards[name], found = _hash_shard(file, heard)
        tensors |= {key: found[key] for key in found if key in used}
        if said.get(name, shards[name]) != shards[name]:
            raise ModelChangedError(
                f"{name} is not what the hub says", hint="Delete it, and fetch it again."
            )
    return CheckpointTree(shards, tensors, settings_hash(checkpoint))


def settings_hash(checkpoint: Checkpoint) -> bytes:
    """Return the 32 bytes that stand for what in config.json changes the arithmetic."""
    said = {"model_type": checkpoint.model.model_type, **checkpoint.model.settings}
    text = json.dumps(_plain(said), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).digest()


def write_note(folder: Path, hashes: Mapping[str, str]) -> None:
    """Keep what the hub says of each shard's SHA-256, in hex."""
    said = json.dumps(dict(hashes), indent=1, sort_keys=True)
    replace_file(folder / SHARDS_NOTE, said.encode(), 0o644)


def read_note(folder: Path) -> dict[str, bytes]:
    """Return what :func:`write_note` kept, or nothing.

    Raises:
        ModelError: It is broken.
    """
    try:
        with (folder / SHARDS_NOTE).open("rb") as file:
            body = parse_json(file.read(2**20), SHARDS_NOTE)
    except OSError:
        return {}
    if not isinstance(body, dict) or not all(
        isinstance(value, str) and _HEX.fullmatch(value) for value in body.values()
    ):
        raise ModelError(
            f"{folder / SHARDS_NOTE} is broken", hint="Delete it, and fetch the model again."
        )
    return {name: bytes.fromhex(value) for name, value in body.items()}


def _hash_shard(
    file: SafetensorsFile, heard: Callable[[int], None]
) -> tuple[bytes, dict[str, bytes]]:
    """Return the hash of a file, and of each tensor in it, from one reading."""
    whole, tensors = hashlib.sha256(), {}
    ordered = sorted(file.tensors.values(), key=lambda one: (one.start, one.size))
    first = min((tensor.start for tensor in ordered), default=file.size)
    for part in file.parts(0, first):
        whole.update(part)
        heard(len(part))
    for tensor in ordered:  # they lie one after the other, to the end
        of_tensor = hashlib.sha256(_head(tensor))
        for part in file.parts(tensor.start, tensor.size):
            whole.update(part)
            of_tensor.update(part)
            heard(len(part))
        tensors[tensor.name] = of_tensor.digest()
    return whole.digest(), tensors


def _head(tensor: StoredTensor) -> bytes:
    count = len(tensor.shape)
    head = _text(tensor.name) + _text(tensor.dtype)
    return head + struct.pack(f"<I{count}Q", count, *tensor.shape)


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return struct.pack("<I", len(data)) + data


def _plain(value: Json) -> Json:
    """Write numbers of one value in one way."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: _plain(one) for key, one in value.items()}
        case list():
            return [_plain(one) for one in value]
    return value
