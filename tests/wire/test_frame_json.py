"""Frames as JSON in the form of the vectors, and broken frames explained."""

import json
import struct
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import RemoteProtocolError, UserError
from p2pnode.wire.frame_json import Field, explain_frame, frame_to_json, json_to_frame
from p2pnode.wire.seal import FrameOpener, FrameSealer
from p2pnode.wire.vframe import decode_frame_untrusted

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
    if len(frame) > 2 and frame[2] & 2:
        return
    try:
        decode_frame_untrusted(frame)
    except RemoteProtocolError:
        assert fields[-1].problem
    else:
        assert not problems(frame)
