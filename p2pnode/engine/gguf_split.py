"""A model in several GGUF files: which files belong together, and what each must say.

Every part is named ``NAME-00001-of-00003.gguf`` and says in its header which part it is::

    split.no u16 (from 0), split.count u16, split.tensors.count i32 (of all parts together)

The first part alone holds the metadata of the model; a tensor lies whole in one part.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Final, TypeVar

from p2pnode.engine.gguf_header import MAX_TENSORS, ArrayValue, Header, TensorInfo
from p2pnode.errors import ModelError

PathT = TypeVar("PathT", bound=PurePath)

MAX_PARTS: Final = 100
"""Each is held open, and a process may open 256 files on some systems; the largest models
published have some 50 parts."""

_NUMBER: Final = "split.no"
_COUNT: Final = "split.count"
_TENSORS: Final = "split.tensors.count"
_OF_ONE_FILE: Final = (_NUMBER, "general.alignment")
"""Keys in which the parts of one model may differ."""

_NAME: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_FETCH_ALL: Final = "Fetch all the parts again, into one folder, under their own names."


def part_paths(path: PathT) -> tuple[PathT, ...]:
    """Return the files that belong to ``path`` by its name alone, in order; often just itself."""
    found = _NAME.fullmatch(path.name)
    if found is None or not 1 <= int(found["number"]) <= int(found["count"]) <= MAX_PARTS:
        return (path,)
    count = int(found["count"])
    names = (part_name(found["stem"], number, count) for number in range(1, count + 1))
    return tuple(path.with_name(name) for name in names)


def part_name(stem: str, number: int, count: int) -> str:
    """Return the name of part ``number``, counted from 1."""
    return f"{stem}-{number:05d}-of-{count:05d}.gguf"


def whole_name(name: str) -> str:
    """Return what a model is called, without its extension and the number of a part."""
    found = _NAME.fullmatch(name)
    return found["stem"] if found else name.removesuffix(".gguf")


def paths_of(header: Header, path: Path) -> tuple[Path, ...]:
    """Return the files of the model of which ``path`` has this header, in order.

    Raises:
        ModelError: It is a part whose name does not say which.
    """
    count = header.metadata.get(_COUNT, 0)
    if not isinstance(count, int) or isinstance(count, bool) or count < 2:
        return (path,)
    if count > MAX_PARTS:
        raise ModelError(
            f"{path.name} is one of {count} parts; at most {MAX_PARTS} can be read",
            hint="Merge the parts into fewer files with llama.cpp's gguf-split.",
        )
    number = _number(header, path.name, count)
    paths = part_paths(path)
    if len(paths) != count or paths[number] != path:
        right = part_name(whole_name(path.name), number + 1, count)
        raise ModelError(
            f"{path.name} is part {number + 1} of {count} of a split model, and its name does not "
            "say so: the other parts cannot be found",
            hint=f"Give the parts their own names; this one is {right}.",
        )
    return paths


class Joined:
    """The parts of one model, taken in one after another.

    Attributes:
        tensors: Those of all the parts so far; each with the number of its part.
    """

    def __init__(self, first: Header, paths: tuple[Path, ...]) -> None:
        self._first = first
        self._paths = paths
        self.tensors: dict[str, TensorInfo] = {}

    def add(self, part: int, header: Header) -> None:
        """Take in the part at ``part``, counted from 0.

        Raises:
            ModelError: It is none of this model.
        """
        name = self._paths[part].name
        if len(self._paths) > 1:
            self._refuse_foreign(part, header, name)
        if len(self.tensors) + len(header.tensors) > MAX_TENSORS:
            raise ModelError(f"{name} and the parts before it have more than {MAX_TENSORS} tensors")
        for tensor in header.tensors.values():
            if tensor.name in self.tensors:
                other = self._paths[self.tensors[tensor.name].part].name
                raise ModelError(
                    f"the tensor {tensor.name!r} is in {other} and again in {name}", hint=_FETCH_ALL
                )
            self.tensors[tensor.name] = tensor.in_part(part)

    def check_complete(self) -> None:
        """Say that all the parts are in.

        Raises:
            ModelError: They have not as many tensors as the first part says.
        """
        claimed = self._first.metadata.get(_TENSORS, len(self.tensors))
        if len(self._paths) > 1 and claimed != len(self.tensors):
            raise ModelError(
                f"the {len(self._paths)} parts of {whole_name(self._paths[0].name)} have "
                f"{len(self.tensors)} tensors together, and should have {claimed}",
                hint=_FETCH_ALL,
            )

    def _refuse_foreign(self, part: int, header: Header, name: str) -> None:
        count = len(self._paths)
        if header.metadata.get(_COUNT, 0) != count:
            raise ModelError(f"{name} is no part of a model in {count} parts", hint=_FETCH_ALL)
        number = _number(header, name, count)
        if number != part:
            raise ModelError(
                f"{name} says that it is part {number + 1} of {count}: it was given another name",
                hint=_FETCH_ALL,
            )
        for key in _differing(self._first, header, header.metadata):
            raise ModelError(
                f"{name} is of another model than {self._paths[0].name}: they differ in {key}",
                hint=_FETCH_ALL,
            )


def _number(header: Header, name: str, count: int) -> int:
    number = header.metadata.get(_NUMBER)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < count:
        raise ModelError(
            f"{name} is one of {count} parts, and says that it is part {number!r}", hint=_FETCH_ALL
        )
    return number


def _differing(one: Header, other: Header, keys: Iterable[str]) -> Iterable[str]:
    """Yield those of the ``keys`` that both have, with different values."""
    for key in keys:
        if key not in one.metadata or key in _OF_ONE_FILE:
            continue
        if _content(one.metadata, one.data, key) != _content(other.metadata, other.data, key):
            yield key


def _content(metadata: Mapping[str, object], data: bytes, key: str) -> object:
    value = metadata[key]
    if isinstance(value, ArrayValue):
        return value.element_type, value.count, data[value.offset : value.end]
    return value
