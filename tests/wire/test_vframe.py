"""V-Frame against the published vectors, and against everything that is no V-Frame."""

import contextlib
import json
import struct
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import zstandard
from hypothesis import given, strategies as st

from p2pnode.errors import LocalProtocolError, NonceReuseError, RemoteProtocolError
from p2pnode.wire.dtypes import DType
from p2pnode.wire.seal import FrameOpener, FrameSealer
from p2pnode.wire.vframe import (
    MAX_FRAME,
    MAX_INFLATED,
    Flags,
    Frame,
    MessageType,
    Modality,
    Slice,
    decode_frame_untrusted,
    encode_frame,
)

VECTORS = json.loads(
    Path(__file__).parent.parent.joinpath("vectors", "vframe.json").read_text("utf-8")
)["frames"]
RAW_UNDER_ZSTD = "think-zstd-flag-raw-body"
KEY, SALT = bytes(range(32)), bytes(range(12))


def frame_of(entry: dict[str, Any]) -> Frame:
    return Frame(
        MessageType(entry["type"]),
        entry["stream_id"],
        entry["frame_seq"],
        entry["space_hash32"],
        Modality(entry["modality"]),
        tuple(
            Slice(piece["dtype"], tuple(piece["shape"]), bytes.fromhex(piece["payload"]))
            for piece in entry["slices"]
        ),
    )


def think(payload: bytes = b"\0" * 64, *, frame_seq: int = 1) -> Frame:
    piece = Slice(DType.I8, (len(payload),), payload)
    return Frame(MessageType.THINK, 7, frame_seq, 0xABCD, slices=(piece,))


def with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", crc32(data))


def patched(data: bytes, offset: int, replacement: bytes) -> bytes:
    """Return the frame with other bytes at ``offset``, and the CRC put right."""
    return with_crc(data[:offset] + replacement + data[offset + len(replacement) : -4])


@pytest.mark.parametrize("entry", VECTORS, ids=lambda entry: entry["name"])
def test_a_vector_reads_as_its_values(entry: dict[str, Any]) -> None:
    assert decode_frame_untrusted(bytes.fromhex(entry["frame"])) == frame_of(entry)


@pytest.mark.parametrize(
    "entry",
    [entry for entry in VECTORS if entry["name"] != RAW_UNDER_ZSTD],
    ids=lambda entry: entry["name"],
)
def test_a_vectors_values_write_its_bytes(entry: dict[str, Any]) -> None:
    assert encode_frame(frame_of(entry)).hex() == entry["frame"]


def test_a_think_of_2048_halves_takes_4143_bytes() -> None:
    piece = Slice(DType.F16, (1, 2048), bytes(4096))
    assert len(encode_frame(Frame(MessageType.THINK, 1, 1, 1, slices=(piece,)))) == 4143


def test_a_heart_has_no_slices_and_33_bytes() -> None:
    heart = Frame(MessageType.THINK, 5, 9, 0)
    data = encode_frame(heart)
    assert len(data) == 33
    assert decode_frame_untrusted(data) == heart


def test_a_heart_with_a_body_is_refused() -> None:
    data = encode_frame(Frame(MessageType.THINK, 5, 9, 0))
    with pytest.raises(RemoteProtocolError):
        decode_frame_untrusted(with_crc(data[:-4] + b"\x02\x01\0\0\0\0"))


def test_a_tail_carries_its_flag() -> None:
    tail = Frame(
        MessageType.THINK, 5, 9, 0, slices=(Slice(DType.I8, (8,), bytes(8)),), strong_tail=True
    )
    data = encode_frame(tail)
    assert data[2] == Flags.STRONG_TAIL
    assert decode_frame_untrusted(data) == tail


@pytest.mark.parametrize("slices", [(), (Slice(DType.I8, (9,), bytes(9)),)])
def test_a_tail_of_another_form_is_refused(slices: tuple[Slice, ...]) -> None:
    with pytest.raises(LocalProtocolError):
        Frame(MessageType.THINK, 5, 9, 0, slices=slices, strong_tail=True)
    data = encode_frame(Frame(MessageType.THINK, 5, 9, 0, slices=slices))
    with pytest.raises(RemoteProtocolError, match="TAIL"):
        decode_frame_untrusted(patched(data, 2, b"\x04"))


@pytest.mark.parametrize(
    ("offset", "replacement", "complaint"),
    [
        (0, b"\x02", "version"),
        (1, b"\x05", "type"),
        (2, b"\x08", "flags"),
        (3, b"\x80", "flags"),
        (16, b"\x02", "dtype"),
        (16, b"\xff" * 8, "do not fit"),
        (24, b"\x41", "past"),
        (24, b"\x3f", "payload|after"),
        (24, b"\xff\xff\xff\xff", "past"),
        (32, b"\x05", "modality"),
        (33, b"\x09", "dtype"),
        (33, b"\x01", "payload"),
        (34, b"\xff", "past"),
        (34, b"\x00", "payload|after"),
        (35, b"\x41", "payload"),
    ],
)
def test_a_field_out_of_range_is_refused(offset: int, replacement: bytes, complaint: str) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        decode_frame_untrusted(patched(encode_frame(think()), offset, replacement))


