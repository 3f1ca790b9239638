"""V-Frames, V-Streams, and what their slices say."""

import json
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

import numpy as np

from p2pnode.errors import RemoteProtocolError, UserError
from p2pnode.wire.bounded_json import MAX_BYTES
from p2pnode.wire.calibration import measure_calibration
from p2pnode.wire.compression import compress, decompress_untrusted
from p2pnode.wire.dtypes import DType
from p2pnode.wire.explain import explain_frame
from p2pnode.wire.frame_json import frame_to_json, json_to_frame
from p2pnode.wire.messages import (
    Ask,
    Critique,
    Sync,
    byte_slice,
    parse_message_untrusted,
    sync_frame,
)
from p2pnode.wire.seal import FrameOpener, FrameSealer
from p2pnode.wire.states import Rung, encode_states
from p2pnode.wire.tensor import (
    MAX_DENSE,
    TENSOR_DTYPES,
    group_slices,
    slices_to_tensor_untrusted,
    tensor_to_slices,
)
from p2pnode.wire.vframe import (
    MAX_FRAME,
    MAX_INFLATED,
    Flags,
    Frame,
    MessageType,
    Slice,
    decode_frame_untrusted,
    encode_frame,
)
from p2pnode.wire.vstream import StreamReader, write_stream
from tests.fuzz.target import MIB, Script, Target, blob, surely, with_crc

_VECTORS = Path(__file__).parent.parent / "vectors" / "vframe.json"
_KEY, _SALT = bytes(range(32)), bytes(range(12))
_WRAPPED = Flags.ZSTD | Flags.XCHACHA
_MOST_HELD = 2048
_TENSORS_READ = 4
_FRAME_WORDS = (
    b"\x28\xb5\x2f\xfd",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    *(bytes((dtype,)) for dtype in DType),
)


def frame(data: bytes) -> None:
    """Read the bytes as they are, then with the right CRC; what is read is what was written."""
    for whole in (data, with_crc(data)):
        with suppress(RemoteProtocolError):
            read = decode_frame_untrusted(whole)
            if whole[2] & _WRAPPED:
                assert len(b"".join(piece.payload for piece in read.slices)) <= MAX_INFLATED
            else:
                assert surely(encode_frame, read) == whole


def wrapped(data: bytes) -> None:
    """Compress and seal a hostile body honestly, so that what lies inside is reached."""
    flags = data[0] & _WRAPPED if data else 0
    header, body = _split(data[1:])
    header = header[:2] + struct.pack("<H", flags) + header[4:]
    if flags & Flags.ZSTD:
        body = compress(body)
    opener = None
    if flags & Flags.XCHACHA:
        opener = FrameOpener(_KEY, _SALT)
        stream_id, frame_seq = struct.unpack_from("<IQ", header, 4)
        body = FrameSealer(_KEY, _SALT).seal(body, header, stream_id=stream_id, frame_seq=frame_seq)
    read = decode_frame_untrusted(with_crc(header + body), opener=opener)
    assert surely(decode_frame_untrusted, surely(_compressed, read)) == read


def _compressed(frame: Frame) -> bytes:
    return encode_frame(frame, compress=True)


def zstd(data: bytes) -> None:
    assert len(decompress_untrusted(data, at_least=2, at_most=MIB)) <= MIB


def explained(data: bytes) -> None:
    """A person can ask about anything; nothing at all may come out but an explanation."""
    for whole in (data, with_crc(data)):
        fields = explain_frame(whole)
        assert fields[-1].name == "frame"
        if fields[-1].value == "well-formed":
            assert not any(field.problem for field in fields)
            frame_to_json(whole)


def entry(data: bytes) -> None:
    """A frame as a JSON object, from a file of the user's."""
    given = None
    with suppress(ValueError, RecursionError):
        given = json.loads(data)
    if not isinstance(given, dict):
        raise UserError("no object")
    assert len(json_to_frame(given)) <= MAX_FRAME


def message(data: bytes) -> None:
    read = parse_message_untrusted(decode_frame_untrusted(with_crc(data)))
    if len(data) < MAX_BYTES // 8:  # JSON is written more widely than it may have come
        assert surely(parse_message_untrusted, read.to_frame()) == read


def tensors(data: bytes) -> None:
    read = decode_frame_untrusted(with_crc(data))
    for group in group_slices(read.slices)[:_TENSORS_READ]:
        with suppress(RemoteProtocolError):
            array = slices_to_tensor_untrusted(group)
            assert array.shape == group[0].shape
            assert array.size <= max(MAX_DENSE, 4 * MAX_FRAME)
        with suppress(RemoteProtocolError):
            assert np.isfinite(slices_to_tensor_untrusted(group, finite=True)).all()


def stream(data: bytes) -> None:
    """Any frames in any order, of the stream that the first of them names."""
    script = Script(data)
    reader = None
    while script:
        with suppress(RemoteProtocolError):
            read = decode_frame_untrusted(with_crc(script.blob()))
            reader = reader or StreamReader(read.stream_id, max_bytes=_MOST_HELD)
            whole = reader.receive_untrusted(read)
            if whole is not None:
                assert reader.head is not None
                held = sum(len(piece.payload) for batch in whole for piece in batch)
                assert held == reader.head.length <= _MOST_HELD


