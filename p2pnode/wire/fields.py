"""Numbered fields that a reader may skip: ``number u8, length u8, value``, in ascending order.

A field that is not there says 0, or an empty text, and a field that says so is not there: what is
said has one form. A reader keeps the fields it does not know, and writes them as they were.
"""

from collections.abc import Iterable, Sequence, Set as AbstractSet
from typing import TypeAlias

from p2pnode.errors import LocalProtocolError, RemoteProtocolError

Field: TypeAlias = tuple[int, bytes]
"""A number, 1 to 255, and a value of 1 to 255 bytes."""

LONGEST_VALUE = 255


def encode_fields(fields: Iterable[Field]) -> bytes:
    """Return the bytes of ``fields``, by their numbers; those without a value are left out.

    Raises:
        LocalProtocolError: A value is too long.
    """
    there = sorted((one for one in fields if one[1]), key=lambda one: one[0])
    if any(len(value) > LONGEST_VALUE for _, value in there):
        raise LocalProtocolError(f"a field of more than {LONGEST_VALUE} bytes")
    return b"".join(bytes((number, len(value))) + value for number, value in there)


def decode_fields_untrusted(data: bytes, repeated: AbstractSet[int] = frozenset()) -> list[Field]:
    """Return the fields in ``data``; only ``repeated`` ones may be there more than once.

    Raises:
        RemoteProtocolError: For any malformed input, and nothing else ever.
    """
    fields: list[Field] = []
    at, last = 0, 0
    while at < len(data):
        number = data[at]
        size = data[at + 1] if at + 1 < len(data) else 0
        if not size or at + 2 + size > len(data):
            raise RemoteProtocolError(f"field {number} is empty or cut off")
        if number < last or (number == last and number not in repeated):
            raise RemoteProtocolError(f"field {number} after field {last}")
        fields.append((number, data[at + 2 : at + 2 + size]))
        at, last = at + 2 + size, number
    return fields


def refuse_extra(extra: Sequence[Field], known: AbstractSet[int]) -> None:
    """Refuse as unknown fields what is none, or has no place.

    Raises:
        LocalProtocolError: As it says.
    """
    last = 0
    for number, value in extra:
        if number in known or not last <= number < 256 or not number:
            raise LocalProtocolError(f"field {number} is known, or out of order")
        if not 0 < len(value) <= LONGEST_VALUE:
            raise LocalProtocolError(f"field {number} of {len(value)} bytes")
        last = number + 1


def pack_number(number: int) -> bytes:
    """Return the fewest bytes of a number of 0 or more, the lowest first; none for 0."""
    return number.to_bytes((number.bit_length() + 7) // 8, "little")


def number_untrusted(value: bytes, bits: int) -> int:
    """Read what :func:`pack_number` wrote.

    Raises:
        RemoteProtocolError: It is wider than ``bits``, or not in the fewest bytes.
    """
    if len(value) * 8 > bits or value.endswith(b"\0"):
        raise RemoteProtocolError(f"a number of {len(value)} bytes, for {bits} bits")
    return int.from_bytes(value, "little")
