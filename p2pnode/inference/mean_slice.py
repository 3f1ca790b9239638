"""The mean of a prompt's hidden states as a slice beside a token: one row of float32."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from p2pnode.errors import RemoteProtocolError
from p2pnode.inference.activations import ROOM
from p2pnode.wire.dtypes import DType
from p2pnode.wire.vframe import Slice

WIDEST: Final = ROOM // 4 - 16
"""Numbers of a mean at the most: with its token it fits one frame."""


def mean_slice(mean: NDArray[np.float32]) -> Slice:
    """Return F32 [1, d_model] of a mean [d_model]."""
    return Slice(DType.F32, (1, len(mean)), mean.astype("<f4").tobytes())


def mean_untrusted(piece: Slice, d_model: int) -> bytes:
    """Return the numbers of a mean [d_model], float32, little-endian.

    Raises:
        RemoteProtocolError: It holds something else, or what is no number.
    """
    if piece.dtype != DType.F32 or piece.shape != (1, d_model):
        raise RemoteProtocolError(f"a mean of {d_model} numbers was asked for, and another came")
    numbers = np.frombuffer(piece.payload, "<f4")  # [d_model]
    if not math.isfinite(float(numbers.astype(np.float64) @ numbers)):
        raise RemoteProtocolError("a mean of what are no numbers")
    return bytes(piece.payload)
