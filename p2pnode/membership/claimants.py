"""Whose claims count here, and how many of them.

A claim is one member's word, so what it may do depends on whose word it is: its claimant's if we
ever heard that ourselves, else that of the member that brought it. So all that one member relays
of keys nobody met is one word. It counts if whoever gives it was not found wrong lately. Other
claims only make us look: a false one costs a probe, and a true one is found true by it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.limits import Buckets
from p2pnode.membership.members import Members
from p2pnode.sansio import NodeId

IsHeard: TypeAlias = Callable[[NodeId, float], bool]
"""``is_heard(peer, now)``: whether our own session with ``peer`` was acknowledged lately."""


@dataclass(slots=True)
class _Conduct:
    """How often a claimant was wrong.

    Attributes:
        wrong: Accused that answered our probe; halved with every ``false_claim_half_life``.
        at: When that was counted.
        distrusted_until: Its claims only make us look until then.
    """

    wrong: float
    at: float
    distrusted_until: float


class Claimants:
    """What each claimant may still say, and how far its word goes."""

    def __init__(
        self,
        config: MembershipConfig,
        members: Members,
        is_heard: IsHeard,
        counters: Counter[str],
    ) -> None:
        self._config = config
        self._members = members
        self._is_heard = is_heard
        self._counters = counters
        self._rates = Buckets[NodeId](config.limits.claims_per_claimant, config.max_members)
        self._conduct: dict[NodeId, _Conduct] = {}
        self._open: Counter[NodeId] = Counter()

    def may_claim(self, claimant: NodeId, now: float) -> bool:
        """Return whether a claim of ``claimant`` would be within its rate."""
        return self._rates.of(claimant).has(now)

    def claimed(self, claimant: NodeId, now: float) -> None:
        """Count a genuine claim against its claimant's rate."""
        self._rates.of(claimant).take(now)

    def voice(self, claimant: NodeId, source: NodeId, now: float) -> NodeId:
        """Return whose word a claim of ``claimant`` is that ``source`` brought."""
        entry = self._members.entry(claimant)
        is_heard = entry is not None and (entry.heard or self._is_heard(claimant, now))
        return claimant if is_heard else source

    def counts(self, claimant: NodeId, now: float) -> bool:
        """Return whether the word of ``claimant`` may begin or confirm a suspicion."""
        if claimant not in self._members:
            self._counters["claim brought by one the table does not hold"] += 1
            return False
        conduct = self._conduct.get(claimant)
        if conduct is not None and now < conduct.distrusted_until:
            self._counters["claim of a member that accused falsely"] += 1
            return False
        if self._open[claimant] >= self._config.max_accused_at_once:
            self._counters["claim of a member that accuses too many"] += 1
            return False
        return True

    def began(self, claimant: NodeId) -> None:
        """Note that a suspicion began with a claim of ``claimant``."""
        self._open[claimant] += 1

    def ended(self, claimant: NodeId) -> None:
        """Note that such a suspicion is over."""
        self._open[claimant] -= 1
        if self._open[claimant] <= 0:
            del self._open[claimant]

    def accused_falsely(self, claimant: NodeId, now: float) -> None:
        """Note that somebody ``claimant`` accused answered our probe."""
        if claimant not in self._members:
            return
        self._counters["accusation of one that answers"] += 1
        conduct = self._conduct.pop(claimant, None) or _Conduct(0.0, now, now)
        self._conduct[claimant] = conduct
        if len(self._conduct) > self._config.max_members:
            del self._conduct[next(iter(self._conduct))]
        age = now - conduct.at
        conduct.wrong *= 0.5 ** (age / self._config.false_claim_half_life)
        conduct.wrong += 1
        conduct.at = now
        excess = conduct.wrong - self._config.false_claims_excused
        if excess > 0:
            pause = min(2**excess * self._config.distrust_first, self._config.distrust_longest)
            conduct.distrusted_until = max(conduct.distrusted_until, now + pause)
