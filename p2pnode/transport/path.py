"""How large a datagram the path carries: DPLPMTUD, RFC 8899, in small steps up a ladder.

Probing never disturbs: one probe at a time, made of padding, apart from the congestion window, and
its loss means only that it was too large. When large packets stop arriving (a black hole), the path
falls back to 1200 bytes, which every path carries, and looks upward again later.
"""

from p2pnode.transport.config import BASE_DATAGRAM, TransportConfig

LADDER = (BASE_DATAGRAM, 1452, 1472, 4052, 8972, 16384, 32768, 60000, 65507)
"""UDP payloads worth trying: Ethernet over IPv6 and IPv4, 4 KiB and 9000-byte links, loopback."""

_TRIES = 3  # MAX_PROBES of RFC 8899, section 5.1.2
_BLACK_HOLE = 6  # large packets lost in a row; at 20 % loss that happens once in 15,000


class Path:
    """The search for the largest datagram.

    Attributes:
        datagram: UDP payload in use.
        probing_from: When the next probe may leave; None when the search is over for good.
    """

    def __init__(self, config: TransportConfig, remote_limit: int, now: float) -> None:
        self._limit = min(config.max_datagram, remote_limit)
        self._raise_pause = config.path_raise
        self.datagram = BASE_DATAGRAM
        self._tries = 0
        self._lost_in_a_row = 0
        self._refused = self._limit + 1  # the least size known not to pass
        self.probing_from: float | None = now

    def next_probe(self) -> int | None:
        """Return the size to probe; None when there is no larger one to try now."""
        for size in (*LADDER, self._limit):
            if self.datagram < size < self._refused and size <= self._limit:
                return size
        return None

    def on_probe_sent(self) -> None:
        self.probing_from = None

    def on_probe_acked(self, size: int, now: float) -> None:
        self._tries = 0
        self.datagram = max(self.datagram, size)
        self._schedule(now)

    def on_probe_lost(self, size: int, now: float) -> None:
        self._tries += 1
        if self._tries >= _TRIES:
            self._tries = 0
            self._refused = min(self._refused, size)
        self._schedule(now)

    def on_acked(self, size: int) -> None:
        if size > BASE_DATAGRAM:
            self._lost_in_a_row = 0

    def on_lost(self, size: int, now: float) -> bool:
        """Count a lost packet, and say whether the path just fell back to the base size."""
        if size <= BASE_DATAGRAM or self.datagram == BASE_DATAGRAM:
            return False
        self._lost_in_a_row += 1
        if self._lost_in_a_row < _BLACK_HOLE:
            return False
        self.fall_back(now)
        return True

    def fall_back(self, now: float) -> None:
        """Use the base size, and search again after a pause."""
        self.datagram = BASE_DATAGRAM
        self._lost_in_a_row = 0
        self._refused = self._limit + 1
        self.probing_from = now + self._raise_pause / 10

    def move(self, now: float) -> None:
        """The peer has another address: another path, of which nothing is known."""
        self.fall_back(now)
        self.probing_from = now

    def _schedule(self, now: float) -> None:
        if self.next_probe() is not None:
            self.probing_from = now
        else:
            self._refused = self._limit + 1
            searched_all = self.datagram >= self._limit
            self.probing_from = None if searched_all else now + self._raise_pause
