"""What is known beforehand of the hidden states at a cut, and the bytes that keep it.

Half the energy of a hidden state is a constant mean a channel, and channels differ tenfold in how
far they stray from it. Both ends know this once it was measured on one short text, so it is never
sent again. A calibration belongs to one space and one cut: states of another are refused.

Whatever both ends must decide alike is a whole number here, since another machine may round a
float's logarithm otherwise.

File: ``PCAL``, version u8, space_hash32 u32, d u32, count of cuts u16; then for each cut its
layer u16, unit f32, pull f32, memory f32, means f16 [d], spreads i8 [d]; then the CRC32 of all
before it. Little-endian.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self
from zlib import crc32

import numpy as np
import numpy.typing as npt

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.tensor import F16_MAX, F32Array

Spreads = npt.NDArray[np.int8]

OCTAVE: Final = 16
"""Steps of spread and fineness a doubling."""

MAX_WIDTH: Final = 1 << 16
"""The widest hidden state a file may speak of; today's widest models have 16,384."""

MAX_CUTS: Final = 1 << 10
"""The most cuts of a file; today's deepest models have 126 layers."""

_MAX_UNIT: Final = 1e6  # so that no code times its step overflows a float
_MIN_UNIT: Final = 1e-6
_MAGIC: Final = b"PCAL"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<4sBIIH")
_CUT: Final = struct.Struct("<Hfff")
_CRC: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What both ends know of the states that enter layer ``cut``.

    Attributes:
        space_hash32: The model it was measured on.
        cut: The layer that the states enter.
        unit: How far a channel strays from its mean, the root mean square over channels.
        mean: [d], float32 that F16 holds, of each channel.
        spread: [d], sixteenths of an octave by which a channel's deviation differs from ``unit``.
        pull: How much of its average so far a text's next row repeats; 0 repeats nothing.
        memory: How fast that average forgets; 1 remembers the row before alone.
        fingerprint: CRC32 of all this: both ends must hold the same.

    Raises:
        LocalProtocolError: The vectors have other shapes, or a value is impossible.
    """

    space_hash32: int
    cut: int
    unit: float
    mean: F32Array
    spread: Spreads
    pull: float = 0.0
    memory: float = 1.0
    fingerprint: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.mean.shape != self.spread.shape or not self.mean.size:
            raise LocalProtocolError("a calibration has one mean and one spread a channel")
        if self.spread.dtype != np.int8 or not _MIN_UNIT <= self.unit <= _MAX_UNIT:
            raise LocalProtocolError("a calibration's spreads are bytes, and its unit is above 0")
        if not np.isfinite(self.mean).all() or np.abs(self.mean).max() > F16_MAX:
            raise LocalProtocolError("a mean that half precision cannot hold")
        if not (0 <= self.pull <= 1 and 0 < self.memory <= 1):
            raise LocalProtocolError("pull and memory are shares")
        object.__setattr__(self, "fingerprint", crc32(self.to_bytes()))

    @property
    def width(self) -> int:
        return len(self.mean)

    def to_bytes(self) -> bytes:
        """Return this cut's part of a file."""
        head = _CUT.pack(self.cut, self.unit, self.pull, self.memory)
        return head + self.mean.astype("<f2").tobytes() + self.spread.tobytes()


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

    @property
    def fingerprint(self) -> int:
        """CRC32 over the cuts': two ends whose numbers agree hold the same set."""
        return crc32(b"".join(_CRC.pack(one.fingerprint) for _, one in sorted(self.cuts.items())))

    def at(self, cut: int) -> Calibration | None:
        """Return the calibration of the states that enter layer ``cut``, if there is one."""
        return self.cuts.get(cut)

    def to_bytes(self) -> bytes:
        head = _HEADER.pack(_MAGIC, _VERSION, self.space_hash32, self.width, len(self.cuts))
        body = head + b"".join(one.to_bytes() for _, one in sorted(self.cuts.items()))
        return body + _CRC.pack(crc32(body))

    @classmethod
    def from_bytes_untrusted(cls, data: bytes, *, space_hash32: int) -> Self:
        """Read a file of :meth:`to_bytes`.

        Raises:
            RemoteProtocolError: It is not one, or is of another space.
        """
        width, count = _header_untrusted(data, space_hash32)
        size = _CUT.size + 3 * width
        starts = range(_HEADER.size, _HEADER.size + count * size, size)
        found = [_cut_untrusted(data[at : at + size], space_hash32, width) for at in starts]
        cuts = {one.cut: one for one in found}
        if len(cuts) != count:
            raise RemoteProtocolError("a cut is calibrated twice")
        return cls(space_hash32, width, cuts)


