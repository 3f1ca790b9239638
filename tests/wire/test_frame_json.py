"""Frames as JSON in the form of the vectors, and broken frames explained."""

import json
import struct
from dataclasses import replace
from hashlib import md5
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, strategies as st
from xxhash import xxh3_64_intdigest

from p2pnode.errors import RemoteProtocolError, UserError
from p2pnode.wire.dtypes import DType
from p2pnode.wire.frame_json import Field, explain_frame, frame_to_json, json_to_frame
from p2pnode.wire.meaning import frame_meaning
from p2pnode.wire.messages import byte_slice
from p2pnode.wire.seal import FrameOpener, FrameSealer
from p2pnode.wire.tensor import tensor_to_slices
from p2pnode.wire.vframe import Frame, MessageType, Slice, decode_frame_untrusted, encode_frame
from p2pnode.wire.vstream import write_stream

VECTORS = json.loads(
    Path(__file__).parent.parent.joinpath("vectors", "vframe.json").read_text("utf-8")
)["frames"]
BY_NAME = {entry["name"]: entry for entry in VECTORS}
KEY, SALT = bytes(range(32)), bytes(range(12))


def raw(name: str) -> bytes:
    return bytes.fromhex(BY_NAME[name]["frame"])


def with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", crc32(data))


def problems(data: bytes) -> dict[str, str]:
    return {field.name: field.problem for field in explain_frame(data) if field.problem}


@pytest.mark.parametrize("entry", VECTORS, ids=lambda entry: entry["name"])
def test_an_entry_is_read_and_written(entry: dict[str, Any]) -> None:
    data = bytes.fromhex(entry["frame"])
    again = frame_to_json(data, name=entry["name"], note=entry["note"])
    assert again == entry
    assert list(again) == list(entry)
    without_frame = {key: value for key, value in entry.items() if key != "frame"}
    assert json_to_frame(without_frame) == data


def test_a_compressed_and_a_sealed_entry_survive() -> None:
    for flags in (1, 2, 3):
        entry = {**BY_NAME["think-zeros-2048"], "flags": flags, "note": ""}
        data = json_to_frame(entry, sealer=FrameSealer(KEY, SALT))
        opener = FrameOpener(KEY, SALT) if flags & 2 else None
        again = frame_to_json(data, name=entry["name"], opener=opener)
        assert again == {**entry, "frame": data.hex()}


