"""A chain of three peers against one engine that holds every layer, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from p2pnode.bench.bare_chain import BareChain, bare_chain
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
        bare: The same over bare sockets, where that is wanted.
        ratios: The chain's speed over the engine's, a round.
        bare_ratios: The bare chain's speed over the engine's.
        hops_ms: Milliseconds a hop, a token.
        bare_hops_ms: The same over bare sockets.
        identical: Whether every round's tokens were the same in all.
    """

    chain: list[float] = field(default_factory=list)
    solo: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    bare_ratios: list[float] = field(default_factory=list)
    hops_ms: list[float] = field(default_factory=list)
    bare_hops_ms: list[float] = field(default_factory=list)
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
    bare: bool = False,
) -> dict[str, Any]:
    """Run ``rounds`` of both in turns; ``tell`` hears which part is done.

    With ``bare``, engines joined by bare sockets (:mod:`p2pnode.bench.bare_chain`) take their turn
    in each round too.

    With ``compute`` as ``sleep``, each stage sleeps for as long as its arithmetic took before, and
    the engine alone as long as all three, one after another: cores are free, and the ratio is what
    the network costs. What travels are states made up from the token and its position, of which
    the last stage makes the next token, so tokens differ where a state arrives otherwise.

    Chain and engine compute with the same code on so many threads each; the order within a round
    alternates, so that neither always finds the warmer cache.
    """
    tally = Tally()
    both = _computing if compute == "engine" else _sleeping
    with both(path, engine, threads, bare) as them:
        _solo(them.alone, them.prompt_ids, 4)
        if them.bare is not None:
            them.bare.answer(them.prompt_ids, 4)
        for number in range(rounds):
            _round(them, tokens, tally, number)
            tell((number + 1) / rounds)
        late = [node.snapshot().loop_late_ms[1] for node in them.nodes]
        numerics = them.alone.numerics
    return {
        "rounds": rounds,
        "tokens": tokens,
        "compute": compute,
        "engine": numerics,
        "threads": threads,
        "solo_tokens_per_s": round(1 / quantile(tally.solo, 0.5), 3),
        "chain_tokens_per_s": round(1 / quantile(tally.chain, 0.5), 3),
        "ratio": round(median(tally.ratios), 4),
        "ratios": [round(ratio, 4) for ratio in tally.ratios],
        **_bare_figures(tally),
        "hop_ms": spread(tally.hops_ms),
        "step_ms": {
            "solo": spread([1e3 * step for step in tally.solo]),
            "chain": spread([1e3 * step for step in tally.chain]),
        },
        "loop_late_p99_ms": round(max(late), 3),
        "identical": tally.identical,
    }


def _bare_figures(tally: Tally) -> dict[str, Any]:
    if not tally.bare:
        return {}
    return {
        "bare_tokens_per_s": round(1 / quantile(tally.bare, 0.5), 3),
        "bare_ratio": round(median(tally.bare_ratios), 4),
        "bare_ratios": [round(ratio, 4) for ratio in tally.bare_ratios],
        "bare_hop_ms": spread(tally.bare_hops_ms),
    }


@dataclass(frozen=True, slots=True)
class _Them:
    """What takes turns.

    Attributes:
        nodes: The chain's.
        client: Speaks to the first of them.
        alone: An engine that holds every layer.
        prompt_ids: What is asked.
        bare: Engines joined by bare sockets, where they are wanted.
    """

    nodes: Sequence[NodeProcess]
    client: ControlClient
    alone: Engine
    prompt_ids: list[int]
    bare: BareChain | None


@contextmanager
def _computing(path: Path, engine: str, threads: int, bare: bool) -> Iterator[_Them]:
    with ExitStack() as stack:
        swarm = stack.enter_context(local_swarm())
        asker = start_three(swarm, path, engine=engine, threads=threads)
        alone = load_whole(path, engine, threads)
        client = stack.enter_context(asker.client(timeout=None))
        prompt_ids = _chain(client, WARM_UP)["prompt_ids"]
        cuts = _cuts(alone.info.n_layers)
        joined = stack.enter_context(bare_chain(path, engine, threads, cuts)) if bare else None
        yield _Them(swarm.nodes, client, alone, prompt_ids, joined)


