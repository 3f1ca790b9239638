"""How large a datagram the path carries: DPLPMTUD, RFC 8899, in small steps on a ladder.

Probing never disturbs: one probe at a time, made of padding, apart from the congestion window, and
its loss means only that it was too large. When large packets stop arriving (a black hole), the path
falls back to 1200 bytes and looks upward again later. Nearly every path carries 1200; a tunnel in
a tunnel may not. Whether 1200 arrives is looked at where nothing larger did, and wherever large
packets are lost one after another while small ones get through: then the path steps down, as far
as :data:`FLOOR`. Silence alone is no reason to, for a packet is called lost only once a later one
has arrived.
"""

from collections.abc import Callable
from math import inf

from p2pnode.transport.config import BASE_DATAGRAM, TransportConfig

LADDER = (548, 1020, 1152, BASE_DATAGRAM, 1452, 1472, 4052, 8972, 16384, 32768, 60000, 65507)
"""UDP payloads worth trying: the least that IPv4 promises (576-byte packets), 1200-byte links and
less over IPv6, what every ordinary path carries, Ethernet over IPv6 and IPv4, 4 KiB and 9000-byte
links, loopback."""

FLOOR = LADDER[0]
"""The path steps down no further: a message of 65,536 bytes has at most 223 shards."""

_TRIES = 3  # MAX_PROBES of RFC 8899, section 5.1.2
_BLACK_HOLE = 6  # large packets lost in a row; at 20 % loss that happens once in 15,000
_SLACK = 64  # bytes by which a full packet may be smaller: shards of a message are equally long
_BURST = 1.0  # seconds; a burst of loss on a path that carried as much before is over by then
_RESTLESS = 1.0  # seconds; a peer that moved once more within them is probed only after as many
_UNCLEAR_PAUSE = 1.0  # seconds until the size in use is probed again, where nothing came back


class Path:
    """The search for the largest datagram.

    Attributes:
        datagram: UDP payload in use.
        is_confirmed: Whether a packet of about that size arrived, so that the path carries it.
        is_too_small: Whether not even :data:`FLOOR` bytes arrive, though smaller packets do.
        probing_from: When the next probe may leave; None when the search is over for good.
    """

    def __init__(
        self,
        config: TransportConfig,
        remote_limit: int,
        now: float,
        on_too_small: Callable[[float], None],
    ) -> None:
        """``on_too_small`` is called with the time when :attr:`is_too_small` becomes true."""
        self._limit = min(config.max_datagram, remote_limit)
        self._raise_pause = config.path_raise
        self._refused = self._limit + 1  # the least size known not to pass
        self._on_too_small = on_too_small
        self.is_too_small = False
        self._least_lost = inf
        self._moved_at = -inf
        self._use(BASE_DATAGRAM)
        self._tries = 0
        self.probing_from: float | None = now

    def next_probe(self) -> int | None:
        """Return the size to probe; None when there is none to try now.

        The next one upward; where nothing larger than 1200 bytes arrives, the size in use itself,
        until that is confirmed.
        """
        for size in (*LADDER, self._limit):
            if self.datagram < size < self._refused and size <= self._limit:
                return size
        return None if self.is_confirmed or self.is_too_small else self.datagram

    def needs_witness(self, size: int) -> bool:
        """Whether a probe is to be sent beside a small packet: silence is no answer to it.

        One that asks for the size in use itself, or follows one that was lost: the peer may be
        loading a model, and answer nothing for a second.
        """
        return self._tries > 0 or self._is_in_doubt(size)

    def on_probe_sent(self) -> None:
        self.probing_from = None

    def on_probe_acked(self, size: int, now: float) -> None:
        self._tries = 0
        self.is_too_small = False
        if size >= self.datagram:
            self._use(size)
            self.is_confirmed = True
        self._schedule(now)

    def on_probe_lost(self, size: int, now: float) -> bool:
        """Count a lost probe, and say whether datagrams just became smaller."""
        self._tries += 1
        stepped = False
        if self._tries >= _TRIES:
            self._tries = 0
            self._refused = min(self._refused, size)
            if self._is_in_doubt(size):
                stepped = self._step_down(now)
        self._schedule(now)
        return stepped

    def on_silence(self, now: float) -> None:
        """Nothing at all came back since the probe left: that says nothing of its size."""
        self.probing_from = now + _UNCLEAR_PAUSE

    def on_acked(self, size: int) -> None:
        if size >= self._least_lost:
            self._lost_in_a_row = 0
            self._least_lost = inf
        if size >= self._nearly:
            self.is_confirmed = True

    def on_lost(self, size: int, now: float) -> bool:
        """Count a lost packet, and say whether datagrams just became smaller."""
        if not self._telling < size <= self.datagram:
            return False
        if not self._lost_in_a_row:
            self._losing_since = now
        self._least_lost = min(size, self._least_lost)
        self._lost_in_a_row += 1
        if self._lost_in_a_row < _BLACK_HOLE:
            return False
        if self.datagram > BASE_DATAGRAM:
            self.fall_back(now)
            return True
        if self.is_confirmed and now - self._losing_since < _BURST:
            return False
        self._refused = min(self._refused, self.datagram)
        stepped = self._step_down(now)
        self._look_up_later(now)
        return stepped

    def fall_back(self, now: float) -> None:
        """Use the base size, and search again after a pause."""
        self._use(BASE_DATAGRAM)
        self._look_up_later(now)

    def move(self, now: float) -> None:
        """The peer has another address: another path, of which nothing is known.

        One that moves back and forth (IPv4, IPv6) does not begin a search each time.
        """
        is_restless = now - self._moved_at < _RESTLESS
        self._moved_at = now
        self._use(BASE_DATAGRAM)
        self._refused = self._limit + 1
        self.is_too_small = False
        self.probing_from = now + _RESTLESS if is_restless else now

    def _is_in_doubt(self, size: int) -> bool:
        return size == self.datagram and not self.is_confirmed

    def _use(self, size: int) -> None:
        self.datagram = size
        lower = max((step for step in LADDER if step < size), default=FLOOR // 2)
        self._nearly = size - _SLACK
        self._telling = min(lower, BASE_DATAGRAM)  # what is larger says something of the size
        self._lost_in_a_row = 0
        self._least_lost = inf  # of them, in bytes; one as large that arrives ends the row
        self._losing_since = 0.0
        self.is_confirmed = False

    def _step_down(self, now: float) -> bool:
        """Use the next smaller size; False when there is none, which is said."""
        smaller = [step for step in LADDER if step < self.datagram]
        if not smaller:
            self._lost_in_a_row = 0
            if not self.is_too_small:
                self.is_too_small = True
                self._on_too_small(now)
            return False
        self._use(smaller[-1])
        return True

    def _look_up_later(self, now: float) -> None:
        self._refused = self._limit + 1
        self.probing_from = now + self._raise_pause / 10

    def _schedule(self, now: float) -> None:
        if self.next_probe() is not None:
            self.probing_from = now
        else:
            self._refused = self._limit + 1
            searched_all = self.datagram >= self._limit
            self.probing_from = None if searched_all else now + self._raise_pause
