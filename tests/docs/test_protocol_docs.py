"""The protocol's pages say what the code does: tables and examples are held against it.

A table or example that is checked has a comment above it, ``<!-- table: name -->``. A byte table is
checked by reading real bytes with nothing but the table.
"""

import ipaddress
import json
import random
import re
import struct
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import reedsolo

from p2pnode.engine.base import Sampling
from p2pnode.engine.sampling import sample
from p2pnode.inference import messages as control
from p2pnode.inference.activations import to_frames, token_batch
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.generation import TRANSITIONS as GENERATION
from p2pnode.membership import messages as gossip
from p2pnode.membership.config import MembershipConfig
from p2pnode.membership.coordinates import COORDINATE_SIZE, Coordinate
from p2pnode.membership.health import TRANSITIONS as HEALTH, Evidence, Health
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
from p2pnode.transport import fec, frames
from p2pnode.transport.admission import SwarmKeys
from p2pnode.transport.config import TransportConfig
from p2pnode.transport.endpoint import Endpoint
from p2pnode.transport.events import Delivery
from p2pnode.transport.identity import Identity
from p2pnode.transport.packets import CookieReply, Hello, Kind
from p2pnode.transport.session import Session
from p2pnode.wire import bounded_json, vstream
from p2pnode.wire.capability import (
    AdState,
    Capability,
    CapabilityAd,
    negotiate,
    space_hash32,
    space_mismatch,
)
from p2pnode.wire.dtypes import REGISTRY
from p2pnode.wire.messages import byte_slice, parse_sync_untrusted
from p2pnode.wire.seal import FrameOpener, FrameSealer
from p2pnode.wire.vframe import (
    Flags,
    Frame,
    MessageType,
    Modality,
    decode_frame_untrusted,
    encode_frame,
)

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "protocol"
VECTORS = json.loads((ROOT / "tests/vectors/vframe.json").read_text("utf-8"))["frames"]
NODE = NodeId(bytes([1]) * 32)
OTHER = NodeId(bytes([2]) * 32)

Row = dict[str, str]
StateT = TypeVar("StateT", bound=Enum)
EvidenceT = TypeVar("EvidenceT", bound=Enum)


# Reading the pages


def table(page: str, name: str) -> list[Row]:
    """Return the rows of the table below the comment of that name."""
    lines = iter((PAGES / page).read_text("utf-8").splitlines())
    assert f"<!-- table: {name} -->" in lines, f"{page} has no table {name}"
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    head, _, *body = rows
    return [dict(zip(head, row, strict=True)) for row in body]


def example(page: str, name: str) -> str:
    """Return the code block below the comment of that name."""
    text = (PAGES / page).read_text("utf-8")
    found = re.search(rf"<!-- example: {name} -->\n```\w*\n(.*?)```", text, re.DOTALL)
    assert found, f"{page} has no example {name}"
    return found[1]


def hex_example(page: str, name: str) -> bytes:
    return bytes.fromhex(example(page, name))


def read_by(page: str, name: str, data: bytes, sizes: Mapping[str, int] | None = None) -> "Fields":
    """Take bytes apart with nothing but a byte table; ``sizes`` gives those not written out."""
    return Fields(table(page, name), data, sizes or {})


class Fields:
    """Fields read off bytes, after checking that the table's offsets and sizes add up."""

    def __init__(self, rows: list[Row], data: bytes, sizes: Mapping[str, int]) -> None:
        self._values: dict[str, bytes] = {}
        at = 0
        for row in rows:
            if row["offset"].isdigit():
                assert int(row["offset"]) == at, row
            size = int(row["size"]) if row["size"].isdigit() else sizes[row["size"]]
            assert at + size <= len(data), row
            self._values[row["field"]] = data[at : at + size]
            at += size
        self.size = at

    def raw(self, field: str) -> bytes:
        return self._values[field]

    def numbers(self, *fields: str) -> list[int]:
        return [int.from_bytes(self._values[field], "little") for field in fields]


def transitions_of(page: str, name: str) -> dict[tuple[str, str], str]:
    return {(row["state"], row["evidence"]): row["next"] for row in table(page, name)}


