"""A frame taken apart for a person, field by field, however broken it is."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from zlib import crc32

from p2pnode.errors import RemoteProtocolError
from p2pnode.wire.compression import ZSTD_MAGIC, decompress_untrusted
from p2pnode.wire.dtypes import REGISTRY, DType, dtype_label, payload_problem
from p2pnode.wire.layout import HEADER, fixed_offsets
from p2pnode.wire.meaning import slice_roles
from p2pnode.wire.seal import MAC_SIZE, FrameOpener
from p2pnode.wire.vframe import (
    MAX_FRAME,
    MAX_INFLATED,
    MIN_FRAME,
    VERSION,
    Flags,
    Frame,
    MessageType,
    Modality,
    decode_frame_untrusted,
)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a frame.

    Attributes:
        name: Its name, such as ``slice_len[0]``. Inside a sealed body that was opened it begins
            with ``opened``, inside a compressed one with ``inflated``, and offsets then count in
            what came out.
        offset: Where it begins.
        size: The bytes it has; fewer than it should where the frame was cut.
        value: What it says, in words or as a number.
        problem: What is wrong with it; empty where nothing is.
        meaning: What it is for, where its name does not say it: which slice holds scales.
    """

    name: str
    offset: int
    size: int
    value: object
    problem: str = ""
    meaning: str = ""


def explain_frame(data: bytes, *, opener: FrameOpener | None = None) -> list[Field]:
    """Return every field that can be made out, and what is wrong with each.

    The last entry, ``frame``, is the verdict: its problem is what a reader refuses the frame
    for, or empty. Without an ``opener`` only the header and the CRC of a sealed frame are judged.
    """
    fields = list(_header_fields(data))
    count = fields[5].value if len(fields) > 5 else None
    if isinstance(count, int) and 29 + 4 * count + 4 <= len(data):
        fields += _length_fields(data, count)
        fields += _body_fields(data, count, opener)
        fields[2] = _with_flags_checked(fields, data, count, opener)
        fields.append(_crc_field(data))
    elif isinstance(count, int):
        fields[5] = replace(fields[5], problem=f"{count} slices do not fit in {len(data)} bytes")
    frame, verdict = _verdict(data, opener)
    if frame is not None:
        fields = list(_with_meanings(fields, frame))
    return [*fields, verdict]


def _header_fields(data: bytes) -> Iterator[Field]:
    for part, offset in fixed_offsets(HEADER):
        raw = data[offset : offset + part.unit]
        if len(raw) < part.unit:
            yield Field(part.name, offset, len(raw), None, "the frame ends here")
            return
        yield _checked(part.name, offset, part.unit, int.from_bytes(raw, "little"))


def _length_fields(data: bytes, count: int) -> Iterator[Field]:
    for index in range(count):
        offset = 24 + 4 * index
        yield Field(f"slice_len[{index}]", offset, 4, _u32(data, offset))
    end = 24 + 4 * count
    yield Field("space_hash32", end, 4, f"0x{_u32(data, end):08x}")
    yield _checked("modality", end + 4, 1, data[end + 4])


def _checked(name: str, offset: int, size: int, value: int) -> Field:
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


def _body_fields(data: bytes, count: int, opener: FrameOpener | None) -> Iterator[Field]:
    start, flags = 29 + 4 * count, data[2]
    body, prefix, base = data[start:-4], "", start
    lengths = [_u32(data, 24 + 4 * index) for index in range(count)]
    if flags & Flags.XCHACHA:
        plain, field = _opened(data, start, opener)
        yield field
        if plain is None:
            return
        body, prefix, base = plain, "opened ", 0
    if flags & Flags.ZSTD:
        if body[:4] == ZSTD_MAGIC:
            inflated, field = _inflated(body, lengths, f"{prefix}body", base)
            yield field
            if inflated is None:
                return
            body, prefix, base = inflated, "inflated ", 0
        elif flags & Flags.XCHACHA:
            yield Field(f"{prefix}body", base, len(body), None, "sealed under ZSTD, and no zstd")
            return
    yield from _slice_fields(body, lengths, prefix, base)


