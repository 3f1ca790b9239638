"""What the process of a contestant is asked to do, whichever engine it has."""

from collections.abc import Sequence
from typing import Protocol

from p2pnode.engine.base import Floats


class Runner(Protocol):
    """A whole model with one session.

    Attributes:
        numerics: Names the arithmetic.
        device: What computes, for people.
    """

    numerics: str
    device: str

    def feed(self, ids: Sequence[int], *, every: bool) -> Floats:
        """Append tokens as one batch; return the logits of each, or [1, vocab] of the last."""

    def reset(self) -> None:
        """Forget all tokens."""

    def python_us(self, ids: Sequence[int]) -> float | None:
        """Append tokens one by one; return the median microseconds a call beside computing.

        Of this thread's CPU, so that a busy machine changes little.
        """

    def python_layer_us(self, tokens: int) -> float | None:
        """Return the same of calls of one layer with one hidden state each.

        Its weights push little out of the caches.
        """
