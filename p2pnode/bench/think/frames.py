"""A hidden state as a V-Frame, and back."""

from __future__ import annotations

import secrets
from itertools import count

from p2pnode.bench.think.contestant import Codec, Contestant, F16Array, as_hidden
from p2pnode.wire.dtypes import DType
from p2pnode.wire.seal import KEY_SIZE, SALT_SIZE, FrameOpener, FrameSealer
from p2pnode.wire.vframe import (
    Frame,
    MessageType,
    Modality,
    Slice,
    decode_frame_untrusted,
    encode_frame,
)

_SPACE = 0x5EED
"""Any space will do: nobody computes with what is sent here."""


def sealed_frame() -> Contestant:
    """The frame sealed by itself, as for a relay that must not read it; no transport takes part.

    What p2pnode sends between peers is sealed by the transport instead, packet by packet.
    """
    return Contestant("p2pnode sealed frame", _sealed_codec, None, short="sealed-frame")


def frame_codec() -> Codec:
    numbers = count()
    return Codec(lambda hidden: encode_think(hidden, next(numbers)), decode_think)


def encode_think(hidden: F16Array, frame_seq: int, sealer: FrameSealer | None = None) -> bytes:
    """Return the V-Frame of one hidden state, [1, d_model]."""
    piece = Slice(DType.F16, hidden.shape, hidden.tobytes())
    frame = Frame(MessageType.THINK, 1, frame_seq, _SPACE, Modality.TEXT, (piece,))
    return encode_frame(frame, sealer=sealer)


def decode_think(data: bytes, opener: FrameOpener | None = None) -> F16Array:
    """Return the hidden state of a frame, [1, d_model], as a view into it."""
    return as_hidden(decode_frame_untrusted(data, opener=opener).slices[0].payload)


def _sealed_codec() -> Codec:
    key, salt = secrets.token_bytes(KEY_SIZE), secrets.token_bytes(SALT_SIZE)
    sealer, opener = FrameSealer(key, salt), FrameOpener(key, salt)
    numbers = count()
    return Codec(
        lambda hidden: encode_think(hidden, next(numbers), sealer),
        lambda data: decode_think(data, opener),
    )