def names(transitions: Mapping[tuple[StateT, EvidenceT], StateT]) -> dict[tuple[str, str], str]:
    return {(state.name, why.name): after.name for (state, why), after in transitions.items()}


def values(page: str, name: str, settings: object) -> None:
    """Check a table of settings against an object that has them as attributes."""
    for row in table(page, name):
        key = row.get("name") or row["limit"]
        now = repr(getattr(settings, key))
        assert now == row["value"], f"docs/protocol/{page} says {key} = {row['value']}: it is {now}"


# The pages as such


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        where = (page.parent / path).resolve() if path else page
        assert where.exists(), f"{page.name}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", where.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, f"{page.name}: {target}"


def test_every_page_is_in_the_index() -> None:
    index = (PAGES / "README.md").read_text("utf-8")
    for page in PAGES.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index


# V-Frame


@pytest.mark.parametrize("entry", VECTORS, ids=lambda entry: entry["name"])
def test_a_frame_is_read_by_the_page_alone(entry: dict[str, Any]) -> None:
    data = bytes.fromhex(entry["frame"])
    count = int.from_bytes(data[16:24], "little")
    sizes = {"4n": 4 * count, "body": len(data) - 33 - 4 * count}
    fields = read_by("vframe.md", "header", data, sizes)
    assert fields.size == len(data)
    keys = ("type", "flags", "stream_id", "frame_seq", "space_hash32", "modality")
    assert fields.numbers(*keys) == [entry[key] for key in keys]
    body = fields.raw("body")
    for number, piece in enumerate(entry["slices"]):
        length = int.from_bytes(fields.raw("slice_len")[4 * number : 4 * number + 4], "little")
        inner = read_by("vframe.md", "slice", body, {"4 ndim": 4 * body[1], "slice_len": length})
        shape = struct.unpack(f"<{body[1]}I", inner.raw("shape"))
        assert (inner.numbers("dtype"), list(shape)) == ([piece["dtype"]], piece["shape"])
        assert inner.raw("payload").hex() == piece["payload"]
        body = body[inner.size :]
    assert not body


@pytest.mark.parametrize(
    ("name", "column", "codes"),
    [("types", "type", MessageType), ("modalities", "modality", Modality)],
)
def test_the_codes_of_a_frame(name: str, column: str, codes: type[Enum]) -> None:
    listed = {row[column]: int(row["code"]) for row in table("vframe.md", name)}
    assert listed == {code.name: code.value for code in codes}


def test_the_flags_of_a_frame() -> None:
    listed = {row["flag"]: 1 << int(row["bit"]) for row in table("vframe.md", "flags")}
    assert listed == {flag.name: flag.value for flag in Flags}


def test_the_element_types() -> None:
    listed = [
        (
            int(row["code"], 16),
            row["type"],
            int(row["bits"]),
            row["name"],
            row["extension"] == "yes",
        )
        for row in table("vframe.md", "dtypes")
    ]
    assert listed == [
        (code.value, code.name, info.bits, info.name, info.extension)
        for code, info in REGISTRY.items()
    ]
    bits = {int(row["bit"]): row["type"] for row in table("membership.md", "dtype-bits")}
    masked = {info.mask_bit: code.name for code, info in REGISTRY.items()}
    assert bits == {bit: name for bit, name in masked.items() if bit is not None}


def test_the_nonce_of_a_sealed_frame() -> None:
    sizes = [int(row["size"]) for row in table("vframe.md", "nonce")]
    assert sizes == [12, 4, 8]
    frame = Frame(MessageType.SYNC, 5, 6, 7, slices=(byte_slice(b"{}"),))
    salt, key = bytes(range(12)), bytes(32)
    sealed = encode_frame(frame, sealer=FrameSealer(key, salt))
    assert len(sealed) == len(encode_frame(frame)) + 16
    assert decode_frame_untrusted(sealed, opener=FrameOpener(key, salt)) == frame


def test_the_example_frame() -> None:
    frame = decode_frame_untrusted(hex_example("vframe.md", "sync-ping"))
    assert parse_sync_untrusted(frame) == {"method": "ping", "ts": 1730616000}


# V-Stream


