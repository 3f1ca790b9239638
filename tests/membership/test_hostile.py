"""One node among members that may say anything, truly signed, in any order and at any time."""

from contextlib import suppress
from dataclasses import replace
from random import Random

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pnode.errors import RemoteProtocolError
from p2pnode.membership import Health, MemberDied, Swim, simulation
from p2pnode.membership.coordinates import Coordinate
from p2pnode.membership.limits import Limits, Rate
from p2pnode.membership.members import prefix_of
from p2pnode.membership.messages import (
    Ack,
    Digest,
    DigestEntry,
    Gossip,
    Message,
    Packet,
    Ping,
    PingRequest,
    Records,
    decode_packet_untrusted,
    encode_packet,
)
from p2pnode.membership.records import (
    Accusation,
    Claim,
    News,
    Record,
    Version,
    sign_claim,
    sign_record,
)
from p2pnode.membership.timers import SuspicionOver
from p2pnode.sansio import NodeId
from p2pnode.testing.membership import TAG, ToySigner, toy_verify

OWN = ToySigner("own")
SIGNERS = [ToySigner(f"h{number}") for number in range(6)]
TIGHT = Limits(renewals=Rate(2, 1), rebirths_per_subject=Rate(3, 0.5))
CONFIG = replace(simulation(), max_members=4, max_broadcasts=8, limits=TIGHT)
who = st.integers(0, len(SIGNERS) - 1)