def test_a_changed_bit_anywhere_is_refused() -> None:
    data = encode_frame(think())
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(RemoteProtocolError):
            decode_frame_untrusted(bytes(changed))


def test_a_frame_cut_or_extended_is_refused() -> None:
    data = encode_frame(think())
    for size in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            decode_frame_untrusted(data[:size])
    with pytest.raises(RemoteProtocolError):
        decode_frame_untrusted(data + b"\0")


def test_the_largest_frame_fits_and_one_byte_more_does_not() -> None:
    overhead = len(encode_frame(think(b"")))
    data = encode_frame(think(bytes(MAX_FRAME - overhead)))
    assert len(data) == MAX_FRAME
    assert len(decode_frame_untrusted(data).slices[0].payload) == MAX_FRAME - overhead
    with pytest.raises(LocalProtocolError):
        encode_frame(think(bytes(MAX_FRAME - overhead + 1)))
    with pytest.raises(RemoteProtocolError):
        decode_frame_untrusted(bytes(MAX_FRAME + 1))


# zstd


def test_zstd_round_trips_and_states_the_uncompressed_lengths() -> None:
    frame = think(bytes(4000))
    data = encode_frame(frame, compress=True)
    assert len(data) < 100
    assert data[2] == Flags.ZSTD
    assert struct.unpack_from("<I", data, 24) == (4000,)
    assert decode_frame_untrusted(data) == frame


def test_a_body_that_zstd_does_not_shrink_is_written_plain() -> None:
    frame = think(bytes(range(16)))
    assert encode_frame(frame, compress=True) == encode_frame(frame)


def zstd_frame(stated: int, body: bytes) -> bytes:
    header = struct.pack("<BBHIQQIIB", 1, 0, 1, 7, 1, 1, stated, 0, 0)
    return with_crc(header + body)


@pytest.mark.parametrize("write_content_size", [True, False])
@pytest.mark.parametrize("stated", [0, 10, 2**20, 2**32 - 1])
def test_a_bomb_is_refused(stated: int, write_content_size: bool) -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=write_content_size)
    body = compressor.compress(bytes(64 * MAX_INFLATED))
    with pytest.raises(RemoteProtocolError):
        decode_frame_untrusted(zstd_frame(stated, body))


def test_a_stated_content_size_is_not_believed() -> None:
    # A frame header alone: magic, single segment with an 8-byte content size of 2^62.
    body = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 62) + b"\x01\0\0"
    with pytest.raises(RemoteProtocolError):
        decode_frame_untrusted(zstd_frame(1 << 16, body))


def test_bytes_after_the_zstd_frame_are_refused() -> None:
    body = zstandard.ZstdCompressor().compress(b"\x02\x01" + struct.pack("<I", 64) + bytes(64))
    decode_frame_untrusted(zstd_frame(64, body))
    with pytest.raises(RemoteProtocolError):
        decode_frame_untrusted(zstd_frame(64, body + b"\0"))
    with pytest.raises(RemoteProtocolError):
        decode_frame_untrusted(zstd_frame(64, body[:-1]))


def test_a_raw_body_under_the_zstd_flag_is_taken_at_its_exact_length() -> None:
    raw = patched(encode_frame(think()), 2, b"\x01")
    assert decode_frame_untrusted(raw) == think()
    with pytest.raises(RemoteProtocolError):
        decode_frame_untrusted(with_crc(raw[:-4] + b"\0"))
    with pytest.raises(RemoteProtocolError):
        decode_frame_untrusted(with_crc(raw[:-5]))


# The seal


@pytest.mark.parametrize("compress", [False, True])
def test_a_sealed_frame_opens_with_its_key_alone(compress: bool) -> None:
    frame = think(bytes(500))
    data = encode_frame(frame, compress=compress, sealer=FrameSealer(KEY, SALT))
    assert decode_frame_untrusted(data, opener=FrameOpener(KEY, SALT)) == frame
    for opener in (None, FrameOpener(KEY[::-1], SALT), FrameOpener(KEY, SALT[::-1])):
        with pytest.raises(RemoteProtocolError):
            decode_frame_untrusted(data, opener=opener)


def test_the_seal_costs_16_bytes() -> None:
    sealed = encode_frame(think(), sealer=FrameSealer(KEY, SALT))
    assert len(sealed) == len(encode_frame(think())) + 16


