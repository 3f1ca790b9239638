"""V-Frame: one message, or one step of a stream, as at most 65,536 bytes.

Everything is little-endian:

| offset | size | field                                              |
|--------|------|----------------------------------------------------|
| 0      | 1    | version, 1                                         |
| 1      | 1    | type                                               |
| 2      | 2    | flags; an unknown bit is refused                   |
| 4      | 4    | stream_id                                          |
| 8      | 8    | frame_seq                                          |
| 16     | 8    | num_slices, n; 0 is a HEART                        |
| 24     | 4n   | the payload bytes of each slice, before compression|
| 24+4n  | 4    | space_hash32                                       |
| 28+4n  | 1    | modality                                           |
| 29+4n  |      | body: the slices, then zstd, then the seal         |
| end-4  | 4    | CRC32 over everything before it                    |

A slice is dtype (1), ndim (1), ndim dims of 4 bytes, and its payload.
"""

import struct
from enum import IntEnum, IntFlag
from typing import NoReturn
from zlib import crc32

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.values import value
from p2pnode.wire.compression import ZSTD_MAGIC, compress as zstd_compress, decompress_untrusted
from p2pnode.wire.dtypes import DType, payload_problem
from p2pnode.wire.seal import FrameOpener, FrameSealer

# Specification

VERSION = 1
MAX_FRAME = 65536
"""The most bytes a frame may have, CRC included."""
MIN_FRAME = 33
"""The bytes of a HEART: a header of no slices, and the CRC."""

# Ours

MAX_INFLATED = 16 * MAX_FRAME
"""The most bytes a body may inflate to: a guess. What compresses better is not hidden states,
and whoever sends 64 KiB must not make us hold more than a megabyte."""


class MessageType(IntEnum):
    """What a frame says."""

    THINK = 0
    CACHE = 1
    ASK = 2
    SYNC = 3
    CRITIQUE = 4


TYPE_NAMES = tuple(kind.name.lower() for kind in MessageType)
"""What the types are called, by code: a member's own name costs four calls."""


class Flags(IntFlag):
    """How a frame's body is wrapped, and whether it ends a stream."""

    ZSTD = 1
    XCHACHA = 2
    STRONG_TAIL = 4


class Modality(IntEnum):
    """What kind of thing the embedded states stand for."""

    TEXT = 0
    IMAGE = 1
    AUDIO = 2
    GRAPH = 3
    MIXED = 4


@value
class Slice:
    """One tensor, or one run of bytes (an I8 slice).

    Attributes:
        dtype: A code of :class:`~p2pnode.wire.dtypes.DType`.
        shape: The dims, each below 2**32; for COO those of the dense tensor.
        payload: The elements, row-major. A decoded slice's payload is a view into the datagram.

    Raises:
        LocalProtocolError: The type is unknown, or the payload is not what type and shape say.
    """

    dtype: DType | int
    shape: tuple[int, ...]
    payload: bytes | memoryview

    def __post_init__(self) -> None:
        problem = payload_problem(self.dtype, self.shape, len(self.payload))
        if problem is not None:
            raise LocalProtocolError(problem)


@value
class Frame:
    """One V-Frame, whatever its body was wrapped in.

    Attributes:
        type: What it says.
        stream_id: The stream it belongs to, below 2**32.
        frame_seq: Its number in the stream, below 2**64; with ``stream_id`` it makes the nonce.
        space_hash32: Hash of the embedding space, or 0 for none.
        modality: What the states stand for.
        slices: The content; none at all is a HEART.
        strong_tail: This is a TAIL: one I8 slice of 8 bytes, the stream's xxh3_64.

    Raises:
        LocalProtocolError: A number is too wide, or a TAIL has not a TAIL's form.
    """

    type: MessageType
    stream_id: int
    frame_seq: int
    space_hash32: int
    modality: Modality = Modality.TEXT
    slices: tuple[Slice, ...] = ()
    strong_tail: bool = False

    def __post_init__(self) -> None:
        # A number that is negative or too wide leaves bits behind; the cheapest test of both.
        if self.stream_id >> 32 or self.frame_seq >> 64 or self.space_hash32 >> 32:
            raise LocalProtocolError("a stream_id, frame_seq or space_hash32 is too wide")
        if self.strong_tail and not _is_tail(self.slices):
            raise LocalProtocolError("a TAIL is one I8 slice of 8 bytes")


