"""A chain of three peers against one engine that holds every layer, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

from p2pnode.bench.figures import spread
from p2pnode.bench.hop.swarm import PROMPT
from p2pnode.quantiles import quantile
from p2pnode.testing.processes import LocalSwarm, NodeProcess, local_swarm
from p2pnode.transport.parity import CLEAN

if TYPE_CHECKING:
    from p2pnode.engine.base import Engine
    from p2pnode.net.control_client import ControlClient

WARM_UP = CLEAN + 32
"""Tokens before the first round: as many packets a link as the transport wants to see before it
takes the path for clean, and a few."""


@dataclass(slots=True)
class Tally:
    """What the rounds gave.

    Attributes:
        chain: Seconds of each decoded token over the chain.
        solo: Seconds of each decoded token alone.
        ratios: The chain's speed over the engine's, a round.
        hops_ms: Milliseconds a hop, a token.
        identical: Whether every round's tokens were the same in both.
    """

    chain: list[float] = field(default_factory=list)
    solo: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    hops_ms: list[float] = field(default_factory=list)
    identical: bool = True


def measure(
    path: Path,
    *,
    rounds: int,
    tokens: int,
    tell: Callable[[float], None],
    engine: str = "auto",
    threads: int = 1,
    compute: str = "engine",
) -> dict[str, Any]:
    """Run ``rounds`` of both in turns; ``tell`` hears which part is done.

    With ``compute`` as ``sleep``, each stage sleeps for as long as its arithmetic took before, and
    the engine alone as long as all three, one after another: cores are free, and the ratio is what
    the network costs. What travels are states made up from the token and its position, of which
    the last stage makes the next token, so tokens differ where a state arrives otherwise.

    Chain and engine compute with the same code on so many threads each; the order within a round
    alternates, so that neither always finds the warmer cache.
    """
    tally = Tally()
    both = _computing if compute == "engine" else _sleeping
    with both(path, engine, threads) as (nodes, client, alone, prompt_ids):
        _solo(alone, prompt_ids, 4)
        for number in range(rounds):
            _round(client, alone, prompt_ids, tokens, tally, chain_first=number % 2 == 0)
            tell((number + 1) / rounds)
        late = [node.snapshot().loop_late_ms[1] for node in nodes]
    return {
        "rounds": rounds,
        "tokens": tokens,
        "compute": compute,
        "engine": alone.numerics,
        "threads": threads,
        "solo_tokens_per_s": round(1 / quantile(tally.solo, 0.5), 3),
        "chain_tokens_per_s": round(1 / quantile(tally.chain, 0.5), 3),
        "ratio": round(median(tally.ratios), 4),
        "ratios": [round(ratio, 4) for ratio in tally.ratios],
        "hop_ms": spread(tally.hops_ms),
        "step_ms": {
            "solo": spread([1e3 * step for step in tally.solo]),
            "chain": spread([1e3 * step for step in tally.chain]),
        },
        "loop_late_p99_ms": round(max(late), 3),
        "identical": tally.identical,
    }


_Both: TypeAlias = tuple[Sequence[NodeProcess], "ControlClient", "Engine", list[int]]
"""The chain's nodes, a client of the first, an engine that holds every layer, and the prompt."""


@contextmanager
def _computing(path: Path, engine: str, threads: int) -> Iterator[_Both]:
    with local_swarm() as swarm:
        asker = start_three(swarm, path, engine=engine, threads=threads)
        alone = _load(path, engine, threads)
        with asker.client(timeout=None) as client:
            prompt_ids = _chain(client, WARM_UP)["prompt_ids"]
            yield swarm.nodes, client, alone, prompt_ids


@contextmanager
def _sleeping(path: Path, engine: str, threads: int) -> Iterator[_Both]:
    from p2pnode.bench.hop.knobs import Compute, Setting
    from p2pnode.bench.hop.stand_in import SoloStandIn, as_engine
    from p2pnode.bench.hop.swarm import measured_swarm

    with measured_swarm(path, 3, engine=engine, threads=threads) as measured:
        alone = _load(path, engine, threads)
        measured.warm_up(WARM_UP)
        stages = []
        for knobs in measured.knobs:
            forward, logits = knobs.found
            stages.append(Setting(compute=Compute.SLEEP, forward=forward, logits=logits))
            knobs.setting = stages[-1]
        prompt_ids = _chain(measured.client, 4)["prompt_ids"]
        waiting = as_engine(SoloStandIn(alone, stages))
        yield measured.swarm.nodes, measured.client, waiting, prompt_ids


def start_three(
    swarm: LocalSwarm, path: Path, *, engine: str = "auto", threads: int = 1
) -> NodeProcess:
    """Start three nodes with a third of the layers each; return the one with the first."""
    computing = ("--engine", engine, "--threads", str(threads))
    from p2pnode.node.models import describe_model

    total = describe_model(path).n_layers
    cuts = [0, -(-total // 3), -(-2 * total // 3), total]
    for name, first, stop in zip(("one", "two", "three"), cuts, cuts[1:], strict=False):
        swarm.start(name, "--model", str(path), "--layers", f"{first}:{stop}", *computing)
    for node in swarm.nodes:
        node.wait_until_up()
    swarm.wait_until_serving()
    return swarm.nodes[0]


def _round(
    client: ControlClient,
    engine: Engine,
    prompt_ids: list[int],
    tokens: int,
    tally: Tally,
    *,
    chain_first: bool,
) -> None:
    if chain_first:
        chained = _chain(client, tokens)
        alone_ids, alone = _solo(engine, prompt_ids, tokens)
    else:
        alone_ids, alone = _solo(engine, prompt_ids, tokens)
        chained = _chain(client, tokens)
    steps = [ms / 1e3 for ms in chained["steps_ms"]]
    tally.chain += steps
    tally.solo += alone
    tally.ratios.append(quantile(alone, 0.5) / quantile(steps, 0.5))
    tally.hops_ms += chained["hops_ms"]
    tally.identical &= chained["token_ids"] == alone_ids


def _chain(client: ControlClient, tokens: int) -> dict[str, Any]:
    params = {"prompt": PROMPT, "max_tokens": tokens, "ignore_eos": True, "details": True}
    result: dict[str, Any] = client.call("generate", params)
    return result


def _solo(engine: Engine, prompt_ids: list[int], tokens: int) -> tuple[list[int], list[float]]:
    from p2pnode.engine.solo import answer_alone

    answer = answer_alone(engine, prompt_ids, tokens)
    return list(answer.token_ids), list(answer.steps)


def _load(path: Path, name: str, threads: int) -> Engine:
    from p2pnode.engine.registry import EngineOptions, load_engine
    from p2pnode.node.model_cache import cache_dir
    from p2pnode.node.models import open_model

    options = EngineOptions(name, threads=threads, cache=cache_dir())

    known = open_model(path)
    engine = load_engine(path, range(known.info.n_layers), options, tree=known.tree)
    engine.measure()
    return engine
