"""Everything that can fall due in the membership room, and when."""

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TypeAlias

from p2pnode.membership.records import Version
from p2pnode.sansio import NodeId


@dataclass(frozen=True, slots=True)
class ProbeDue:
    """Time to look at the next member of the round."""


@dataclass(frozen=True, slots=True)
class AttemptOver:
    """The target had its time to answer this attempt: try again, or conclude that it is silent."""

    target: NodeId
    probe: int


@dataclass(frozen=True, slots=True)
class RelayOver:
    """The target of a ping on another's behalf had its time: try again, or say so."""

    number: int


@dataclass(frozen=True, slots=True)
class SuspicionOver:
    """The suspect had its time to refute: it is dead, if our own probe finds it silent."""

    subject: NodeId
    version: Version


@dataclass(frozen=True, slots=True)
class ChallengeDue:
    """We accused it, so we keep asking it, accusation in hand, as long as it is a suspect."""

    subject: NodeId
    version: Version


@dataclass(frozen=True, slots=True)
class OutdoDue:
    """Somebody else signs with our key: time to go beyond its record once more."""


@dataclass(frozen=True, slots=True)
class RefuteDue:
    """We were accused sooner after the last refutation than we sign new ones."""

    version: Version


@dataclass(frozen=True, slots=True)
class GossipDue:
    """There is news, and the last round of gossip is long enough ago."""


@dataclass(frozen=True, slots=True)
class SyncDue:
    """Gossip may have lost something: time for a push/pull with somebody."""


@dataclass(frozen=True, slots=True)
class ReconnectDue:
    """A partition may have healed: time to dial one of the dead."""


@dataclass(frozen=True, slots=True)
class SweepDue:
    """Some of the dead may have been gone long enough to be forgotten."""


@dataclass(frozen=True, slots=True)
class AnnounceDue:
    """Our ad or addresses changed too soon after the last change, and can be told now."""


Timer: TypeAlias = (
    ProbeDue
    | AttemptOver
    | RelayOver
    | SuspicionOver
    | ChallengeDue
    | RefuteDue
    | OutdoDue
    | GossipDue
    | SyncDue
    | ReconnectDue
    | SweepDue
    | AnnounceDue
)


class Timers:
    """Which timers run, each known by its value: setting one again moves it.

    A heap finds the earliest, so a thousand suspicions cost no more than a few. What was moved or
    stopped stays in the heap until it comes up. It is told by its number: the earliest is asked for
    with every datagram, and to look a timer up by its value costs eight calls.
    """

    def __init__(self) -> None:
        self._running: dict[Timer, tuple[float, int]] = {}
        self._numbers: set[int] = set()  # of those that run
        self._heap: list[tuple[float, int, Timer]] = []
        self._started = 0

    def __contains__(self, timer: object) -> bool:
        return timer in self._running

    def start(self, timer: Timer, due: float) -> None:
        self.stop(timer)
        self._started += 1
        self._running[timer] = due, self._started
        self._numbers.add(self._started)
        heappush(self._heap, (due, self._started, timer))
        if len(self._heap) > 2 * len(self._running) + _SLACK:
            self._heap = [(*when, each) for each, when in self._running.items()]
            heapify(self._heap)

    def start_once(self, timer: Timer, due: float) -> None:
        """Start ``timer`` unless it runs."""
        if timer not in self._running:
            self.start(timer, due)

    def start_earlier(self, timer: Timer, due: float) -> None:
        """Start ``timer``, or bring it forward; never put it off."""
        running = self._running.get(timer)
        if running is None or due < running[0]:
            self.start(timer, due)

    def stop(self, timer: Timer) -> None:
        running = self._running.pop(timer, None)
        if running is not None:
            self._numbers.discard(running[1])

    def next_due(self) -> float | None:
        while self._heap:
            due, number, _ = self._heap[0]
            if number in self._numbers:
                return due
            heappop(self._heap)
        return None

    def pop_due(self, now: float) -> Timer | None:
        """Return the earliest timer due by ``now``, which runs no longer."""
        due = self.next_due()
        if due is None or due > now:
            return None
        _, _, timer = heappop(self._heap)
        self.stop(timer)
        return timer


_SLACK = 64  # stale entries that a heap may hold besides as many as it has live ones
