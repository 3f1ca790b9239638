"""How much may be in flight, and how fast it leaves: NewReno as in RFC 9002, section 7, paced.

Two things differ. The window shrinks by 0.7 instead of 0.5 (CUBIC's factor, RFC 9438, section 4.6),
and never below a few datagrams that a home network surely buffers: on Wi-Fi, loss is mostly noise.
A packet whose content parity made good counts as lost here like any other.
"""

from collections import deque

from p2pnode.transport.config import BASE_DATAGRAM, TransportConfig

_SHRINK = 0.7
_BULK_SHARE = 0.8  # of the window; the rest is always free for latency messages
_LEAD = 1.25  # pace a little faster than the window asks (RFC 9002, section 7.7)
_FILTER = 4  # round trips of which the shortest counts: RFC 6817, CURRENT_FILTER
_MINUTES = 10  # for which the shortest is remembered: RFC 6817, BASE_HISTORY
_START = 0.125  # of what arrived: a round trip's growth at the start, and what is too much then
_ENOUGH = 0.5  # of the target; a start ends there: a round trip passes before it shows
_LEAST_RTT = 0.0005  # below this pacing would only cost timers


class Congestion:
    """The congestion window of one connection.

    Attributes:
        window: Bytes that may be in flight.
        background: How many of them, where the newest is of BACKGROUND.
    """

    def __init__(self, config: TransportConfig) -> None:
        self.background = Background(config)
        self._least = config.minimum_window
        self.window = config.initial_window
        self._threshold: int | None = None
        self._recovering_since = float("-inf")
        self._before: tuple[int, int | None] | None = None

    def allows(self, in_flight: int, level: int) -> bool:
        """Whether a message of that level (0 LATENCY, 1 BULK, 2 BACKGROUND) may leave."""
        if level == 0:
            return in_flight < self.window
        if level == 2 and in_flight >= self.background.window:
            return False
        return in_flight < self.window * _BULK_SHARE

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


class Background:
    """How much may be in flight for what gives way: LEDBAT (RFC 6817), on round trips.

    A round trip that is longer than the shortest of the last minutes has a queue in it, ours or
    another's. Up to ``background_delay`` the window grows, at first by an eighth in a round trip;
    beyond, it shrinks, in a round trip by half at the most (as in LEDBAT++). The target is far
    below the RFC's 100 ms: what is to be spared is a token.

    Attributes:
        window: Bytes.
    """

    def __init__(self, config: TransportConfig) -> None:
        self._least = config.minimum_window
        self._target = config.background_delay
        self.window = float(self._least)
        self._is_starting = True
        self._newest: deque[float] = deque(maxlen=_FILTER)
        self._bases: deque[float] = deque(maxlen=_MINUTES)
        self._minute = float("-inf")

    def on_acked(self, size: int, rtt: float, in_flight_before: int, now: float) -> None:
        """So many bytes arrived; the newest of them took ``rtt``, the peer's waiting left out."""
        self._note(rtt, now)
        over = (min(self._newest) - min(self._bases)) / self._target  # 1 is the target
        if over > _ENOUGH:
            self._is_starting = False
        if over > 1:
            self.window -= size * min(over - 1, 1.0) / 2
        elif in_flight_before >= self.window / 2:
            steady = (1 - over) * BASE_DATAGRAM / self.window
            self.window += size * (_START if self._is_starting else steady)
        self.window = max(self.window, float(self._least))

    def move(self) -> None:
        """The path is another: nothing is known of it."""
        self._newest.clear()
        self._bases.clear()
        self._minute = float("-inf")
        self.window = float(self._least)
        self._is_starting = True

    def _note(self, rtt: float, now: float) -> None:
        self._newest.append(rtt)
        if now >= self._minute + 60:
            self._minute = now
            self._bases.append(rtt)
        elif rtt < self._bases[-1]:
            self._bases[-1] = rtt


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
