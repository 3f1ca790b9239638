"""Rounds of gossip: while there is news, a few members at random are told of it now and then."""

from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.dissemination import Broadcasts
from p2pnode.membership.members import Members
from p2pnode.membership.outgoing import Outbox
from p2pnode.membership.records import SignedClaim, SignedRecord
from p2pnode.membership.timers import GossipDue, Timers
from p2pnode.sansio import Rng


class Gossiper:
    """Spreads news. Without news it does nothing, and sets no timer."""

    def __init__(
        self,
        config: MembershipConfig,
        members: Members,
        broadcasts: Broadcasts,
        outbox: Outbox,
        timers: Timers,
        rng: Rng,
    ) -> None:
        self._config = config
        self._members = members
        self._broadcasts = broadcasts
        self._outbox = outbox
        self._timers = timers
        self._rng = rng
        self._not_before = 0.0

    def tell_record(self, signed: SignedRecord, now: float) -> None:
        self._broadcasts.put_record(signed)
        self._soon(now)

    def tell_claim(self, signed: SignedClaim, now: float) -> None:
        self._broadcasts.put_claim(signed)
        self._soon(now)

    def tell_some(self, now: float) -> None:
        """Hold one round."""
        self._not_before = now + self._config.gossip_interval
        live = self._members.live
        targets = self._rng.sample(live, min(self._config.gossip_fanout, len(live)))
        for target in targets:
            self._outbox.gossip_to(target)
        if targets and self._broadcasts:
            self._soon(now)

    def _soon(self, now: float) -> None:
        """Fresh news goes out at once, unless the last round was just now."""
        self._timers.start_once(GossipDue(), max(now, self._not_before))