def test_a_stream_is_read_by_the_page_alone() -> None:
    batch = (byte_slice(b"some"), byte_slice(b"thing"))
    head, _, tail = vstream.write_stream(
        [batch], kind=MessageType.CACHE, stream_id=1, space_hash32=2, direction=1
    )
    fields = read_by("vstream.md", "head", bytes(head.slices[0].payload))
    promised = vstream.StreamHead.of_frame_untrusted(head)
    assert fields.size == len(head.slices[0].payload)
    assert fields.numbers("length", "xxh3_64", "direction") == [9, promised.xxh3_64, 1]
    assert fields.raw("md5") == promised.md5
    last = read_by("vstream.md", "tail", bytes(tail.slices[0].payload))
    assert last.numbers("xxh3_64") == [promised.xxh3_64]
    values("vstream.md", "limits", vstream)


# Messages


def test_spaces_and_the_bounds_of_json() -> None:
    for row in table("messages.md", "spaces"):
        got = space_hash32(row["space_id"], row["arch"], row["data_sig"])
        assert f"0x{got:08x}" == row["space_hash32"]
    values("messages.md", "json-limits", bounded_json)
    assert json.loads(example("messages.md", "space-mismatch")) == space_mismatch(1, 2).to_body()


def test_the_example_capability() -> None:
    body = json.loads(example("messages.md", "capability"))
    capability = Capability.from_body_untrusted(body)
    assert capability.to_body() == body
    assert negotiate(capability, capability) == capability


# Session control


def test_the_control_messages() -> None:
    names_of_this = (0xFF, 1, 3)
    said: dict[str, control.Control] = {
        "x-open": control.Open(
            *names_of_this,
            layers=range(20, 30),
            positions=300,
            upstream=control.Edge(NODE, 17),
            downstream=control.Edge(OTHER, 0xFFFFFFFF),
            out_dtype="f16",
            sampling=Sampling(0.7, 40, 0.9, 2**64 - 1),
            sample_from=44,
        ),
        "x-opened": control.Opened(*names_of_this, 44),
        "x-refused": control.Refused(*names_of_this, "memory", "no room"),
        "x-resume": control.Resume(*names_of_this, 44),
        "x-failed": control.Failed(*names_of_this, OTHER, "silent for 1.0 s"),
        "x-close": control.Close(0xFF),
    }
    for method, message in said.items():
        body = json.loads(example("session-control.md", method))
        assert control.to_body(message) == body
        assert control.from_body_untrusted(body) == message


def test_an_activation_is_read_by_the_page_alone() -> None:
    (frame,) = to_frames(token_batch((5, 6, 7), 40, compute_us=123), 9, 1)
    rows, meta = frame.slices
    assert (frame.type, frame.frame_seq, rows.shape) == (MessageType.THINK, 41, (3, 4))
    fields = read_by("session-control.md", "meta", bytes(meta.payload))
    assert fields.numbers("end", "compute_us") == [43, 123]


def test_the_state_tables() -> None:
    assert transitions_of("session-control.md", "generation-states") == names(GENERATION)
    assert transitions_of("membership.md", "health-states") == names(HEALTH)
    assert [row["evidence"] for row in table("membership.md", "evidence")] == [
        evidence.name for evidence in Evidence
    ]
    listed = {row["health"]: int(row["code"]) for row in table("membership.md", "health-codes")}
    assert listed == {health.name: health.value for health in Health}


def test_the_settings() -> None:
    values("session-control.md", "times", InferenceConfig())
    values("transport.md", "config", TransportConfig.lan())
    values("membership.md", "config", MembershipConfig())


def test_the_codes_of_refusal_are_those_of_the_code() -> None:
    source = (ROOT / "p2pnode/inference/stage.py").read_text("utf-8")
    returned = set(re.findall(r'return "([a-z]+)", ', source))
    if '"draining", self._draining' in source:
        returned.add("draining")
    assert {row["code"] for row in table("session-control.md", "refusals")} == returned


