"""The pages about frames, streams, messages and sessions, held against the code.

A byte table is checked by reading real bytes with nothing but the table.
"""

import hashlib
import json
import struct
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2pnode.engine.sampling.draw import sample
from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.sampling.past import Past
from p2pnode.inference import messages as control
from p2pnode.inference.activations import to_frames, token_batch
from p2pnode.inference.cover import Leg
from p2pnode.inference.prefix_body import Names
from p2pnode.inference.prefix_names import Scope, digests, lineage, name_of
from p2pnode.inference.terms import CODING_BITS, DTYPES, PLAIN
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import StageRun
from p2pnode.testing.pages import Page, Row
from p2pnode.wire import vstream
from p2pnode.wire.capability import Capability, negotiate, space_hash32, space_mismatch
from p2pnode.wire.dtypes import REGISTRY, dtype_label
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
VECTORS = json.loads((ROOT / "tests/vectors/vframe.json").read_text("utf-8"))["frames"]
VFRAME, VSTREAM, MESSAGES, SESSION_CONTROL, MEMBERSHIP = (
    Page(ROOT / "docs/protocol" / f"{name}.md")
    for name in ("vframe", "vstream", "messages", "session-control", "membership")
)
NODE = NodeId(bytes([1]) * 32)
OTHER = NodeId(bytes([2]) * 32)


# V-Frame


@pytest.mark.parametrize("entry", VECTORS, ids=lambda entry: entry["name"])
def test_a_frame_is_read_by_the_page_alone(entry: dict[str, Any]) -> None:
    data = bytes.fromhex(entry["frame"])
    count = int.from_bytes(data[16:24], "little")
    sizes = {"4n": 4 * count, "body": len(data) - 33 - 4 * count}
    fields = VFRAME.layout("header", data, sizes)
    assert fields.size == len(data)
    keys = ("type", "flags", "stream_id", "frame_seq", "space_hash32", "modality")
    assert fields.numbers(*keys) == [entry[key] for key in keys]
    body = fields.raw("body")
    for number, piece in enumerate(entry["slices"]):
        length = int.from_bytes(fields.raw("slice_len")[4 * number : 4 * number + 4], "little")
        inner = VFRAME.layout("slice", body, {"4 ndim": 4 * body[1], "slice_len": length})
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
    listed = {row[column]: int(row["code"]) for row in VFRAME.table(name)}
    assert listed == {code.name: code.value for code in codes}


def test_the_flags_of_a_frame() -> None:
    listed = {row["flag"]: 1 << int(row["bit"]) for row in VFRAME.table("flags")}
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
        for row in VFRAME.table("dtypes")
    ]
    assert listed == [
        (code, dtype_label(code), info.bits, info.name, info.extension)
        for code, info in REGISTRY.items()
    ]
    bits = {int(row["bit"]): row["type"] for row in MEMBERSHIP.table("dtype-bits")}
    masked = {info.mask_bit: dtype_label(code) for code, info in REGISTRY.items()}
    assert bits == {bit: name for bit, name in masked.items() if bit is not None}


def test_the_nonce_of_a_sealed_frame() -> None:
    sizes = [int(row["size"]) for row in VFRAME.table("nonce")]
    assert sizes == [12, 4, 8]
    frame = Frame(MessageType.SYNC, 5, 6, 7, slices=(byte_slice(b"{}"),))
    salt, key = bytes(range(12)), bytes(32)
    sealed = encode_frame(frame, sealer=FrameSealer(key, salt))
    assert len(sealed) == len(encode_frame(frame)) + 16
    assert decode_frame_untrusted(sealed, opener=FrameOpener(key, salt)) == frame


def test_the_example_frame() -> None:
    frame = decode_frame_untrusted(bytes.fromhex(VFRAME.example("sync-ping")))
    assert parse_sync_untrusted(frame) == {"method": "ping", "ts": 1730616000}


# V-Stream


def test_a_stream_is_read_by_the_page_alone() -> None:
    batch = (byte_slice(b"some"), byte_slice(b"thing"))
    head, _, tail = vstream.write_stream(
        [batch], kind=MessageType.CACHE, stream_id=1, space_hash32=2, direction=1
    )
    fields = VSTREAM.layout("head", bytes(head.slices[0].payload))
    promised = vstream.StreamHead.of_frame_untrusted(head)
    assert fields.size == len(head.slices[0].payload)
    assert fields.numbers("length", "xxh3_64", "direction") == [9, promised.xxh3_64, 1]
    assert fields.raw("md5") == promised.md5
    last = VSTREAM.layout("tail", bytes(tail.slices[0].payload))
    assert last.numbers("xxh3_64") == [promised.xxh3_64]


# Messages


