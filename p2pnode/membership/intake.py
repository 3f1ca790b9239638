"""What news changes here: records into the table, claims to the suspicions, both onward."""

from collections import Counter

from p2pnode.membership.claims import Claims
from p2pnode.membership.detector import FailureDetector, Step
from p2pnode.membership.events import MembershipEvent
from p2pnode.membership.gossip import Gossiper
from p2pnode.membership.health import Health
from p2pnode.membership.members import Members
from p2pnode.membership.messages import Packet, Records
from p2pnode.membership.own_record import OwnRecord
from p2pnode.membership.push_pull import PushPull
from p2pnode.membership.records import News, SignedClaim, SignedRecord
from p2pnode.membership.renewal import Renewal
from p2pnode.sansio import NodeId


class Intake:
    """Takes news that is new and genuine. Methods return the probes that ought to follow."""

    def __init__(
        self,
        own: OwnRecord,
        members: Members,
        claims: Claims,
        detector: FailureDetector,
        gossiper: Gossiper,
        push_pull: PushPull,
        renewal: Renewal,
        events: list[MembershipEvent],
        counters: Counter[str],
    ) -> None:
        self._own = own
        self._members = members
        self._claims = claims
        self._detector = detector
        self._gossiper = gossiper
        self._push_pull = push_pull
        self._renewal = renewal
        self._events = events
        self._counters = counters

    def take(self, news: News, packet: Packet, source: NodeId, now: float) -> list[Step]:
        """Take one piece of news that ``packet`` brought from ``source``."""
        own_id = self._own.record.node_id
        match news:
            case SignedRecord(record) if record.node_id == own_id:
                self._counters["own record of a former life"] += 1
                self._renewal.outdo(record, now)
            case SignedRecord(record):
                told = isinstance(packet.message, Records) and record.node_id != source
                self._accept(news, now, by_sync=told)
            case SignedClaim(claim) if claim.subject == own_id:
                self._renewal.accused(claim, source, now)
            case SignedClaim():
                return self._claims.weigh(news, now)
        return []

    def _accept(self, signed: SignedRecord, now: float, *, by_sync: bool) -> None:
        node_id = signed.record.node_id
        entry = self._members.entry(node_id)
        before = entry.health if entry is not None else None
        self._events += self._members.accept(signed, now)
        self._claims.clear(node_id)
        if signed.record.left:
            self._detector.unwatch(node_id)
        else:
            self._detector.watch(node_id)
        if before is None and by_sync:
            # Those who told us know it already, and to gossip a whole table would cost much: a
            # push/pull with somebody else soon is enough, and spreads as fast.
            self._push_pull.soon(now)
        else:
            self._gossiper.tell_record(signed, now)
        if before is Health.DEAD and not signed.record.left:
            self._push_pull.begin_with(node_id)  # it was cut off, and others with it
