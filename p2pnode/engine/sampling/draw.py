"""From logits to a token, the same token wherever it is drawn.

In this order: the repetition, frequency and presence penalties; what is allowed at all; top-k;
temperature; top-p; min-p; the draw. Penalties go first everywhere in the field. Temperature before
top-p is the order of transformers and vLLM, and ours from the start (llama.cpp has it last): an
answer that moves between releases is drawn alike. Min-p compares with the likeliest alone, so it
may as well stand last, as in transformers.

Each of top-k, top-p and min-p keeps a head of the tokens sorted by logit. So only a head is sorted,
a longer one where the first does not suffice: sorting 150,000 logits takes 13 ms, this 1 ms.

The random number of a position is the first output of Philox, a counter-based generator, keyed
by the request's seed and counting by position (Salmon et al., "Parallel random numbers: as easy
as 1, 2, 3", 2011). No state travels: a stage that takes over in mid-answer draws what the lost
one would have drawn.
"""

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats
from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.sampling.past import Past
from p2pnode.errors import GenerationError

Ids: TypeAlias = npt.NDArray[np.int64]
Weights: TypeAlias = npt.NDArray[np.float64]

_HEAD = 256
"""Tokens sorted at first; they reach nearly all of the probability of a confident model."""
_GROWTH = 16

_LARGEST: Final = float(np.finfo(np.float32).max)


def sample(
    logits: Floats,
    sampling: Sampling,
    position: int,
    past: Past | None = None,
    allowed: Ids | None = None,
) -> int:
    """Choose a token.

    Args:
        logits: [vocab]
        sampling: How to choose.
        position: Of the token to be chosen; picks the random number.
        past: The tokens before it; wanted where ``sampling`` needs them.
        allowed: [n], ids that may be chosen, ascending and at least one; None for all.

    Raises:
        GenerationError: The logits hold no usable number.
    """
    check_finite(logits)
    if past is not None:
        logits = _penalised(logits, sampling, past)
    if allowed is None:
        return _choose(logits, sampling, position)
    return int(allowed[_choose(logits[allowed], sampling, position)])


def check_finite(logits: Floats) -> None:
    """Refuse logits [vocab] that no model means.

    Raises:
        GenerationError: The largest is infinite, or one is not a number.
    """
    if not np.isfinite(logits[logits.argmax()]):  # argmax finds a NaN first
        raise GenerationError("the logits that came of it are no numbers")


def _choose(logits: Floats, sampling: Sampling, position: int) -> int:
    best = int(logits.argmax())
    if sampling.temperature == 0 or sampling.top_k == 1:
        return best
    number = _uniform(sampling.seed, position)
    if sampling.top_k:
        head = head_of(logits, sampling.top_k)
        weights = _weights(logits[head], sampling.temperature)
        drawn = _draw(weights, float(weights.sum()), sampling, number, is_all=True)
        return int(head[-1 if drawn is None else drawn])
    weights = _weights(logits, sampling.temperature)
    total, size = float(weights.sum()), _HEAD
    while True:
        head = head_of(logits, size)
        drawn = _draw(weights[head], total, sampling, number, is_all=len(head) == len(logits))
        if drawn is not None:
            return int(head[drawn])
        size *= _GROWTH


def _weights(logits: Floats, temperature: float) -> Weights:
    """Return [n], what each counts for in the draw; the likeliest counts 1.

    One array, changed in place: a fresh one for each step costs as much as the steps.
    """
    weights: Weights = np.subtract(logits, logits.max(), dtype=np.float64)  # [n]
    with np.errstate(over="ignore", under="ignore"):  # what is far below the best counts nothing
        np.divide(weights, temperature, out=weights)
        np.exp(weights, out=weights)
    return weights


def _draw(
    weights: Weights, total: float, sampling: Sampling, number: float, *, is_all: bool
) -> int | None:
    """Return which of a head is drawn; None where that shows only in a longer one.

    Args:
        weights: [head], of the likeliest tokens, the likeliest first.
        total: What the weights of all tokens come to.
        sampling: How to choose.
        number: The random number, below 1.
        is_all: Whether no further token comes after the head.
    """
    reach = np.cumsum(weights)  # [head]
    kept = len(weights)
    if sampling.top_p < 1:
        kept = 1 + int(np.searchsorted(reach, sampling.top_p * total))
    if sampling.min_p:
        kept = min(kept, int(np.count_nonzero(weights >= sampling.min_p * weights[0])))
    if kept < len(weights) or is_all:
        kept = min(kept, len(weights))
        aim = number * reach[kept - 1]
    elif sampling.top_p < 1 or sampling.min_p:
        return None
    else:
        aim = number * total
    drawn = int(np.searchsorted(reach, aim, side="right"))
    if drawn < kept:
        return drawn
    return kept - 1 if is_all else None


def head_of(logits: Floats, size: int) -> Ids:
    """Return [at most size], the likeliest tokens in order, equal ones by id.

    So equal logits choose equally everywhere.
    """
    if size < len(logits):
        bar = np.partition(logits, -size)[-size]
        ids = np.flatnonzero(logits >= bar)  # [size or more], ascending
    else:
        ids = np.arange(len(logits))
    order = np.argsort(-logits[ids], kind="stable")
    return ids[order[:size]]


def _uniform(seed: int, position: int) -> float:
    return float(np.random.Generator(np.random.Philox(key=seed, counter=position)).random())


def _penalised(logits: Floats, sampling: Sampling, past: Past) -> Floats:
    """Return [vocab], the logits with what the past takes off; the argument stays as it is."""
    changed = logits.copy()
    if sampling.repetition_penalty != 1:
        recent = np.unique(np.array(past.tokens[-sampling.penalty_last_n :], np.int64))  # [tokens]
        scores = changed[recent].astype(np.float64)
        factor = np.where(scores > 0, 1 / sampling.repetition_penalty, sampling.repetition_penalty)
        changed[recent] = np.clip(scores * factor, -_LARGEST, _LARGEST)
    if sampling.presence_penalty or sampling.frequency_penalty:
        said, counts = np.unique(np.array(past.answer, np.int64), return_counts=True)  # [tokens]
        taken_off = sampling.presence_penalty + sampling.frequency_penalty * counts
        changed[said] = np.clip(changed[said].astype(np.float64) - taken_off, -_LARGEST, _LARGEST)
    return changed
