"""One engine answering alone: what every chain is compared with."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from p2pnode.engine.base import Engine
from p2pnode.engine.sampling.draw import sample
from p2pnode.engine.sampling.options import Sampling

_SESSION = b"solo"


@dataclass(frozen=True, slots=True)
class SoloAnswer:
    """Tokens, and the seconds from each to the next; ``prefill`` is the prompt's."""

    token_ids: tuple[int, ...]
    steps: tuple[float, ...]
    prefill: float

    @property
    def tokens_per_s(self) -> float:
        spent = sum(self.steps)
        return len(self.steps) / spent if spent > 0 else 0.0


def answer_alone(
    engine: Engine,
    prompt_ids: Sequence[int],
    max_tokens: int,
    *,
    sampling: Sampling | None = None,
    stop: frozenset[int] = frozenset(),
    chunk: int = 64,
    clock: Callable[[], float] = time.perf_counter,
) -> SoloAnswer:
    """Answer with an engine that holds every layer, prefilling in the chunks a chain uses."""
    drawn = sampling or Sampling()
    tokens: list[int] = []
    moments = [clock()]
    batch = np.asarray(prompt_ids, dtype=np.int64)
    chunks = [batch[start : start + chunk] for start in range(0, len(batch), chunk)]
    position = 0
    try:
        while True:
            hidden = engine.forward(_SESSION, engine.layers, chunks, position)
            position += sum(map(len, chunks))
            token = sample(engine.logits(hidden[-1][-1:])[0], drawn, position)
            tokens.append(token)
            moments.append(clock())
            if token in stop or len(tokens) >= max_tokens:
                break
            chunks = [np.array([token], dtype=np.int64)]
    finally:
        engine.close(_SESSION)
    steps = [after - before for before, after in itertools.pairwise(moments[1:])]
    return SoloAnswer(tuple(tokens), tuple(steps), moments[1] - moments[0])
