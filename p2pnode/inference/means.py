"""The mean of a session's hidden states, summed up at its last stage, batch by batch.

After the last norm, as the head reads them. Before it, the first token of a text would outweigh the
others: its state is seven times as long in SmolLM2-135M, whatever the text.
"""

import numpy as np
from numpy.typing import NDArray

from p2pnode.engine.base import Engine, SessionKey
from p2pnode.errors import DrawError, GenerationError
from p2pnode.inference.mean_slice import WIDEST
from p2pnode.values import value


@value
class _Sum:
    """What positions below ``end`` come to: float64 [d_model]."""

    end: int
    total: NDArray[np.float64]


class Means:
    """Sums of the sessions under way; each is kept until its session closes, as its KV cache is."""

    def __init__(self) -> None:
        self._sums: dict[SessionKey, _Sum] = {}

    def take(
        self, engine: Engine, session: SessionKey, start: int, rows: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Add hidden states [n, d_model] from position ``start`` on; return the mean [d_model].

        Raises:
            DrawError: The positions before were never here, or the model is too wide.
            GenerationError: The engine's output is no use.
        """
        known = self._sums.get(session)
        if start == 0 and rows.shape[1] <= WIDEST:
            known = _Sum(0, np.zeros(rows.shape[1]))
        if known is None or known.end != start:
            raise DrawError("the mean of hidden states cannot be had here")
        total = known.total + engine.normed(rows).sum(axis=0, dtype=np.float64)  # [d_model]
        if not np.isfinite(total).all():
            raise GenerationError("its engine's hidden states are no numbers")
        self._sums[session] = _Sum(start + len(rows), total)
        mean: NDArray[np.float32] = (total / (start + len(rows))).astype(np.float32)  # [d_model]
        return mean

    def close(self, session: SessionKey) -> None:
        self._sums.pop(session, None)
