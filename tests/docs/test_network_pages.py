"""The pages about transport, membership and discovery, held against the code.

A byte table is checked by reading real bytes with nothing but the table.
"""

import hashlib
import ipaddress
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import reedsolo
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt

from p2pnode.membership import messages as gossip
from p2pnode.membership.coordinates import COORDINATE_SIZE, Coordinate
from p2pnode.membership.health import Health
from p2pnode.membership.records import (
    Accusation,
    Claim,
    Record,
    Version,
    sign_claim,
    sign_record,
)
from p2pnode.net.announcement import Announcement
from p2pnode.node.invite import Invite, encode_invite
from p2pnode.sansio import NodeId
from p2pnode.testing.pages import Page
from p2pnode.transport import fec, frames
from p2pnode.transport.admission import SwarmKeys
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.endpoint import Endpoint
from p2pnode.transport.events import Delivery
from p2pnode.transport.identity import Identity
from p2pnode.transport.packets import CookieReply, Hello, Kind
from p2pnode.transport.session import Session
from p2pnode.wire.ad import AdState, CapabilityAd, numerics_hash32

TRANSPORT, MEMBERSHIP, DISCOVERY = (
    Page(Path(__file__).parents[2] / "docs/protocol" / f"{name}.md")
    for name in ("transport", "membership", "discovery")
)
NODE = NodeId(bytes([1]) * 32)
OTHER = NodeId(bytes([2]) * 32)


# Transport


def test_the_keys() -> None:
    keys = SwarmKeys.derive(bytes(32))
    for row in TRANSPORT.table("swarm-keys"):
        assert getattr(keys, row["key"]).hex() == row["example"]


def test_data_is_opened_by_the_page_alone() -> None:
    shown = {row["what"]: bytes.fromhex(row["value"]) for row in TRANSPORT.table("data-keys")}
    session = Session(bytes(32), bytes(32), 77, rekey_seconds=1.0, rekey_packets=1 << 20, now=0.0)
    for now, epoch, key in ((0.0, 0, "data key"), (2.0, 1, "data key of the next epoch")):
        datagram = session.seal(frames.PING_FRAME, now)
        fields = TRANSPORT.layout("data", datagram, {"rest": len(datagram) - 13})
        assert fields.numbers("kind", "receiver", "number") == [5, 77, epoch << 48 | epoch]
        if epoch == 0:
            nonce = shown["nonce prefix"] + fields.raw("number")
            assert (
                crypto_aead_xchacha20poly1305_ietf_decrypt(
                    fields.raw("sealed"), datagram[:13], nonce, shown[key]
                )
                == b"\3"
            )


@pytest.mark.parametrize("column", ["size (XX)", "size (IK)"])
def test_a_handshake_has_the_sizes_of_the_page(column: str) -> None:
    one, two = Identity(bytes(32)), Identity(bytes([1]) * 32)
    rng = random.Random(1)
    dialler, answerer = (
        Endpoint(TransportConfig.lan(), identity, bytes(32), rng, 0.0) for identity in (one, two)
    )
    here, there = ("192.0.2.1", 1), ("192.0.2.2", 2)
    dialler.connect(there, 0.0, peer=two.node_id if "IK" in column else None)
    seen: dict[str, bytes] = {}
    for _ in range(4):
        for transmit in dialler.datagrams_to_send():
            seen[Kind(transmit.payload[0]).name] = transmit.payload
            answerer.receive_datagram(transmit.payload, here, 0.01)
        for transmit in answerer.datagrams_to_send():
            seen[Kind(transmit.payload[0]).name] = transmit.payload
            dialler.receive_datagram(transmit.payload, there, 0.02)
    assert dialler.is_connected(two.node_id)
    del seen[Kind.DATA.name]
    rows = {row["datagram"]: row for row in TRANSPORT.table("kinds")}
    assert {name: str(len(data)) for name, data in seen.items()} == {
        name: row[column] for name, row in rows.items() if row[column] and name != "COOKIE"
    }
    for name, data in seen.items():
        assert data[0] == int(rows[name]["kind"])
        fixed = {"INIT": 38, "RESPONSE": 25, "FINISH": 21}[name]
        TRANSPORT.layout(name.lower(), data, {"noise": len(data) - fixed})
    init = TRANSPORT.layout("init", seen["INIT"], {"noise": len(seen["INIT"]) - 38})
    response = seen["RESPONSE"]
    answer = TRANSPORT.layout("response", response, {"noise": len(response) - 25})
    assert init.raw("sender") == answer.raw("receiver")