def encode_frame(
    frame: Frame, *, compress: bool = False, sealer: FrameSealer | None = None
) -> bytes:
    """Return the frame's bytes.

    Args:
        frame: What to write.
        compress: Wrap the body in zstd, where that makes it smaller.
        sealer: Seal the body for a session; its nonce is spent, whatever becomes of the bytes.

    Raises:
        LocalProtocolError: It does not fit in :data:`MAX_FRAME`, or a dim is too wide.
        NonceReuseError: The sealer has sealed this (stream_id, frame_seq) before.
    """
    try:
        if not compress and sealer is None:
            return _join([_header(frame, 0), *_body_parts(frame)])
        body = b"".join(_body_parts(frame))
        flags = 0
        if compress and 0 < len(body) <= MAX_INFLATED:
            smaller = zstd_compress(body)
            if len(smaller) < len(body):
                flags, body = _ZSTD, smaller
        if sealer is None:
            return _join([_header(frame, flags), body])
        header = _header(frame, flags | _XCHACHA)
        size = len(header) + len(body) + 20
        if size > MAX_FRAME:
            _refuse_too_long(size)  # before the nonce is spent
        sealed = sealer.seal(body, header, stream_id=frame.stream_id, frame_seq=frame.frame_seq)
        return _join([header, sealed])
    except struct.error as error:
        raise LocalProtocolError(f"a field is too wide for the wire: {error}") from error


def decode_frame_untrusted(data: bytes | memoryview, *, opener: FrameOpener | None = None) -> Frame:
    """Parse one frame.

    Args:
        data: The whole frame. The slices are views into it, unless the body was wrapped.
        opener: The session's key. Where it is given an unsealed frame is refused, or anyone on
            the path could speak for the peer.

    Raises:
        RemoteProtocolError: For anything that is not exactly one well-formed frame, and nothing
            else ever.
    """
    size = len(data)
    if not MIN_FRAME <= size <= MAX_FRAME:
        raise RemoteProtocolError(f"a frame of {size} bytes")
    version, kind, flags, stream_id, frame_seq, count = _FIXED.unpack_from(data)
    if version != VERSION or kind >= len(_TYPES) or flags > _ALL_FLAGS:
        _refuse_fixed(version, kind, flags)
    body_at = 29 + 4 * count
    if body_at + 4 > size:
        raise RemoteProtocolError(f"{count} slices do not fit in {size} bytes")
    view = memoryview(data)
    if crc32(view[:-4]) != _U32.unpack_from(data, size - 4)[0]:
        raise RemoteProtocolError("the CRC does not match")
    lengths = _lengths(count).unpack_from(data, 24)
    space_hash32, mode = _END.unpack_from(data, body_at - 5)
    if mode >= len(_MODALITIES):
        raise RemoteProtocolError(f"unknown modality {mode}")
    body = view[body_at:-4]
    if flags & _XCHACHA:
        body = _open(body, view[:body_at], stream_id, frame_seq, opener)
    elif opener is not None:
        raise RemoteProtocolError("a frame of a sealed session came unsealed")
    if flags & _ZSTD:
        body = _inflate(body, lengths, sealed=bool(flags & _XCHACHA))
    try:
        return Frame(
            _TYPES[kind],
            stream_id,
            frame_seq,
            space_hash32,
            _MODALITIES[mode],
            _parse_slices(body, lengths),
            flags & _STRONG_TAIL != 0,
        )
    except LocalProtocolError as error:
        raise RemoteProtocolError(str(error)) from error


# Writing


def _header(frame: Frame, flags: int) -> bytes:
    slices = frame.slices
    if frame.strong_tail:
        flags |= _STRONG_TAIL
    count = len(slices)
    return (_HEADERS[count] if count < len(_HEADERS) else _header_of(count)).pack(
        VERSION,
        frame.type,
        flags,
        frame.stream_id,
        frame.frame_seq,
        count,
        *[len(piece.payload) for piece in slices],
        frame.space_hash32,
        frame.modality,
    )


def _body_parts(frame: Frame) -> list[bytes | memoryview]:
    parts: list[bytes | memoryview] = []
    for piece in frame.slices:
        shape = piece.shape
        ndim = len(shape)
        if ndim > 255:
            raise LocalProtocolError(f"a slice of {ndim} dims")
        parts += (_SLICE_HEADS[ndim].pack(piece.dtype, ndim, *shape), piece.payload)
    return parts