@contextmanager
def _sleeping(path: Path, engine: str, threads: int, bare: bool) -> Iterator[_Them]:
    from p2pnode.bench.hop.knobs import Compute, Knobs, Setting
    from p2pnode.bench.hop.stand_in import SoloStandIn, as_engine
    from p2pnode.bench.hop.swarm import measured_swarm

    with ExitStack() as stack:
        swarm = measured_swarm(path, 3, engine=engine, threads=threads)
        measured = stack.enter_context(swarm)
        alone = load_whole(path, engine, threads)
        measured.warm_up(WARM_UP)
        stages = []
        for knobs in measured.knobs:
            forward, logits = knobs.found
            stages.append(Setting(compute=Compute.SLEEP, forward=forward, logits=logits))
            knobs.setting = stages[-1]
        prompt_ids = _chain(measured.client, 4)["prompt_ids"]
        waiting = as_engine(SoloStandIn(alone, stages))
        joined = None
        if bare:
            told = [measured.folder / f"bare-{number}.knobs" for number in range(len(stages))]
            for file, setting in zip(told, stages, strict=True):
                stack.enter_context(Knobs(file)).setting = setting
            cuts = _cuts(alone.info.n_layers)
            joined = stack.enter_context(bare_chain(path, engine, threads, cuts, told))
        yield _Them(measured.swarm.nodes, measured.client, waiting, prompt_ids, joined)


def start_three(
    swarm: LocalSwarm,
    path: Path,
    *options: str,
    engine: str = "auto",
    threads: int = 1,
    first_options: Sequence[str] = (),
) -> NodeProcess:
    """Start three nodes with a third of the layers each; return the one with the first.

    ``options`` are for each of them, ``first_options`` for the first alone.
    """
    computing = ("--engine", engine, "--threads", str(threads), *options)
    from p2pnode.node.models import describe_model

    cuts = _cuts(describe_model(path).n_layers)
    for name, first, stop in zip(("one", "two", "three"), cuts, cuts[1:], strict=False):
        own = first_options if not first else ()
        swarm.start(name, "--model", str(path), "--layers", f"{first}:{stop}", *computing, *own)
    for node in swarm.nodes:
        node.wait_until_up()
    swarm.wait_until_serving()
    return swarm.nodes[0]


def load_whole(path: Path, name: str, threads: int) -> Engine:
    """Load every layer into one engine of this process, measured as a node measures its own."""
    from p2pnode.engine.registry import EngineOptions, load_engine
    from p2pnode.node.model_cache import cache_dir
    from p2pnode.node.models import open_model

    options = EngineOptions(name, threads=threads, cache=cache_dir())

    known = open_model(path)
    engine = load_engine(path, range(known.info.n_layers), options, tree=known.tree)
    engine.measure()
    return engine


def _cuts(layers: int) -> list[int]:
    """Return the first layer of each of three stages, and how many layers there are."""
    return [0, -(-layers // 3), -(-2 * layers // 3), layers]


def _round(them: _Them, tokens: int, tally: Tally, number: int) -> None:
    """Let each have a turn; who is first changes, so that none always finds the warmer cache."""
    ids, steps = dict[str, list[int]](), dict[str, list[float]]()

    def chain() -> None:
        answer = _chain(them.client, tokens)
        ids["chain"], steps["chain"] = answer["token_ids"], [ms / 1e3 for ms in answer["steps_ms"]]
        tally.hops_ms.extend(answer["hops_ms"])

    def solo() -> None:
        ids["solo"], steps["solo"] = _solo(them.alone, them.prompt_ids, tokens)

    turns: list[Callable[[], None]] = [chain, solo]
    if (joined := them.bare) is not None:

        def bare() -> None:
            ids["bare"], steps["bare"], hops = joined.answer(them.prompt_ids, tokens)
            tally.bare_hops_ms.extend(1e3 * hop for hop in hops)

        turns.append(bare)
    first = number % len(turns)
    for turn in turns[first:] + turns[:first]:
        turn()
    alone = quantile(steps["solo"], 0.5)
    tally.chain += steps["chain"]
    tally.solo += steps["solo"]
    tally.bare += steps.get("bare", [])
    tally.ratios.append(alone / quantile(steps["chain"], 0.5))
    if "bare" in steps:
        tally.bare_ratios.append(alone / quantile(steps["bare"], 0.5))
    tally.identical &= all(ids["solo"] == one for one in ids.values())


def _chain(client: ControlClient, tokens: int) -> dict[str, Any]:
    params = {"prompt": PROMPT, "max_tokens": tokens, "ignore_eos": True, "details": True}
    result: dict[str, Any] = client.call("generate", params)
    return result


def _solo(engine: Engine, prompt_ids: list[int], tokens: int) -> tuple[list[int], list[float]]:
    from p2pnode.engine.solo import answer_alone

    answer = answer_alone(engine, prompt_ids, tokens)
    return list(answer.token_ids), list(answer.steps)
