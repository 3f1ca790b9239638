"""float32 arrays to slices and back.

A tensor is one slice, and after it what its coding needs:

- F16, BF16, F32: nothing.
- I8, Q4, Q2: F16 scales, one a group of neighbours along the last axis, and F16 minima of the
  same shape where the code is asymmetric. The group's length follows from the two shapes.
- COO: the flat indices of the non-zero values, as u32 in an I8 slice, strictly increasing.

CENTRED states, which need a calibration, are read by :mod:`p2pnode.wire.states`, and types that a
program registered by that program: neither is a tensor here.

value = code * scale + minimum; without minima a 4-bit code counts from -8 and a 2-bit one from
-2, and without scales the scale is 1.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from p2pnode.errors import LocalProtocolError, RemoteProtocolError
from p2pnode.wire.dtypes import DType, dtype_label
from p2pnode.wire.vframe import Slice

F32Array: TypeAlias = npt.NDArray[np.float32]

MAX_DENSE = 1 << 22
"""The most elements a sparse slice may stand for, 16 MiB of float32. A guess: a critique or a
graph has thousands, and the shape costs its sender nothing."""

F16_MAX = 65504.0

TENSOR_DTYPES = frozenset(
    {DType.F16, DType.BF16, DType.F32, DType.I8, DType.Q4, DType.Q2, DType.COO}
)
"""The types that slices alone say the values of."""

DEFAULT_GROUP = {DType.I8: 64, DType.Q4: 32, DType.Q2: 32}
"""Neighbours that share a scale. Outliers of hidden states sit in a few channels, so that one
scale a token costs ten times the KL of one a 64 (0.032 against 0.0036, SmolLM2-135M)."""


def fits_f16(array: F32Array) -> bool:
    """Tell whether every value is a number that half precision can hold."""
    # A NaN fails the comparison, as it should.
    return array.size == 0 or bool(np.abs(array).max() <= F16_MAX)


def activations_to_slices(rows: F32Array) -> tuple[Slice, ...]:
    """Return ``rows`` as F16, or as F32 where one of them holds a value that F16 cannot.

    Hidden states reach 23,140 in SmolLM2-135M and F16 ends at 65,504: never send an infinity.
    """
    if fits_f16(rows):
        return (Slice(DType.F16, rows.shape, rows.astype("<f2").tobytes()),)
    return tensor_to_slices(rows, DType.F32)


def tensor_to_slices(
    array: F32Array,
    dtype: DType = DType.F16,
    *,
    group: int | None = None,
    symmetric: bool = False,
) -> tuple[Slice, ...]:
    """Return the slices that carry ``array``.

    Args:
        array: float32, any shape; quantised types need a last axis.
        dtype: How to code it.
        group: Neighbours that share a scale, for I8, Q4 and Q2.
        symmetric: Code Q4 and Q2 around zero, without minima: half the scales, for what has no
            mean. I8 always is.

    Raises:
        LocalProtocolError: A value does not fit the type (see :func:`fits_f16`), or no such
            coding exists.
    """
    if dtype is DType.F16:
        return (Slice(dtype, array.shape, _f16_bytes(array)),)
    if dtype is DType.F32:
        return (Slice(dtype, array.shape, array.astype("<f4", copy=False).tobytes()),)
    if dtype is DType.BF16:
        return (Slice(dtype, array.shape, _bf16_bytes(array)),)
    if dtype is DType.COO:
        return _sparse_slices(array)
    if dtype not in _QUANTISED:
        raise LocalProtocolError(f"{dtype_label(dtype)} codes no tensor by itself")
    if array.ndim == 0:
        raise LocalProtocolError("a scalar has no axis to quantise along")
    if not np.isfinite(array).all():
        raise LocalProtocolError("NaN and infinities have no quantised code")
    group = group or DEFAULT_GROUP[dtype]
    if dtype is DType.I8:
        return _i8_slices(array, group)
    return (_symmetric_slices if symmetric else _packed_slices)(array, dtype, group)


def slices_to_tensor_untrusted(slices: Sequence[Slice], *, finite: bool = False) -> F32Array:
    """Return the one tensor that these slices carry, a fresh float32 array.

    Args:
        slices: The tensor and its auxiliary slices, and nothing else.
        finite: Refuse NaN and infinities.

    Raises:
        RemoteProtocolError: They are not the coding of exactly one tensor, or of a type that is
            read elsewhere (see :data:`TENSOR_DTYPES`).
    """
    if not slices:
        raise RemoteProtocolError("no slice, no tensor")
    try:
        array = _decoded_untrusted(slices[0], slices[1:])
    except ValueError as error:  # numpy's word for a shape it cannot have
        raise RemoteProtocolError(f"an impossible shape: {error}") from error
    if finite and not np.isfinite(array).all():
        raise RemoteProtocolError("a tensor with NaN or infinities")
    return array


def group_slices(slices: Sequence[Slice]) -> list[tuple[Slice, ...]]:
    """Part the slices of several tensors (a Cache) into those of each.

    An F16 slice right after a quantised one belongs to it where its shape is that of scales.
    """
    groups: list[tuple[Slice, ...]] = []
    for piece in slices:
        if groups and _belongs_to(piece, groups[-1]):
            groups[-1] += (piece,)
        else:
            groups.append((piece,))
    return groups


# Writing


def _f16_bytes(array: F32Array) -> bytes:
    if not fits_f16(array):
        raise LocalProtocolError("a value beyond half precision; send BF16 or F32")
    return array.astype("<f2").tobytes()


def _bf16_bytes(array: F32Array) -> bytes:
    bits = np.ascontiguousarray(array, dtype="<f4").view("<u4")
    if not np.isfinite(array).all():
        raise LocalProtocolError("NaN and infinities are not sent as BF16")
    # Round half to even. The largest floats become infinite, which is their nearest.
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16
    return rounded.astype("<u2").tobytes()


def _sparse_slices(array: F32Array) -> tuple[Slice, ...]:
    if array.size > MAX_DENSE:
        raise LocalProtocolError(f"a sparse tensor of {array.size} elements")
    flat = array.reshape(-1)  # [elements]
    indices = np.flatnonzero(flat)  # [nnz], increasing
    values = Slice(DType.COO, array.shape, _f16_bytes(flat[indices]))
    where = indices.astype("<u4").tobytes()
    return values, Slice(DType.I8, (len(where),), where)


def _i8_slices(array: F32Array, group: int) -> tuple[Slice, ...]:
    grouped = _in_groups(array, group)  # [..., groups, group]
    scales = _f16_safe(np.abs(grouped).max(axis=-1, initial=0.0) / 127)  # [..., groups]
    codes = grouped * _inverse(scales)[..., None]  # [..., groups, group]
    np.rint(codes, out=codes)
    np.clip(codes, -127, 127, out=codes)
    flat = _ungrouped(codes, array.shape[-1])  # [..., last]
    return (
        Slice(DType.I8, array.shape, flat.astype(np.int8).tobytes()),
        Slice(DType.F16, scales.shape, scales.astype("<f2").tobytes()),
    )


def _packed_slices(array: F32Array, dtype: DType, group: int) -> tuple[Slice, ...]:
    bits = _PACKED_BITS[dtype]
    top = (1 << bits) - 1
    grouped = _in_groups(array, group)  # [..., groups, group]
    minima = _f16_safe(grouped.min(axis=-1, initial=np.inf))  # [..., groups]
    # The minimum was rounded: its group may start below it, which the clip puts right.
    scales = _f16_safe(np.maximum(grouped.max(axis=-1, initial=-np.inf) - minima, 0) / top)
    codes = grouped - minima[..., None]  # [..., groups, group]
    codes *= _inverse(scales)[..., None]
    np.rint(codes, out=codes)
    np.clip(codes, 0, top, out=codes)
    flat = _ungrouped(codes, array.shape[-1])  # [..., last]
    return (
        Slice(dtype, array.shape, _pack(flat.astype(np.uint8).reshape(-1), bits)),
        Slice(DType.F16, scales.shape, scales.astype("<f2").tobytes()),
        Slice(DType.F16, minima.shape, minima.astype("<f2").tobytes()),
    )


def _symmetric_slices(array: F32Array, dtype: DType, group: int) -> tuple[Slice, ...]:
    bits = _PACKED_BITS[dtype]
    half = 1 << (bits - 1)  # codes stand for -half to half - 1
    grouped = _in_groups(array, group)  # [..., groups, group]
    highest = grouped.max(axis=-1, initial=0.0) / (half - 1)  # [..., groups]
    scales = _f16_safe(np.maximum(highest, grouped.min(axis=-1, initial=0.0) / -half))
    codes = grouped * _inverse(scales)[..., None]  # [..., groups, group]
    np.rint(codes, out=codes)
    np.clip(codes, -half, half - 1, out=codes)
    codes += half
    flat = _ungrouped(codes, array.shape[-1])  # [..., last]
    return (
        Slice(dtype, array.shape, _pack(flat.astype(np.uint8).reshape(-1), bits)),
        Slice(DType.F16, scales.shape, scales.astype("<f2").tobytes()),
    )


def _in_groups(array: F32Array, group: int) -> F32Array:
    """[..., last] to [..., groups, group], the last group filled with its last value."""
    last = array.shape[-1]
    if last == 0:
        return np.zeros((*array.shape[:-1], 0, 1), np.float32)
    groups = -(-last // max(1, min(group, last)))
    # The reader only sees the count of groups: this is the length it will work out.
    length = -(-last // groups)
    if -(-last // length) != groups:
        raise LocalProtocolError(f"{last} elements do not part into groups of {group}")
    missing = groups * length - last
    if missing:
        array = np.concatenate([array, np.repeat(array[..., -1:], missing, axis=-1)], axis=-1)
    return array.reshape(*array.shape[:-1], groups, length)


def _ungrouped(codes: F32Array, last: int) -> F32Array:
    """[..., groups, group] to [..., last]."""
    *leading, groups, length = codes.shape
    return codes.reshape(*leading, groups * length)[..., :last]


def _f16_safe(array: F32Array) -> F32Array:
    """Round to half precision, so that codes are made with the scales the reader will have."""
    if not fits_f16(array):
        raise LocalProtocolError("a scale beyond half precision; send BF16 or F32")
    return array.astype(np.float16).astype(np.float32)


def _inverse(scales: F32Array) -> F32Array:
    return np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)


def _pack(codes: npt.NDArray[np.uint8], bits: int) -> bytes:
    each = 8 // bits
    if codes.size % each:
        codes = np.concatenate([codes, np.zeros(-codes.size % each, np.uint8)])
    packed = codes[::each] << np.uint8(8 - bits)  # [bytes], the first in the highest bits
    for lane in range(1, each):
        packed |= codes[lane::each] << np.uint8(8 - bits - lane * bits)
    return packed.tobytes()


# Reading


def _decoded_untrusted(main: Slice, rest: Sequence[Slice]) -> F32Array:
    dtype = main.dtype
    if dtype == DType.COO:
        return _sparse_untrusted(main, rest)
    if dtype in _QUANTISED:
        return _dequantised_untrusted(main, rest)
    if rest:
        raise RemoteProtocolError(f"{len(rest)} slices too many for one tensor")
    if dtype == DType.F16:
        return _f16_view(main).astype(np.float32)
    if dtype == DType.F32:
        return np.frombuffer(main.payload, "<f4").astype(np.float32).reshape(main.shape)
    if dtype == DType.BF16:
        bits = np.frombuffer(main.payload, "<u2").astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32).reshape(main.shape)
    raise RemoteProtocolError(f"{dtype_label(dtype)} is no tensor by itself")


def _f16_view(piece: Slice) -> npt.NDArray[np.float16]:
    return np.frombuffer(piece.payload, "<f2").reshape(piece.shape)


def _dequantised_untrusted(main: Slice, rest: Sequence[Slice]) -> F32Array:
    if len(rest) > 2 or not all(_has_scale_form(piece, main) for piece in rest):
        raise RemoteProtocolError("the scales of a quantised tensor do not match its shape")
    if len(rest) == 2 and rest[0].shape != rest[1].shape:
        raise RemoteProtocolError("scales and minima of different shapes")
    values = _codes(main, centred=len(rest) < 2).astype(np.float32).reshape(main.shape)
    with np.errstate(over="ignore", invalid="ignore"):  # a hostile scale may be infinite
        if rest:
            np.multiply(*_aligned(values, rest[0]))
        if len(rest) == 2:
            np.add(*_aligned(values, rest[1]))
    return values


def _codes(main: Slice, *, centred: bool) -> npt.NDArray[np.int8]:
    if main.dtype == DType.I8:
        return np.frombuffer(main.payload, np.int8)
    bits = _PACKED_BITS[DType(main.dtype)]
    packed = np.frombuffer(main.payload, np.uint8)  # [bytes]
    each, mask = 8 // bits, np.uint8((1 << bits) - 1)
    codes = np.empty((len(packed), each), np.int8)
    for lane in range(each):
        codes[:, lane] = packed >> np.uint8(8 - bits - lane * bits) & mask
    flat = codes.reshape(-1)[: prod(main.shape)]
    if centred:
        flat -= np.int8(1 << (bits - 1))
    return flat


def _aligned(values: F32Array, scales: Slice) -> tuple[F32Array, F32Array, F32Array]:
    """Return values, their scales in a shape that fits them, and where a result belongs.

    Whole groups become an axis: no scale needs repeating.
    """
    each = _f16_view(scales).astype(np.float32)  # [..., groups]
    groups, last = each.shape[-1], values.shape[-1]
    if groups and last % groups == 0:
        grouped = values.reshape(*each.shape, last // groups)  # [..., groups, group], a view
        return grouped, each[..., None], grouped
    spread = np.repeat(each, -(-last // groups) if groups else 1, axis=-1)[..., :last]
    return values, spread, values


def _has_scale_form(piece: Slice, main: Slice) -> bool:
    if piece.dtype != DType.F16 or not main.shape or piece.shape[:-1] != main.shape[:-1]:
        return False
    if len(piece.shape) != len(main.shape):
        return False
    last, groups = main.shape[-1], piece.shape[-1]
    if last == 0 or groups == 0:
        return last == groups
    length = -(-last // groups)
    return groups <= last and -(-last // length) == groups


def _belongs_to(piece: Slice, group: tuple[Slice, ...]) -> bool:
    main = group[0]
    if main.dtype == DType.COO:
        return len(group) == 1
    if main.dtype not in _QUANTISED or len(group) == 3 or not _has_scale_form(piece, main):
        return False
    return len(group) == 1 or piece.shape == group[1].shape


def _sparse_untrusted(main: Slice, rest: Sequence[Slice]) -> F32Array:
    values = np.frombuffer(main.payload, "<f2")  # [nnz]
    if len(rest) != 1 or rest[0].dtype != DType.I8 or len(rest[0].payload) != 4 * len(values):
        raise RemoteProtocolError("a sparse tensor wants one u32 index for each value")
    size = 1
    for dim in main.shape:
        size *= dim
    if size > MAX_DENSE:
        raise RemoteProtocolError("a sparse tensor whose dense shape is too large")
    indices = np.frombuffer(rest[0].payload, "<u4")  # [nnz]
    if len(indices) and (indices[-1] >= size or not _increasing(indices)):
        raise RemoteProtocolError("sparse indices unsorted, repeated or out of range")
    dense = np.zeros(size, np.float32)
    dense[indices] = values
    return dense.reshape(main.shape)


def _increasing(indices: npt.NDArray[Any]) -> bool:
    return bool((indices[1:] > indices[:-1]).all())


_PACKED_BITS = {DType.Q4: 4, DType.Q2: 2}
_QUANTISED = (DType.I8, DType.Q4, DType.Q2)
