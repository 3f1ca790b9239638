"""Everything that can fall due in the membership room, and when."""

from dataclasses import dataclass
from typing import TypeAlias

from p2pnode.membership.records import Version
from p2pnode.sansio import NodeId


@dataclass(frozen=True, slots=True)
class ProbeDue:
    """Time to look at the next member of the round."""


@dataclass(frozen=True, slots=True)
class AttemptOver:
    """The target had its time to answer this attempt: try again, or give the verdict."""

    probe: int


@dataclass(frozen=True, slots=True)
class RelayOver:
    """The target of a ping on another's behalf had its time: try again, or say so."""

    number: int


@dataclass(frozen=True, slots=True)
class SuspicionOver:
    """The suspect had its time to refute: it is dead."""

    subject: NodeId
    version: Version


@dataclass(frozen=True, slots=True)
class ChallengeDue:
    """We accused it, so we keep asking it, accusation in hand, as long as it is a suspect."""

    subject: NodeId
    version: Version


@dataclass(frozen=True, slots=True)
class GossipDue:
    """There is news, and the last round of gossip is long enough ago."""


@dataclass(frozen=True, slots=True)
class SyncDue:
    """Gossip may have lost something: time for a push/pull with somebody."""


@dataclass(frozen=True, slots=True)
class ReconnectDue:
    """A partition may have healed: time to call on one of the dead."""


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
    | GossipDue
    | SyncDue
    | ReconnectDue
    | SweepDue
    | AnnounceDue
)


class Timers:
    """Which timers run, each known by its value: setting one again moves it.

    There are a dozen at most times, and a few per suspect, so the earliest is found by looking.
    """

    def __init__(self) -> None:
        self._due: dict[Timer, float] = {}

    def __contains__(self, timer: object) -> bool:
        return timer in self._due

    def start(self, timer: Timer, due: float) -> None:
        self._due[timer] = due

    def start_once(self, timer: Timer, due: float) -> None:
        """Start ``timer`` unless it runs."""
        self._due.setdefault(timer, due)

    def start_earlier(self, timer: Timer, due: float) -> None:
        """Start ``timer``, or bring it forward; never put it off."""
        self._due[timer] = min(due, self._due.get(timer, due))

    def stop(self, timer: Timer) -> None:
        self._due.pop(timer, None)

    def next_due(self) -> float | None:
        return min(self._due.values(), default=None)

    def pop_due(self, now: float) -> Timer | None:
        """Return the earliest timer due by ``now``, which runs no longer."""
        if not self._due:
            return None
        timer = min(self._due, key=self._due.__getitem__)
        if self._due[timer] > now:
            return None
        del self._due[timer]
        return timer
