"""A KV cache to a tenth of its size in half precision, and back.

A *span* is the keys and values of a run of layers at consecutive positions. With a
:class:`~p2pnode.wire.kv_calibration.KvCalibration` all but a session's first position go through
:mod:`p2pnode.wire.kv_transform` and the entropy coder. That first one draws attention whatever
stands there and has keys and values unlike any other's: it is *plain*, coded in groups
(:mod:`p2pnode.wire.kv_groups`). Without a calibration all positions are plain.

Span: version u8, fineness i8, first layer u16, layers u16, kv_heads u16, head_dim u16, first
position u32, positions u16, plain u16, the calibration's digest (8 bytes, 0 without), bytes of
the plain part u32, bytes of the coded part u32; the plain part, keys and values
[2, layers, kv_heads, plain, head_dim]; and the coded part, numbers [layers, positions, width].
Little-endian.

No decision that both ends must take alike hangs on a float: another machine's rounding changes
the result as little as it changes any product.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.dtypes import DType
from p2pnode.wire.entropy import decode_untrusted, encode
from p2pnode.wire.kv_calibration import KvCalibration, KvShape, LayerBasis
from p2pnode.wire.kv_groups import decode_groups_untrusted, encode_groups
from p2pnode.wire.kv_transform import Rotation, classes_of, of_rows, quantise, restore, to_rows
from p2pnode.wire.messages import byte_slice
from p2pnode.wire.tensor import F32Array
from p2pnode.wire.vframe import MAX_FRAME
from p2pnode.wire.vstream import Batch

SPAN: Final = 256
"""Positions that a writer codes as one: enough for the coder's lanes to pay (1 % of the bytes),
at some tens of megabytes of scratch memory."""

MAX_SPAN: Final = 1024
"""The most positions a reader takes as one span: it bounds the memory of a decoding."""

PLAIN: Final = 1
"""First positions of a session that are coded in groups."""

FINENESS: Final = range(-8, 25)
"""What fineness may be: four more halve the quantisation step, quarter the error and cost one
bit a number."""

_VERSION: Final = 1
_HEADER: Final = struct.Struct("<BbHHHHIHH8sII")
_NO_CALIBRATION: Final = bytes(8)
_PIECE: Final = MAX_FRAME - 256  # room for a frame's header, the slice's, the seal and the CRC


@dataclass(frozen=True, slots=True, eq=False)
class KvSpan:
    """Keys and values of consecutive positions.

    Attributes:
        layers: Of which layers.
        start: The first position.
        keys: [layers, kv_heads, positions, head_dim] float32, with RoPE as the cache has them.
        values: Likewise, without RoPE.

    Raises:
        LocalProtocolError: The shapes do not fit together.
    """

    layers: range
    start: int
    keys: F32Array
    values: F32Array

    def __post_init__(self) -> None:
        if self.keys.shape != self.values.shape or self.keys.ndim != 4 or not self.keys.size:
            raise LocalProtocolError("keys and values are of one shape, of four dimensions")
        if len(self.layers) != len(self.keys) or self.layers.step != 1 or self.start < 0:
            raise LocalProtocolError(f"{self.keys.shape} is no cache of layers {self.layers}")

    @property
    def positions(self) -> range:
        return range(self.start, self.start + self.keys.shape[2])

    @property
    def shape(self) -> KvShape:
        return KvShape(self.keys.shape[1], self.keys.shape[3])


def encode_span(
    span: KvSpan,
    rotation: Rotation,
    calibration: KvCalibration | None = None,
    *,
    fineness: int = 0,
) -> bytes:
    """Return the bytes of a span.

    Args:
        span: At most :data:`MAX_SPAN` positions.
        rotation: The turn of each pair [positions from 0 on, head_dim / 2].
        calibration: Of the span's model; None codes everything in groups.
        fineness: See :data:`FINENESS`.

    Raises:
        LocalProtocolError: The arguments do not fit together, or a value is no number or
            absurdly large.
    """
    count = len(span.positions)
    if count > MAX_SPAN or fineness not in FINENESS:
        raise LocalProtocolError(f"a span of {count} positions at fineness {fineness}")
    plain, coded = count, b""
    if calibration is not None:
        plain = max(0, min(count, PLAIN - span.start))
        bases = _bases(calibration, span.layers, span.shape)
        turns = _turns(rotation, range(span.start + plain, span.positions.stop))
        rows = to_rows(span.keys[:, :, plain:], span.values[:, :, plain:], turns)
        steps = quantise(rows, bases, fineness).reshape(-1)
        coded = encode(steps, classes_of(bases, count - plain, fineness))
    groups = encode_groups(np.stack([span.keys[:, :, :plain], span.values[:, :, :plain]]))
    head = _Head(
        fineness=fineness,
        layers=span.layers,
        shape=span.shape,
        positions=span.positions,
        plain=plain,
        digest=calibration.digest if calibration else _NO_CALIBRATION,
        groups_size=len(groups),
        coded_size=len(coded),
    )
    return head.to_bytes() + groups + coded


def decode_span_untrusted(
    data: bytes | memoryview,
    rotation: Rotation,
    calibration: KvCalibration | None,
    *,
    layers: range,
    shape: KvShape,
    positions: range,
) -> KvSpan:
    """Return the span that ``data`` holds, and nothing but it.

    What is allocated follows from the arguments and is checked before; ``data`` may ask for less.

    Args:
        data: What :func:`encode_span` returned.
        rotation: The turn of each pair [positions from 0 on, head_dim / 2].
        calibration: What we know of the model; a span that needs another one is refused.
        layers: Which layers it must be of.
        shape: What a layer's cache must look like.
        positions: Where it must lie within.

    Raises:
        RemoteProtocolError: It is not such a span.
    """
    head = _Head.of_bytes_untrusted(data)
    if head.layers != layers or head.shape != shape:
        raise RemoteProtocolError(f"a cache of layers {head.layers} and {head.shape}")
    where = head.positions
    if where.start < positions.start or where.stop > min(positions.stop, len(rotation)):
        raise RemoteProtocolError(f"a cache of positions {where}")
    groups_end = _HEADER.size + head.groups_size
    groups = bytes(data[_HEADER.size : groups_end])
    plain_shape = (2, len(layers), shape.kv_heads, head.plain, shape.head_dim)
    parts = [decode_groups_untrusted(groups, plain_shape)]
    if head.digest != _NO_CALIBRATION:
        if calibration is None or calibration.digest != head.digest:
            raise RemoteProtocolError("a cache coded with a calibration that we do not have")
        parts.append(_coded_untrusted(data[groups_end:], rotation, calibration, head))
    keys, values = np.concatenate(parts, axis=3)  # [layers, kv_heads, positions, head_dim] each
    if not (np.isfinite(keys).all() and np.isfinite(values).all()):
        raise RemoteProtocolError("a cache with NaN or infinities")
    return KvSpan(layers, where.start, keys, values)


def spans_to_batches(spans: Iterable[bytes]) -> list[Batch]:
    """Return the batches of a Cache stream that carries spans, one I8 slice each."""
    data = b"".join(spans)
    return [(byte_slice(data[at : at + _PIECE]),) for at in range(0, len(data), _PIECE)]


def batches_to_spans_untrusted(batches: Iterable[Batch]) -> list[memoryview]:
    """Part a Cache stream into the bytes of its spans.

    Raises:
        RemoteProtocolError: Slices are not bytes, or do not end where a span does.
    """
    pieces = [piece for batch in batches for piece in batch]
    if any(piece.dtype != DType.I8 for piece in pieces):
        raise RemoteProtocolError("coded caches travel as I8 slices")
    data = memoryview(b"".join(piece.payload for piece in pieces))
    spans = []
    while data:
        size = _Head.of_bytes_untrusted(data, whole=False).total
        spans.append(data[:size])
        data = data[size:]
    return spans


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    fineness: int
    layers: range
    shape: KvShape
    positions: range
    plain: int
    digest: bytes
    groups_size: int
    coded_size: int

    @property
    def total(self) -> int:
        return _HEADER.size + self.groups_size + self.coded_size

    def to_bytes(self) -> bytes:
        return _HEADER.pack(
            _VERSION,
            self.fineness,
            self.layers.start,
            len(self.layers),
            self.shape.kv_heads,
            self.shape.head_dim,
            self.positions.start,
            len(self.positions),
            self.plain,
            self.digest,
            self.groups_size,
            self.coded_size,
        )

    @classmethod
    def of_bytes_untrusted(cls, data: bytes | memoryview, *, whole: bool = True) -> "_Head":
        """Read a head; with ``whole``, of a span that ends where the data does."""
        if len(data) < _HEADER.size:
            raise RemoteProtocolError("a coded cache is cut short")
        version, fineness, first, layers, heads, head_dim, start, count, plain, digest, *sizes = (
            _HEADER.unpack_from(data)
        )
        if version != _VERSION or fineness not in FINENESS:
            raise RemoteProtocolError(f"a coded cache of version {version}, fineness {fineness}")
        if not layers or not 0 < count <= MAX_SPAN or plain > count:
            raise RemoteProtocolError(f"a coded cache of {layers} layers, {count} positions")
        if (digest == _NO_CALIBRATION) != (plain == count and not sizes[1]):
            raise RemoteProtocolError("a coded cache that contradicts its calibration")
        try:
            shape = KvShape(heads, head_dim)
        except LocalProtocolError as error:
            raise RemoteProtocolError(str(error)) from error
        head = cls(
            fineness=fineness,
            layers=range(first, first + layers),
            shape=shape,
            positions=range(start, start + count),
            plain=plain,
            digest=digest,
            groups_size=sizes[0],
            coded_size=sizes[1],
        )
        if head.total > len(data) or (whole and head.total != len(data)):
            raise RemoteProtocolError("a coded cache of a wrong length")
        return head


def _coded_untrusted(
    data: bytes | memoryview, rotation: Rotation, calibration: KvCalibration, head: _Head
) -> F32Array:
    """Return keys and values [2, layers, kv_heads, coded positions, head_dim]."""
    try:
        bases = _bases(calibration, head.layers, head.shape)
    except LocalProtocolError as error:
        raise RemoteProtocolError(str(error)) from error
    coded = range(head.positions.start + head.plain, head.positions.stop)
    steps = decode_untrusted(data, classes_of(bases, len(coded), head.fineness))
    with np.errstate(over="ignore", invalid="ignore"):  # hostile steps may be huge
        rows = restore(
            steps.reshape(len(bases), len(coded), head.shape.width), bases, head.fineness
        )
        pair = of_rows(rows, head.shape.kv_heads, _turns(rotation, coded))
    return np.stack(pair)


def _bases(calibration: KvCalibration, layers: range, shape: KvShape) -> Sequence[LayerBasis]:
    if calibration.shape != shape or layers.stop > len(calibration.layers):
        raise LocalProtocolError(f"the calibration is of {calibration.shape}, not {shape}")
    return calibration.layers[layers.start : layers.stop]


def _turns(rotation: Rotation, positions: range) -> Rotation:
    if len(rotation) < positions.stop:
        raise LocalProtocolError(f"rotations of {len(rotation)} positions, not {positions}")
    return rotation[positions.start : positions.stop]
