"""How long a suspect has to refute: Lifeguard's dynamic suspicion.

Dadgar, Phillips and Currey, "Lifeguard: SWIM-ing with situational awareness" (2017), section
IV-B: an accuser may itself be the slow one, so a suspicion nobody shares lasts long, and each
independent accuser shortens it, on a logarithm, down to the shortest.
"""

import math

from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.records import Version
from p2pnode.sansio import NodeId


class Suspicion:
    """The time left to one suspect.

    Attributes:
        version: Which version of it is suspected.
        deadline: When it will be held dead, unless it refutes.
    """

    def __init__(
        self, version: Version, accuser: NodeId, members: int, config: MembershipConfig, now: float
    ) -> None:
        self.version = version
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
        self.deadline = self._began + self._duration()
        return True

    def _duration(self) -> float:
        if not self._wanted:
            return self._shortest
        share = math.log(len(self._accusers)) / math.log(self._wanted + 1)
        return max(self._shortest, self._longest - (self._longest - self._shortest) * share)
