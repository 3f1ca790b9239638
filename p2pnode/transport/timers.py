"""Why a connection wakes up: the closed set of its timers."""

from enum import Enum, auto


class Timer(Enum):
    """One of each at most is armed for a connection; arming it again moves it."""

    ACK = auto()
    """Nothing came by to carry an acknowledgement along: it leaves on its own."""
    RECOVERY = auto()
    """A packet overtaken long enough is lost; or nothing is acknowledged: probe with data."""
    PACING = auto()
    """The next batch of datagrams may leave."""
    SILENCE = auto()
    """Data in flight has been unacknowledged for ``silence``: say so."""
    LIVENESS = auto()
    """The peer was unheard for ``keepalive``: ping it; for ``idle_timeout``: give it up."""
    PATH = auto()
    """A path probe may leave, or the one in flight is overdue."""


class Timers:
    """When each armed timer fires, and the earliest of them at a glance."""

    __slots__ = ("_armed", "earliest")

    def __init__(self) -> None:
        self._armed: dict[Timer, float] = {}
        self.earliest: float | None = None

    def arm(self, timer: Timer, at: float | None) -> None:
        """Let ``timer`` fire at a time, or not at all."""
        armed = self._armed
        before = armed.get(timer)
        if before == at:
            return
        if at is None:
            del armed[timer]
        else:
            armed[timer] = at
        self.earliest = min(armed.values(), default=None)

    def is_armed(self, timer: Timer) -> bool:
        return timer in self._armed

    def pop_due(self, now: float) -> Timer | None:
        """Disarm and return the earliest timer due, if one is."""
        if self.earliest is None or self.earliest > now:
            return None
        timer = min(self._armed, key=self._armed.__getitem__)
        self.arm(timer, None)
        return timer
