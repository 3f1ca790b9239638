"""What is said back to a message: acks, relays, comparisons, and what differs about its sender."""

from collections import Counter

from p2pnode.membership.claims import Claims
from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.coordinates import Vivaldi
from p2pnode.membership.detector import FailureDetector, Step
from p2pnode.membership.health import Health
from p2pnode.membership.limits import Buckets
from p2pnode.membership.members import Members, prefix_of
from p2pnode.membership.messages import (
    Ack,
    Digest,
    DigestEntry,
    Gossip,
    Nack,
    Packet,
    Ping,
    PingRequest,
    Records,
)
from p2pnode.membership.outgoing import Outbox
from p2pnode.membership.own_record import OwnRecord
from p2pnode.membership.push_pull import PushPull
from p2pnode.membership.records import Version
from p2pnode.membership.renewal import Renewal
from p2pnode.sansio import NodeId

DIGEST_COST = 64  # what any digest costs besides its entries: taking it, answering it


class Exchange:
    """Answers messages. Methods return the probes that ought to follow."""

    def __init__(
        self,
        own: OwnRecord,
        members: Members,
        claims: Claims,
        detector: FailureDetector,
        outbox: Outbox,
        push_pull: PushPull,
        renewal: Renewal,
        vivaldi: Vivaldi,
        counters: Counter[str],
        config: MembershipConfig,
    ) -> None:
        self._own = own
        self._members = members
        self._claims = claims
        self._detector = detector
        self._outbox = outbox
        self._push_pull = push_pull
        self._renewal = renewal
        self._vivaldi = vivaldi
        self._counters = counters
        self._replies = Buckets[NodeId](config.limits.replies_per_source, config.max_members)
        self._compared = Buckets[NodeId](config.limits.compared_per_source, config.max_members)

    def answer(self, packet: Packet, source: NodeId, now: float) -> list[Step]:
        """Do what the message proper asks for."""
        match packet.message:
            case Ping(number):
                self._outbox.send(source, Ack(number))
            case Ack(number):
                return self._acknowledged(number, packet, source, now)
            case Nack(number):
                self._detector.nack(number, source)
            case PingRequest():
                return self._detector.relay(packet.message, source, now)
            case Digest():
                return self._compare(packet.message, source, now)
            case Gossip() | Records():
                pass  # the news was all
        return []

    def set_straight(self, packet: Packet, source: NodeId, now: float) -> None:
        """Mend what ``source`` and we believe of ``source`` itself, if we differ.

        Once and then seldom: it may be that one of us cannot or will not agree.
        """
        known = self._members.belief(source)
        if known is not None and known.version == packet.version:
            if known.health is not Health.DEAD or isinstance(packet.message, Ping):
                return  # we agree; or the ping's ack bore our accusation
        elif source not in self._members and not self._members.has_room(source, source):
            self._counters["message of one the table has no room for"] += 1
            return
        if not self._replies.of(source).take(now):
            self._counters["disagreement about its sender, beyond the limit"] += 1
        elif known is None or known.version < packet.version:
            self._ask_for(source, known.version if known else None)
        elif known.version > packet.version:
            self._outbox.send_records(source, [known.signed.encoded])
        else:
            self._outbox.send(source, Gossip())  # with our accusation

    def _ask_for(self, source: NodeId, held: Version | None) -> None:
        prefix = prefix_of(source)
        entries = () if held is None else (DigestEntry(prefix, held, Health.ALIVE),)
        self._outbox.send(
            source, Digest(answer_wanted=False, first=prefix, last=prefix, entries=entries)
        )

    def _acknowledged(self, number: int, packet: Packet, source: NodeId, now: float) -> list[Step]:
        steps = self._detector.pass_on(number, source)
        answer = self._detector.acknowledge(number, source, now)
        if answer is None:
            return steps
        if answer.rtt is None:
            self._claims.vouched_for(answer.target, now)
            return steps
        self._claims.answered(answer.target, now)
        if packet.coordinate is not None:
            self._vivaldi.learn(source, packet.coordinate, answer.rtt)
        return steps

    def _compare(self, digest: Digest, source: NodeId, now: float) -> list[Step]:
        entries = self._members.count_between(digest.first, digest.last)
        if not self._compared.of(source).take(now, DIGEST_COST + entries):
            self._counters["digest beyond its sender's limit"] += 1
            return []
        comparison = self._push_pull.answer(digest, source)
        steps: list[Step] = []
        for subject in comparison.contested:
            # A death learnt this way may be long refuted, and nobody signed it: we look.
            steps += self._claims.hint(subject, source, now)
        if comparison.own_death and not self._own.record.left:
            self._renewal.accused_by_digest(source, now)
        return steps
