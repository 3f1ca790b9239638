"""The byte layouts of the wire as data: what explains a frame, and what the pages draw.

Each is a run of fields, little-endian and without padding. A field either has a size of its own,
or is repeated as often as an earlier one says.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Part:
    """One field.

    Attributes:
        name: Its name on the pages and in explanations.
        form: A :mod:`struct` code, of one element where it is repeated.
        times: What says how often it is repeated, such as ``n``; empty for once.
    """

    name: str
    form: str
    times: str = ""

    @property
    def unit(self) -> int:
        """Bytes of one element."""
        return struct.calcsize("<" + self.form)

    @property
    def size(self) -> str:
        """Bytes of the whole, as the pages write it: ``4``, ``4n``, ``slice_len``."""
        if not self.times:
            return str(self.unit)
        if self.unit == 1:
            return self.times
        return f"{self.unit}{self.times}" if len(self.times) == 1 else f"{self.unit} {self.times}"


Layout: TypeAlias = tuple[Part, ...]

HEADER: Layout = (
    Part("version", "B"),
    Part("type", "B"),
    Part("flags", "H"),
    Part("stream_id", "I"),
    Part("frame_seq", "Q"),
    Part("num_slices", "Q"),
    Part("slice_len", "I", "n"),
    Part("space_hash32", "I"),
    Part("modality", "B"),
    Part("body", "s", "body"),
    Part("crc32", "I"),
)
SLICE: Layout = (
    Part("dtype", "B"),
    Part("ndim", "B"),
    Part("shape", "I", "ndim"),
    Part("payload", "s", "slice_len"),
)
HEAD: Layout = (
    Part("length", "Q"),
    Part("md5", "16s"),
    Part("xxh3_64", "Q"),
    Part("direction", "B"),
)
TAIL: Layout = (Part("xxh3_64", "Q"),)
NONCE: Layout = (Part("salt", "12s"), Part("stream_id", "I"), Part("frame_seq", "Q"))


def fixed_struct(parts: Sequence[Part]) -> struct.Struct:
    """Return the struct of the fields that come before the first repeated one."""
    forms = []
    for part in parts:
        if part.times:
            break
        forms.append(part.form)
    return struct.Struct("<" + "".join(forms))


def fixed_offsets(parts: Sequence[Part]) -> Iterator[tuple[Part, int]]:
    """Yield the fields before the first repeated one, and where each begins."""
    at = 0
    for part in parts:
        if part.times:
            return
        yield part, at
        at += part.unit


def written_offsets(parts: Sequence[Part]) -> list[str]:
    """Return where each field begins, as the pages write it: ``8``, ``24 + 4n``, ``end - 4``."""
    offsets = []
    fixed, repeated = 0, ""
    for index, part in enumerate(parts):
        if repeated.count("+") > 1:
            offsets.append(f"end - {sum(rest.unit for rest in parts[index:])}")
        else:
            offsets.append(f"{fixed}{repeated}")
        if part.times:
            repeated += f" + {part.size}"
        else:
            fixed += part.unit
    return offsets
