"""Nobody speaks for another, for the past, or for another swarm."""

from dataclasses import replace

import pytest
from nacl.signing import SigningKey, VerifyKey

from p2pnode.errors import RemoteProtocolError
from p2pnode.membership import Health
from p2pnode.membership.messages import Gossip, Packet, encode_packet
from p2pnode.membership.records import (
    Accusation,
    Claim,
    News,
    Record,
    SignedClaim,
    SignedRecord,
    Version,
    is_genuine,
    sign_claim,
    sign_record,
)
from p2pnode.sansio import NodeId
from p2pnode.testing.membership import TAG, Swarm, ToySigner


@pytest.fixture
def swarm() -> Swarm:
    swarm = Swarm()
    swarm.grow("a", "b", "c")
    return swarm


def say(swarm: Swarm, speaker: str, *news: News) -> None:
    """Give ``a`` a message of ``speaker`` directly, so that a refusal shows."""
    version = swarm.cores[speaker].record.version
    data = encode_packet(Packet(version, None, Gossip(), news))
    swarm.cores["a"].receive_datagram(data, ToySigner(speaker).node_id, swarm.network.now)


def held(swarm: Swarm, name: str) -> Record:
    (node_id,) = swarm.ids([name])
    return next(m.record for m in swarm.cores["a"].members() if m.record.node_id == node_id)


def newer(record: Record) -> Record:
    return replace(record, incarnation=record.incarnation + 1, ad=b"newer")


def test_a_record_signed_by_another_is_refused(swarm: Swarm) -> None:
    before = held(swarm, "c")
    with pytest.raises(RemoteProtocolError):
        say(swarm, "b", sign_record(newer(before), ToySigner("b"), TAG))
    assert held(swarm, "c") == before
    assert swarm.cores["a"].counters["forged news"] == 1


def test_one_forgery_condemns_the_whole_message(swarm: Swarm) -> None:
    before = held(swarm, "b"), held(swarm, "c")
    good = sign_record(newer(before[0]), ToySigner("b"), TAG)
    bad = sign_record(newer(before[1]), ToySigner("b"), TAG)
    with pytest.raises(RemoteProtocolError):
        say(swarm, "b", good, bad)
    assert (held(swarm, "b"), held(swarm, "c")) == before


def test_a_changed_record_is_refused(swarm: Swarm) -> None:
    signed = sign_record(newer(held(swarm, "c")), ToySigner("c"), TAG)
    forged = SignedRecord(signed.record, signed.encoded.replace(b"newer", b"never"))
    with pytest.raises(RemoteProtocolError):
        say(swarm, "b", forged)


def test_a_record_of_another_swarm_is_refused(swarm: Swarm) -> None:
    with pytest.raises(RemoteProtocolError):
        say(swarm, "b", sign_record(newer(held(swarm, "c")), ToySigner("c"), b"swarm--2"))


def test_nodes_of_another_swarm_never_become_members(swarm: Swarm) -> None:
    swarm.start("x", tag=b"swarm--2")
    swarm.join("x", "a")
    swarm.run(10)
    assert swarm.health("a", "x") is None
    assert swarm.cores["x"].members() == []


def test_a_replayed_record_changes_nothing(swarm: Swarm) -> None:
    old = sign_record(held(swarm, "c"), ToySigner("c"), TAG)
    say(swarm, "c", sign_record(newer(old.record), ToySigner("c"), TAG))
    say(swarm, "b", old)
    assert held(swarm, "c").ad == b"newer"


def test_a_record_of_a_former_life_changes_nothing(swarm: Swarm) -> None:
    old = sign_record(replace(held(swarm, "c"), incarnation=1000), ToySigner("c"), TAG)
    swarm.kill("c")
    swarm.start("c")
    swarm.join("c", "a")
    swarm.run(1)
    say(swarm, "b", old)
    assert held(swarm, "c").version == Version(2, 0)


def test_the_forgotten_dead_are_not_raised_by_old_records() -> None:
    swarm = Swarm(config=replace(Swarm().config, dead_retention=10))
    swarm.grow("a", "b", "c")
    old = sign_record(held(swarm, "c"), ToySigner("c"), TAG)
    swarm.kill("c")
    swarm.run(30)
    assert swarm.health("a", "c") is None
    say(swarm, "b", old)
    assert swarm.health("a", "c") is None


