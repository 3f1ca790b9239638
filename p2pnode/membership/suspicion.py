"""How long a suspect has to refute: Lifeguard's dynamic suspicion.

Dadgar, Phillips and Currey, "Lifeguard: SWIM-ing with situational awareness" (2017), section
IV-B: an accuser may itself be the slow one, so a suspicion nobody shares lasts long, and each
independent accuser shortens it, on a logarithm, down to the shortest. Somebody whose own suspicion
of the same member ran out has had all confirmations, so its word shortens ours to the shortest too.
"""

import math

from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.records import SignedClaim, Version
from p2pnode.sansio import NodeId


class Suspicion:
    """The time left to one suspect.

    Attributes:
        version: Which version of it is suspected.
        accuser: Whose word began it.
        deadline: When it will be held dead, if it does not answer us and does not refute.
        death: Another's claim that it is dead, once there is one that counts.
        found_silent: Whether a probe of our own went unanswered meanwhile: nobody is declared
            dead without.
        overdue: Whether the deadline passed, and only our own probe is still to end.
    """

    def __init__(
        self, version: Version, accuser: NodeId, members: int, config: MembershipConfig, now: float
    ) -> None:
        self.version = version
        self.accuser = accuser
        self.death: SignedClaim | None = None
        self.found_silent = False
        self.overdue = False
        self._accusers = {accuser}
        self._began = now
        self._wanted = config.confirmations_wanted(members)
        self._shortest, self._longest = config.suspicion_bounds(members)
        self.deadline = now + self._duration()

    def wants(self, accuser: NodeId) -> bool:
        """Return whether this accuser's word would make a difference."""
        return accuser not in self._accusers and len(self._accusers) <= self._wanted

    def confirm(self, accuser: NodeId) -> bool:
        """Count one more accuser; return whether it made a difference."""
        if not self.wants(accuser):
            return False
        self._accusers.add(accuser)
        self._hasten(self._duration())
        return True

    def called_dead(self, signed: SignedClaim) -> None:
        """Take another's claim that it is dead."""
        self.death = signed
        self._hasten(self._shortest)

    def _hasten(self, duration: float) -> None:
        self.deadline = min(self.deadline, self._began + duration)

    def _duration(self) -> float:
        if not self._wanted:
            return self._shortest
        share = math.log(len(self._accusers)) / math.log(self._wanted + 1)
        return max(self._shortest, self._longest - (self._longest - self._shortest) * share)
