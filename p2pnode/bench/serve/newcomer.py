"""A newcomer with a long prompt, alone and while others decode."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from p2pnode.bench.figures import spread
from p2pnode.bench.serve.asking import answer, crowd
from p2pnode.bench.serve.shares import newcomer_wait
from p2pnode.bench.serve.swarms import Served, in_turn
from p2pnode.inference.config import InferenceConfig

if TYPE_CHECKING:
    from p2pnode.bench.serve.prompts import Prompts

_TIMES: Final = 3  # newcomers a round, alone and beside the others
_LASTING: Final = 1024  # tokens that each other asks for: more than it gets before it is hung up on
_CHUNK: Final = InferenceConfig().prefill_chunk


class Newcomer:
    """Takes the time to the first token of a prompt that comes while others decode."""

    def __init__(
        self, swarms: Sequence[Served], prompts: Prompts, *, others: int, prompt: int, short: int
    ) -> None:
        """``others`` have prompts of ``short`` tokens, the newcomer one of ``prompt``."""
        self._swarms = swarms
        self._prompts = prompts
        self._others = others
        self._prompt = prompt
        self._short = short
        self._firsts: dict[tuple[str, str], list[float]] = defaultdict(list)

    def turns(self, number: int) -> Iterator[Callable[[], None]]:
        """Yield what is to be done in a round, bit by bit."""
        for swarm in in_turn(self._swarms, number):
            bits = [partial(self._alone, swarm), partial(self._beside, swarm)]
            yield from bits if number % 2 else reversed(bits)

    def figures(self) -> dict[str, Any]:
        """Return the times of each swarm."""
        rows = [self._row(swarm.batching) for swarm in self._swarms]
        return {"others": self._others, "prompt_tokens": self._prompt, "rows": rows}

    def _row(self, batching: str) -> dict[str, Any]:
        alone, beside = self._firsts[batching, "alone"], self._firsts[batching, "beside"]
        chunk = self._chunk(batching)
        return {
            "batching": batching,
            "alone_ms": spread([1e3 * one for one in alone], 1),
            "beside_ms": spread([1e3 * one for one in beside], 1),
            "chunk_ms": round(1e3 * chunk, 1),
            **newcomer_wait(alone, beside, chunk),
        }

    def _chunk(self, batching: str) -> float:
        """Return the seconds that one chunk more adds to a prompt alone."""
        more = (self._prompt - _CHUNK) / _CHUNK
        long, one = self._firsts[batching, "alone"], self._firsts[batching, "one chunk"]
        return max(0.0, median(long) - median(one)) / more

    def _alone(self, swarm: Served) -> None:
        for _ in range(_TIMES):
            self._come(swarm, "one chunk", _CHUNK)
            self._come(swarm, "alone", self._prompt)

    def _beside(self, swarm: Served) -> None:
        others = [self._prompts.question(self._short, _LASTING) for _ in range(self._others)]
        with crowd(swarm.askers, others, swarm.stages):
            for _ in range(_TIMES):
                self._come(swarm, "beside", self._prompt)

    def _come(self, swarm: Served, how: str, tokens: int) -> None:
        """Ask last of those who ask, beside as many others as there are."""
        heard = answer(swarm.askers[-1], self._prompts.question(tokens, 1))
        self._firsts[swarm.batching, how].append(heard.first)
