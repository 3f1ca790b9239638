"""Hidden states as whole steps away from what a calibration says of them.

A state's channels differ in how far they stray, yet a given error costs the answer about the
same in each (``docs/decisions/0008``): so all take the same step, and what differs is how many
bits each needs. Only *fine* codes, a byte a channel, take steps that grow with the square root
of the deviation, so that wide channels fit.

Four forms, one container:

- ``FINE``: the codes through zstd with a fixed table.
- ``ROWS``: Rice codes, with each channel's parameter from its spread.
- ``BLOCKS``: channels of like spread together through zstd; what came before foretells a row.
- ``LANES``: each code with its own spread through the entropy coder; foretold likewise.

Payload: form u8, fineness u8, count of outliers u16, the calibration's fingerprint u32; the flat
indices of the outliers u32, their values f16; and the body. Little-endian. An outlier is a value
whose code is beyond 127. A payload is always smaller than F16 would be.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from p2pnode.errors import RemoteProtocolError
from p2pnode.wire import lane_codes
from p2pnode.wire.calibration import OCTAVE, Calibration
from p2pnode.wire.dtypes import DType
from p2pnode.wire.rice import Codes, Counts, decode_rice_untrusted, encode_rice
from p2pnode.wire.tensor import F32Array
from p2pnode.wire.vframe import Slice
from p2pnode.wire.zstd_codes import (
    compress_blocks,
    compress_fine,
    decompress_blocks_untrusted,
    decompress_fine_untrusted,
)

Order: TypeAlias = npt.NDArray[np.intp]


class Form(IntEnum):
    """How the codes are written."""

    FINE = 0
    ROWS = 1
    BLOCKS = 2
    LANES = 3


_HEADER: Final = struct.Struct("<BBHI")
_REACH: Final = 127
_GROUPS: Final = 3  # of channels; more gain 0.2 % of the bytes, and one table each costs 0.1 %
_RICE_SHIFT: Final = 10  # sixteenths of an octave; measured best on hidden states


def encode_centred(
    rows: F32Array, calibration: Calibration, fineness: int, form: Form
) -> Slice | None:
    """Return the slice of ``rows``, or None where F16 is smaller or must be.

    Args:
        rows: float32 [tokens, d] that F16 can hold.
        calibration: Of their cut.
        fineness: 0 to 255: the step is the calibration's unit halved every 16.
        form: How to write the codes.
    """
    tokens, width = rows.shape
    if not tokens or width != calibration.width:
        return None
    plan = _plan(calibration, fineness)
    steps = (rows - calibration.mean) * (plan.inverse_fine if form is Form.FINE else plan.inverse)
    if form in _FORETOLD:
        codes = _foretold_codes(steps, calibration)
    else:
        np.rint(steps, out=steps)
        codes = np.clip(steps, -_REACH, _REACH).astype(np.int8)  # [tokens, d]
    outliers = _outliers(steps, rows)
    if outliers is None:
        return None
    count, exact = outliers
    body = _write(codes, plan, form)
    head = _HEADER.pack(form, fineness, count, calibration.fingerprint)
    payload = b"".join((head, exact, body))
    if len(payload) >= 2 * rows.size:
        return None
    return Slice(DType.CENTRED, rows.shape, payload)


def decode_centred_untrusted(piece: Slice, calibration: Calibration) -> F32Array:
    """Return float32 [tokens, d].

    Raises:
        RemoteProtocolError: It is no coding of finite states by this calibration.
    """
    form, fineness, count, exact_at = _header_untrusted(piece, calibration)
    tokens = piece.shape[0]
    plan = _plan(calibration, fineness)
    body_at = exact_at + 6 * count
    body = piece.payload[body_at:]
    codes = _read_untrusted(body, tokens, plan, form)  # [tokens, d]
    if form in _FORETOLD:
        rows = _foretold_rows(codes, calibration)
        rows *= plan.step
    else:
        rows = codes * (plan.fine if form == Form.FINE else plan.step)  # [tokens, d]
    rows += calibration.mean
    if count:
        where = np.frombuffer(piece.payload, "<u4", count, exact_at)
        values = np.frombuffer(piece.payload, "<f2", count, exact_at + 4 * count)
        if where.max() >= rows.size or not np.isfinite(values).all():
            raise RemoteProtocolError("an outlier out of range")
        rows.reshape(-1)[where] = values
    return rows


# What follows from a calibration and a fineness


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """Steps and layouts.

    Attributes:
        step: What a code of one stands for.
        inverse: 1 / step.
        fine: [d], likewise for fine codes.
        inverse_fine: [d]
        order: [d], the channels from the widest to the narrowest.
        home: [d], undoes ``order``.
        low: [d], Rice parameters in that order.
        octaves: [d], sixteenths of an octave by which deviations exceed the step.
    """

    step: np.float32
    inverse: np.float32
    fine: F32Array
    inverse_fine: F32Array
    order: Order
    home: Order
    low: Counts
    octaves: npt.NDArray[np.int16]


@lru_cache(maxsize=256)
def _plan(calibration: Calibration, fineness: int) -> _Plan:
    step = np.float32(calibration.unit * 2.0 ** (-fineness / OCTAVE))
    spread = calibration.spread.astype(np.int16)  # [d]
    fine = np.exp2(spread.astype(np.float32) / (2 * OCTAVE)) * step  # [d]
    order = np.argsort(-spread, kind="stable")
    octaves = spread + np.int16(fineness)  # [d]
    low = np.clip((octaves[order] + _RICE_SHIFT) // OCTAVE, 0, 7).astype(np.uint8)  # [d]
    home = np.argsort(order, kind="stable")
    return _Plan(step, np.float32(1) / step, fine, np.float32(1) / fine, order, home, low, octaves)


# What came before


def _foretold_codes(steps: F32Array, calibration: Calibration) -> Codes:
    """Return how each of [tokens, d] differs from what the rows before foretell.

    In place: ``steps`` become the differences. What is foretold comes from the codes, as the
    reader sees them, so that errors do not add up.
    """
    fade, gain = _fade_and_gain(calibration)
    codes = np.empty(steps.shape, np.int8)
    foretold = np.zeros(steps.shape[1], np.float32)  # [d]
    code = np.empty_like(foretold)  # [d]
    for row, written in zip(steps, codes, strict=True):
        np.subtract(row, foretold, out=row)
        np.rint(row, out=row)
        np.clip(row, -_REACH, _REACH, out=code)
        written[:] = code
        foretold *= fade
        code *= gain
        foretold += code
    return codes


def _foretold_rows(codes: Codes, calibration: Calibration) -> F32Array:
    """Undo :func:`_foretold_codes`: [tokens, d] in steps."""
    fade, gain = _fade_and_gain(calibration)
    rows = codes.astype(np.float32)  # [tokens, d]
    added = rows * gain  # [tokens, d]
    foretold = np.zeros(rows.shape[1], np.float32)  # [d]
    for row, more in zip(rows, added, strict=True):
        np.add(row, foretold, out=row)
        foretold *= fade
        foretold += more
    return rows


def _fade_and_gain(calibration: Calibration) -> tuple[np.float32, np.float32]:
    """Average += memory * (row - average) and foretold = pull * average, as one recursion."""
    pull, memory = calibration.pull, calibration.memory
    return np.float32(1 - memory + memory * pull), np.float32(memory * pull)


# The container


def _outliers(steps: F32Array, rows: F32Array) -> tuple[int, bytes] | None:
    """Return how many values no code reaches, and their bytes; None where they are too many."""
    if np.abs(steps).max() <= _REACH:
        return 0, b""
    where = np.flatnonzero(np.abs(steps) > _REACH)
    if len(where) >= 1 << 16:
        return None
    values = rows.reshape(-1)[where]
    return len(where), where.astype("<u4").tobytes() + values.astype("<f2").tobytes()


def _header_untrusted(piece: Slice, calibration: Calibration) -> tuple[int, int, int, int]:
    # The rule of the type has seen to it that there are two dims and a whole header.
    form, fineness, count, fingerprint = _HEADER.unpack_from(piece.payload)
    if piece.shape[1] != calibration.width:
        raise RemoteProtocolError(f"{piece.shape[1]} channels, {calibration.width} calibrated")
    if fingerprint != calibration.fingerprint:
        raise RemoteProtocolError("states coded by a calibration that differs from ours")
    if form >= len(Form) or len(piece.payload) < _HEADER.size + 6 * count:
        raise RemoteProtocolError("an unknown form of centred states, or one cut short")
    return form, fineness, count, _HEADER.size


def _write(codes: Codes, plan: _Plan, form: Form) -> bytes:
    if form is Form.FINE:
        return compress_fine(codes.tobytes())
    if form is Form.LANES:
        return lane_codes.encode_lanes(codes, plan.octaves)
    ordered = codes.take(plan.order, axis=1)  # [tokens, d]
    if form is Form.ROWS:
        return encode_rice(ordered, plan.low)
    return compress_blocks(ordered[:, part].tobytes() for part in _groups(codes.shape[1]))


def _read_untrusted(body: bytes | memoryview, tokens: int, plan: _Plan, form: int) -> Codes:
    width = len(plan.order)
    if form == Form.LANES:
        return lane_codes.decode_lanes_untrusted(body, tokens, plan.octaves)
    if form == Form.FINE:
        plain = decompress_fine_untrusted(bytes(body), tokens * width)
        return np.frombuffer(plain, np.int8).reshape(tokens, width)
    if form == Form.ROWS:
        ordered = decode_rice_untrusted(body, tokens, plan.low)  # [tokens, d]
    else:
        plain = decompress_blocks_untrusted(bytes(body), tokens * width)
        flat = np.frombuffer(plain, np.int8)
        ordered = np.empty((tokens, width), np.int8)
        for part in _groups(width):
            ordered[:, part] = flat[tokens * part.start : tokens * part.stop].reshape(tokens, -1)
    return ordered.take(plan.home, axis=1)  # [tokens, d]


def _groups(width: int) -> list[slice]:
    edges = [width * group // _GROUPS for group in range(_GROUPS + 1)]
    return [slice(*pair) for pair in pairwise(edges)]


_FORETOLD: Final = (Form.BLOCKS, Form.LANES)