def measure_calibration(rows: F32Array, *, space_hash32: int, cut: int) -> Calibration:
    """Return what these states tell of all that will pass here.

    Args:
        rows: float32 [tokens, d], consecutive, of one text; 64 and more.
        space_hash32: The model.
        cut: The layer that they enter.

    Raises:
        LocalProtocolError: Fewer than two ordinary rows, or values beyond half precision.
    """
    norms = np.linalg.norm(rows, axis=1)  # [tokens]
    # A first token draws attention whatever it is, and may be a hundred times as large as any.
    ordinary = rows[norms <= 3 * np.median(norms)]  # [<= tokens, d]
    if len(ordinary) < 2:
        raise LocalProtocolError("one row tells nothing of how far channels stray")
    mean = ordinary.mean(axis=0).astype(np.float16).astype(np.float32)  # [d]
    strayed = ordinary - mean  # [<= tokens, d]
    deviation = np.sqrt((strayed * strayed).mean(axis=0))  # [d]
    unit = float(np.sqrt((deviation * deviation).mean()))
    unit = float(np.float32(min(max(unit, _MIN_UNIT), _MAX_UNIT)))
    octaves = np.log2(np.maximum(deviation / unit, 2.0**-7))  # [d]
    spread = np.clip(np.rint(OCTAVE * octaves), -128, 127).astype(np.int8)  # [d]
    pull, memory = _repetition(strayed)
    return Calibration(space_hash32, cut, unit, mean, spread, pull, memory)


def _repetition(strayed: F32Array) -> tuple[float, float]:
    """Return the pull and memory that foretell the next row best, of [tokens, d]."""
    best = (math.inf, 0.0, 1.0)
    for memory in _MEMORIES:
        average = np.zeros(strayed.shape[1], np.float32)  # [d]
        averages = np.empty_like(strayed)  # [tokens, d], of the rows before each
        for at, row in enumerate(strayed):
            averages[at] = average
            average = average + np.float32(memory) * (row - average)
        power = float(np.vdot(averages, averages))
        pull = float(np.vdot(averages, strayed)) / power if power > 0 else 0.0
        pull = float(np.float32(min(max(pull, 0.0), 1.0)))
        left = strayed - np.float32(pull) * averages  # [tokens, d]
        left_over = float(np.log(np.maximum((left * left).mean(axis=0), 1e-12)).mean())
        best = min(best, (left_over, pull, float(np.float32(memory))))
    return best[1], best[2]


_MEMORIES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1)


def _header_untrusted(data: bytes, space_hash32: int) -> tuple[int, int]:
    if len(data) < _HEADER.size + _CRC.size:
        raise RemoteProtocolError("a calibration is cut short")
    magic, version, space, width, count = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != _VERSION:
        raise RemoteProtocolError("not a calibration of this version")
    if not (1 <= width <= MAX_WIDTH and count <= MAX_CUTS):
        raise RemoteProtocolError(f"a calibration of {count} cuts of width {width}")
    if len(data) != _HEADER.size + count * (_CUT.size + 3 * width) + _CRC.size:
        raise RemoteProtocolError("a calibration of a wrong length")
    if crc32(data[: -_CRC.size]) != _CRC.unpack_from(data, len(data) - _CRC.size)[0]:
        raise RemoteProtocolError("the CRC of a calibration does not match")
    if space != space_hash32:
        raise RemoteProtocolError(
            f"a calibration of space {space:08x}, where the model is {space_hash32:08x}"
        )
    return width, count


def _cut_untrusted(data: bytes, space_hash32: int, width: int) -> Calibration:
    cut, unit, pull, memory = _CUT.unpack_from(data)
    mean = np.frombuffer(data, "<f2", width, _CUT.size).astype(np.float32)  # [d]
    spread = np.frombuffer(data, np.int8, width, _CUT.size + 2 * width)  # [d]
    try:
        return Calibration(space_hash32, cut, unit, mean, spread, pull, memory)
    except LocalProtocolError as error:
        raise RemoteProtocolError(str(error)) from error
