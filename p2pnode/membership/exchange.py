"""What is said back to a message: acks, relays, comparisons, and what differs about its sender."""

from p2pnode.membership.claims import Claims
from p2pnode.membership.coordinates import Vivaldi
from p2pnode.membership.detector import FailureDetector, Step
from p2pnode.membership.health import Health
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
from p2pnode.membership.records import Accusation, Version, short
from p2pnode.membership.renewal import Renewal
from p2pnode.sansio import NodeId


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
    ) -> None:
        self._own = own
        self._members = members
        self._claims = claims
        self._detector = detector
        self._outbox = outbox
        self._push_pull = push_pull
        self._renewal = renewal
        self._vivaldi = vivaldi

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

    def set_straight(self, packet: Packet, source: NodeId) -> None:
        """Mend what ``source`` and we believe of ``source`` itself, if we differ."""
        known = self._members.belief(source)
        if known is None or known.version < packet.version:
            self._ask_for(source, known.version if known else None)
        elif known.version > packet.version:
            self._outbox.send_records(source, [known.signed.encoded])
        elif known.health is Health.DEAD and not isinstance(packet.message, Ping):
            self._outbox.send(source, Gossip())  # with our accusation; a ping's ack bore it

    def _ask_for(self, source: NodeId, held: Version | None) -> None:
        prefix = prefix_of(source)
        entries = () if held is None else (DigestEntry(prefix, held, Health.ALIVE),)
        self._outbox.send(
            source, Digest(answer_wanted=False, first=prefix, last=prefix, entries=entries)
        )

    def _acknowledged(self, number: int, packet: Packet, source: NodeId, now: float) -> list[Step]:
        steps = self._detector.pass_on(number, source)
        rtt = self._detector.acknowledge(number, source, now)
        if rtt is not None and packet.coordinate is not None:
            self._vivaldi.learn(source, packet.coordinate, rtt)
        return steps

    def _compare(self, digest: Digest, source: NodeId, now: float) -> list[Step]:
        comparison = self._push_pull.answer(digest, source)
        steps: list[Step] = []
        for subject in comparison.contested:
            # A death learnt this way may be long refuted: it is a suspicion (as in memberlist).
            reason = f"held dead by {short(source)}"
            steps += self._claims.accuse(subject, Accusation.SUSPECT, reason, now)
        if comparison.own_death and not self._own.record.left:
            self._renewal.refute(source, now)
        return steps
