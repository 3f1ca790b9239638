"""What is known beforehand of a model's keys and values, and the bytes that keep it.

A layer's keys and values of one position, the keys before RoPE, are one vector of ``width``
numbers: the heads of the keys, then those of the values. Three quarters of the keys' energy is a
constant mean; most of what remains follows from the layer below, since both read nearly the same
residual stream; and an error counts as much as the queries and the output projection make of it.
So a layer has a mean, a *basis* in which the numbers are independent of each other and an error
of one costs as much in each, and a *forecast* of its coordinates from those of the layer below.
A coordinate is counted in quantisation steps.

File: ``PKVC``, version u8, space_hash32 u32, layers u16, kv_heads u16, head_dim u16; then one zstd
frame that holds for each layer: mean f32 [width], the columns' scales of basis and forecast f32
[2, width], basis and forecast i8 [2, width, width], classes u8 [2, width]. Little-endian.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.compression import compress, decompress_untrusted
from p2pnode.wire.entropy import CLASSES, Classes
from p2pnode.wire.tensor import F32Array

I8Array = npt.NDArray[np.int8]

MAX_CALIBRATION: Final = 1 << 30
"""The most bytes a file may inflate to. The default model's has 9 MB; 1 GiB serves 80 layers with
8 heads of 128."""

_LARGEST_SCALE: Final = float(np.finfo(np.float32).max) / 128
"""Times any of the codes, -128 to 127, it is still a number."""

_MAGIC: Final = b"PKVC"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<4sBIHHH")


@dataclass(frozen=True, slots=True)
class KvShape:
    """What a layer's cache looks like.

    Attributes:
        kv_heads: Heads of keys and values.
        head_dim: Width of a head, even.

    Raises:
        LocalProtocolError: There is no such cache.
    """

    kv_heads: int
    head_dim: int

    def __post_init__(self) -> None:
        if not (0 < self.kv_heads < 1 << 16 and 0 < self.head_dim < 1 << 16):
            raise LocalProtocolError(f"no cache has {self}")
        if self.head_dim % 2:
            raise LocalProtocolError("RoPE turns pairs: a head's width is even")

    @property
    def width(self) -> int:
        """Numbers of one position in one layer, keys and values."""
        return 2 * self.kv_heads * self.head_dim


@dataclass(frozen=True, eq=False)
class LayerBasis:
    """One layer's part.

    Attributes:
        mean: [width]
        scales: [2, width], of the columns of both matrices.
        codes: [2, width, width] int8: the basis and the forecast, each column over its scale.
        classes: [2, width], of the residual of each coordinate, as
            :mod:`p2pnode.wire.entropy` has them: where the layer below is not coded, and where
            it is.

    Raises:
        LocalProtocolError: Shapes or values do not fit, or the basis has no inverse.
    """

    mean: F32Array
    scales: F32Array
    codes: I8Array
    classes: Classes

    def __post_init__(self) -> None:
        width = self.mean.size
        shapes = (self.mean.shape, self.scales.shape, self.codes.shape, self.classes.shape)
        if shapes != ((width,), (2, width), (2, width, width), (2, width)):
            raise LocalProtocolError(f"the parts of a layer's basis do not fit: {shapes}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.scales).all()):
            raise LocalProtocolError("a calibration holds numbers alone")
        if np.abs(self.scales).max(initial=0) > _LARGEST_SCALE:
            raise LocalProtocolError("a calibration's steps are beyond float32")
        if self.classes.max(initial=0) >= CLASSES:
            raise LocalProtocolError(f"there are {CLASSES} classes")

    @cached_property
    def basis(self) -> F32Array:
        """[width, width]: a centred row times this is its coordinates."""
        basis: F32Array = self.codes[0] * self.scales[0]
        return basis

    @cached_property
    def forecast(self) -> F32Array:
        """[width, width]: coordinates in the layer below times this are those expected here."""
        forecast: F32Array = self.codes[1] * self.scales[1]
        return forecast

    @cached_property
    def inverse(self) -> F32Array:
        """[width, width]: coordinates times this are the centred row.

        Raises:
            LocalProtocolError: There is none.
        """
        try:
            with np.errstate(over="ignore"):  # of tiny steps; infinities are refused below
                inverse = np.linalg.inv(self.basis.astype(np.float64)).astype(np.float32)
        except np.linalg.LinAlgError as error:
            raise LocalProtocolError("a basis without an inverse") from error
        if not np.isfinite(inverse).all():
            raise LocalProtocolError("a basis without an inverse")
        return inverse


@dataclass(frozen=True, eq=False)
class KvCalibration:
    """The bases of all layers of one model.

    Attributes:
        space_hash32: The model it was measured on.
        shape: Of its caches.
        layers: One for each of its layers.

    Raises:
        LocalProtocolError: A layer is of another width.
    """

    space_hash32: int
    shape: KvShape
    layers: tuple[LayerBasis, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.space_hash32 < 1 << 32 or not 0 < len(self.layers) < 1 << 16:
            raise LocalProtocolError("a calibration belongs to a space, and has layers")
        if any(layer.mean.size != self.shape.width for layer in self.layers):
            raise LocalProtocolError("a layer's basis is of another width than its cache")

    @cached_property
    def digest(self) -> bytes:
        """8 bytes that tell this calibration from every other, of the same model too."""
        head = _header(self)
        return hashlib.sha256(head + _body(self.layers)).digest()[:8]

    def to_bytes(self) -> bytes:
        return _header(self) + compress(_body(self.layers))

    @classmethod
    def from_bytes_untrusted(cls, data: bytes, *, space_hash32: int) -> Self:
        """Read a file of :meth:`to_bytes`.

        Raises:
            RemoteProtocolError: It is not one, or is of another space.
        """
        if len(data) < _HEADER.size:
            raise RemoteProtocolError("a calibration is cut short")
        magic, version, space, count, heads, head_dim = _HEADER.unpack_from(data)
        if magic != _MAGIC or version != _VERSION:
            raise RemoteProtocolError("not a calibration of this version")
        if space != space_hash32:
            raise RemoteProtocolError(
                f"a calibration of space {space:08x}, where the model is {space_hash32:08x}"
            )
        try:
            shape = KvShape(heads, head_dim)
            size = count * _layer_size(shape.width)
            if size > MAX_CALIBRATION:
                raise RemoteProtocolError(f"a calibration of {size} bytes")
            body = decompress_untrusted(data[_HEADER.size :], at_least=size, at_most=size)
            each = _layer_size(shape.width)
            layers = tuple(_layer(body, at, shape.width) for at in range(0, size, each))
            if not all(layer.inverse.size for layer in layers):
                raise RemoteProtocolError("a calibration of nothing")
            return cls(space, shape, layers)
        except LocalProtocolError as error:
            raise RemoteProtocolError(str(error)) from error


def _header(calibration: KvCalibration) -> bytes:
    shape = calibration.shape
    return _HEADER.pack(
        _MAGIC,
        _VERSION,
        calibration.space_hash32,
        len(calibration.layers),
        shape.kv_heads,
        shape.head_dim,
    )


def _body(layers: Sequence[LayerBasis]) -> bytes:
    parts = []
    for layer in layers:
        parts += [layer.mean.astype("<f4").tobytes(), layer.scales.astype("<f4").tobytes()]
        parts += [layer.codes.tobytes(), layer.classes.tobytes()]
    return b"".join(parts)


def _layer_size(width: int) -> int:
    return 12 * width + 2 * width * width + 2 * width


def _layer(body: bytes, at: int, width: int) -> LayerBasis:
    floats = np.frombuffer(body, "<f4", 3 * width, at).astype(np.float32)
    at += 12 * width
    codes = np.frombuffer(body, np.int8, 2 * width * width, at)
    classes = np.frombuffer(body, np.uint8, 2 * width, at + codes.size)
    return LayerBasis(
        floats[:width],
        floats[width:].reshape(2, width),
        codes.reshape(2, width, width),
        classes.reshape(2, width),
    )
