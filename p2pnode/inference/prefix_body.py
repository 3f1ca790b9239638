"""How names of beginnings stand in an ``x-open`` and an ``x-close``; parsed at the door.

Nodes that do not know the keys pass over them: they keep nothing, and begin with nothing.
"""

from typing import Final, TypeAlias

from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.fields import Fields, hex_bytes, whole_number
from p2pnode.values import value

NAME_BYTES: Final = 16
MOST_NAMES: Final = 128
"""Names of one leg in one message; a session of a million positions has some hundred."""

MOST_LEGS: Final = 8
"""Legs of one peer in an ``x-close``: all their names fit one frame; plans have fewer visits."""


@value
class Names:
    """Names of boundaries of one leg.

    Attributes:
        marks: Position and name of each, in order of position.
        is_shared: As :class:`Scope` has it.
    """

    marks: tuple[tuple[int, bytes], ...]
    is_shared: bool = False


Keep: TypeAlias = tuple[tuple[int, Names], ...]
"""What to keep of each leg, by its number."""


def names_body(names: Names) -> dict[str, object]:
    """Return the JSON object that says ``names``."""
    body: dict[str, object] = {"names": [[at, name.hex()] for at, name in names.marks]}
    return body | {"shared": True} if names.is_shared else body


def names_untrusted(fields: Fields, most_positions: int) -> Names:
    """Read what :func:`names_body` wrote.

    Raises:
        RemoteProtocolError: It is none.
    """
    listed = fields.value("names")
    if not isinstance(listed, list) or len(listed) > MOST_NAMES:
        raise RemoteProtocolError("names are no short list")
    marks: list[tuple[int, bytes]] = []
    for one in listed:
        if not isinstance(one, list) or len(one) != 2:
            raise RemoteProtocolError("a name stands with its position")
        position = whole_number(one[0], "names", most_positions)
        if position <= (marks[-1][0] if marks else 0):
            raise RemoteProtocolError("names are not in order of position")
        marks.append((position, hex_bytes(one[1], NAME_BYTES, "names")))
    shared = fields.value("shared") if "shared" in fields else False
    if not isinstance(shared, bool):
        raise RemoteProtocolError("shared is neither true nor false")
    return Names(tuple(marks), shared)


def keep_body(keep: Keep) -> list[object]:
    """Return what to keep of each leg."""
    return [{"leg": leg, **names_body(names)} for leg, names in keep]


def keep_untrusted(said: object, most_positions: int) -> Keep:
    """Read what :func:`keep_body` wrote.

    Raises:
        RemoteProtocolError: It is none.
    """
    if not isinstance(said, list) or len(said) > MOST_LEGS:
        raise RemoteProtocolError("what to keep is no short list")
    kept: list[tuple[int, Names]] = []
    for one in said:
        if not isinstance(one, dict):
            raise RemoteProtocolError("what to keep is no object")
        fields = Fields(one)
        kept.append((fields.number("leg", 1 << 32), names_untrusted(fields, most_positions)))
    return tuple(kept)
