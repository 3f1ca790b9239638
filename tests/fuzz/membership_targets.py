"""Membership: a member that lies, and signs its lies well."""

from collections.abc import Iterator
from contextlib import suppress
from random import Random

from p2pnode.errors import RemoteProtocolError
from p2pnode.membership import Swim, simulation
from p2pnode.membership.coordinates import Coordinate
from p2pnode.membership.health import Health
from p2pnode.membership.messages import (
    Ack,
    Digest,
    DigestEntry,
    Gossip,
    Message,
    Nack,
    Packet,
    Ping,
    PingRequest,
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
from p2pnode.testing.membership import TAG, ToySigner
from tests.fuzz.target import MIB, Script, Target, blob, surely

_SIGNERS = tuple(ToySigner(name) for name in ("a", "b", "c"))


def membership_packet(data: bytes) -> None:
    read = decode_packet_untrusted(data)
    assert surely(decode_packet_untrusted, encode_packet(read)) == read


def membership(data: bytes) -> None:
    """A member sends what it likes, all of it truly signed, and time goes by."""
    core = Swim(
        simulation(),
        _SIGNERS[0],
        lambda node_id, message, signature: True,
        TAG,
        1,
        (("192.0.2.1", 4747),),
        b"ad",
        Random(1),
        0.0,
    )
    script, now = Script(data), 0.0
    while script:
        step = script.byte()
        now += (step >> 2) / 16
        core.handle_timeout(now)
        with suppress(RemoteProtocolError):
            core.receive_datagram(script.blob(), _SIGNERS[1 + step % 2].node_id, now)
        core.datagrams_to_send()
        core.take_events()
        assert len(core.members()) <= simulation().max_members


# Seeds


def _packets() -> Iterator[bytes]:
    a, b, c = _SIGNERS
    addresses = (("192.0.2.2", 4747), ("2001:db8::1", 1))
    record = sign_record(Record(b.node_id, 3, 1, addresses, b"ad" * 9), b, TAG)
    left = sign_record(Record(c.node_id, 4, 1, (), b"", left=True), c, TAG)
    claim = sign_claim(Claim(Accusation.SUSPECT, c.node_id, a.node_id, Version(1, 0)), c, TAG)
    dead = sign_claim(Claim(Accusation.DEAD, b.node_id, c.node_id, Version(1, 3)), b, TAG)
    entries = (
        DigestEntry(7, Version(1, 2), Health.ALIVE),
        DigestEntry(9, Version(1, 2), Health.DEAD),
    )
    stories: tuple[tuple[Message, tuple[News, ...]], ...] = (
        (Ping(1), (record,)),
        (Ack(1), (claim, left)),
        (Nack(1), ()),
        (PingRequest(2, c.node_id), (dead,)),
        (Gossip(), (record, left, claim, dead)),
        (Digest(True, 0, (1 << 64) - 1, entries), (record,)),
    )
    for said, news in stories:
        place = Coordinate() if isinstance(said, Ping | Ack) else None
        yield encode_packet(Packet(Version(1, 3), place, said, news))


def _membership_seeds() -> Iterator[bytes]:
    packets = [*_packets()]
    yield b"".join(bytes((17,)) + blob(packet) for packet in packets)
    yield from (bytes((64,)) + blob(packet) for packet in packets)


TARGETS = (
    Target("membership-packet", membership_packet, _packets, max_len=9000),
    Target("membership", membership, _membership_seeds, memory=2 * MIB),
)