@pytest.mark.parametrize("row", table("session-control.md", "philox"), ids=lambda row: row["seed"])
def test_the_random_number_of_a_position(row: Row) -> None:
    seed, position, expected = int(row["seed"]), int(row["position"]), float(row["u"])
    first, *_ = philox((seed, 0), (position + 1, 0, 0, 0))
    assert (first >> 11) * 2.0**-53 == expected
    flat = np.zeros(1000, np.float32)  # all equally likely: the number alone decides
    assert sample(flat, Sampling(temperature=1.0, seed=seed), position) == int(expected * 1000)


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Philox4x64-10, from its paper."""
    mask = (1 << 64) - 1
    (a, b, c, d), (k, m) = counter, key
    for _ in range(10):
        low, high = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (high >> 64) ^ b ^ k, high & mask, (low >> 64) ^ d ^ m, low & mask
        k, m = (k + 0x9E3779B97F4A7C15) & mask, (m + 0xBB67AE8584CAA73B) & mask
    return a, b, c, d


# Transport


def test_the_keys() -> None:
    keys = SwarmKeys.derive(bytes(32))
    for row in table("transport.md", "swarm-keys"):
        assert getattr(keys, row["key"]).hex() == row["example"]


def test_data_is_opened_by_the_page_alone() -> None:
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as unseal

    shown = {row["what"]: bytes.fromhex(row["value"]) for row in table("transport.md", "data-keys")}
    session = Session(bytes(32), bytes(32), 77, rekey_seconds=1.0, rekey_packets=1 << 20, now=0.0)
    for now, epoch, key in ((0.0, 0, "data key"), (2.0, 1, "data key of the next epoch")):
        datagram = session.seal(frames.PING_FRAME, now)
        fields = read_by("transport.md", "data", datagram, {"rest": len(datagram) - 13})
        assert fields.numbers("kind", "receiver", "number") == [5, 77, epoch << 48 | epoch]
        if epoch == 0:
            nonce = shown["nonce prefix"] + fields.raw("number")
            assert unseal(fields.raw("sealed"), datagram[:13], nonce, shown[key]) == b"\3"


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
    rows = {row["datagram"]: row for row in table("transport.md", "kinds")}
    assert {name: str(len(data)) for name, data in seen.items()} == {
        name: row[column] for name, row in rows.items() if row[column] and name != "COOKIE"
    }
    for name, data in seen.items():
        assert data[0] == int(rows[name]["kind"])
        fixed = {"INIT": 38, "RESPONSE": 25, "FINISH": 21}[name]
        read_by("transport.md", name.lower(), data, {"noise": len(data) - fixed})
    init = read_by("transport.md", "init", seen["INIT"], {"noise": len(seen["INIT"]) - 38})
    response = seen["RESPONSE"]
    answer = read_by("transport.md", "response", response, {"noise": len(response) - 25})
    assert init.raw("sender") == answer.raw("receiver")


def test_hello_and_cookie_are_read_by_the_page_alone() -> None:
    hello = Hello(NODE, bytes(8), 1472).encode()
    fields = read_by("transport.md", "hello", hello)
    assert fields.size == len(hello)
    assert fields.numbers("version", "max_datagram") == [1, 1472]
    assert fields.raw("node_id") == NODE
    packet = SwarmKeys.derive(bytes(32)).stamp(CookieReply(9, bytes(24), bytes(32)).encode())
    cookie = read_by("transport.md", "cookie", packet)
    assert cookie.numbers("kind", "receiver") == [4, 9]
    assert cookie.size == len(packet) == 77


def test_frames_are_read_by_the_page_alone() -> None:
    kinds = {row["frame"]: int(row["kind"]) for row in table("transport.md", "frame-kinds")}
    assert kinds == {name: getattr(frames, name) for name in kinds}
    assert len(kinds) == frames.SHARD
    ack = frames.Ack(((95, 100), (80, 90)), 0.0016).encode(100)
    fields = read_by("transport.md", "ack", ack, {"4 further": 4})
    assert fields.numbers("kind", "largest", "delay", "further", "length") == [1, 100, 100, 1, 5]
    gap, length = struct.unpack("<HH", fields.raw("ranges"))
    assert (95 - (gap + 2), 95 - (gap + 2) - length) == (90, 80)
    done = read_by("transport.md", "done", frames.done_frame(7))
    assert done.numbers("kind", "message") == [2, 7]
    shard = frames.shard_header(Delivery.BULK, 3, 1000, 4, 2) + b"x"
    cut = read_by("transport.md", "shard", shard, {"rest": 1})
    keys = ("kind", "delivery", "message", "length", "count", "index")
    assert cut.numbers(*keys) == [7, 1, 3, 1000, 4, 2]
    listed = {row["class"]: int(row["code"]) for row in table("transport.md", "deliveries")}
    assert listed == {delivery.name: delivery.value for delivery in Delivery}


def test_parity_is_that_of_the_page() -> None:
    shards = [bytes([7, 1]), bytes([200, 0]), bytes([3, 255])]
    code = reedsolo.RSCodec(32)
    columns = [bytes(code.encode(bytes(column)))[3:] for column in zip(*shards, strict=True)]
    made = fec.encode(shards, 0, 4)
    assert made == [bytes(column[number] for column in columns) for number in range(4)]


# Membership


def test_messages_of_membership_are_read_by_the_page_alone() -> None:
    listed = {row["message"]: int(row["kind"]) for row in table("membership.md", "kinds")}
    assert listed == {kind.name: kind.value for kind in gossip.Kind}
    entry = gossip.DigestEntry(5, Version(6, 7), Health.DEAD)
    digest = gossip.Digest(answer_wanted=True, first=1, last=2, entries=(entry,))
    data = gossip.encode_packet(gossip.Packet(Version(11, 12), None, digest))
    head = read_by("membership.md", "head", data)
    assert head.numbers("magic", "kind", "boot_epoch", "incarnation") == [0xA5, 6, 11, 12]
    body = read_by("membership.md", "digest", data[head.size :])
    assert body.numbers("answer_wanted", "first", "last", "count") == [1, 1, 2, 1]
    line = read_by("membership.md", "digest-entry", data[head.size + body.size :])
    assert line.numbers("prefix", "boot_epoch", "incarnation", "health") == [5, 6, 7, 2]
    assert head.size + body.size + line.size == len(data)
    ping = gossip.encode_packet(gossip.Packet(Version(1, 2), Coordinate(), gossip.Ping(9)))
    assert len(ping) == head.size + COORDINATE_SIZE + 4


def test_a_coordinate_is_read_by_the_page_alone() -> None:
    place = Coordinate((0.5,) * 8, 1.0, -0.25, 0.125)
    fields = read_by("membership.md", "coordinate", place.encode())
    assert struct.unpack("<8e", fields.raw("vector")) == place.vector
    parts = [struct.unpack("<e", fields.raw(key))[0] for key in ("error", "adjustment", "height")]
    assert parts == [1.0, -0.25, 0.125]
    assert fields.size == COORDINATE_SIZE


def test_the_example_record() -> None:
    identity = Identity(bytes(32))
    addresses = (("192.168.1.20", 4747), ("2001:db8::1", 4747))
    record = Record(identity.node_id, 2, 1700000000, addresses, b"ad")
    signed = sign_record(record, identity, bytes(8))
    assert hex_example("membership.md", "record") == signed.encoded
    fields = read_by(
        "membership.md", "record", signed.encoded, {"addresses": 7 + 19, "ad_length": 2}
    )
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
    fields = read_by("membership.md", "claim", data)
    assert fields.numbers("tag", "accusation", "boot_epoch", "incarnation") == [2, 2, 8, 9]
    assert (fields.raw("claimant"), fields.raw("subject")) == (identity.node_id, OTHER)
    assert fields.size == len(data)


def test_an_ad_is_read_by_the_page_alone() -> None:
    costs = (101, 102, 103, 104, 105, 106)
    ad = CapabilityAd("den", "m", 3, 30, 576, 10, 5, AdState.DRAINING, *costs, "cpu", 9)
    data = ad.encode()
    fields = read_by("membership.md", "ad", data)
    assert fields.numbers(*(row["field"] for row in table("membership.md", "ad"))) == [
        *(1, 2, 3, 30, 576, 10, 5),
        *costs,
        9,
    ]
    assert data[fields.size :] == b"\3den\1m\3cpu"


# Discovery


def test_the_example_announcement_and_invite() -> None:
    announcement = Announcement(NODE, bytes([2]) * 8, "den", (("192.0.2.1", 4747),))
    assert hex_example("discovery.md", "txt") == announcement.text()
    addresses = (("192.168.1.20", 4747), ("node.example", 4747))
    code = encode_invite(Invite(bytes(32), addresses))
    assert example("discovery.md", "invite").strip() == code