@pytest.mark.parametrize(
    "change",
    [
        {"type": 9},
        {"type": True},
        {"type": 0.0},
        {"modality": 0.0},
        {"slices": {"a": 1}},
        {"slices": "x"},
        {"slices": ["x"]},
        {"slices": [{"dtype": 2, "shape": 1, "payload": "00"}]},
        {"slices": [{"dtype": 2, "shape": [1], "payload": 0}]},
        {"flags": 8},
        {"flags": -1},
        {"flags": 2},
        {"flags": 4},
        {"stream_id": 1.0},
        {"stream_id": 1 << 32},
        {"modality": "text"},
        {"slices": None},
        {"slices": [{}]},
        {"slices": [{"dtype": 2, "shape": [1], "payload": "zz"}]},
        {"slices": [{"dtype": 2, "shape": [2], "payload": "00"}]},
        {"slices": [{"dtype": 2, "shape": [-1, -1], "payload": "00"}]},
    ],
)
def test_an_entry_that_is_no_frame_is_told_to_the_user(change: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        json_to_frame({**BY_NAME["think-2048"], **change})


def test_every_field_of_a_frame_is_listed() -> None:
    fields = explain_frame(raw("q4-odd"))
    assert [(field.name, field.offset, field.size) for field in fields] == [
        ("version", 0, 1),
        ("type", 1, 1),
        ("flags", 2, 2),
        ("stream_id", 4, 4),
        ("frame_seq", 8, 8),
        ("num_slices", 16, 8),
        ("slice_len[0]", 24, 4),
        ("space_hash32", 28, 4),
        ("modality", 32, 1),
        ("slice[0].dtype", 33, 1),
        ("slice[0].ndim", 34, 1),
        ("slice[0].shape", 35, 8),
        ("slice[0].payload", 43, 5),
        ("crc32", 48, 4),
        ("frame", 0, 52),
    ]
    assert fields[-1] == Field("frame", 0, 52, "well-formed")


@pytest.mark.parametrize(
    ("offset", "replacement", "culprit"),
    [
        (0, b"\7", "version"),
        (1, b"\7", "type"),
        (2, b"\x10", "flags"),
        (2, b"\x04", "flags"),
        (16, b"\xff", "num_slices"),
        (24, b"\6", "slice[0].payload"),
        (24, b"\4", "slice[0].payload"),
        (32, b"\x09", "modality"),
        (33, b"\x77", "slice[0].dtype"),
        (34, b"\xff", "slice[0]"),
        (35, b"\xff", "slice[0].payload"),
        (48, b"\0", "crc32"),
    ],
)
def test_the_field_at_fault_is_named(offset: int, replacement: bytes, culprit: str) -> None:
    data = raw("q4-odd")
    data = data[:offset] + replacement + data[offset + 1 :]
    found = problems(data if culprit == "crc32" else with_crc(data[:-4]))
    assert {culprit, "frame"} <= set(found)


def test_a_compressed_body_is_looked_into_and_a_sealed_one_is_not() -> None:
    compressed = json_to_frame({**BY_NAME["think-zeros-2048"], "flags": 1})
    names = [field.name for field in explain_frame(compressed)]
    assert "inflated slice[0].payload" in names
    assert not problems(compressed)
    assert "body" in problems(with_crc(compressed[:-5]))
    sealed = json_to_frame(
        {**BY_NAME["think-zeros-2048"], "flags": 2}, sealer=FrameSealer(KEY, SALT)
    )
    assert not problems(sealed)
    assert explain_frame(sealed)[-1].value == "sealed"


def test_a_sealed_body_is_looked_into_with_its_key() -> None:
    for flags, prefix in ((2, "opened"), (3, "inflated")):
        entry = {**BY_NAME["think-zeros-2048"], "flags": flags}
        sealed = json_to_frame(entry, sealer=FrameSealer(KEY, SALT))
        fields = explain_frame(sealed, opener=FrameOpener(KEY, SALT))
        payload = next(field for field in fields if field.name == f"{prefix} slice[0].payload")
        assert (payload.offset, payload.size) == (10, 4096)
        assert payload.meaning == "hidden states"
        assert fields[-1] == Field("frame", 0, len(sealed), "well-formed")
        wrong = explain_frame(sealed, opener=FrameOpener(SALT + SALT + bytes(8), SALT))
        assert [field.name for field in wrong if field.problem] == ["body", "frame"]


def test_an_unsealed_frame_in_a_sealed_session_is_named() -> None:
    fields = explain_frame(raw("q4-odd"), opener=FrameOpener(KEY, SALT))
    assert [field.name for field in fields if field.problem] == ["flags", "frame"]


def test_a_sealed_body_under_zstd_that_is_raw_is_named() -> None:
    entry = {**BY_NAME["q4-odd"], "flags": 2}
    body = json_to_frame(BY_NAME["q4-odd"])[33:-4]
    header = bytearray(json_to_frame(entry, sealer=FrameSealer(KEY, SALT))[:33])
    header[2] = 3
    sealed = FrameSealer(KEY, SALT).seal(
        body, bytes(header), stream_id=entry["stream_id"], frame_seq=entry["frame_seq"]
    )
    fields = explain_frame(with_crc(bytes(header) + sealed), opener=FrameOpener(KEY, SALT))
    assert [field.name for field in fields if field.problem] == ["opened body", "frame"]


def test_a_stream_is_told_in_words() -> None:
    piece = Slice(DType.F16, (2,), bytes(4))
    head, _, tail = write_stream(
        [(piece,)], kind=MessageType.CACHE, stream_id=1, space_hash32=2, direction=1
    )
    words = {field.name: field for field in explain_frame(encode_frame(head))}
    assert words["slice[0].length"].value == "4 bytes"
    assert words["slice[0].md5"].value == md5(bytes(4), usedforsecurity=False).hexdigest()
    assert words["slice[0].xxh3_64"].value == f"0x{xxh3_64_intdigest(bytes(4)):016x}"
    assert words["slice[0].direction"].value == 1
    assert (words["slice[0].md5"].offset, words["slice[0].md5"].size) == (33 + 6 + 8, 16)
    assert words["slice[0].payload"].meaning.startswith("HEAD")
    words = {field.name: field for field in explain_frame(encode_frame(tail))}
    assert words["slice[0].xxh3_64"].value == f"0x{xxh3_64_intdigest(bytes(4)):016x}"
    assert frame_meaning(head).words == "the HEAD of a Cache stream"
    assert frame_meaning(tail).words == "the TAIL of a Cache stream"
    assert frame_meaning(replace(head, slices=())).words.startswith("a HEART")


def roles(kind: MessageType, *slices: Slice) -> list[str]:
    frame = Frame(kind, 1, 1, 2, slices=slices)
    listed = explain_frame(encode_frame(frame))
    return [field.meaning for field in listed if field.name.endswith(".payload")]


def test_auxiliary_slices_are_named_as_what_they_are() -> None:
    rows = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64)
    scaled = tensor_to_slices(rows, DType.Q4, group=32)
    assert roles(MessageType.THINK, *scaled) == [
        "hidden states",
        "scales of slice 0, one for 32 values",
        "minima of slice 0, one for 32 values",
    ]
    sparse = tensor_to_slices(np.eye(3, dtype=np.float32), DType.COO)
    assert roles(MessageType.CACHE, *scaled[:2], *sparse) == [
        "keys of layer 0",
        "scales of slice 0, one for 32 values",
        "values of layer 0",
        "indices of slice 2",
    ]
    mask = Slice(DType.I8, (2,), b"\1\0")
    halves = Slice(DType.F16, (2,), bytes(4))
    assert roles(MessageType.CRITIQUE, halves, mask) == ["divergence", "mask"]
    assert roles(MessageType.CRITIQUE, halves, byte_slice(b"{}")) == [
        "divergence",
        "explanation, JSON",
    ]
    assert roles(MessageType.ASK, halves, byte_slice(b"why")) == ["embedding", "context"]


