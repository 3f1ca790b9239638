"""The second turn of a chat: how much sooner it begins than the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from p2pnode.bench.figures import spread
from p2pnode.bench.serve.asking import Session, answer
from p2pnode.bench.serve.shares import over
from p2pnode.bench.serve.swarms import Served

if TYPE_CHECKING:
    from p2pnode.bench.serve.prompts import Prompts

_ANSWER = 16  # tokens of each turn's


class SecondTurn:
    """Has a chat of two turns a round, each about another text."""

    def __init__(self, swarm: Served, prompts: Prompts, *, positions: int) -> None:
        """``positions`` is about how many the first turn has."""
        self._swarm = swarm
        self._prompts = prompts
        self._positions = positions
        self._first: list[Session] = []
        self._second: list[Session] = []

    def turns(self, number: int) -> Iterator[Callable[[], None]]:
        """Yield what is to be done in a round."""
        yield self._chat

    def figures(self) -> dict[str, Any]:
        """Return times to the first tokens, and what of the second turn was known before."""
        first = [one.first for one in self._first]
        second = [one.first for one in self._second]
        return {
            "positions": [_longest(self._first), _longest(self._second)],
            "reused": min(one.reused for one in self._second),
            "first_turn_ms": spread([1e3 * one for one in first], 1),
            "second_turn_ms": spread([1e3 * one for one in second], 1),
            "second_over_first": over(second, first),
        }

    def _chat(self) -> None:
        messages = [{"role": "user", "content": self._prompts.text(self._positions)}]
        self._first.append(self._say(messages))
        messages += [
            {"role": "assistant", "content": self._first[-1].text},
            {"role": "user", "content": "And what follows from it?"},
        ]
        self._second.append(self._say(messages))

    def _say(self, messages: list[dict[str, str]]) -> Session:
        asked = {"messages": list(messages), "max_tokens": _ANSWER, "ignore_eos": True}
        return answer(self._swarm.askers[0], asked)


def _longest(turns: list[Session]) -> int:
    return max(len(turn.prompt_ids) for turn in turns)
