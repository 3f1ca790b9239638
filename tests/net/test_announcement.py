"""Announcements: ours come back whole, and of a stranger's only sense is believed."""

from contextlib import suppress

import pytest
from hypothesis import given, strategies as st
from zeroconf import ServiceInfo
from zeroconf._protocol.outgoing import DNSOutgoing

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.net.announcement import (
    MAX_ADDRESSES,
    MAX_TEXT,
    SERVICE_TYPE,
    Announcement,
    parse_announcement_untrusted,
    parse_text_untrusted,
)
from p2pnode.node.sightings import LEAST_ANNOUNCEMENT
from p2pnode.sansio import NodeId

OURS = Announcement(
    NodeId(bytes(range(32))), b"swarmtag", "Küche", (("192.168.1.20", 4747), ("fd00::1", 4747))
)


def entry(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def test_an_announcement_survives_its_records() -> None:
    assert parse_announcement_untrusted(OURS.text(), OURS.hosts, OURS.port) == OURS


def test_bytes_are_never_counted_that_did_not_come() -> None:
    info = ServiceInfo(
        SERVICE_TYPE,
        f"x.{SERVICE_TYPE}",
        port=OURS.port,
        properties=OURS.text(),
        server="x.local.",
        parsed_addresses=OURS.hosts,
    )
    packet = DNSOutgoing(0x8400)
    for record in (info.dns_pointer(), info.dns_service(), info.dns_text(), *info.dns_addresses()):
        packet.add_answer_at_time(record, 0)
    [data] = packet.packets()
    assert LEAST_ANNOUNCEMENT < OURS.wire_bytes(len(OURS.text())) <= len(data)


def test_a_service_name_fits_its_label() -> None:
    label = OURS.instance.partition(".")[0]
    assert len(label) <= 63


@pytest.mark.parametrize(
    ("text", "hosts", "port"),
    [
        (b"", ["10.0.0.1"], 1),
        (OURS.text().replace(b"v=1", b"v=9"), ["10.0.0.1"], 1),
        (OURS.text().replace(b"id=00", b"id=zz"), ["10.0.0.1"], 1),
        (OURS.text()[:-1], ["10.0.0.1"], 1),
        (OURS.text() + bytes(MAX_TEXT), ["10.0.0.1"], 1),
        (entry(b"x") * 20 + OURS.text(), ["10.0.0.1"], None),
        (b"".join(entry(b"%d" % number) for number in range(20)), ["10.0.0.1"], 1),
        (OURS.text(), [], 1),
        (OURS.text(), ["224.0.0.251", "0.0.0.0", "255.255.255.255", "ff02::1"], 1),
        (OURS.text(), ["not an address"], 1),
        (OURS.text(), ["10.0.0.1"], 0),
        (OURS.text(), ["10.0.0.1"], None),
        (OURS.text(), ["10.0.0.1"], 65536),
    ],
)
def test_nonsense_is_not_believed(text: bytes, hosts: list[str], port: int | None) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_announcement_untrusted(text, hosts, port)


def test_addresses_are_bounded() -> None:
    hosts = [f"10.0.0.{number}" for number in range(1, 100)]
    assert len(parse_announcement_untrusted(OURS.text(), hosts, 1).addresses) == MAX_ADDRESSES


def test_the_first_of_two_equal_keys_counts() -> None:
    assert parse_text_untrusted(entry(b"a=1") + entry(b"A=2") + entry(b"b")) == {
        b"a": b"1",
        b"b": b"",
    }


def test_our_own_nonsense_is_our_fault() -> None:
    with pytest.raises(LocalProtocolError):
        Announcement(OURS.node_id, b"short", "x", OURS.addresses)
    with pytest.raises(LocalProtocolError):
        Announcement(OURS.node_id, OURS.swarm_tag, "two\nlines", OURS.addresses)


@given(
    st.binary() | st.lists(st.binary(max_size=255).map(entry)).map(b"".join),
    st.lists(st.text() | st.ip_addresses().map(str)),
    st.none() | st.integers(),
)
def test_any_records_parse_or_are_the_stranger_s_fault(
    text: bytes, hosts: list[str], port: int | None
) -> None:
    with suppress(RemoteProtocolError):
        parse_announcement_untrusted(text, hosts, port)


@given(
    st.binary(max_size=66),
    st.binary(max_size=18),
    st.binary(max_size=40),
    st.lists(st.ip_addresses().map(str), min_size=1),
)
def test_almost_right_records_parse_or_are_the_stranger_s_fault(
    node_id: bytes, tag: bytes, name: bytes, hosts: list[str]
) -> None:
    text = b"".join(map(entry, (b"v=1", b"id=" + node_id, b"tag=" + tag, b"name=" + name)))
    with suppress(RemoteProtocolError):
        parse_announcement_untrusted(text, hosts, 1)
