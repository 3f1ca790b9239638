"""A frame taken apart for a person, field by field, however broken it is."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

from p2pnode.errors import RemoteProtocolError
from p2pnode.wire.compression import ZSTD_MAGIC, decompress_untrusted
from p2pnode.wire.dtypes import REGISTRY, DType, dtype_label, payload_problem
from p2pnode.wire.vframe import (
    MAX_FRAME,
    MAX_INFLATED,
    MIN_FRAME,
    VERSION,
    Flags,
    MessageType,
    Modality,
    decode_frame_untrusted,
)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a frame.

    Attributes:
        name: Its name, such as ``slice_len[0]``; inside a compressed body it begins with
            ``inflated``, and offsets then count in the inflated body.
        offset: Where it begins.
        size: The bytes it has; fewer than it should where the frame was cut.
        value: What it says, in words or as a number.
        problem: What is wrong with it; empty where nothing is.
    """

    name: str
    offset: int
    size: int
    value: object
    problem: str = ""


def explain_frame(data: bytes) -> list[Field]:
    """Return every field that can be made out, and what is wrong with each.

    The last entry, ``frame``, is the verdict: its problem is what a reader refuses the frame
    for, or empty. Of a sealed frame only the header and the CRC are judged.
    """
    fields = list(_header_fields(data))
    count = fields[5].value if len(fields) > 5 else None
    if isinstance(count, int) and 29 + 4 * count + 4 <= len(data):
        fields += _length_fields(data, count)
        fields += _body_fields(data, count)
        if data[2] & Flags.STRONG_TAIL and not _may_be_tail(data, count, fields):
            fields[2] = _with_problem(fields[2], "STRONG_TAIL, but not one I8 slice of 8 bytes")
        fields.append(_crc_field(data))
    elif isinstance(count, int):
        fields[5] = _with_problem(fields[5], f"{count} slices do not fit in {len(data)} bytes")
    return [*fields, _verdict(data)]


def _header_fields(data: bytes) -> Iterator[Field]:
    for name, layout, offset in _HEADER:
        size = struct.calcsize(layout)
        if offset + size > len(data):
            yield Field(name, offset, max(0, len(data) - offset), None, "the frame ends here")
            return
        value = struct.unpack_from(layout, data, offset)[0]
        yield _judged(name, offset, size, value)


def _length_fields(data: bytes, count: int) -> Iterator[Field]:
    for index in range(count):
        offset = 24 + 4 * index
        yield Field(f"slice_len[{index}]", offset, 4, _u32(data, offset))
    end = 24 + 4 * count
    yield Field("space_hash32", end, 4, f"0x{_u32(data, end):08x}")
    yield _judged("modality", end + 4, 1, data[end + 4])


def _judged(name: str, offset: int, size: int, value: int) -> Field:
    if name == "version":
        return Field(name, offset, size, value, "" if value == VERSION else "not 1")
    if name == "type":
        known = value in set(MessageType)
        word = MessageType(value).name if known else str(value)
        return Field(name, offset, size, word, "" if known else "unknown type")
    if name == "modality":
        known = value in set(Modality)
        word = Modality(value).name if known else str(value)
        return Field(name, offset, size, word, "" if known else "unknown modality")
    if name == "flags":
        known = value < 2 * Flags.STRONG_TAIL
        word = "|".join(flag.name or "" for flag in Flags if value & flag) or "none"
        return Field(name, offset, size, word, "" if known else f"unknown bits: 0x{value:04x}")
    return Field(name, offset, size, value)


def _body_fields(data: bytes, count: int) -> Iterator[Field]:
    start, end = 29 + 4 * count, len(data) - 4
    body = data[start:end]
    flags = data[2]
    lengths = [_u32(data, 24 + 4 * index) for index in range(count)]
    if flags & Flags.XCHACHA:
        short = "" if len(body) >= 16 else "shorter than its MAC"
        yield Field("body", start, len(body), "sealed, and a MAC of 16 bytes", short)
        return
    if not flags & Flags.ZSTD or body[:4] != ZSTD_MAGIC:
        yield from _slice_fields(body, lengths, "", start)
        return
    at_most = min(MAX_INFLATED, sum(lengths) + 1022 * count)
    try:
        inflated = decompress_untrusted(body, at_least=0, at_most=at_most)
    except RemoteProtocolError as error:
        yield Field("body", start, len(body), "zstd", str(error))
        return
    yield Field("body", start, len(body), f"zstd of {len(inflated)} bytes")
    yield from _slice_fields(inflated, lengths, "inflated ", 0)


def _slice_fields(body: bytes, lengths: list[int], prefix: str, base: int) -> Iterator[Field]:
    at = 0
    for index, length in enumerate(lengths):
        name = f"{prefix}slice[{index}]"
        if at + 2 > len(body) or at + 2 + 4 * body[at + 1] > len(body):
            yield Field(name, base + at, len(body) - at, None, "the body ends here")
            return
        dtype, ndim = body[at], body[at + 1]
        shape = struct.unpack_from(f"<{ndim}I", body, at + 2)
        payload_at = at + 2 + 4 * ndim
        there = min(length, len(body) - payload_at)
        unknown = "" if dtype in REGISTRY else "unknown dtype"
        yield Field(f"{name}.dtype", base + at, 1, dtype_label(dtype), unknown)
        yield Field(f"{name}.ndim", base + at + 1, 1, ndim)
        yield Field(f"{name}.shape", base + at + 2, 4 * ndim, shape)
        problem = payload_problem(dtype, shape, length) or ""
        if there < length:
            problem = f"{length} bytes wanted, the body ends after {there}"
        yield Field(f"{name}.payload", base + payload_at, there, f"{length} bytes", problem)
        at = payload_at + there
        if there < length:
            return
    if at < len(body):
        yield Field(f"{prefix}rest", base + at, len(body) - at, None, "bytes after the last slice")


def _may_be_tail(data: bytes, count: int, fields: list[Field]) -> bool:
    dtypes = [field.value for field in fields if field.name.endswith(".dtype")]
    # What a sealed or broken body hides is not held against the flag.
    return count == 1 and _u32(data, 24) == 8 and dtypes[:1] in ([], [DType.I8.name])


def _crc_field(data: bytes) -> Field:
    stated, actual = _u32(data, len(data) - 4), crc32(data[:-4])
    problem = "" if stated == actual else f"the bytes before it make 0x{actual:08x}"
    return Field("crc32", len(data) - 4, 4, f"0x{stated:08x}", problem)


def _verdict(data: bytes) -> Field:
    problem = ""
    sealed = len(data) > 2 and bool(data[2] & Flags.XCHACHA)
    if not MIN_FRAME <= len(data) <= MAX_FRAME:
        problem = f"{len(data)} bytes, where a frame has {MIN_FRAME} to {MAX_FRAME}"
    elif not sealed:
        try:
            decode_frame_untrusted(data)
        except RemoteProtocolError as error:
            problem = str(error)
    value = "sealed" if sealed else "refused" if problem else "well-formed"
    return Field("frame", 0, len(data), value, problem)


def _with_problem(field: Field, problem: str) -> Field:
    return Field(field.name, field.offset, field.size, field.value, problem)


def _u32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


_HEADER = (
    ("version", "<B", 0),
    ("type", "<B", 1),
    ("flags", "<H", 2),
    ("stream_id", "<I", 4),
    ("frame_seq", "<Q", 8),
    ("num_slices", "<Q", 16),
)
