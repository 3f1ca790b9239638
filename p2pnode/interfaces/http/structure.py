"""How much there is in a text of JSON, told before it is read.

Reading makes objects of it in one go, during which nothing else of the process gets its turn: of
four mebibytes of empty lists, seconds. What counts is what stands outside strings.
"""

from dataclasses import dataclass
from typing import Final

_CHUNK: Final = 65_536


@dataclass(frozen=True, slots=True)
class Structure:
    """How much there is.

    Attributes:
        parts: Objects, lists, and names in objects.
        values: Values, but for the last of each object or list.
    """

    parts: int = 0
    values: int = 0


def structure_of(data: bytes, most: Structure) -> Structure:
    """Count what there is in ``data``, at least until there is more than ``most``.

    Of what is no JSON it counts as much as a reader meets before it fails, or more.
    """
    parts = values = 0
    is_string, escape = False, b""
    for start in range(0, len(data), _CHUNK):
        piece = escape + data[start : start + _CHUNK]
        escape = b"\\" if (len(piece) - len(piece.rstrip(b"\\"))) % 2 else b""
        piece = piece[: len(piece) - len(escape)]
        cut = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        outside = b"".join(cut[is_string::2])
        is_string ^= len(cut) % 2 == 0
        parts += sum(map(outside.count, (b"[", b"{", b":")))
        values += outside.count(b",")
        if parts > most.parts or values > most.values:
            break
    return Structure(parts, values)
