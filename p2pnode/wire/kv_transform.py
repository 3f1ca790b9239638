"""Keys and values to whole numbers that know little of each other, and back.

Writer and reader walk up the layers with the same coordinates in hand: those that the reader
has. So an error of one layer does not add to the next one's, and what the forecast explains is
never sent.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from p2pnode.errors import LocalProtocolError
from p2pnode.wire.entropy import CLASSES, Classes, Numbers
from p2pnode.wire.kv_calibration import LayerBasis
from p2pnode.wire.tensor import F32Array

Rotation: TypeAlias = npt.NDArray[np.complex64]

_FARTHEST: Final = 1e9  # steps; a residual is an int32


def to_rows(keys: F32Array, values: F32Array, rotation: Rotation) -> F32Array:
    """Return one row a position [layers, positions, width], the keys without RoPE.

    Args:
        keys: [layers, heads, positions, head_dim]
        values: [layers, heads, positions, head_dim]
        rotation: The turn of each pair [positions, head_dim / 2].
    """
    pairs = np.ascontiguousarray(keys, np.float32).view(np.complex64)
    still = (pairs * rotation.conj()).view(np.float32)  # [layers, heads, positions, head_dim]
    return np.concatenate([_flat(still), _flat(values)], axis=-1)  # [layers, positions, width]


def of_rows(rows: F32Array, heads: int, rotation: Rotation) -> tuple[F32Array, F32Array]:
    """Undo :func:`to_rows`."""
    layers, positions, width = rows.shape
    parted = rows.reshape(layers, positions, 2, heads, width // (2 * heads))
    parted = parted.transpose(2, 0, 3, 1, 4)  # [2, layers, heads, positions, head_dim]
    still, values = parted  # [layers, heads, positions, head_dim] each
    pairs = np.ascontiguousarray(still).view(np.complex64)
    return (pairs * rotation).view(np.float32), np.ascontiguousarray(values)


def quantise(rows: F32Array, bases: Sequence[LayerBasis], fineness: int) -> Numbers:
    """Return what the forecasts do not explain of rows [layers, positions, width], in steps.

    Raises:
        LocalProtocolError: A value is no number, or absurdly large.
    """
    per_step = np.float32(2.0 ** (fineness / 4))
    steps = np.empty(rows.shape, np.int32)
    known = np.zeros(rows.shape[1:], np.float32)  # [positions, width]
    for index, (basis, row) in enumerate(zip(bases, rows, strict=True)):
        known = known @ basis.forecast if index else known
        rest = np.rint(((row - basis.mean) @ basis.basis - known) * per_step)
        if not np.abs(rest).max(initial=0) < _FARTHEST:  # a NaN fails it too
            raise LocalProtocolError("a key or value is no number, or absurdly large")
        steps[index] = rest
        known = known + rest / per_step
    return steps


def restore(steps: Numbers, bases: Sequence[LayerBasis], fineness: int) -> F32Array:
    """Undo :func:`quantise`, but for the rounding: rows [layers, positions, width]."""
    per_step = np.float32(2.0 ** (fineness / 4))
    rows = np.empty(steps.shape, np.float32)
    known = np.zeros(steps.shape[1:], np.float32)  # [positions, width]
    for index, (basis, rest) in enumerate(zip(bases, steps, strict=True)):
        known = known @ basis.forecast if index else known
        known = known + rest.astype(np.float32) / per_step
        rows[index] = known @ basis.inverse + basis.mean
    return rows


def classes_of(bases: Sequence[LayerBasis], positions: int, fineness: int) -> Classes:
    """Return the class of each of ``quantise``'s numbers [layers * positions * width]."""
    rows = [basis.classes[min(index, 1)] for index, basis in enumerate(bases)]
    shifted = np.clip(np.array(rows, np.int64) + fineness, 0, CLASSES - 1)  # [layers, width]
    return np.repeat(shifted.astype(np.uint8)[:, None], positions, axis=1).reshape(-1)


def _flat(heads: F32Array) -> F32Array:
    layers, count, positions, head_dim = heads.shape
    return heads.transpose(0, 2, 1, 3).reshape(layers, positions, count * head_dim)