def test_spaces() -> None:
    for row in MESSAGES.table("spaces"):
        got = space_hash32(row["space_id"], row["arch"], row["data_sig"])
        assert f"0x{got:08x}" == row["space_hash32"]
    assert json.loads(MESSAGES.example("space-mismatch")) == space_mismatch(1, 2).to_body()


def test_the_example_capability() -> None:
    body = json.loads(MESSAGES.example("capability"))
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
            root=b"\x03" * 32,
        ),
        "x-opened": control.Opened(*names_of_this, 44),
        "x-refused": control.Refused(*names_of_this, "memory", "no room"),
        "x-resume": control.Resume(*names_of_this, 44),
        "x-failed": control.Failed(*names_of_this, OTHER, "silent for 1.0 s"),
        "x-close": control.Close(0xFF, 1),
    }
    for method, message in said.items():
        body = json.loads(SESSION_CONTROL.example(method))
        assert control.to_body(message) == body
        assert control.from_body_untrusted(body) == message


def test_an_order_with_more_options() -> None:
    sampling = Sampling(0.7, 40, 0.9, 7, 0.05, 1.1, 0.5, 0.25, 3)
    order = control.Open(
        *(0xFF, 1, 3),
        layers=range(20, 30),
        positions=300,
        upstream=control.Edge(NODE, 17),
        downstream=control.Edge(OTHER, 18),
        out_dtype="f16",
        sampling=sampling,
        sample_from=44,
        past=Past(42, 44, (5, 6, 7)),
    )
    body = control.to_body(order)
    assert body["draw"] == json.loads(SESSION_CONTROL.example("draw"))
    assert (body["layers"], body["sampling"]) == ([20, 65535], None)
    assert control.from_body_untrusted(body) == order


def test_a_close_that_says_what_to_keep() -> None:
    names = Names(((64, b"\5" * 16), (81, b"\6" * 16)))
    message = control.Close(0xFF, 1, ((3, names),))
    body = control.to_body(message)
    assert body == json.loads(SESSION_CONTROL.example("x-close-keep"))
    assert control.from_body_untrusted(body) == message


def test_a_boundary_is_named_as_the_page_says() -> None:
    secret, root = b"secret", bytes(range(32))
    batches = [token_batch((5, 6, 7), 0), token_batch((8,), 3)]
    hashed = hashlib.sha256(b"p2pnode/beginning/1" + struct.pack(">H", 6) + secret + root)
    hashed.update(struct.pack(">I", 3) + struct.pack("<3I", 5, 6, 7))
    hashed.update(struct.pack(">I", 1) + struct.pack("<I", 8))
    assert digests(Scope(secret), root, batches, [4]) == {4: hashed.digest()}
    runs = [(range(10), 7, "f32"), (range(10, 20), 7, "f16"), (range(20, 30), 0, "f32")]
    legs = [
        Leg(number, StageRun(NODE, "x", layers, 0.0, "", numerics), out, frozenset())
        for number, (layers, numerics, out) in enumerate(runs, 1)
    ]
    line = f"0 20 {7:016x} f16; 20 30 {NODE.hex()} f32; 20 30".encode()
    assert lineage(legs, 2) == line
    assert lineage(legs, 0) == f"0 10 {7:016x} f32; 0 10".encode()
    named = hashlib.sha256(hashed.digest() + line).digest()[:16]
    assert name_of(hashed.digest(), line) == named


def test_an_activation_is_read_by_the_page_alone() -> None:
    (frame,) = to_frames(token_batch((5, 6, 7), 40, compute_us=123), 9, 1)
    rows, meta = frame.slices
    assert (frame.type, frame.frame_seq, rows.shape) == (MessageType.THINK, 41, (3, 4))
    fields = SESSION_CONTROL.layout("meta", bytes(meta.payload))
    assert fields.numbers("end", "compute_us") == [43, 123]
    (frame,) = to_frames(token_batch((5, 6, 7), 40, 123, 456, 3), 9, 1)
    fields = SESSION_CONTROL.layout("coded-meta", bytes(frame.slices[-1].payload))
    assert fields.numbers("micronats", "codings") == [456, 3]


def test_the_bits_of_codings() -> None:
    listed = {row["coding"]: int(row["bit"]) for row in SESSION_CONTROL.table("coding-bits")}
    assert listed == CODING_BITS
    for rung in PLAIN:
        assert REGISTRY[DTYPES[rung]].mask_bit == CODING_BITS[rung]


def test_the_codes_of_refusal_are_those_of_the_code() -> None:
    codes = [row["code"] for row in SESSION_CONTROL.table("refusals")]
    assert sorted(codes) == sorted(control.Refusal)


@pytest.mark.parametrize("row", SESSION_CONTROL.table("philox"), ids=lambda row: row["seed"])
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
