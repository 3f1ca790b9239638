"""From logits to a token, the same token wherever it is drawn.

The random number of a position is the first output of Philox, a counter-based generator, keyed
by the request's seed and counting by position (Salmon et al., "Parallel random numbers: as easy
as 1, 2, 3", 2011). No state travels: a stage that takes over in mid-answer draws what the lost
one would have drawn.
"""

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats, Sampling
from p2pnode.errors import GenerationError


def sample(logits: Floats, sampling: Sampling, position: int) -> int:
    """Choose a token.

    Args:
        logits: [vocab]
        sampling: How to choose.
        position: Of the token to be chosen; picks the random number.

    Raises:
        GenerationError: The logits hold no usable number.
    """
    best = int(logits.argmax())
    if not np.isfinite(logits[best]):  # argmax finds a NaN first
        raise GenerationError("the model's output is not a number: a peer computed garbage")
    if sampling.temperature == 0 or sampling.top_k == 1:
        return best
    tokens, probabilities = _candidates(logits, sampling)
    reach = np.cumsum(probabilities)  # [candidates]
    chosen = np.searchsorted(reach, _uniform(sampling.seed, position) * reach[-1], side="right")
    return int(tokens[min(int(chosen), len(tokens) - 1)])


def _candidates(
    logits: Floats, sampling: Sampling
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the tokens that may be drawn, likeliest first, and their probabilities."""
    scores = logits.astype(np.float64)  # [vocab]
    # A stable sort breaks ties by token id, so that equal logits choose equally everywhere.
    order = np.argsort(-scores, kind="stable")  # [vocab]
    if sampling.top_k:
        order = order[: sampling.top_k]
    scores = (scores[order] - scores[order[0]]) / sampling.temperature
    weights = np.exp(scores)  # [candidates]
    probabilities = weights / weights.sum()
    if sampling.top_p < 1:
        before = np.cumsum(probabilities) - probabilities  # what the likelier ones reach
        kept = max(1, int(np.count_nonzero(before < sampling.top_p)))
        order, probabilities = order[:kept], probabilities[:kept]
    return order, probabilities


def _uniform(seed: int, position: int) -> float:
    return float(np.random.Generator(np.random.Philox(key=seed, counter=position)).random())
