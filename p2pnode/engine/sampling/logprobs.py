"""How likely the drawn token was, and which were the likeliest.

Of the model's own distribution, before penalties, temperature and whatever else changes the draw:
so they say the same of the model however tokens are drawn, as vLLM's do unless told otherwise
(``logprobs_mode=raw_logprobs``).
"""

import math
from typing import Final

import numpy as np

from p2pnode.engine.base import Floats
from p2pnode.engine.sampling.draw import head_of
from p2pnode.values import value

LEAST: Final = -9999.0
"""Stands for the logarithm of nothing, which JSON has no number for; OpenAI's API writes it so."""


@value
class Logprobs:
    """Natural logarithms of probabilities, at most 0.

    Attributes:
        chosen: Of the token that was drawn.
        top: The likeliest tokens with theirs, the likeliest first; as many as were asked for.
    """

    chosen: float
    top: tuple[tuple[int, float], ...]


def logprobs_of(logits: Floats, token: int, count: int) -> Logprobs:
    """Return what [vocab] says of ``token`` and of the ``count`` likeliest."""
    above = np.subtract(logits, logits.max(), dtype=np.float64)  # [vocab]
    with np.errstate(under="ignore"):
        total = math.log(float(np.exp(above).sum()))
    likeliest = head_of(logits, count) if count else ()

    def of(one: int) -> float:
        return max(LEAST, min(0.0, float(above[one]) - total))

    return Logprobs(of(token), tuple((int(one), of(one)) for one in likeliest))