def stream_order(data: bytes) -> None:
    """Frames of one good stream, missing, doubled and reordered: whole once all came, never before.

    The first byte says how many batches there are, each further one which frame comes next.
    """
    script = Script(data)
    batches = [(byte_slice(bytes(number)),) for number in range(script.byte() % 12)]
    frames = write_stream(batches, kind=MessageType.CACHE, stream_id=1, space_hash32=2)
    reader = StreamReader(1, max_bytes=_MOST_HELD)
    came: set[int] = set()
    while script:
        number = script.byte() % len(frames)
        fresh = number not in came and len(came) < len(frames)
        try:
            whole = reader.receive_untrusted(frames[number])
        except RemoteProtocolError:
            assert not fresh
            continue
        assert fresh
        came.add(number)
        assert (whole is not None) == (len(came) == len(frames))
        if whole is not None:
            assert list(whole) == batches


def _split(data: bytes) -> tuple[bytes, bytes]:
    count = int.from_bytes(data[16:24], "little")
    end = 29 + 4 * count
    if end > len(data):
        raise RemoteProtocolError("no header to put a body behind")
    return data[:end], data[end:]


# Seeds


def _vectors() -> Iterator[bytes]:
    for one in json.loads(_VECTORS.read_text("utf-8"))["frames"]:
        yield bytes.fromhex(one["frame"])


def some_tensors() -> Iterator[Slice]:
    """Yield the slices of a small tensor of every type, scales, minima and indices included."""
    array = np.linspace(-2, 2, 2 * 33, dtype=np.float32).reshape(2, 33)
    array[:, ::3] = 0
    for dtype in DType:
        if dtype in TENSOR_DTYPES:
            yield from tensor_to_slices(array, dtype)
    known = measure_calibration(
        np.tile(array, (4, 1)) + np.eye(8, 33, dtype=np.float32), space_hash32=1, cut=1
    )
    yield from encode_states(array, Rung.Q4, known)


def _frames() -> Iterator[bytes]:
    """Yield frames without their CRC."""
    yield from (data[:-4] for data in _vectors())
    for kind in MessageType:
        yield encode_frame(Frame(kind, 7, 3, 1, slices=tuple(some_tensors())))[:-4]
    yield encode_frame(Frame(MessageType.THINK, 7, 3, 1))[:-4]
    big = Frame(MessageType.THINK, 7, 3, 1, slices=(byte_slice(bytes(900)),))
    yield encode_frame(big, compress=True)[:-4]
    yield encode_frame(big, sealer=FrameSealer(_KEY, _SALT))[:-4]
    yield from (whole[:-4] for whole in _stream_frames())


def _stream_frames() -> list[bytes]:
    batches = [(byte_slice(b"keys"), byte_slice(b"values")), (byte_slice(b""),)]
    frames = write_stream(batches, kind=MessageType.CACHE, stream_id=9, space_hash32=1)
    return [encode_frame(one) for one in frames]


def _wrapped_seeds() -> Iterator[bytes]:
    plain = encode_frame(Frame(MessageType.CACHE, 7, 3, 1, slices=tuple(some_tensors())))[:-4]
    yield from (bytes((flags,)) + plain for flags in range(4))


def _zstd_seeds() -> Iterator[bytes]:
    yield compress(bytes(1000))
    yield compress(bytes(range(256)) * 2)
    yield compress(b"")


def _entry_seeds() -> Iterator[bytes]:
    for one in json.loads(_VECTORS.read_text("utf-8"))["frames"][:6]:
        yield json.dumps({**one, "frame": ""}).encode()


class _Envelope(TypedDict):
    stream_id: int
    frame_seq: int
    space_hash32: int


def _message_seeds() -> Iterator[bytes]:
    divergence = byte_slice(b"abcd")
    envelope: _Envelope = {"stream_id": 1, "frame_seq": 2, "space_hash32": 3}
    for one in (
        Ask(**envelope, embedding=(byte_slice(b"12"),), context="why?"),
        Critique(**envelope, divergence=divergence, mask=byte_slice(bytes(4))),
        Critique(**envelope, divergence=divergence, explanation={"a": [1, "b"]}),
        Critique(**envelope, divergence=divergence, mask=byte_slice(b"\1" * 4), explanation={}),
        Sync(**envelope, body={"method": "ping", "ts": 5}),
    ):
        yield encode_frame(one.to_frame())[:-4]
    yield encode_frame(sync_frame({"x": 1.5}, stream_id=1, frame_seq=0, space_hash32=0))[:-4]
    yield from (data[:-4] for data in _vectors())


def _stream_seeds() -> Iterator[bytes]:
    pieces = [blob(whole[:-4]) for whole in _stream_frames()]
    yield b"".join(pieces)
    yield b"".join(reversed(pieces))
    yield b"".join(pieces[:2] * 2 + pieces[3:])


TARGETS = (
    Target("frame", frame, _frames, max_len=MAX_FRAME, memory=3 * MIB, words=_FRAME_WORDS),
    Target("wrapped", wrapped, _wrapped_seeds, memory=3 * MIB, words=_FRAME_WORDS),
    Target("zstd", zstd, _zstd_seeds, memory=3 * MIB, words=_FRAME_WORDS),
    Target("explained", explained, _frames, memory=3 * MIB, words=_FRAME_WORDS),
    Target("entry", entry, _entry_seeds, refusals=(UserError,)),
    Target("message", message, _message_seeds, words=(b'{"method":"ping"}', *_FRAME_WORDS)),
    Target(
        "tensors",
        tensors,
        lambda: (data for data in _frames() if not data[2] & _WRAPPED),
        memory=4 * MAX_DENSE * 2,  # as float32, and the test whether it is finite
        words=_FRAME_WORDS,
    ),
    Target("stream", stream, _stream_seeds, words=_FRAME_WORDS),
    Target("stream-order", stream_order, lambda: (bytes((4, 5, 4, 3, 2, 1, 0)),), max_len=64),
)
