"""What is known beforehand of the hidden states at a cut, and the bytes that keep it.

Half the energy of a hidden state is a constant mean a channel, and channels differ a hundredfold
in how much they move. Both ends know this once it was measured on one short text, so it is
never sent again. A calibration belongs to one space and one cut: states of another are refused.

File: ``PCAL``, version u8, space_hash32 u32, d u32, count of cuts u16; then for each cut its
layer u16, and mean and deviation as f16 [d]; then the CRC32 of all before it. Little-endian.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self
from zlib import crc32

import numpy as np

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.tensor import F32Array

MAX_WIDTH: Final = 1 << 16
"""The widest hidden state a file may speak of; today's widest models have 16,384."""

MAX_CUTS: Final = 1 << 10
"""The most cuts of a file; today's deepest models have 126 layers."""

_MAGIC: Final = b"PCAL"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<4sBIIH")
_CUT: Final = struct.Struct("<H")
_CRC: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What both ends know of the states that enter layer ``cut``.

    Attributes:
        space_hash32: The model it was measured on.
        cut: The layer that the states enter.
        mean: [d], float32, of each channel.
        deviation: [d], float32, above 0: how far each channel strays from its mean.

    Raises:
        LocalProtocolError: The vectors have other shapes or impossible values.
    """

    space_hash32: int
    cut: int
    mean: F32Array
    deviation: F32Array

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.mean.shape != self.deviation.shape or not self.mean.size:
            raise LocalProtocolError("a calibration has one mean and one deviation a channel")
        if not np.isfinite(self.mean).all() or not np.isfinite(self.deviation).all():
            raise LocalProtocolError("a calibration holds numbers alone")
        if not (self.deviation > 0).all():
            raise LocalProtocolError("a channel that never moves has no deviation to divide by")

    @property
    def width(self) -> int:
        return len(self.mean)


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSet:
    """The calibrations of one model, by the layer that the states enter.

    Raises:
        LocalProtocolError: One of them is of another space, cut or width.
    """

    space_hash32: int
    width: int
    cuts: Mapping[int, Calibration]

    def __post_init__(self) -> None:
        for cut, one in self.cuts.items():
            if (one.space_hash32, one.cut, one.width) != (self.space_hash32, cut, self.width):
                raise LocalProtocolError(f"the calibration of cut {cut} belongs elsewhere")

    def at(self, cut: int) -> Calibration | None:
        """Return the calibration of the states that enter layer ``cut``, if there is one."""
        return self.cuts.get(cut)

    def to_bytes(self) -> bytes:
        parts = [_HEADER.pack(_MAGIC, _VERSION, self.space_hash32, self.width, len(self.cuts))]
        for cut, one in sorted(self.cuts.items()):
            parts += [_CUT.pack(cut), _f16_bytes(one.mean), _f16_bytes(one.deviation)]
        body = b"".join(parts)
        return body + _CRC.pack(crc32(body))

    @classmethod
    def from_bytes_untrusted(cls, data: bytes, *, space_hash32: int) -> Self:
        """Read a file of :meth:`to_bytes`.

        Raises:
            RemoteProtocolError: It is not one, or is of another space.
        """
        width, count = _header_untrusted(data, space_hash32)
        cuts = {}
        at = _HEADER.size
        for _ in range(count):
            (cut,) = _CUT.unpack_from(data, at)
            vectors = np.frombuffer(data, "<f2", 2 * width, at + _CUT.size)
            mean, deviation = vectors.astype(np.float32).reshape(2, width)
            try:
                cuts[cut] = Calibration(space_hash32, cut, mean, deviation)
            except LocalProtocolError as error:
                raise RemoteProtocolError(str(error)) from error
            at += _CUT.size + 4 * width
        if len(cuts) != count:
            raise RemoteProtocolError("a cut is calibrated twice")
        return cls(space_hash32, width, cuts)


def _header_untrusted(data: bytes, space_hash32: int) -> tuple[int, int]:
    if len(data) < _HEADER.size + _CRC.size:
        raise RemoteProtocolError("a calibration is cut short")
    magic, version, space, width, count = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != _VERSION:
        raise RemoteProtocolError("not a calibration of this version")
    if not (1 <= width <= MAX_WIDTH and count <= MAX_CUTS):
        raise RemoteProtocolError(f"a calibration of {count} cuts of width {width}")
    if len(data) != _HEADER.size + count * (_CUT.size + 4 * width) + _CRC.size:
        raise RemoteProtocolError("a calibration of a wrong length")
    if crc32(data[: -_CRC.size]) != _CRC.unpack_from(data, len(data) - _CRC.size)[0]:
        raise RemoteProtocolError("the CRC of a calibration does not match")
    if space != space_hash32:
        raise RemoteProtocolError(
            f"a calibration of space {space:08x}, where the model is {space_hash32:08x}"
        )
    return width, count


def _f16_bytes(vector: F32Array) -> bytes:
    return vector.astype("<f2").tobytes()
