"""Whether a node is with the swarm, leaves it, or has left it.

A phase machine: the node alone moves it, so a pair that is not in the table is our own mistake and
is refused loudly.

The fields of :class:`Life`, by phase:

- ``deadline`` is the moment by which the sessions of others must have finished in DRAINING, and by
  which the farewell must have been acknowledged in DEPARTING; None in every other phase.
- DRAINING admits no session and dials nobody; DEPARTING has told everyone and only waits; LEFT asks
  for nothing any more.
"""

from enum import Enum, auto
from typing import Final

from p2pnode.errors import LocalProtocolError


class Phase(Enum):
    """How far a node is."""

    HERE = auto()
    DRAINING = auto()
    DEPARTING = auto()
    LEFT = auto()


class Evidence(Enum):
    """What moves it."""

    LEAVE_ASKED = auto()
    DRAINED = auto()
    FAREWELL_HEARD = auto()


LEAVING: Final = frozenset({Phase.DRAINING, Phase.DEPARTING, Phase.LEFT})

TRANSITIONS: Final = {
    (Phase.HERE, Evidence.LEAVE_ASKED): Phase.DRAINING,
    (Phase.DRAINING, Evidence.DRAINED): Phase.DEPARTING,
    (Phase.DEPARTING, Evidence.FAREWELL_HEARD): Phase.LEFT,
}


class Life:
    """The phase of one node.

    Attributes:
        phase: How far it is.
        deadline: Until when it may stay there; see above.
        is_leaving: Whether it takes on nothing new any more. Asked with every datagram, so kept.
    """

    def __init__(self) -> None:
        self.phase = Phase.HERE
        self.deadline: float | None = None
        self.is_leaving = False

    def move(self, evidence: Evidence, *, deadline: float | None = None) -> None:
        """Go on to what ``evidence`` leads to, to be there until ``deadline`` at the longest.

        Raises:
            LocalProtocolError: The table has no such move.
        """
        following = TRANSITIONS.get((self.phase, evidence))
        if following is None:
            raise LocalProtocolError(
                f"{evidence.name} means nothing to a node that is {self.phase.name}"
            )
        self.phase, self.deadline = following, deadline
        self.is_leaving = following in LEAVING
