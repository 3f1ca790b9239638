"""The five messages, and JSON from strangers."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.bounded_json import (
    MAX_BYTES,
    MAX_DEPTH,
    dump_json,
    load_json_untrusted,
)
from p2pnode.wire.dtypes import DType
from p2pnode.wire.messages import (
    Ask,
    Cache,
    Critique,
    Message,
    Sync,
    SyncError,
    Think,
    byte_slice,
    parse_message_untrusted,
    parse_sync_untrusted,
    ping_body,
    sync_frame,
)
from p2pnode.wire.vframe import (
    Frame,
    MessageType,
    Modality,
    Slice,
    decode_frame_untrusted,
    encode_frame,
)

VECTORS = {
    entry["name"]: bytes.fromhex(entry["frame"])
    for entry in json.loads(
        Path(__file__).parent.parent.joinpath("vectors", "vframe.json").read_text("utf-8")
    )["frames"]
}
ENVELOPE: dict[str, Any] = {
    "stream_id": 1,
    "frame_seq": 2,
    "space_hash32": 3,
    "modality": Modality.MIXED,
}
HALVES = Slice(DType.F16, (2,), bytes(4))
MASK = Slice(DType.I8, (2,), b"\1\0")


@pytest.mark.parametrize("name", sorted(set(VECTORS) - {"max-ids", "think-zstd-flag-raw-body"}))
def test_a_vector_survives_as_a_message(name: str) -> None:
    message = parse_message_untrusted(decode_frame_untrusted(VECTORS[name]))
    assert encode_frame(message.to_frame()) == VECTORS[name]


def test_the_vectors_say_what_they_say() -> None:
    ask = parse_message_untrusted(decode_frame_untrusted(VECTORS["ask-embedding-context"]))
    assert isinstance(ask, Ask)
    assert ask.context == "кто лучше знает Python?"
    critique = parse_message_untrusted(decode_frame_untrusted(VECTORS["critique-2"]))
    assert isinstance(critique, Critique)
    assert critique.mask is None
    assert critique.explanation == {"note": "divergence at dims [3, 17]", "magnitude": 0.042}
    masked = parse_message_untrusted(decode_frame_untrusted(VECTORS["critique-3-mask"]))
    assert isinstance(masked, Critique)
    assert masked.mask is not None
    assert masked.explanation == {"note": "x"}
    ping = parse_sync_untrusted(decode_frame_untrusted(VECTORS["sync-ping"]))
    assert ping == ping_body(1730616000)


@pytest.mark.parametrize(
    "message",
    [
        Think(**ENVELOPE, hidden=(HALVES,)),
        Cache(**ENVELOPE, tensors=(HALVES, HALVES)),
        Ask(**ENVELOPE, embedding=(HALVES,), context="où?"),
        Critique(**ENVELOPE, divergence=HALVES, mask=MASK),
        Critique(**ENVELOPE, divergence=HALVES, explanation={"a": [1, "ü"]}),
        Critique(**ENVELOPE, divergence=HALVES, mask=MASK, explanation={}),
        Sync(**ENVELOPE, body={"method": "error", "x-new": {"kept": True}}),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_survives_the_wire(message: Any) -> None:
    data = encode_frame(message.to_frame())
    assert parse_message_untrusted(decode_frame_untrusted(data)) == message


def test_a_second_slice_that_is_json_is_no_mask() -> None:
    divergence = Slice(DType.I8, (2,), b"\1\2")
    frame = Frame(MessageType.CRITIQUE, 1, 1, 0, slices=(divergence, byte_slice(b"{}")))
    message = parse_message_untrusted(frame)
    assert isinstance(message, Critique)
    assert (message.mask, message.explanation) == (None, {})
    with pytest.raises(LocalProtocolError):
        Critique(**ENVELOPE, divergence=divergence, mask=byte_slice(b"{}"))


@pytest.mark.parametrize(
    ("kind", "slices"),
    [
        (MessageType.THINK, ()),
        (MessageType.ASK, (byte_slice(b"alone"),)),
        (MessageType.ASK, (HALVES, HALVES)),
        (MessageType.ASK, (HALVES, byte_slice(b"\xff"))),
        (MessageType.SYNC, (HALVES,)),
        (MessageType.SYNC, (byte_slice(b"{}"), byte_slice(b"{}"))),
        (MessageType.SYNC, (byte_slice(b"[]"),)),
        (MessageType.CRITIQUE, (HALVES,)),
        (MessageType.CRITIQUE, (HALVES, byte_slice(b"words"))),
        (MessageType.CRITIQUE, (HALVES, HALVES)),
        (MessageType.CRITIQUE, (HALVES, byte_slice(b"\1\1\1"), byte_slice(b"{}"))),
        (MessageType.CRITIQUE, (HALVES, MASK, byte_slice(b"{}"), MASK)),
        (MessageType.CRITIQUE, (Slice(DType.F32, (1,), bytes(4)), byte_slice(b"{}"))),
    ],
)
def test_slices_that_do_not_fit_the_type_are_refused(
    kind: MessageType, slices: tuple[Slice, ...]
) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_message_untrusted(Frame(kind, 1, 1, 0, slices=slices))


def test_an_error_survives_and_nothing_else_passes_for_one() -> None:
    error = SyncError("SPACE_MISMATCH", "another space", 1, 2)
    frame = sync_frame(error.to_body(), stream_id=1, frame_seq=0, space_hash32=1)
    assert SyncError.from_body_untrusted(parse_sync_untrusted(frame)) == error
    for body in ({}, {"method": "ping"}, {"method": "error", "code": 5}):
        with pytest.raises(RemoteProtocolError):
            SyncError.from_body_untrusted(body)


# JSON


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 18446744073709551616}',
        b'{"a": ' + b"9" * 6000 + b"}",
        b'{"a": "\\ud800"}',
        b'{"a": "' + b"x" * MAX_BYTES + b'"}',
        b'{"a":' * MAX_DEPTH + b"{}" + b"}" * MAX_DEPTH,
        b"[" * MAX_BYTES,
        b'{"a": "' + b'\\"' * 30_000 + b"\\",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_small_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        load_json_untrusted(text)


def test_brackets_inside_strings_are_no_depth() -> None:
    body = {"a": '["' * 100, "b": "\\", "c": {"d": "😀"}}
    assert load_json_untrusted(dump_json(body)) == body
    assert load_json_untrusted(json.dumps(body).encode()) == body


def deep(levels: int) -> dict[str, object]:
    body: dict[str, object] = {}
    for _ in range(levels - 1):
        body = {"a": body}
    return body


def test_the_writer_keeps_the_readers_bounds() -> None:
    assert load_json_untrusted(dump_json(deep(MAX_DEPTH))) == deep(MAX_DEPTH)
    for body in (deep(MAX_DEPTH + 1), {"a": float("nan")}, {"a": b""}, {"a": "x" * MAX_BYTES}):
        with pytest.raises(LocalProtocolError):
            dump_json(body)


def test_hostile_quotes_are_counted_in_linear_time() -> None:
    started = time.process_time()
    for text in (b'"' * 65_000, b'\\"' * 32_000, b'"\\' * 32_000, b"[" * 17 + b'"\\"' * 20_000):
        with contextlib.suppress(RemoteProtocolError):
            load_json_untrusted(b"[" * 20 + text[: MAX_BYTES - 20])
    assert time.process_time() - started < 2  # a quadratic scan takes minutes


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.floats(-9, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_json_survives(body: dict[str, object]) -> None:
    with contextlib.suppress(LocalProtocolError):  # half a surrogate pair is no text
        assert load_json_untrusted(dump_json(body)) == body


@given(st.binary() | st.text('[]{}":,\\ud8019eE-+.nNaI', max_size=80).map(str.encode))
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert load_json_untrusted(data) is not None


@given(st.sampled_from(MessageType), st.lists(st.binary(max_size=30), max_size=4))
def test_any_frame_is_a_message_or_refused(kind: MessageType, payloads: list[bytes]) -> None:
    slices = tuple(byte_slice(payload) for payload in payloads)
    with contextlib.suppress(RemoteProtocolError):
        message = parse_message_untrusted(Frame(kind, 1, 1, 0, slices=slices))
        assert isinstance(message, Message)
