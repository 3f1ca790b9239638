"""Told apart: a packet seen before, and a packet that is merely late (RFC 6479's idea)."""

WINDOW = 8192
"""Packets behind the newest that may still arrive. Wireguard's is 8128."""

_SLIDE = 1024


class ReplayWindow:
    """The packet numbers already opened, as one integer's bits.

    Ask :meth:`is_fresh` before the costly authentication and :meth:`mark` only after it: a forged
    number must not move the window.
    """

    __slots__ = ("_base", "_seen", "newest")

    def __init__(self) -> None:
        self.newest = -1
        self._base = 0  # bit i of _seen stands for packet _base + i
        self._seen = 0

    def is_fresh(self, number: int) -> bool:
        if number > self.newest:
            return True
        if number <= self.newest - WINDOW:
            return False
        return not self._seen >> (number - self._base) & 1

    def mark(self, number: int) -> None:
        if number > self.newest:
            self.newest = number
            # Sliding in strides keeps the cost of the big shift off nearly every packet.
            ahead = number - self._base - WINDOW
            if ahead >= _SLIDE:
                self._seen >>= ahead
                self._base += ahead
        self._seen |= 1 << (number - self._base)
