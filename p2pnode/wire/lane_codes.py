"""Codes of blocks, each with the spread that its channel and its row let expect.

Body: a byte a row, sixteenths of an octave by which its codes spread wider than their channels'
calibration says; then the entropy coder's block of the codes, row after row.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from p2pnode.errors import RemoteProtocolError
from p2pnode.wire.calibration import OCTAVE
from p2pnode.wire.entropy import CLASSES, UNIT_CLASS, decode_untrusted, encode
from p2pnode.wire.rice import Codes

Octaves: TypeAlias = npt.NDArray[np.int16]

_CLASS_OCTAVE = 4
"""Classes of the entropy coder a doubling of the spread."""


def encode_lanes(codes: Codes, octaves: Octaves) -> bytes:
    """Return the body of ``codes`` [tokens, d].

    Args:
        codes: From -127 to 127.
        octaves: [d], sixteenths of an octave by which each channel's codes spread beyond one.
    """
    expected = np.exp2(octaves.astype(np.float32) / OCTAVE)  # [d]
    relative = codes / np.maximum(expected, np.float32(0.3))  # [tokens, d]
    power = np.maximum((relative * relative).mean(axis=1), 2.0**-12)  # [tokens]
    beyond = np.rint(OCTAVE / 2 * np.log2(power))  # [tokens]
    wider: npt.NDArray[np.int8] = np.clip(beyond, -128, 127).astype(np.int8)  # [tokens]
    block = encode(codes.reshape(-1).astype(np.int32), _classes(wider, octaves))
    return wider.tobytes() + block


def decode_lanes_untrusted(body: bytes | memoryview, tokens: int, octaves: Octaves) -> Codes:
    """Return the codes [tokens, d].

    Raises:
        RemoteProtocolError: It is no body of exactly so many codes.
    """
    if len(body) < tokens:
        raise RemoteProtocolError("a body of coded states is cut short")
    wider = np.frombuffer(body, np.int8, tokens)  # [tokens]
    numbers = decode_untrusted(body[tokens:], _classes(wider, octaves))  # [tokens * d]
    if numbers.min() < -127 or numbers.max() > 127:
        raise RemoteProtocolError("a code beyond its range")
    return numbers.astype(np.int8).reshape(tokens, -1)


def _classes(wider: npt.NDArray[np.int8], octaves: Octaves) -> npt.NDArray[np.uint8]:
    """Return the class of each code [tokens * d]. Whole numbers alone: both ends must agree."""
    step = OCTAVE // _CLASS_OCTAVE
    spread = wider.astype(np.int16)[:, None] + octaves  # [tokens, d]
    classes = np.clip(UNIT_CLASS + (spread + step // 2) // step, 0, CLASSES - 1)  # [tokens, d]
    flat: npt.NDArray[np.uint8] = classes.astype(np.uint8).reshape(-1)  # [tokens * d]
    return flat
