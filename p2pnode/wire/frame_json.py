"""Frames as JSON: the form of the published test vectors, for people and other programs.

An entry has ``name``, the header's fields, ``slices`` (each with ``dtype``, ``shape`` and its
``payload`` in hex), the whole ``frame`` in hex, and a ``note``.
"""

import struct
from collections.abc import Mapping
from typing import Any
from zlib import crc32

from p2pnode.errors import LocalProtocolError, UserError
from p2pnode.wire.explain import Field, explain_frame
from p2pnode.wire.seal import FrameOpener, FrameSealer
from p2pnode.wire.vframe import (
    Flags,
    Frame,
    MessageType,
    Modality,
    Slice,
    decode_frame_untrusted,
    encode_frame,
)

__all__ = ["Field", "explain_frame", "frame_to_json", "json_to_frame"]


def frame_to_json(
    data: bytes, *, name: str = "", note: str = "", opener: FrameOpener | None = None
) -> dict[str, Any]:
    """Return a frame as an entry.

    Raises:
        RemoteProtocolError: It is no frame; :func:`explain_frame` says where.
    """
    frame = decode_frame_untrusted(data, opener=opener)
    return {
        "name": name,
        "type": int(frame.type),
        "flags": int.from_bytes(data[2:4], "little"),
        "stream_id": frame.stream_id,
        "frame_seq": frame.frame_seq,
        "space_hash32": frame.space_hash32,
        "modality": int(frame.modality),
        "slices": [
            {
                "dtype": int(piece.dtype),
                "shape": list(piece.shape),
                "payload": piece.payload.hex(),
            }
            for piece in frame.slices
        ],
        "frame": data.hex(),
        "note": note,
    }


def json_to_frame(entry: Mapping[str, Any], *, sealer: FrameSealer | None = None) -> bytes:
    """Return the bytes an entry stands for, from its fields alone (``frame`` is not looked at).

    An entry that asks for ZSTD gets it where that makes the body smaller. Where it does not,
    the flag is set over the raw body, as the senders that the vectors come from do.

    Raises:
        UserError: A field is missing, of the wrong type or out of range, or the entry asks for
            a seal and no ``sealer`` is given.
    """
    try:
        flags = _flags(entry.get("flags", 0))
        frame = _frame_of(entry, flags)
        if flags & Flags.XCHACHA and sealer is None:
            raise UserError("this frame is sealed", hint="give the session's key and salt")
        data = encode_frame(
            frame,
            compress=bool(flags & Flags.ZSTD),
            sealer=sealer if flags & Flags.XCHACHA else None,
        )
    except KeyError as error:
        raise UserError(f"this entry is no frame: it lacks {error.args[0]}") from error
    except (TypeError, ValueError, LocalProtocolError) as error:
        raise UserError(f"this entry is no frame: {error}") from error
    if int.from_bytes(data[2:4], "little") == flags:
        return data
    if flags & Flags.XCHACHA:
        raise UserError("zstd does not make this body smaller", hint="leave the ZSTD flag out")
    raw = data[:2] + struct.pack("<H", flags) + data[4:-4]
    return raw + struct.pack("<I", crc32(raw))


def _frame_of(entry: Mapping[str, Any], flags: Flags) -> Frame:
    return Frame(
        MessageType(_whole(entry["type"])),
        _whole(entry["stream_id"]),
        _whole(entry["frame_seq"]),
        _whole(entry["space_hash32"]),
        Modality(_whole(entry.get("modality", 0))),
        tuple(_slice_of(piece) for piece in _list(entry["slices"])),
        strong_tail=bool(flags & Flags.STRONG_TAIL),
    )


def _slice_of(piece: object) -> Slice:
    if not isinstance(piece, Mapping):
        raise TypeError("a slice is an object")
    payload = piece["payload"]
    if not isinstance(payload, str):
        raise TypeError("a payload is a string of hex digits")
    shape = tuple(_whole(dim) for dim in _list(piece["shape"]))
    if any(dim < 0 for dim in shape):
        raise ValueError("a dim is negative")
    return Slice(_whole(piece["dtype"]), shape, bytes.fromhex(payload))


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__}, where a list belongs")
    return value


def _flags(value: object) -> Flags:
    bits = _whole(value)
    if not 0 <= bits < 2 * Flags.STRONG_TAIL:
        raise ValueError(f"unknown flags {bits}")
    return Flags(bits)


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no integer")
    return value
