"""What news changes here: records into the table, claims to the suspicions, both onward."""

from collections import Counter

from p2pnode.membership.claims import Claims
from p2pnode.membership.detector import FailureDetector, Step
from p2pnode.membership.events import MemberDied, MembershipEvent
from p2pnode.membership.gossip import Gossiper
from p2pnode.membership.health import LIVE, Health
from p2pnode.membership.members import Members
from p2pnode.membership.messages import Packet, Records
from p2pnode.membership.outgoing import Outbox
from p2pnode.membership.own_record import OwnRecord
from p2pnode.membership.push_pull import PushPull
from p2pnode.membership.records import News, SignedClaim, SignedRecord
from p2pnode.membership.renewal import Renewal
from p2pnode.membership.shared_keys import SharedKeys
from p2pnode.sansio import NodeId


class Intake:
    """Takes news that is new and genuine. Methods return the probes that ought to follow."""

    def __init__(
        self,
        own: OwnRecord,
        members: Members,
        claims: Claims,
        detector: FailureDetector,
        outbox: Outbox,
        gossiper: Gossiper,
        push_pull: PushPull,
        renewal: Renewal,
        shared_keys: SharedKeys,
        events: list[MembershipEvent],
        counters: Counter[str],
    ) -> None:
        self._own = own
        self._members = members
        self._claims = claims
        self._detector = detector
        self._outbox = outbox
        self._gossiper = gossiper
        self._push_pull = push_pull
        self._renewal = renewal
        self._shared_keys = shared_keys
        self._events = events
        self._counters = counters

    def take(self, news: News, packet: Packet, source: NodeId, now: float) -> list[Step]:
        """Take one piece of news that ``packet`` brought from ``source``."""
        own_id = self._own.record.node_id
        match news:
            case SignedRecord(record) if record.node_id == own_id:
                self._counters["own record of a former life"] += 1
                self._renewal.surpassed(record, now)
            case SignedRecord(record):
                told = isinstance(packet.message, Records) and record.node_id != source
                self._accept(news, source, now, by_sync=told)
            case SignedClaim(claim) if claim.subject == own_id:
                self._renewal.accused(claim, source, now)
            case SignedClaim():
                return self._claims.weigh(news, source, now)
        return []

    def _accept(self, signed: SignedRecord, source: NodeId, now: float, *, by_sync: bool) -> None:
        node_id = signed.record.node_id
        entry = self._members.entry(node_id)
        if entry is not None and self._shared_keys.refuses(
            entry.signed.record, signed.record, source, now
        ):
            self._counters["record of a key in use twice, not of the one we hear"] += 1
            if self._shared_keys.is_untold(signed.record):
                self._outbox.send_records(node_id, [signed.encoded])  # it has to know
            return
        before = entry.health if entry is not None else None
        outdone = entry is not None and self._shared_keys.only_outdone(
            entry.signed.record, signed.record, now
        )
        if entry is not None and not outdone and entry.health in LIVE:
            self._shared_keys.renewed(entry.signed.record, signed.record, now)
        for event in self._members.accept(signed, now, source, same_life=outdone):
            self._events.append(event)
            if isinstance(event, MemberDied) and event.node_id != node_id:
                self._claims.clear(event.node_id)  # it gave way
                self._detector.remove(event.node_id)
        self._claims.clear(node_id)
        if signed.record.left:
            self._detector.remove(node_id)
        else:
            self._detector.add(node_id, heard=source == node_id)
        if before is None and by_sync:
            # Those who told us know it already, and to gossip a whole table would cost much: a
            # push/pull with somebody else soon is enough, and spreads as fast.
            self._push_pull.soon(now)
        else:
            self._gossiper.tell_record(signed, now)
        if before is Health.DEAD and not signed.record.left:
            self._push_pull.begin_with(node_id)  # it was cut off, and others with it
