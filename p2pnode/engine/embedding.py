"""The embedding of a GGUF file on the host, for engines that compute with float32."""

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats
from p2pnode.engine.gguf import dequantise
from p2pnode.engine.gguf_header import TensorInfo


class Embedding:
    """The rows of the embedding, still as stored: a token needs one row of 49,152.

    The default model's takes 30 MB so, and 113 MB in float32.
    """

    def __init__(self, rows: npt.NDArray[np.uint8], tensor: TensorInfo) -> None:
        self._rows = rows  # [vocab, row_bytes]
        self._tensor = tensor

    def __call__(self, tokens: npt.NDArray[np.int64]) -> Floats:
        """Return the hidden states [tokens, d_model] of ids [tokens]."""
        return np.array(dequantise(self._rows[tokens], self._tensor), np.float32)