def _join(parts: list[bytes | memoryview]) -> bytes:
    whole = b"".join(parts)  # copied twice, which costs less than a CRC and a length a part
    if len(whole) + 4 > MAX_FRAME:
        _refuse_too_long(len(whole) + 4)
    return whole + _U32.pack(crc32(whole))


def _refuse_too_long(size: int) -> NoReturn:
    raise LocalProtocolError(f"a frame of {size} bytes; the most is {MAX_FRAME}")


# Reading


def _parse_slices(body: memoryview, lengths: tuple[int, ...]) -> tuple[Slice, ...]:
    slices = []
    at, end = 0, len(body)
    for length in lengths:
        if at + 2 > end:
            raise RemoteProtocolError("the body ends before its last slice")
        ndim = body[at + 1]
        payload_at = at + 2 + 4 * ndim
        stop = payload_at + length
        if stop > end:
            raise RemoteProtocolError("a slice runs past the body")
        shape = _DIMS[ndim].unpack_from(body, at + 2)
        slices.append(Slice(body[at], shape, body[payload_at:stop]))
        at = stop
    if at != end:
        raise RemoteProtocolError(f"{end - at} bytes after the last slice")
    return tuple(slices)


def _open(
    body: memoryview, header: memoryview, stream_id: int, frame_seq: int, opener: FrameOpener | None
) -> memoryview:
    if opener is None:
        raise RemoteProtocolError("a sealed frame, and no key to open it")
    plain = opener.open_untrusted(
        bytes(body), bytes(header), stream_id=stream_id, frame_seq=frame_seq
    )
    return memoryview(plain)


def _inflate(body: memoryview, lengths: tuple[int, ...], *, sealed: bool) -> memoryview:
    if body[:4] != ZSTD_MAGIC:
        # Some senders set the flag and send the body raw. It begins with a dtype, never with
        # zstd's magic, and the slices then have to fill it exactly. No such sender seals.
        if sealed:
            raise RemoteProtocolError("a sealed ZSTD body is not zstd")
        return body
    at_least = sum(lengths) + 2 * len(lengths)
    if at_least > MAX_INFLATED:
        raise RemoteProtocolError(f"a ZSTD body would inflate to {at_least} bytes or more")
    # Each slice head adds 2 bytes and 4 a dim, and how many dims there are is inside.
    at_most = min(MAX_INFLATED, at_least + 4 * 255 * len(lengths))
    return memoryview(decompress_untrusted(bytes(body), at_least=at_least, at_most=at_most))


def _refuse_fixed(version: int, kind: int, flags: int) -> NoReturn:
    if version != VERSION:
        raise RemoteProtocolError(f"unknown version {version}")
    if kind >= len(_TYPES):
        raise RemoteProtocolError(f"unknown message type {kind}")
    raise RemoteProtocolError(f"unknown flags 0x{flags:04x}")


def _is_tail(slices: tuple[Slice, ...]) -> bool:
    return len(slices) == 1 and slices[0].dtype == DType.I8 and len(slices[0].payload) == 8


def _lengths(count: int) -> struct.Struct:
    return _DIMS[count] if count < 256 else struct.Struct(f"<{count}I")


_FIXED = struct.Struct("<BBHIQQ")  # version, type, flags, stream_id, frame_seq, num_slices
_END = struct.Struct("<IB")  # space_hash32, modality
_U32 = struct.Struct("<I")


def _header_of(slices: int) -> struct.Struct:
    return struct.Struct(f"<BBHIQQ{slices}IIB")


_HEADERS = tuple(map(_header_of, range(9)))
_DIMS = tuple(struct.Struct(f"<{ndim}I") for ndim in range(256))
_SLICE_HEADS = tuple(struct.Struct(f"<BB{ndim}I") for ndim in range(256))
_TYPES = tuple(MessageType)  # indexed by code: six times faster than calling the enum
_MODALITIES = tuple(Modality)
# Plain ints, since IntFlag arithmetic costs a microsecond.
_ZSTD, _XCHACHA, _STRONG_TAIL = int(Flags.ZSTD), int(Flags.XCHACHA), int(Flags.STRONG_TAIL)
_ALL_FLAGS = _ZSTD | _XCHACHA | _STRONG_TAIL
