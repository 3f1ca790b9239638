"""Frames that every reader refuses, one for each of the checks that the V-Frame page lists."""

import struct
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import zstandard

from p2pnode.wire.dtypes import DType
from p2pnode.wire.seal import KEY_SIZE, SALT_SIZE, FrameSealer
from p2pnode.wire.vframe import MAX_FRAME, Frame, MessageType, Slice, encode_frame

_KEY, _SALT = bytes([0x11]) * KEY_SIZE, bytes([0x22]) * SALT_SIZE
_BODY_AT = 33  # of a frame of one slice


def refused_entries() -> list[dict[str, Any]]:
    """Return name, frame in hex, why it is refused, and the reader's key and salt if it has one."""
    return [
        {"name": name, "frame": data.hex(), "why": why}
        for name, data, why in (*_broken_headers(), *_broken_bodies(), *_broken_zstd())
    ] + [
        {"name": name, "frame": data.hex(), "why": why, "key": _KEY.hex(), "salt": _SALT.hex()}
        for name, data, why in _broken_seals()
    ]


def _good() -> bytes:
    rows = Slice(DType.F16, (1, 4), bytes.fromhex("003c 0040 0042 0044"))
    return encode_frame(Frame(MessageType.THINK, 50, 1, 7, slices=(rows,)))


def _patched(data: bytes, offset: int, replacement: bytes) -> bytes:
    """Return the frame with other bytes at ``offset``, and the CRC put right."""
    return _with_crc(data[:offset] + replacement + data[offset + len(replacement) : -4])


def _with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", crc32(data))


def _broken_headers() -> Iterator[tuple[str, bytes, str]]:
    good = _good()
    yield "short", _with_crc(good[:28]), "32 bytes"
    yield "version", _patched(good, 0, b"\x02"), "version 2"
    yield "type", _patched(good, 1, b"\x05"), "type 5"
    yield "flag", _patched(good, 2, b"\x08"), "flag bit 3"
    yield "flag-high", _patched(good, 3, b"\x80"), "flag bit 15"
    yield "slices-too-many", _patched(good, 16, b"\xff" * 8), "2^64 - 1 slices"
    yield "crc", good[:-1] + bytes([good[-1] ^ 1]), "a wrong CRC"
    yield "modality", _patched(good, 32, b"\x05"), "modality 5"
    yield "tail-form", _patched(good, 2, b"\x04"), "STRONG_TAIL over an F16 slice"


def _broken_bodies() -> Iterator[tuple[str, bytes, str]]:
    good = _good()
    yield "dtype", _patched(good, _BODY_AT, b"\x7f"), "dtype 0x7f"
    yield "dims-past-body", _patched(good, _BODY_AT + 1, b"\xff"), "255 dims do not fit"
    yield "payload-short", _with_crc(good[:-5]), "the payload ends a byte early"
    yield "bytes-after", _with_crc(good[:-4] + b"\0"), "a byte after the last slice"
    yield "length-and-shape", _patched(good, _BODY_AT + 2, b"\x02"), "8 bytes, the shape says 4"
    heart = encode_frame(Frame(MessageType.THINK, 50, 2, 7))
    yield "heart-with-body", _with_crc(heart[:-4] + b"\x02\x00\x00"), "a HEART with a body"
    values = Slice(DType.COO, (3,), bytes(4))
    sparse = encode_frame(Frame(MessageType.THINK, 50, 3, 7, slices=(values,)))
    yield "sparse-too-many", _patched(sparse, _BODY_AT + 2, b"\x01"), "2 values in a shape of 1"


def _broken_zstd() -> Iterator[tuple[str, bytes, str]]:
    header, body = _good()[:_BODY_AT], _good()[_BODY_AT:-4]
    header = header[:2] + b"\x01" + header[3:]
    writer = zstandard.ZstdCompressor(level=1)
    packed = writer.compress(body)
    yield "zstd-cut", _with_crc(header + packed[:-1]), "the zstd frame is cut"
    yield "zstd-after", _with_crc(header + packed + b"\0"), "a byte after the zstd frame"
    bomb = writer.compress(bytes(MAX_FRAME))
    yield "zstd-bomb", _with_crc(header + bomb), "inflates to 65,536 bytes"
    yield "zstd-raw-long", _with_crc(header + body + b"\0"), "raw under ZSTD, a byte too long"


def _broken_seals() -> Iterator[tuple[str, bytes, str]]:
    rows = Slice(DType.F16, (1, 4), bytes(8))
    frame = Frame(MessageType.THINK, 51, 1, 7, slices=(rows,))
    sealed = encode_frame(frame, sealer=FrameSealer(_KEY, _SALT))
    yield "unsealed", encode_frame(frame), "unsealed, in a session that seals"
    yield "mac", _patched(sealed, len(sealed) - 5, bytes([sealed[-5] ^ 1])), "the MAC fails"
    yield "header-changed", _patched(sealed, 28, b"\x08"), "the space differs from the sealed one"
    yield "mac-missing", _with_crc(sealed[: _BODY_AT + 15]), "15 bytes, shorter than a MAC"
    header = sealed[:2] + b"\x03" + sealed[3:_BODY_AT]
    body = encode_frame(frame)[_BODY_AT:-4]
    raw = FrameSealer(_KEY, _SALT).seal(body, header, stream_id=51, frame_seq=1)
    yield "sealed-zstd-raw", _with_crc(header + raw), "ZSTD over a raw body, sealed"
