"""Typed, bounded access to the JSON objects of control messages.

Raises :class:`RemoteProtocolError` for whatever is not as it should be.
"""

from collections.abc import Mapping

from p2pnode.errors import RemoteProtocolError
from p2pnode.sansio import NodeId
from p2pnode.terminal import label


class Fields:
    """Typed, bounded access to a JSON object from the network."""

    def __init__(self, body: Mapping[str, object]) -> None:
        self._body = body

    def __contains__(self, key: str) -> bool:
        return key in self._body

    def value(self, key: str) -> object:
        """Return what is there, unchecked; None where nothing is."""
        return self._body.get(key)

    def inner(self, key: str) -> "Fields | None":
        """Return the object under ``key``; None where there is none, or null."""
        value = self._body.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise RemoteProtocolError(f"{key} is no object")
        return Fields(value)

    def names(self) -> list[str]:
        return list(self._body)

    def real(self, key: str) -> float:
        return real(self._body.get(key), key)

    def number(self, key: str, below: int) -> int:
        return whole_number(self._body.get(key), key, below)

    def optional_number(self, key: str, below: int) -> int | None:
        return self.number(key, below) if key in self._body else None

    def text(self, key: str) -> str:
        value = self._body.get(key)
        if not isinstance(value, str) or len(value) > 500:
            raise RemoteProtocolError(f"{key} is no short text")
        return value

    def reason(self) -> str:
        """Return words for people, who read them in a terminal: nothing in them moves a cursor."""
        return label(self.text("reason"))

    def session(self) -> int:
        return int.from_bytes(hex_bytes(self._body.get("session"), 8, "session"), "big")

    def node(self, key: str) -> NodeId:
        return NodeId(hex_bytes(self._body.get(key), 32, key))

    def pair(self, key: str) -> tuple[object, object]:
        value = self._body.get(key)
        if not isinstance(value, list) or len(value) != 2:
            raise RemoteProtocolError(f"{key} is no pair")
        return value[0], value[1]


def whole_number(value: object, key: str, below: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise RemoteProtocolError(f"{key} is not a whole number below {below}")
    return value


def real(value: object, key: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RemoteProtocolError(f"{key} is no number")
    try:
        return float(value)
    except OverflowError as error:
        raise RemoteProtocolError(f"{key} is too large") from error


def hex_bytes(value: object, size: int, key: str) -> bytes:
    if not isinstance(value, str) or len(value) != 2 * size:
        raise RemoteProtocolError(f"{key} is not {size} bytes in hex")
    try:
        data = bytes.fromhex(value)
    except ValueError as error:
        raise RemoteProtocolError(f"{key} is not hex") from error
    if len(data) != size:  # fromhex passes over spaces: a node of 31 bytes is nobody
        raise RemoteProtocolError(f"{key} is not {size} bytes in hex")
    return data
