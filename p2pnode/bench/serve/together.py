"""Some sessions at once, over a swarm that batches and over one that does not, in turns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from p2pnode.bench.figures import spread
from p2pnode.bench.serve.asking import Params, answers
from p2pnode.bench.serve.shares import Together, over
from p2pnode.bench.serve.swarms import Served, in_turn
from p2pnode.engine.solo import answer_alone
from p2pnode.inference.config import InferenceConfig

if TYPE_CHECKING:
    from p2pnode.bench.serve.prompts import Prompts
    from p2pnode.engine.base import Engine


@dataclass(slots=True)
class _Taken:
    """What so many sessions at once came to in one swarm: rates a round, seconds of each token.

    ``cpu`` is a round's seconds of processor time, of all its nodes, over its tokens; ``steps_of``
    how many sessions an engine computed at once on the mean.
    """

    rates: list[float] = field(default_factory=list)
    whole_rates: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    steps_of: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    wrong: int = 0

    def figures(self) -> dict[str, Any]:
        return {
            "tokens_per_s": round(median(self.rates), 2),
            "with_prompts_tokens_per_s": round(median(self.whole_rates), 2),
            "least_share": round(min(self.shares), 3),
            "cpu_ms_per_token": round(1e3 * median(self.cpu), 2),
            "sessions_a_step": round(median(self.steps_of), 2),
            "step_ms": spread([1e3 * step for step in self.steps]),
            "first_token_ms": spread([1e3 * first for first in self.firsts]),
            "wrong_sessions": self.wrong,
        }


class SessionsAtOnce:
    """Asks as many questions at once as are to be measured; each answer is checked."""

    def __init__(
        self,
        swarms: Sequence[Served],
        prompts: Prompts,
        alone: Engine,
        *,
        sessions: Sequence[int],
        tokens: int,
        prompt: int,
    ) -> None:
        """``alone`` holds every layer; ``prompt`` and ``tokens`` are those of each session."""
        self._swarms = swarms
        self._prompts = prompts
        self._alone = alone
        self._sessions = sorted(set(sessions))
        self._tokens = tokens
        self._prompt = prompt
        chunk = InferenceConfig().prefill_chunk
        self._batches = -(-prompt // chunk) + tokens - 1  # that a stage computes for a session
        self._taken: dict[tuple[int, str], _Taken] = defaultdict(_Taken)

    def turns(self, number: int) -> Iterator[Callable[[], None]]:
        """Yield what is to be done in a round, bit by bit."""
        for place, count in enumerate(self._sessions):
            asked = [self._prompts.question(self._prompt, self._tokens) for _ in range(count)]
            found: dict[str, list[list[int]]] = {}
            for swarm in in_turn(self._swarms, number + place):
                yield partial(self._ask, swarm, asked, found)
            yield partial(self._check, asked, found)

    def figures(self) -> dict[str, Any]:
        """Return a row for each number of sessions and each swarm, and what they are to be."""
        rows = [
            {"sessions": count, "batching": batching, **taken.figures()}
            for (count, batching), taken in sorted(self._taken.items())
        ]
        return {
            "rows": rows,
            "ratios": self._ratios(),
            "identical": not any(taken.wrong for taken in self._taken.values()),
        }

    def _ask(self, swarm: Served, asked: Sequence[Params], found: dict[str, Any]) -> None:
        cpu, steps = swarm.cpu_seconds(), swarm.steps()
        sessions = answers(swarm.askers, asked)
        cpu, steps = swarm.cpu_seconds() - cpu, swarm.steps() - steps
        taken = self._taken[len(asked), swarm.batching]
        together = Together.of([session.came for session in sessions])
        seconds = max(session.came[-1] for session in sessions) - sessions[0].asked_at
        tokens = sum(len(session.came) for session in sessions)
        taken.rates.append(together.tokens_per_s)
        taken.whole_rates.append(tokens / seconds)
        taken.shares.append(together.least_share)
        taken.cpu.append(cpu / tokens)
        taken.steps_of.append(self._batches * len(sessions) * len(swarm.stages) / steps)
        for session in sessions:
            taken.firsts.append(session.first)
            taken.steps += session.steps
        found[swarm.batching] = [session.token_ids for session in sessions]

    def _check(self, asked: Sequence[Params], found: dict[str, list[list[int]]]) -> None:
        """Compare with what one engine says to each prompt, with nobody beside it."""
        for place, question in enumerate(asked):
            right = answer_alone(self._alone, question["prompt_ids"], self._tokens).token_ids
            for batching, tokens in found.items():
                self._taken[len(asked), batching].wrong += tokens[place] != list(right)

    def _ratios(self) -> dict[str, Any]:
        """Return the totals of the most sessions over others, round by round."""
        least, most = self._sessions[0], self._sessions[-1]
        ways = [swarm.batching for swarm in self._swarms]
        first, last = ways[0], ways[-1]
        pairs = {
            f"{most} {first} / {least} {first}": ((most, first), (least, first)),
            f"{most} {first} / {most} {last}": ((most, first), (most, last)),
            f"{least} {first} / {least} {last}": ((least, first), (least, last)),
        }
        return {
            name: over(self._taken[one].rates, self._taken[other].rates)
            for name, (one, other) in pairs.items()
            if one != other
        }
