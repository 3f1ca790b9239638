"""What the code writes into the pages is what stands there, and the vectors are the code's."""

import json
import struct
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import RemoteProtocolError
from p2pnode.testing import protocol_pages
from p2pnode.testing.diagram import draw
from p2pnode.testing.protocol_pages import PAGES, VECTORS, regenerated, write_pages
from p2pnode.testing.wire_vectors import wire_vectors
from p2pnode.wire import seal, vframe, vstream
from p2pnode.wire.calibration import CalibrationSet
from p2pnode.wire.capability import Capability, negotiate
from p2pnode.wire.centred import Form
from p2pnode.wire.dtypes import REGISTRY
from p2pnode.wire.explain import explain_frame
from p2pnode.wire.frame_json import frame_to_json, json_to_frame
from p2pnode.wire.layout import HEAD, HEADER, NONCE, SLICE, TAIL, Part, fixed_struct
from p2pnode.wire.meaning import frame_meaning
from p2pnode.wire.messages import parse_message_untrusted
from p2pnode.wire.seal import FrameOpener, FrameSealer
from p2pnode.wire.states import decode_states_untrusted
from p2pnode.wire.tensor import slices_to_tensor_untrusted
from p2pnode.wire.vframe import Flags, MessageType, Modality, decode_frame_untrusted
from p2pnode.wire.vstream import StreamReader, is_head

COMMAND = "python -m p2pnode.testing.protocol_pages"
PUBLISHED: dict[str, Any] = json.loads((PAGES / VECTORS).read_text("utf-8"))
FRAMES = PUBLISHED["frames"]
BY_NAME = {entry["name"]: entry for entry in FRAMES}


def secret(entry: dict[str, Any]) -> tuple[bytes, bytes] | None:
    if "key" not in entry:
        return None
    return bytes.fromhex(entry["key"]), bytes.fromhex(entry["salt"])


def read(entry: dict[str, Any]) -> vframe.Frame:
    known = secret(entry)
    opener = None if known is None else FrameOpener(*known)
    return decode_frame_untrusted(bytes.fromhex(entry["frame"]), opener=opener)


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.md")), ids=lambda path: path.name)
def test_a_page_is_as_the_code_writes_it(path: Path) -> None:
    text = path.read_text("utf-8")
    assert regenerated(text) == text, f"{path.name} is out of date: {COMMAND}"


def test_every_generated_part_is_on_a_page() -> None:
    text = "".join(path.read_text("utf-8") for path in PAGES.glob("*.md"))
    for name in protocol_pages._WRITERS:
        assert text.count(f"<!-- generated: {name} -->") == 1