def test_an_accusation_in_the_name_of_another_is_refused(swarm: Swarm) -> None:
    b, c = swarm.ids(["b", "c"])
    claim = Claim(Accusation.SUSPECT, b, c, held(swarm, "c").version)
    with pytest.raises(RemoteProtocolError):
        say(swarm, "b", sign_claim(claim, ToySigner("x"), TAG))
    assert swarm.health("a", "c") is Health.ALIVE


def test_a_single_word_kills_nobody(swarm: Swarm) -> None:
    b, c = swarm.ids(["b", "c"])
    claim = Claim(Accusation.DEAD, b, c, held(swarm, "c").version)
    say(swarm, "b", sign_claim(claim, ToySigner("b"), TAG))
    assert swarm.health("a", "c") is Health.SUSPECT
    swarm.network.call(swarm.cores["a"].node_id, lambda now: None)
    swarm.run(2)
    assert swarm.agrees()
    assert held(swarm, "c").incarnation == 1


@pytest.mark.parametrize("accuser", ["stranger", "itself"])
def test_strangers_and_the_subject_itself_accuse_nobody(swarm: Swarm, accuser: str) -> None:
    signer = ToySigner("x" if accuser == "stranger" else "c")
    (c,) = swarm.ids(["c"])
    claim = Claim(Accusation.SUSPECT, signer.node_id, c, held(swarm, "c").version)
    say(swarm, "b", sign_claim(claim, signer, TAG))
    assert swarm.health("a", "c") is Health.ALIVE


def test_a_claim_about_an_older_version_changes_nothing(swarm: Swarm) -> None:
    b, c = swarm.ids(["b", "c"])
    claim = Claim(Accusation.SUSPECT, b, c, held(swarm, "c").version)
    say(swarm, "c", sign_record(newer(held(swarm, "c")), ToySigner("c"), TAG))
    say(swarm, "b", sign_claim(claim, ToySigner("b"), TAG))
    assert swarm.health("a", "c") is Health.ALIVE


def test_what_is_known_already_costs_no_signature_check(swarm: Swarm) -> None:
    checks: list[NodeId] = []

    def verify(node_id: NodeId, message: bytes, signature: bytes) -> bool:
        checks.append(node_id)
        return True

    swarm.cores["a"]._news._verify = verify
    say(swarm, "b", sign_record(held(swarm, "c"), ToySigner("c"), TAG))
    swarm.run(10)
    assert checks == []


def test_a_table_of_invented_members_is_bounded() -> None:
    swarm = Swarm(config=replace(Swarm().config, max_members=8))
    swarm.grow("a", "b", "c")
    for number in range(20):
        signer = ToySigner(f"invented {number}")
        say(swarm, "b", sign_record(Record(signer.node_id, 0, 0, (), b""), signer, TAG))
    assert len(swarm.cores["a"].members()) == 8
    assert swarm.health("a", "c") is Health.ALIVE


def test_the_dead_who_speak_are_told_that_they_are_dead(swarm: Swarm) -> None:
    swarm.partition(["c"], ["a", "b"])
    swarm.run(3)
    assert swarm.health("a", "c") is Health.DEAD
    a, c = swarm.cores["a"], swarm.cores["c"]
    a.datagrams_to_send()
    word = encode_packet(Packet(c.record.version, None, Gossip()))
    a.receive_datagram(word, c.node_id, swarm.network.now)
    (reply,) = a.datagrams_to_send()
    swarm.network.heal()
    c.receive_datagram(reply.payload, a.node_id, swarm.network.now)
    assert c.record.incarnation == 1


def test_ed25519_signs_and_verifies_records_and_claims() -> None:
    class Ed25519Signer:
        def __init__(self) -> None:
            self._key = SigningKey(bytes(range(32)))
            self.node_id = NodeId(bytes(self._key.verify_key))

        def sign(self, message: bytes, /) -> bytes:
            return self._key.sign(message).signature

    def verify(node_id: NodeId, message: bytes, signature: bytes) -> bool:
        return VerifyKey(node_id).verify(message, signature) == message

    signer = Ed25519Signer()
    record = Record(signer.node_id, 1, 2, (("192.0.2.1", 4000),), b"ad")
    claim = Claim(Accusation.DEAD, signer.node_id, ToySigner("x").node_id, Version(1, 2))
    news: list[SignedRecord | SignedClaim] = [
        sign_record(record, signer, TAG),
        sign_claim(claim, signer, TAG),
    ]
    assert all(is_genuine(item, verify, TAG) for item in news)
