"""Reading bytes of the network without ever reading past their end."""

from struct import Struct
from typing import Any

from p2pnode.errors import RemoteProtocolError


class Reader:
    """A cursor over bytes that a peer sent."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def position(self) -> int:
        return self._at

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def since(self, position: int) -> bytes:
        """Return what was read since the cursor stood at ``position``."""
        return self._data[position : self._at]

    def take_untrusted(self, size: int) -> bytes:
        """Return the next ``size`` bytes.

        Raises:
            RemoteProtocolError: There are not so many.
        """
        if size > self.left:
            raise RemoteProtocolError(f"{size} bytes wanted, {self.left} left")
        self._at += size
        return self._data[self._at - size : self._at]

    def unpack_untrusted(self, layout: Struct) -> tuple[Any, ...]:
        """Return the values of ``layout`` from the next bytes.

        Raises:
            RemoteProtocolError: There are too few.
        """
        return layout.unpack(self.take_untrusted(layout.size))