def test_hello_and_cookie_are_read_by_the_page_alone() -> None:
    hello = Hello(NODE, bytes(8), 1472).encode()
    fields = TRANSPORT.layout("hello", hello)
    assert fields.size == len(hello)
    assert fields.numbers("version", "max_datagram") == [1, 1472]
    assert fields.raw("node_id") == NODE
    packet = SwarmKeys.derive(bytes(32)).stamp(CookieReply(9, bytes(24), bytes(32)).encode())
    cookie = TRANSPORT.layout("cookie", packet)
    assert cookie.numbers("kind", "receiver") == [4, 9]
    assert cookie.size == len(packet) == 77


def test_frames_are_read_by_the_page_alone() -> None:
    kinds = {row["frame"]: int(row["kind"]) for row in TRANSPORT.table("frame-kinds")}
    assert kinds == {name: getattr(frames, name) for name in kinds}
    assert len(kinds) == frames.SHARD
    ack = frames.Ack(((95, 100), (80, 90)), 0.0016).encode(100)
    fields = TRANSPORT.layout("ack", ack, {"4 further": 4})
    assert fields.numbers("kind", "largest", "delay", "further", "length") == [1, 100, 100, 1, 5]
    gap, length = struct.unpack("<HH", fields.raw("ranges"))
    assert (95 - (gap + 2), 95 - (gap + 2) - length) == (90, 80)
    done = TRANSPORT.layout("done", frames.done_frame(7))
    assert done.numbers("kind", "message") == [2, 7]
    shard = frames.shard_header(Delivery.BULK, 3, 1000, 4, 2) + b"x"
    cut = TRANSPORT.layout("shard", shard, {"rest": 1})
    keys = ("kind", "delivery", "message", "length", "count", "index")
    assert cut.numbers(*keys) == [7, 1, 3, 1000, 4, 2]
    listed = {row["class"]: int(row["code"]) for row in TRANSPORT.table("deliveries")}
    assert listed == {delivery.name: delivery.value for delivery in Delivery}


def test_parity_is_that_of_the_page() -> None:
    shards = [bytes([7, 1]), bytes([200, 0]), bytes([3, 255])]
    code = reedsolo.RSCodec(32)
    columns = [bytes(code.encode(bytes(column)))[3:] for column in zip(*shards, strict=True)]
    made = fec.encode(shards, 0, 4)
    assert made == [bytes(column[number] for column in columns) for number in range(4)]


# Membership


def test_messages_of_membership_are_read_by_the_page_alone() -> None:
    listed = {row["message"]: int(row["kind"]) for row in MEMBERSHIP.table("kinds")}
    assert listed == {kind.name: kind.value for kind in gossip.Kind}
    entry = gossip.DigestEntry(5, Version(6, 7), Health.DEAD)
    digest = gossip.Digest(answer_wanted=True, first=1, last=2, entries=(entry,))
    data = gossip.encode_packet(gossip.Packet(Version(11, 12), None, digest))
    head = MEMBERSHIP.layout("head", data)
    assert head.numbers("magic", "kind", "boot_epoch", "incarnation") == [0xA5, 6, 11, 12]
    body = MEMBERSHIP.layout("digest", data[head.size :])
    assert body.numbers("answer_wanted", "first", "last", "count") == [1, 1, 2, 1]
    line = MEMBERSHIP.layout("digest-entry", data[head.size + body.size :])
    assert line.numbers("prefix", "boot_epoch", "incarnation", "health") == [5, 6, 7, 2]
    assert head.size + body.size + line.size == len(data)
    ping = gossip.encode_packet(gossip.Packet(Version(1, 2), Coordinate(), gossip.Ping(9)))
    assert len(ping) == head.size + COORDINATE_SIZE + 4


def test_a_coordinate_is_read_by_the_page_alone() -> None:
    place = Coordinate((0.5,) * 8, 1.0, -0.25, 0.125)
    fields = MEMBERSHIP.layout("coordinate", place.encode())
    assert struct.unpack("<8e", fields.raw("vector")) == place.vector
    parts = [struct.unpack("<e", fields.raw(key))[0] for key in ("error", "adjustment", "height")]
    assert parts == [1.0, -0.25, 0.125]
    assert fields.size == COORDINATE_SIZE


