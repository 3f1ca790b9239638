"""Made-up keys, values, turns and calibrations, for tests of the KV codec."""

import numpy as np
import numpy.typing as npt

from p2pnode.wire.kv_calibration import KvCalibration, KvShape, LayerBasis
from p2pnode.wire.kv_codec import KvSpan


def some_calibration(
    layers: int, shape: KvShape, *, seed: int = 0, space_hash32: int = 1
) -> KvCalibration:
    """Return a calibration whose bases have an inverse and steps of about a tenth."""
    rng = np.random.default_rng(seed)
    bases = tuple(_basis(rng, shape.width) for _ in range(layers))
    return KvCalibration(space_hash32, shape, bases)


def some_span(layers: range, shape: KvShape, positions: range, *, seed: int = 0) -> KvSpan:
    """Return keys and values of about unit size."""
    rng = np.random.default_rng(seed)
    size = (2, len(layers), shape.kv_heads, len(positions), shape.head_dim)
    keys, values = rng.normal(size=size).astype(np.float32)
    return KvSpan(layers, positions.start, keys, values)


def some_turns(positions: int, head_dim: int) -> npt.NDArray[np.complex64]:
    """Return the turn of each pair at the first positions [positions, head_dim / 2]."""
    angles = np.arange(positions)[:, None] * 0.5 ** np.arange(head_dim // 2)
    return np.exp(1j * angles).astype(np.complex64)


def _basis(rng: np.random.Generator, width: int) -> LayerBasis:
    turn, _ = np.linalg.qr(rng.normal(size=(width, width)))  # [width, width], orthogonal
    scales = np.stack([np.abs(turn).max(axis=0) / 127, np.full(width, 0.2 / 127)])
    forecast = rng.integers(-127, 128, (width, width)) // width
    codes = np.stack([np.rint(turn / scales[0]), forecast])
    return LayerBasis(
        rng.normal(size=width).astype(np.float32),
        (scales * [[10], [1]]).astype(np.float32),
        codes.astype(np.int8),
        rng.integers(20, 28, (2, width)).astype(np.uint8),
    )