@pytest.mark.parametrize(
    ("slices", "problem"),
    [
        ((Slice(DType.COO, (3,), bytes(2)), Slice(DType.I8, (4,), b"\3\0\0\0")), "indices"),
        ((Slice(DType.COO, (3,), bytes(2)),), "index"),
    ],
)
def test_a_tensor_that_does_not_read_is_told(slices: tuple[Slice, ...], problem: str) -> None:
    assert problem in frame_meaning(Frame(MessageType.THINK, 1, 1, 2, slices=slices)).problem


def test_many_huge_sparse_tensors_cost_little_to_explain() -> None:
    one = (Slice(DType.COO, (1 << 22,), b""), Slice(DType.I8, (0,), b""))
    frame = Frame(MessageType.CACHE, 1, 1, 2, slices=one * 1000)
    assert frame_meaning(frame).words.startswith("a Cache: 1000 tensors, of which the first")


def test_a_frame_cut_anywhere_is_explained() -> None:
    data = raw("critique-3-mask")
    for size in range(len(data)):
        assert problems(data[:size])


@given(st.binary(max_size=120), st.booleans(), st.data())
def test_a_problem_is_named_exactly_where_a_reader_refuses(
    noise: bytes, mutate: bool, data: st.DataObject
) -> None:
    frame = noise
    if mutate:
        changed = bytearray(raw(data.draw(st.sampled_from(["critique-3-mask", "q4-odd"]))))
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] = data.draw(st.integers(0, 1) | st.integers(0, 255))
        frame = with_crc(bytes(changed[:-4]))
    fields = explain_frame(frame)
    assert fields[-1].name == "frame"
    explain_frame(frame, opener=FrameOpener(KEY, SALT))
    if len(frame) > 2 and frame[2] & 2:
        return
    try:
        decode_frame_untrusted(frame)
    except RemoteProtocolError:
        assert fields[-1].problem
    else:
        assert not problems(frame)
        assert frame_meaning(decode_frame_untrusted(frame)).words
