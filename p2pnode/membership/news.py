"""Which news is news, and whether its author signed it.

A signature check costs about 60 us, a comparison of versions nothing, so what is known already is
set aside unchecked. Gossip repeats itself: most of what arrives is known.
"""

from collections import Counter
from collections.abc import Sequence

from p2pnode.errors import RemoteProtocolError
from p2pnode.membership.claims import Claims
from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.members import Members
from p2pnode.membership.own_record import OwnRecord
from p2pnode.membership.records import (
    News,
    Record,
    SignedClaim,
    SignedRecord,
    Verify,
    is_genuine,
    short,
)


class NewsFilter:
    """Lets in what is new and genuine."""

    def __init__(
        self,
        config: MembershipConfig,
        verify: Verify,
        swarm_tag: bytes,
        own: OwnRecord,
        members: Members,
        claims: Claims,
        counters: Counter[str],
    ) -> None:
        self._config = config
        self._verify = verify
        self._swarm_tag = swarm_tag
        self._own = own
        self._members = members
        self._claims = claims
        self._counters = counters

    def admit_untrusted(self, news: Sequence[News]) -> list[News]:
        """Return what is news, its signatures checked.

        Whoever relays has checked before, so one forgery condemns all of a message.

        Raises:
            RemoteProtocolError: A signature does not fit: forged, or made for another swarm.
        """
        fresh = [item for item in news if self.is_news(item)]
        if len(fresh) > self._config.max_verifications:
            self._counters["news beyond what one datagram may cost"] += 1
            fresh = fresh[: self._config.max_verifications]
        for item in fresh:
            if not is_genuine(item, self._verify, self._swarm_tag):
                self._counters["forged news"] += 1
                raise RemoteProtocolError(f"news that {short(item.author)} did not sign")
        return fresh

    def is_news(self, item: News) -> bool:
        """Return whether ``item`` would change anything now."""
        own_id = self._own.record.node_id
        match item:
            case SignedRecord(record) if record.node_id == own_id:
                return self._surpasses_us(record)
            case SignedRecord(record):
                return self._members.is_news(record)
            case SignedClaim(claim) if claim.subject == own_id:
                return claim.version == self._own.version and not self._own.record.left
            case SignedClaim(claim):
                return self._claims.is_news(claim)

    def _surpasses_us(self, record: Record) -> bool:
        """Return whether a record of ours comes from a life we do not remember."""
        if self._own.record.left:
            return False
        farewell = record.left and record.version == self._own.version
        return farewell or record.version > self._own.version