def test_the_example_record() -> None:
    identity = Identity(bytes(32))
    addresses = (("192.168.1.20", 4747), ("2001:db8::1", 4747))
    record = Record(identity.node_id, 2, 1700000000, addresses, b"ad")
    signed = sign_record(record, identity, bytes(8))
    assert bytes.fromhex(MEMBERSHIP.example("record")) == signed.encoded
    fields = MEMBERSHIP.layout("record", signed.encoded, {"addresses": 7 + 19, "ad_length": 2})
    assert fields.raw("node_id") == identity.node_id
    keys = ("tag", "boot_epoch", "incarnation", "flags", "addresses", "ad_length")
    assert fields.numbers(*keys) == [1, 1700000000, 2, 0, 2, 2]
    first = fields.raw("address")[:7]
    assert ipaddress.ip_address(first[1:5]) == ipaddress.ip_address(addresses[0][0])
    assert fields.size == len(signed.encoded)


def test_a_claim_is_read_by_the_page_alone() -> None:
    identity = Identity(bytes(32))
    claim = Claim(Accusation.DEAD, identity.node_id, OTHER, Version(8, 9))
    data = sign_claim(claim, identity, bytes(8)).encoded
    fields = MEMBERSHIP.layout("claim", data)
    assert fields.numbers("tag", "accusation", "boot_epoch", "incarnation") == [2, 2, 8, 9]
    assert (fields.raw("claimant"), fields.raw("subject")) == (identity.node_id, OTHER)
    assert fields.size == len(data)


COSTS: dict[str, Any] = {
    "decode_fixed_us": 101,
    "decode_layer_us": 102,
    "head_us": 103,
    "prefill_layer_ns": 104,
    "kv_free_bytes": 105,
    "kv_total_bytes": 106,
}
AD = CapabilityAd(
    name="den",
    model="m",
    space_hash32=3,
    n_layers=30,
    d_model=576,
    first_layer=10,
    layer_count=5,
    state=AdState.DRAINING,
    **COSTS,
    device="cpu",
    dtypes=9,
    abilities=2,
    rows4_layer_us=300,
    rows8_layer_us=301,
    demand=3,
    load=9,
    numerics=numerics_hash32("numpy 2"),
    numerics_names=("numpy 2",),
    software="0.1.0",
    kv_bytes_per_token_layer=1536,
    resting=2,
)


def test_an_ad_of_version_1_is_read_by_the_page_alone() -> None:
    data = AD.encode(1)
    fields = MEMBERSHIP.layout("ad", data)
    assert fields.numbers(*(row["field"] for row in MEMBERSHIP.table("ad"))) == [
        *(1, 2, 3, 30, 576, 10, 5),
        *COSTS.values(),
        9 | 2 << 24 | 1 << 31,
    ]
    assert data[fields.size :] == b"\3den\1m\3cpu"


def read_by_the_page(data: bytes, table: str) -> dict[str, int | str | bytes]:
    """Read the fields of an ad or an offer, each once."""
    rows = {int(row["field"]): row for row in MEMBERSHIP.table(table)}
    said: dict[str, int | str | bytes] = {}
    while data:
        value, row = data[2 : 2 + data[1]], rows[data[0]]
        width, unit = row["at most"].split()
        assert len(value) <= int(width) // (8 if unit == "bits" else 1)
        if unit == "bits":
            said[row["name"]] = int.from_bytes(value, "little")
        else:
            said[row["name"]] = value.decode() if row["value"].startswith("text") else value
        data = data[2 + len(value) :]
    return said


def test_an_ad_is_read_by_the_page_alone() -> None:
    data = AD.encode()
    assert data[0] == 2
    said = read_by_the_page(data[1:], "ad-fields")
    inner = said.pop("offers")
    assert isinstance(inner, bytes)
    said |= read_by_the_page(inner, "offer-fields")
    names = {row["name"] for kind in ("ad", "offer") for row in MEMBERSHIP.table(f"{kind}-fields")}
    assert said.keys() == names - {"offers"}
    assert said.pop("numerics_names") == "numpy 2"
    assert said == {name: getattr(AD, name) for name in said}
    hashed = hashlib.sha256(b"numerics numpy 2").digest()
    assert said["numerics"] == int.from_bytes(hashed[:4], "little")


# Discovery


def test_the_example_announcement_and_invite() -> None:
    announcement = Announcement(NODE, bytes([2]) * 8, "den", (("192.0.2.1", 4747),))
    assert bytes.fromhex(DISCOVERY.example("txt")) == announcement.text()
    addresses = (("192.168.1.20", 4747), ("node.example", 4747))
    code = encode_invite(Invite(bytes(32), addresses))
    assert DISCOVERY.example("invite").strip() == code
