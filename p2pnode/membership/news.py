"""Which news is news, within whose limits, and whether its author signed it.

A signature check costs about 60 us, a comparison of versions nothing, so what is known already is
set aside unchecked: gossip repeats itself, and most of what arrives is known. So is what is beyond
a limit: a flood costs its sender more than it costs us.
"""

from collections import Counter
from collections.abc import Sequence

from p2pnode.errors import RemoteProtocolError
from p2pnode.membership.claims import Claims
from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.health import LIVE
from p2pnode.membership.limits import Buckets, TokenBucket
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
from p2pnode.sansio import NodeId


class NewsFilter:
    """Lets in what is new, within the limits, and genuine."""

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
        limits, room = config.limits, config.max_members
        self._verifications = TokenBucket(limits.verifications)
        self._records = Buckets[NodeId](limits.records_per_source, room)
        self._rebirths = Buckets[NodeId](limits.rebirths_per_source, room)
        self._claims_brought = Buckets[NodeId](limits.claims_per_source, room)
        self._subject_records = Buckets[NodeId](limits.records_per_subject, 2 * room)
        self._subject_rebirths = Buckets[NodeId](limits.rebirths_per_subject, 2 * room)

    def admit_untrusted(self, news: Sequence[News], source: NodeId, now: float) -> list[News]:
        """Return what is news, within the limits, its signatures checked.

        Whoever relays has checked before, so one forgery condemns all of a message.

        Raises:
            RemoteProtocolError: A signature does not fit: forged, or made for another swarm.
        """
        fresh: list[News] = []
        for item in news:
            if not self.is_news(item, source, now):
                continue
            refusal = self._refusal(item, source, now)
            if refusal is None and len(fresh) >= self._config.max_verifications:
                refusal = "news beyond what one datagram may cost"
            if refusal is None and not self._verifications.take(now):
                refusal = "news beyond the signature checks of a second"
            if refusal is None:
                fresh.append(item)
            else:
                self._counters[refusal] += 1
        for item in fresh:
            if not is_genuine(item, self._verify, self._swarm_tag):
                self._counters["forged news"] += 1
                raise RemoteProtocolError(f"news that {short(item.author)} did not sign")
        for item in fresh:
            self._count(item, now)
        return fresh

    def is_news(self, item: News, source: NodeId, now: float) -> bool:
        """Return whether ``item``, brought by ``source``, would change anything now."""
        own_id = self._own.record.node_id
        match item:
            case SignedRecord(record) if record.node_id == own_id:
                return self._own.is_surpassed_by(record)
            case SignedRecord(record):
                return self._members.is_news(record, source)
            case SignedClaim(claim) if claim.subject == own_id:
                return claim.version == self._own.version and not self._own.record.left
            case SignedClaim(claim):
                return self._claims.is_news(claim, source, now)

    # What an author may say is counted once it is sure that the author said it, or others could
    # use it up in its name; what a source may bring is counted before anything is checked.

    def _refusal(self, item: News, source: NodeId, now: float) -> str | None:
        """Return which limit ``item`` is beyond, if any; what it costs its source is taken."""
        if isinstance(item, SignedClaim):
            if not self._claims.claimants.may_claim(item.claim.claimant, now):
                return "claim beyond its claimant's limit"
            if not self._claims_brought.of(source).take(now):
                return "claim beyond its source's limit"
            return None
        subject, is_rebirth = item.record.node_id, self._is_rebirth(item.record)
        if not self._subject_records.of(subject).has(now):
            return "record beyond its author's limit"
        if is_rebirth and not self._subject_rebirths.of(subject).has(now):
            return "new life beyond its author's limit"
        if subject == source:
            return None
        if is_rebirth and not self._rebirths.of(source).take(now):
            return "new life of another beyond its source's limit"
        if not self._records.of(source).take(now):
            return "record of another beyond its source's limit"
        return None

    def _count(self, item: News, now: float) -> None:
        """Count genuine news against its author's limits."""
        if isinstance(item, SignedClaim):
            self._claims.claimants.claimed(item.claim.claimant, now)
            return
        subject = item.record.node_id
        self._subject_records.of(subject).take(now)
        if self._is_rebirth(item.record):
            self._subject_rebirths.of(subject).take(now)

    def _is_rebirth(self, record: Record) -> bool:
        known = self._members.entry(record.node_id)
        return (
            known is not None
            and known.health in LIVE
            and record.boot_epoch > known.version.boot_epoch
        )