def _opened(data: bytes, start: int, opener: FrameOpener | None) -> tuple[bytes | None, Field]:
    """Return the plain body, where the key opens it, and the field of the sealed one."""
    body = data[start:-4]
    field = Field("body", start, len(body), f"sealed, and a MAC of {MAC_SIZE} bytes")
    if len(body) < MAC_SIZE:
        return None, replace(field, problem="shorter than its MAC")
    if opener is None:
        return None, field
    try:
        plain = opener.open_untrusted(
            body,
            data[:start],
            stream_id=_u32(data, 4),
            frame_seq=int.from_bytes(data[8:16], "little"),
        )
    except RemoteProtocolError as error:
        return None, replace(field, problem=str(error))
    return plain, replace(field, value=f"sealed: {len(plain)} bytes and a MAC of {MAC_SIZE}")


def _inflated(body: bytes, lengths: list[int], name: str, base: int) -> tuple[bytes | None, Field]:
    """Return what a zstd body inflates to, and the field of the body itself."""
    field = Field(name, base, len(body), "zstd")
    at_most = min(MAX_INFLATED, sum(lengths) + 1022 * len(lengths))
    try:
        inflated = decompress_untrusted(body, at_least=0, at_most=at_most)
    except RemoteProtocolError as error:
        return None, replace(field, problem=str(error))
    return inflated, replace(field, value=f"zstd of {len(inflated)} bytes")


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


def _with_flags_checked(
    fields: list[Field], data: bytes, count: int, opener: FrameOpener | None
) -> Field:
    """Return the flags' field, with what only the rest of the frame shows to be wrong."""
    flags = fields[2]
    if data[2] & Flags.STRONG_TAIL and not _may_be_tail(data, count, fields):
        return replace(flags, problem="STRONG_TAIL, but not one I8 slice of 8 bytes")
    if opener is not None and not data[2] & Flags.XCHACHA:
        return replace(flags, problem=flags.problem or "not sealed, in a session that seals")
    return flags


def _may_be_tail(data: bytes, count: int, fields: list[Field]) -> bool:
    dtypes = [field.value for field in fields if field.name.endswith(".dtype")]
    # What a sealed or broken body hides is not held against the flag.
    return count == 1 and _u32(data, 24) == 8 and dtypes[:1] in ([], [DType.I8.name])


def _crc_field(data: bytes) -> Field:
    stated, actual = _u32(data, len(data) - 4), crc32(data[:-4])
    problem = "" if stated == actual else f"the bytes before it make 0x{actual:08x}"
    return Field("crc32", len(data) - 4, 4, f"0x{stated:08x}", problem)


def _with_meanings(fields: list[Field], frame: Frame) -> Iterator[Field]:
    """Say of each payload what it is, and list the fields inside it behind it."""
    roles = iter(slice_roles(frame))
    for field in fields:
        if not field.name.endswith(".payload"):
            yield field
            continue
        role = next(roles)
        yield replace(field, meaning=role.words)
        slice_name = field.name.removesuffix(".payload")
        for detail in role.details:
            at = field.offset + detail.offset
            yield Field(f"{slice_name}.{detail.name}", at, detail.size, detail.value)


def _verdict(data: bytes, opener: FrameOpener | None) -> tuple[Frame | None, Field]:
    """Return the frame, where a reader takes it, and what the reader says."""
    size = len(data)
    if not MIN_FRAME <= size <= MAX_FRAME:
        problem = f"{size} bytes, where a frame has {MIN_FRAME} to {MAX_FRAME}"
        return None, Field("frame", 0, size, "refused", problem)
    if data[2] & Flags.XCHACHA and opener is None:
        return None, Field("frame", 0, size, "sealed")
    try:
        frame = decode_frame_untrusted(data, opener=opener)
    except RemoteProtocolError as error:
        return None, Field("frame", 0, size, "refused", str(error))
    return frame, Field("frame", 0, size, "well-formed")


def _u32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")