@pytest.mark.parametrize("offset", [1, 4, 8, 24, 28, 32, 40])
def test_the_seal_covers_header_and_body(offset: int) -> None:
    sealed = encode_frame(think(), sealer=FrameSealer(KEY, SALT))
    changed = patched(sealed, offset, bytes((sealed[offset] ^ 1,)))
    with pytest.raises(RemoteProtocolError, match="MAC"):
        decode_frame_untrusted(changed, opener=FrameOpener(KEY, SALT))


def test_whoever_holds_a_key_refuses_an_unsealed_frame() -> None:
    with pytest.raises(RemoteProtocolError, match="unsealed"):
        decode_frame_untrusted(encode_frame(think()), opener=FrameOpener(KEY, SALT))


def test_a_sealed_body_that_claims_zstd_and_is_raw_is_refused() -> None:
    header = struct.pack("<BBHIQQIIB", 1, 0, 3, 7, 1, 1, 1, 0, 0)
    body = FrameSealer(KEY, SALT).seal(b"\x02\x01\1\0\0\0a", header, stream_id=7, frame_seq=1)
    with pytest.raises(RemoteProtocolError, match="not zstd"):
        decode_frame_untrusted(with_crc(header + body), opener=FrameOpener(KEY, SALT))


def test_a_repeated_number_is_never_sealed_twice() -> None:
    sealer = FrameSealer(KEY, SALT)
    encode_frame(think(), sealer=sealer)
    with pytest.raises(NonceReuseError):
        encode_frame(think(b"other"), sealer=sealer)
    encode_frame(think(frame_seq=0), sealer=sealer)


def test_a_frame_too_long_spends_no_nonce() -> None:
    sealer = FrameSealer(KEY, SALT)
    with pytest.raises(LocalProtocolError, match="most"):
        encode_frame(think(bytes(MAX_FRAME)), sealer=sealer)
    encode_frame(think(), sealer=sealer)


@given(st.lists(st.integers(0, 30) | st.integers(2**64 - 8, 2**64 - 1)))
def test_a_sealer_knows_every_number_it_used(numbers: list[int]) -> None:
    sealer = FrameSealer(KEY, SALT)
    used: set[int] = set()
    for number in numbers:
        if number in used:
            with pytest.raises(NonceReuseError):
                sealer.seal(b"", b"", stream_id=1, frame_seq=number)
        else:
            sealer.seal(b"", b"", stream_id=1, frame_seq=number)
        used.add(number)


# Properties


@st.composite
def slices(draw: st.DrawFn) -> Slice:
    dtype = draw(st.sampled_from([dtype for dtype in DType if dtype is not DType.CENTRED]))
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=4)))
    count = 1
    for dim in shape:
        count *= dim
    if dtype is DType.COO:
        size = 2 * draw(st.integers(0, min(count, 20)))
    else:
        bits = {DType.I8: 8, DType.Q4: 4, DType.F32: 32, DType.Q2: 2}.get(dtype, 16)
        size = (count * bits + 7) // 8
    return Slice(dtype, shape, draw(st.binary(min_size=size, max_size=size)))


frames = st.builds(
    Frame,
    st.sampled_from(MessageType),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.sampled_from(Modality),
    st.lists(slices(), max_size=4).map(tuple),
)


@given(frames, st.booleans(), st.booleans())
def test_what_is_written_is_what_is_read(frame: Frame, compress: bool, sealed: bool) -> None:
    data = encode_frame(frame, compress=compress, sealer=FrameSealer(KEY, SALT) if sealed else None)
    opener = FrameOpener(KEY, SALT) if sealed else None
    assert decode_frame_untrusted(data, opener=opener) == frame
    assert decode_frame_untrusted(memoryview(data), opener=opener) == frame


def decode_or_refuse(data: bytes) -> None:
    for opener in (None, FrameOpener(KEY, SALT)):
        with contextlib.suppress(RemoteProtocolError):
            decode_frame_untrusted(data, opener=opener)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    decode_or_refuse(data)
    decode_or_refuse(with_crc(data))


@given(frames, st.booleans(), st.data())
def test_a_mutated_frame_is_read_or_refused(
    frame: Frame,
    compress: bool,
    data: st.DataObject,
) -> None:
    mutated = bytearray(encode_frame(frame, compress=compress)[:-4])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 8))
    decode_or_refuse(with_crc(bytes(mutated[: len(mutated) - cut])))


@given(frames, st.integers(0, 7), st.binary(max_size=60))
def test_a_valid_header_over_any_body_is_read_or_refused(
    frame: Frame, flags: int, body: bytes
) -> None:
    whole = encode_frame(frame)
    header = bytearray(whole[: 29 + 4 * len(frame.slices)])
    header[2] = flags
    decode_or_refuse(with_crc(bytes(header) + body))
    decode_or_refuse(with_crc(bytes(header) + b"\x28\xb5\x2f\xfd" + body))
