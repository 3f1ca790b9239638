"""Why a connection wakes up: the closed set of its timers."""

from enum import IntEnum
from math import inf


class Timer(IntEnum):
    """One of each at most is armed for a connection; arming it again moves it."""

    ACK = 0
    """Nothing came by to carry an acknowledgement along: it leaves on its own."""
    RECOVERY = 1
    """A packet overtaken long enough is lost; or nothing is acknowledged: probe with data."""
    PACING = 2
    """The next batch of datagrams may leave."""
    SILENCE = 3
    """Data in flight has been unacknowledged for ``silence``: say so."""
    LIVENESS = 4
    """The peer was unheard for ``keepalive``: ping it; for ``idle_timeout``: give it up."""
    PATH = 5
    """A path probe may leave, or the one in flight is overdue."""


# Plain ints: an enum's member as an index costs more than the store.
_ACK, _RECOVERY, _SILENCE = int(Timer.ACK), int(Timer.RECOVERY), int(Timer.SILENCE)


class Timers:
    """When each timer fires. Every packet moves some, so moving one is a single store."""

    __slots__ = ("_moments",)

    def __init__(self) -> None:
        self._moments = [inf] * len(Timer)

    def arm(self, timer: Timer, at: float | None) -> None:
        """Let ``timer`` fire at a time, or not at all."""
        self._moments[timer] = inf if at is None else at

    def arm_flow(self, ack: float | None, recovery: float | None, silence: float | None) -> None:
        """Arm the three that every packet moves, in one call."""
        moments = self._moments
        moments[_ACK] = inf if ack is None else ack
        moments[_RECOVERY] = inf if recovery is None else recovery
        moments[_SILENCE] = inf if silence is None else silence

    @property
    def earliest(self) -> float:
        """When the next timer fires; infinity when none is armed."""
        first = inf
        for moment in self._moments:  # less than half of what min() costs, and asked so often
            if moment < first:
                first = moment
        return first

    def pop_due(self, now: float) -> Timer | None:
        """Disarm and return the earliest timer due, if one is."""
        earliest = self.earliest
        if earliest > now:
            return None
        timer = Timer(self._moments.index(earliest))
        self._moments[timer] = inf
        return timer