class Hostile(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.heard: set[NodeId] = set()
        self.core = Swim(
            CONFIG,
            OWN,
            toy_verify,
            TAG,
            7,
            (("192.0.2.1", 1),),
            b"ad",
            Random(1),
            0.0,
            is_heard=lambda peer, now: peer in self.heard,
        )
        self.versions = {signer.node_id: Version(1, 0) for signer in SIGNERS}
        self.asked: list[tuple[NodeId, int]] = []
        self.accusations = 0
        self.left = False

    # What others may do

    @rule(
        source=who, author=who, life=st.integers(0, 3), newer=st.integers(0, 3), left=st.booleans()
    )
    def record(self, source: int, author: int, life: int, newer: int, left: bool) -> None:
        signer = SIGNERS[author]
        version = self.versions[signer.node_id]
        version = Version(version.boot_epoch + life, version.incarnation + newer)
        self.versions[signer.node_id] = version
        place = (("192.0.2.2", 1 + life),)
        record = Record(signer.node_id, version.incarnation, version.boot_epoch, place, b"", left)
        self.say(source, Records() if newer else Gossip(), sign_record(record, signer, TAG))

    @rule(source=who, by=who, about=st.integers(-1, 5), what=st.sampled_from(Accusation))
    def claim(self, source: int, by: int, about: int, what: Accusation) -> None:
        signer = SIGNERS[by]
        if about < 0:
            subject, version = OWN.node_id, self.core.record.version
        else:
            subject, version = SIGNERS[about].node_id, self.held(SIGNERS[about].node_id)
        self.say(
            source, Gossip(), sign_claim(Claim(what, signer.node_id, subject, version), signer, TAG)
        )

    @rule(source=who, about=st.integers(-1, 5), health=st.sampled_from(Health), asks=st.booleans())
    def digest(self, source: int, about: int, health: Health, asks: bool) -> None:
        subject = OWN.node_id if about < 0 else SIGNERS[about].node_id
        version = self.core.record.version if about < 0 else self.held(subject)
        entry = DigestEntry(prefix_of(subject), version, health)
        self.say(source, Digest(asks, 0, (1 << 64) - 1, (entry,)))

    @rule(source=who, other=who, number=st.integers(0, 9))
    def ask(self, source: int, other: int, number: int) -> None:
        self.say(source, PingRequest(number, SIGNERS[other].node_id))
        self.say(source, Ping(number))

    @rule(life=st.integers(1, 1 << 62), source=who, left=st.booleans())
    def own_record_of_another_life(self, life: int, source: int, left: bool) -> None:
        boot_epoch = min((1 << 64) - 1, self.core.record.boot_epoch + life)
        record = Record(OWN.node_id, 0, boot_epoch, (), b"", left)
        self.say(source, Gossip(), sign_record(record, OWN, TAG))

    @rule(source=who, forger=who)
    def forge(self, source: int, forger: int) -> None:
        version = self.versions[SIGNERS[source].node_id]
        record = Record(SIGNERS[source].node_id, version.incarnation + 9, 99, (), b"")
        if source != forger:
            self.say(source, Gossip(), sign_record(record, SIGNERS[forger], TAG))
            member = self.core.member(SIGNERS[source].node_id)
            assert member is None or member.record.boot_epoch != 99

    # What the world may do

    @rule(seconds=st.floats(0.01, 3))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.core.next_timeout()) is not None and due <= until:
            self.now = max(self.now, due)
            self.fire()
        self.now = until

    @rule()
    def oversleep(self) -> None:
        self.now += 5
        self.fire()

    @rule(answers=st.booleans())
    def those_asked_answer(self, answers: bool) -> None:
        asked, self.asked = self.asked, []
        for peer, number in asked if answers else []:
            detector = self.core._detector
            is_ours = number in detector._questions or number in detector._late
            data = encode_packet(Packet(self.held(peer), Coordinate(), Ack(number)))
            self.core.receive_datagram(data, peer, self.now)
            if is_ours and self.core.member(peer) is not None:  # and not on another's behalf
                assert self.health(peer) is not Health.SUSPECT
        self.collect()

    @rule(peer=who, heard=st.booleans())
    def session(self, peer: int, heard: bool) -> None:
        node_id = SIGNERS[peer].node_id
        (self.heard.add if heard else self.heard.discard)(node_id)
        (self.core.report_responsive if heard else self.core.report_unresponsive)(node_id, self.now)
        self.collect()

    @rule(peer=who)
    def join(self, peer: int) -> None:
        self.core.join(SIGNERS[peer].node_id, self.now)
        self.collect()

    # What must hold

    @invariant()
    def suspects_have_suspicions_and_timers(self) -> None:
        suspicions = self.core._claims._suspicions
        suspects = {
            member.record.node_id
            for member in self.core.members()
            if member.health is Health.SUSPECT
        }
        assert suspects == set(suspicions)
        for node_id, suspicion in suspicions.items():
            assert suspicion.version == self.held(node_id)
            assert SuspicionOver(node_id, suspicion.version) in self.core._timers
        opened = self.core._claims.claimants._open
        assert sum(opened.values()) == len(suspicions)

    @invariant()
    def what_is_kept_of_claims_is_of_members(self) -> None:
        claims, detector = self.core._claims, self.core._detector
        assert set(claims._looks) <= set(detector._probes), "a look that nobody ends"
        members = {member.record.node_id for member in self.core.members()}
        assert set(claims._dropped) <= members
        assert len(claims.claimants._conduct) <= CONFIG.max_members
        asked = sum(len(probe.numbers) for probe in detector._probes.values())
        assert len(detector._questions) == asked
        assert len(detector._relays) <= CONFIG.max_relays
        timers = self.core._timers
        assert timers._numbers == {number for _, number in timers._running.values()}
        others = len(detector._probes) + len(detector._relays) + 2 * len(claims._suspicions)
        assert len(timers._running) <= 8 + others

    @invariant()
    def bounds_hold(self) -> None:
        assert len(self.core.members()) <= CONFIG.max_members
        assert len(self.core._broadcasts) <= CONFIG.max_broadcasts
        assert self.core.record.incarnation <= 2 + self.now + 1
        due = self.core.next_timeout()
        assert due is not None

    def fire(self) -> None:
        self.core.handle_timeout(self.now)
        self.collect()
        due = self.core.next_timeout()
        assert due is not None
        assert due > self.now

    def say(self, source: int, message: Message, *news: News) -> None:
        peer = SIGNERS[source].node_id
        place = Coordinate() if isinstance(message, Ping | Ack) else None
        with suppress(RemoteProtocolError):
            data = encode_packet(Packet(self.versions[peer], place, message, news))
            self.core.receive_datagram(data, peer, self.now)
        self.collect()

    def collect(self) -> None:
        for outgoing in self.core.datagrams_to_send():
            message = decode_packet_untrusted(outgoing.payload).message
            if isinstance(message, Ping):
                self.asked.append((outgoing.destination, message.number))
        self.asked = self.asked[-20:]
        for event in self.core.take_events():
            if isinstance(event, MemberDied) and "refute" in event.reason:
                assert event.node_id not in self.heard

    def held(self, node_id: NodeId) -> Version:
        member = self.core.member(node_id)
        return (
            self.versions.get(node_id, Version(0, 0)) if member is None else member.record.version
        )

    def health(self, node_id: NodeId) -> Health:
        member = self.core.member(node_id)
        assert member is not None
        return member.health


TestHostile = Hostile.TestCase
TestHostile.settings = settings(stateful_step_count=40, max_examples=60)
