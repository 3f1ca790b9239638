"""The ladder of codings for hidden states: each rung is smaller, and costs more of the answer.

With a calibration of the cut (:mod:`p2pnode.wire.calibration`) a rung sends what is not known
beforehand; without one it falls back to scales a group, and never guesses.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from p2pnode.errors import RemoteProtocolError
from p2pnode.wire.calibration import Calibration
from p2pnode.wire.centred import Form, decode_centred_untrusted, encode_centred
from p2pnode.wire.dtypes import DType
from p2pnode.wire.tensor import (
    F32Array,
    activations_to_slices,
    fits_f16,
    slices_to_tensor_untrusted,
    tensor_to_slices,
)
from p2pnode.wire.vframe import Slice

_F32 = np.dtype("<f4")
BLOCK = 8
"""Rows from which tables of a block's own pay."""


class Rung(StrEnum):
    """How hidden states are coded, from exact to small."""

    F32 = "f32"
    F16 = "f16"
    I8 = "i8"
    Q5 = "q5"
    Q4 = "q4"
    Q3 = "q3"
    Q2 = "q2"


FINENESS = {Rung.I8: 77, Rung.Q5: 53, Rung.Q4: 36, Rung.Q3: 24, Rung.Q2: 12}
"""Of each rung with a calibration: 16 more halve the step, quarter the cost and add a bit."""


def encode_states(
    rows: F32Array, rung: Rung, calibration: Calibration | None = None
) -> tuple[Slice, ...]:
    """Return the slices that carry ``rows``.

    Args:
        rows: float32 [tokens, d].
        rung: How small. A value beyond half precision sends the whole as F32, whatever the rung.
        calibration: What both ends know of this cut, or None.
    """
    if rung is Rung.F32 or not fits_f16(rows):
        plain = rows if rows.dtype is _F32 else rows.astype(_F32)  # numpy has one object for it
        return (Slice(DType.F32, rows.shape, plain.tobytes()),)
    if rung is Rung.F16:
        return activations_to_slices(rows)
    if calibration is None:
        return tensor_to_slices(rows, _GROUPED[rung])
    piece = encode_centred(rows, calibration, FINENESS[rung], _form(rung, len(rows)))
    # What a calibration does not fit is better sent whole than badly.
    return activations_to_slices(rows) if piece is None else (piece,)


def decode_states_untrusted(
    slices: Sequence[Slice], calibration: Calibration | None = None
) -> F32Array:
    """Return float32 [tokens, d], whatever rung the sender chose; it may be a view of the slice.

    Raises:
        RemoteProtocolError: They are not the coding of states, or need a calibration that is
            not here.
    """
    if slices and slices[0].dtype == DType.CENTRED:
        if calibration is None or len(slices) > 1:
            raise RemoteProtocolError("centred states are one slice, and need a calibration")
        return decode_centred_untrusted(slices[0], calibration)
    first = slices[0] if len(slices) == 1 else None
    if first is not None and first.dtype == DType.F32 and len(first.shape) == 2 and first.payload:
        return np.frombuffer(first.payload, _F32).reshape(first.shape)  # as nearly every token's
    rows = slices_to_tensor_untrusted(slices)
    if rows.ndim != 2:
        raise RemoteProtocolError(f"states of shape {rows.shape}")
    return rows


def relative_error(rows: F32Array, decoded: F32Array) -> float:
    """Return the L2 norm of the error over that of ``rows``; 0 where both are nothing.

    A sender's cheap check on the real tensor. It says little across codings: the same error
    costs up to 10 times more of the answer in one coding than in another.
    """
    energy = float(np.vdot(rows, rows))
    error = (rows - decoded).reshape(-1)
    return float(np.sqrt(np.vdot(error, error) / energy)) if energy > 0 else 0.0


def _form(rung: Rung, tokens: int) -> Form:
    if rung is Rung.I8:
        return Form.FINE
    if tokens < BLOCK:
        return Form.ROWS
    return Form.LANES if rung in {Rung.Q3, Rung.Q2} else Form.BLOCKS


_GROUPED = {
    Rung.I8: DType.I8,
    Rung.Q5: DType.I8,
    Rung.Q4: DType.Q4,
    Rung.Q3: DType.Q4,
    Rung.Q2: DType.Q2,
}
"""Without a calibration: the next coding that is no worse."""
