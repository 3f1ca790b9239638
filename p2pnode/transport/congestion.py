"""How much may be in flight, and how fast it leaves: NewReno as in RFC 9002, section 7, paced.

Two things differ. The window shrinks by 0.7 instead of 0.5 (CUBIC's factor, RFC 9438, section 4.6),
and never below a few datagrams that a home network surely buffers: on Wi-Fi, loss is mostly noise.
A packet whose content parity made good counts as lost here like any other.
"""

from p2pnode.transport.config import BASE_DATAGRAM, TransportConfig

_SHRINK = 0.7
_BULK_SHARE = 0.8  # of the window; the rest is always free for latency messages
_LEAD = 1.25  # pace a little faster than the window asks (RFC 9002, section 7.7)
_LEAST_RTT = 0.0005  # below this pacing would only cost timers


class Congestion:
    """The congestion window of one connection.

    Attributes:
        window: Bytes that may be in flight.
    """

    def __init__(self, config: TransportConfig) -> None:
        self._least = config.minimum_window
        self.window = config.initial_window
        self._threshold: int | None = None
        self._recovering_since = float("-inf")
        self._before: tuple[int, int | None] | None = None

    def allows(self, in_flight: int, *, bulk: bool) -> bool:
        return in_flight < (self.window * _BULK_SHARE if bulk else self.window)

    @property
    def is_starting(self) -> bool:
        return self._threshold is None or self.window < self._threshold

    def on_acked(self, size: int, sent_at: float, in_flight_before: int) -> None:
        """Grow, if the window was what held us back."""
        if sent_at <= self._recovering_since or in_flight_before < self.window // 2:
            return
        if self.is_starting:
            self.window += size
        else:
            self.window += BASE_DATAGRAM * size // self.window

    def on_lost(self, sent_at: float, now: float) -> None:
        """Shrink, once for each round trip."""
        if sent_at <= self._recovering_since:
            return
        self._before = (self.window, self._threshold)
        self._recovering_since = now
        self.window = max(int(self.window * _SHRINK), self._least)
        self._threshold = self.window

    def on_pardoned(self, sent_at: float) -> None:
        """A packet taken for lost had only been overtaken: take the last shrinking back."""
        if self._before is None or sent_at > self._recovering_since:
            return
        window, self._threshold = self._before
        self.window = max(self.window, window)
        self._before = None
        self._recovering_since = float("-inf")

    def on_persistent(self) -> None:
        """Nothing came back for long: begin anew."""
        self.window = self._least
        self._before = None


class Pacer:
    """A token bucket; timers are 1 ms grained, so what leaves is a batch.

    Attributes:
        tokens: Bytes that may leave at once; while there are any, nothing waits.
    """

    def __init__(self, burst: int, now: float) -> None:
        self._burst = burst
        self.tokens = float(burst)
        self._filled_at = now

    def delay(self, window: int, rtt: float, now: float) -> float:
        """Return how long the next datagram must wait; 0 to go at once."""
        if self.tokens > 0:
            return 0.0
        rate = _LEAD * window / max(rtt, _LEAST_RTT)
        self.tokens = min(self._burst, self.tokens + (now - self._filled_at) * rate)
        self._filled_at = now
        if self.tokens > 0:
            return 0.0
        return max(0.001, (-self.tokens + min(self._burst, window) / 8) / rate)

    def spend(self, size: int) -> None:
        self.tokens -= size