def test_what_is_out_of_date_is_written_anew(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- generated: tail-diagram -->\nold\n<!-- end -->\nb\n", "utf-8")
    assert set(write_pages(tmp_path)) == {page, tmp_path / VECTORS}
    assert draw(TAIL) in page.read_text("utf-8")
    assert write_pages(tmp_path) == []


def test_the_layouts_are_those_that_the_code_packs() -> None:
    after = HEADER[7:9]
    assert fixed_struct(HEADER).format == vframe._FIXED.format
    assert fixed_struct(after).format == vframe._END.format
    assert fixed_struct([*SLICE[:2], Part("shape", "2I")]).size == vframe._SLICE_HEADS[2].size
    assert fixed_struct(NONCE[1:2]).format == seal._STREAM.format
    assert fixed_struct(NONCE[2:]).format == seal._NUMBER.format
    assert fixed_struct(NONCE[:1]).size == seal.SALT_SIZE
    assert fixed_struct(HEAD).size == vstream._HEAD.size == 33


def test_the_diagram_of_a_tail() -> None:
    assert draw(TAIL).splitlines()[1:] == [
        "  +" + "---------+" * 8,
        "0 |xxh3_64".ljust(82) + "|",
        "  +" + "---------+" * 8,
    ]


# The vectors


def test_the_vectors_are_made_anew_as_published() -> None:
    made = json.loads(json.dumps(wire_vectors()))
    published = dict(PUBLISHED)
    for name in ("frames", "refused"):
        ours, theirs = (
            [without_zstd(entry) for entry in entries.pop(name)] for entries in (made, published)
        )
        assert ours == theirs, COMMAND
    assert made == published, COMMAND


def without_zstd(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry without what zstd made: its bytes are those of the library's version."""
    if "states-zstd" in entry["name"]:  # a payload that zstd made
        return {**entry, "frame": "", "slices": []}
    return {**entry, "frame": ""} if "zstd" in entry["name"] else entry


@pytest.mark.parametrize("entry", FRAMES, ids=lambda entry: entry["name"])
def test_a_vector_is_read_and_written(entry: dict[str, Any]) -> None:
    data, known = bytes.fromhex(entry["frame"]), secret(entry)
    opener = None if known is None else FrameOpener(*known)
    entry_again = frame_to_json(data, name=entry["name"], note=entry["note"], opener=opener)
    assert entry_again.items() <= entry.items()
    written = json_to_frame(entry, sealer=None if known is None else FrameSealer(*known))
    if not entry["flags"] & Flags.ZSTD:
        assert written == data
    assert decode_frame_untrusted(written, opener=opener) == read(entry)


@pytest.mark.parametrize("entry", FRAMES, ids=lambda entry: entry["name"])
def test_a_vector_is_the_message_it_says(entry: dict[str, Any]) -> None:
    frame = read(entry)
    if is_head(frame):  # told from a message by whoever reads streams
        return
    if not frame.slices or frame.strong_tail:
        with pytest.raises(RemoteProtocolError):
            parse_message_untrusted(frame)
        return
    assert parse_message_untrusted(frame).to_frame() == frame


@pytest.mark.parametrize("entry", FRAMES, ids=lambda entry: entry["name"])
def test_a_vector_is_explained_to_the_end(entry: dict[str, Any]) -> None:
    data, known = bytes.fromhex(entry["frame"]), secret(entry)
    fields = explain_frame(data, opener=None if known is None else FrameOpener(*known))
    assert not [field for field in fields if field.problem]
    payloads = [field for field in fields if field.name.endswith(".payload")]
    assert len(payloads) == len(entry["slices"])
    assert all(field.meaning for field in payloads)
    meaning = frame_meaning(read(entry))
    assert (bool(meaning.words), meaning.problem) == (True, "")


@pytest.mark.parametrize("entry", PUBLISHED["refused"], ids=lambda entry: entry["name"])
def test_what_is_refused_is_explained_by_the_field_at_fault(entry: dict[str, Any]) -> None:
    data, known = bytes.fromhex(entry["frame"]), secret(entry)
    fields = explain_frame(data, opener=None if known is None else FrameOpener(*known))
    assert fields[-1].problem
    if len(data) >= 33:
        assert len([field for field in fields if field.problem]) >= 2


@given(st.sampled_from(FRAMES), st.lists(st.tuples(st.integers(0, 4200), st.integers(0, 255))))
def test_a_mutated_vector_is_explained_too(
    entry: dict[str, Any], changes: list[tuple[int, int]]
) -> None:
    data, known = bytearray.fromhex(entry["frame"]), secret(entry)
    for at, value in changes:
        data[at % len(data)] = value
    frame = bytes(data[:-4]) + struct.pack("<I", crc32(data[:-4]))
    opener = None if known is None else FrameOpener(*known)
    verdict = explain_frame(frame, opener=opener)[-1]
    if frame[2] & Flags.XCHACHA and opener is None:
        assert verdict.value == "sealed"
        return
    assert verdict.problem == refusal(frame, opener)
    if not verdict.problem:
        assert frame_meaning(decode_frame_untrusted(frame, opener=opener)).words


def refusal(frame: bytes, opener: FrameOpener | None) -> str:
    try:
        decode_frame_untrusted(frame, opener=opener)
    except RemoteProtocolError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("entry", PUBLISHED["tensors"], ids=lambda entry: entry["frame"])
def test_a_tensor_has_its_values(entry: dict[str, Any]) -> None:
    array = slices_to_tensor_untrusted(read(BY_NAME[entry["frame"]]).slices)
    assert list(array.shape) == entry["shape"]
    assert array.reshape(-1).tolist() == entry["values"]


@pytest.mark.parametrize("entry", PUBLISHED["states"], ids=lambda entry: entry["frame"])
def test_states_have_their_values_or_are_refused(entry: dict[str, Any]) -> None:
    (about,) = PUBLISHED["calibrations"]
    file, space = bytes.fromhex(about["file"]), about["space_hash32"]
    known = CalibrationSet.from_bytes_untrusted(file, space_hash32=space)
    slices = read(BY_NAME[entry["frame"]]).slices
    if "refused" in entry:
        with pytest.raises(RemoteProtocolError):
            decode_states_untrusted(slices, known.at(entry["cut"]))
        return
    rows = decode_states_untrusted(slices, known.at(entry["cut"]))
    assert list(rows.shape) == entry["shape"]
    values = np.frombuffer(bytes.fromhex(entry["values"]), "<f4")
    assert rows.reshape(-1) == pytest.approx(values, rel=1e-6)


def test_the_states_show_every_form() -> None:
    payloads = [
        bytes.fromhex(BY_NAME[entry["frame"]]["slices"][0]["payload"])
        for entry in PUBLISHED["states"]
        if "refused" not in entry
    ]
    assert {payload[0] for payload in payloads} == set(Form)
    assert {payload[2] for payload in payloads} == {0, 1}  # outliers


@pytest.mark.parametrize("entry", PUBLISHED["streams"], ids=lambda entry: entry["name"])
def test_a_stream_is_taken_or_refused_whole(entry: dict[str, Any]) -> None:
    *frames, last = (read(BY_NAME[name]) for name in entry["frames"])
    reader = StreamReader(last.stream_id, max_bytes=1000)
    for frame in frames:
        assert reader.receive_untrusted(frame) is None
    if entry["refused"]:
        with pytest.raises(RemoteProtocolError, match="TAIL"):
            reader.receive_untrusted(last)
        return
    batches = reader.receive_untrusted(last)
    assert batches is not None
    payload = b"".join(bytes(piece.payload) for batch in batches for piece in batch)
    assert payload.hex() == entry["payload"]


@pytest.mark.parametrize("entry", PUBLISHED["negotiations"], ids=lambda entry: entry["name"])
def test_a_negotiation_ends_as_published(entry: dict[str, Any]) -> None:
    ours, theirs = (Capability.from_body_untrusted(entry[side]) for side in ("ours", "theirs"))
    assert negotiate(ours, theirs).to_body() == entry["answer"]


@pytest.mark.parametrize("entry", PUBLISHED["refused"], ids=lambda entry: entry["name"])
def test_what_is_to_be_refused_is(entry: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        read(entry)


def test_the_vectors_show_every_type_dtype_modality_and_flag() -> None:
    assert {entry["type"] for entry in FRAMES} == set(MessageType)
    assert {entry["modality"] for entry in FRAMES} == set(Modality)
    assert {entry["flags"] for entry in FRAMES} >= {0, 1, 2, 3, 4}
    shown = {piece["dtype"] for entry in FRAMES for piece in entry["slices"]}
    assert shown == set(REGISTRY), "an element type without a vector, in testing/wire_vectors.py"
