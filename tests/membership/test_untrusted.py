"""Whatever bytes come, parsers raise nothing but RemoteProtocolError; what is sent is read back."""

import string
from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.membership.codec import Reader
from p2pnode.membership.coordinates import DIMENSIONS, Coordinate
from p2pnode.membership.health import Health
from p2pnode.membership.messages import (
    LAST_PREFIX,
    MAGIC,
    MAX_MESSAGE,
    Ack,
    Digest,
    DigestEntry,
    Gossip,
    Nack,
    Packet,
    Ping,
    PingRequest,
    Records,
    decode_packet_untrusted,
    encode_packet,
)
from p2pnode.membership.records import (
    MAX_AD,
    Accusation,
    Claim,
    News,
    Record,
    Version,
    read_news_untrusted,
    sign_claim,
    sign_record,
)
from p2pnode.sansio import NodeId
from p2pnode.testing.membership import TAG, ToySigner

u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, LAST_PREFIX)
versions = st.builds(Version, u64, u32)
signers = st.sampled_from([ToySigner(letter) for letter in string.ascii_lowercase[:5]])
node_ids = signers.map(lambda signer: signer.node_id)
hosts = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str).filter(lambda host: not host.startswith("::ffff:")),
)
addresses = st.lists(st.tuples(hosts, st.integers(1, 65535)), max_size=8).map(tuple)


@st.composite
def signed_records(draw: st.DrawFn) -> News:
    signer, version = draw(signers), draw(versions)
    record = Record(
        signer.node_id,
        version.incarnation,
        version.boot_epoch,
        draw(addresses),
        draw(st.binary(max_size=MAX_AD)),
        left=draw(st.booleans()),
    )
    return sign_record(record, signer, TAG)


@st.composite
def signed_claims(draw: st.DrawFn) -> News:
    signer = draw(signers)
    what = draw(st.sampled_from(Accusation))
    claim = Claim(what, signer.node_id, draw(node_ids), draw(versions))
    return sign_claim(claim, signer, TAG)


entries = st.builds(DigestEntry, u64, versions, st.sampled_from(Health))


@st.composite
def digests(draw: st.DrawFn) -> Digest:
    first, last = sorted((draw(u64), draw(u64)))
    page = tuple(draw(st.lists(entries, max_size=20)))
    return Digest(draw(st.booleans()), first, last, page)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    message = draw(
        st.one_of(
            st.builds(Ping, u32),
            st.builds(Ack, u32),
            st.builds(Nack, u32),
            st.builds(PingRequest, u32, node_ids),
            st.just(Gossip()),
            st.just(Records()),
            digests(),
        )
    )
    place = Coordinate() if isinstance(message, Ping | Ack) else None
    if place is not None:
        place = Coordinate.decode_untrusted(place.encode())  # as half floats round it
    news = tuple(draw(st.lists(st.one_of(signed_records(), signed_claims()), max_size=5)))
    return Packet(draw(versions), place, message, news)


@given(packets())
def test_a_packet_is_read_as_it_was_written(packet: Packet) -> None:
    data = encode_packet(packet)
    assert data[0] == MAGIC
    assert decode_packet_untrusted(data) == packet


@given(st.binary(max_size=400), st.booleans())
def test_noise_is_refused_politely(noise: bytes, disguised: bool) -> None:
    with suppress(RemoteProtocolError):
        decode_packet_untrusted(bytes([MAGIC]) * disguised + noise)


@given(packets(), st.data())
def test_a_damaged_packet_is_refused_politely(packet: Packet, data: st.DataObject) -> None:
    whole = bytearray(encode_packet(packet))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for damaged in (bytes(whole), bytes(whole[:cut])):
        with suppress(RemoteProtocolError):
            decode_packet_untrusted(damaged)


@given(st.binary(max_size=200))
def test_noise_is_no_news(noise: bytes) -> None:
    with suppress(RemoteProtocolError):
        read_news_untrusted(Reader(noise))


@given(st.binary(max_size=40))
def test_a_coordinate_is_a_place_or_refused(noise: bytes) -> None:
    try:
        place = Coordinate.decode_untrusted(noise)
    except RemoteProtocolError:
        return
    assert place.distance(Coordinate()) >= 0
    place.encode()


@given(st.binary(max_size=100), st.integers(0, 120))
def test_a_reader_never_reads_past_the_end(data: bytes, size: int) -> None:
    reader = Reader(data)
    if size > len(data):
        with pytest.raises(RemoteProtocolError):
            reader.take_untrusted(size)
        assert reader.left == len(data)
    else:
        assert reader.take_untrusted(size) == data[:size]


def test_a_message_beyond_the_bound_is_refused_unread() -> None:
    with pytest.raises(RemoteProtocolError):
        decode_packet_untrusted(bytes([MAGIC]) * (MAX_MESSAGE + 1))


def test_the_largest_record_fits_a_datagram_beside_a_ping_and_an_accusation() -> None:
    signer = ToySigner("a")
    version = Version(LAST_PREFIX, (1 << 32) - 1)
    many = tuple(("2001:db8::1", 1000 + port) for port in range(8))
    record = Record(signer.node_id, version.incarnation, version.boot_epoch, many, bytes(MAX_AD))
    claim = Claim(Accusation.SUSPECT, signer.node_id, signer.node_id, version)
    news = (sign_record(record, signer, TAG), sign_claim(claim, signer, TAG))
    assert len(encode_packet(Packet(version, Coordinate(), Ping(1), news))) <= 1000


@pytest.mark.parametrize(
    ("hosts", "ad"),
    [
        ((("example.org", 1),), b""),
        ((("fe80::1%eth0", 1),), b""),
        ((("192.0.2.1", 0),), b""),
        ((("192.0.2.1", 1),) * 9, b""),
        ((), bytes(MAX_AD + 1)),
    ],
)
def test_no_record_says_the_impossible(hosts: tuple[tuple[str, int], ...], ad: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        Record(ToySigner("a").node_id, 0, 0, hosts, ad)


def test_no_place_is_nowhere() -> None:
    for bad in (float("nan"), float("inf"), 1e4):
        with pytest.raises(LocalProtocolError):
            Coordinate(vector=(bad,) * DIMENSIONS)
        with pytest.raises(LocalProtocolError):
            Coordinate(error=bad)


def test_a_node_id_is_a_key() -> None:
    with pytest.raises(LocalProtocolError):
        Record(NodeId(b"short"), 0, 0, (), b"")
