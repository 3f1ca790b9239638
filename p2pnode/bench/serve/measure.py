"""All parts of the benchmark, a round of each after another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from p2pnode.bench.chain import load_whole
from p2pnode.bench.serve.newcomer import Newcomer
from p2pnode.bench.serve.prompts import Prompts
from p2pnode.bench.serve.reuse import SecondTurn
from p2pnode.bench.serve.swarms import Served, warm_swarms
from p2pnode.bench.serve.together import SessionsAtOnce
from p2pnode.bench.serve.two_models import TwoModels, one_node
from p2pnode.engine.cpu import usable_cores

if TYPE_CHECKING:
    from p2pnode.engine.base import Engine

PARTS: Final = ("batching", "newcomer", "reuse", "models")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is asked.

    Attributes:
        sessions: How many at once, each number in a turn of its own.
        tokens: Of each answer among them.
        prompt: Tokens of each prompt among them.
        long_prompt: Tokens of a newcomer's; more than a chunk.
        positions: Of the first turn of a chat, about.
        rounds: Of everything.
    """

    sessions: Sequence[int]
    tokens: int
    prompt: int
    long_prompt: int
    positions: int
    rounds: int


class _Part(Protocol):
    """Something that is measured in rounds."""

    def turns(self, number: int) -> Iterator[Callable[[], None]]: ...

    def figures(self) -> dict[str, Any]: ...


def measure(
    path: Path,
    *,
    sizes: Sizes,
    only: Collection[str],
    batching: Collection[str],
    second: Path | None,
    engine: str,
    threads: int,
    askers: int,
    tell: Callable[[float], None],
) -> dict[str, Any]:
    """Measure the parts named in ``only``; ``tell`` hears which part of it is done.

    Each node computes on ``threads`` threads. With ``askers``, so many nodes without layers ask,
    in turn; else the node with the first layers asks for everybody. ``batching`` has the ways that
    take turns. ``second`` is another model, without which two are not measured.
    """
    with ExitStack() as stack:
        alone = load_whole(path, engine, usable_cores())
        parts = dict[str, _Part]()
        if not {"batching", "newcomer", "reuse"}.isdisjoint(only):
            prompts = Prompts(path)
            swarms = stack.enter_context(
                warm_swarms(path, prompts, batching, engine=engine, threads=threads, askers=askers)
            )
            parts = _over_three(swarms, prompts, alone, sizes)
        if second is not None and "models" in only:
            node = stack.enter_context(one_node(path, engine=engine, threads=threads))
            parts["models"] = TwoModels(
                node, (path, second), prompt=sizes.prompt, tokens=sizes.tokens
            )
        chosen = {name: part for name, part in parts.items() if name in only}
        for number in range(sizes.rounds):
            turns = [turn for part in chosen.values() for turn in part.turns(number)]
            for done, turn in enumerate(turns):
                tell((number + done / len(turns)) / sizes.rounds)
                turn()
        tell(1.0)
        numerics = alone.numerics
    return {
        "engine": numerics,
        "threads": threads,
        "askers": askers or "the node with the first layers",
        "rounds": sizes.rounds,
        "tokens": sizes.tokens,
        "prompt_tokens": sizes.prompt,
        **{name: part.figures() for name, part in chosen.items()},
    }


def _over_three(
    swarms: Sequence[Served], prompts: Prompts, alone: Engine, sizes: Sizes
) -> dict[str, _Part]:
    """Return the parts that are asked of three stages."""
    return {
        "batching": SessionsAtOnce(
            swarms,
            prompts,
            alone,
            sessions=sizes.sessions,
            tokens=sizes.tokens,
            prompt=sizes.prompt,
        ),
        "newcomer": Newcomer(
            swarms,
            prompts,
            others=max(1, max(sizes.sessions) - 1),
            prompt=sizes.long_prompt,
            short=sizes.prompt,
        ),
        "reuse": SecondTurn(swarms[0], prompts, positions=sizes.positions),
    }
