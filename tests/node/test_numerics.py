"""Nodes that compute in several ways: whom an answer uses, and what a failover says of its bits."""

from collections.abc import Callable

import pytest

from p2pnode.engine.base import StageCost
from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.events import (
    ChainRepaired,
    GenerationFinished,
    GenerationPlanned,
    TokenProduced,
)
from p2pnode.inference.request import GenerationRequest
from p2pnode.node.picture import World, snapshot
from p2pnode.scheduler.chain import StageRun
from p2pnode.testing.swarm import Swarm

GGML, NUMPY = "ggml 0.26.0/avx2/kv-f16", "numpy 2.4/openblas/kv-f32"
FIRST, LAST = range(3), range(3, 6)
FAST, SLOWER = StageCost(0, 400, 0, 400_000), StageCost(0, 480, 0, 480_000)
TOKENS = 20


def a_swarm(**nodes: tuple[range, str, StageCost]) -> Swarm:
    swarm = Swarm(1)
    for name, (layers, numerics, cost) in nodes.items():
        swarm.add(name, layers, numerics=numerics, cost=cost)
    swarm.introduce(*nodes)
    swarm.network.run(10)
    assert swarm.is_ready()
    return swarm


def ask(swarm: Swarm) -> int:
    request = GenerationRequest((1, 2, 3), TOKENS, Sampling(), frozenset())
    return swarm.generate("a", request)


def kill_after(swarm: Swarm, tokens: int, victim: Callable[[], str]) -> None:
    shown = 0

    def on_token(name: str, token: TokenProduced) -> None:
        nonlocal shown
        shown += 1
        if shown == tokens:
            swarm.kill(victim())

    swarm.on_token = on_token


def chain_of(swarm: Swarm) -> tuple[StageRun, ...]:
    [plan] = [event.plan for _, _, event in swarm.answers if isinstance(event, GenerationPlanned)]
    return plan.stages


def repairs(swarm: Swarm) -> list[ChainRepaired]:
    return [event for _, _, event in swarm.answers if isinstance(event, ChainRepaired)]


def test_nodes_of_one_numerics_answer_together() -> None:
    swarm = a_swarm(a=(FIRST, GGML, FAST), b=(LAST, NUMPY, FAST), c=(LAST, GGML, SLOWER))
    ask(swarm)
    swarm.network.run(10)
    assert [run.name for run in chain_of(swarm)] == ["a", "c"]
    assert {run.numerics_name for run in chain_of(swarm)} == {GGML}


@pytest.mark.parametrize("equal", [True, False])
def test_a_failover_keeps_the_numerics_or_says_that_it_could_not(equal: bool) -> None:
    others = {"b": (LAST, NUMPY, FAST), "c": (LAST, GGML, SLOWER)}
    if equal:
        others["d"] = (LAST, GGML, SLOWER)
    swarm = a_swarm(a=(FIRST, GGML, FAST), **others)
    kill_after(swarm, TOKENS // 2, lambda: chain_of(swarm)[-1].name)
    number = ask(swarm)
    swarm.network.run(60)
    assert isinstance(swarm.answers[-1][2], GenerationFinished)
    assert len(swarm.tokens("a", number)) == TOKENS
    [repaired] = repairs(swarm)
    node = swarm.nodes["a"]
    view = snapshot(node, World(), swarm.network.now).generations[-1]
    counted = node.inference.all_counters()["no longer bit-reproducible"]
    log = "\n".join(node.log)
    if equal:
        assert {run.numerics_name for run in repaired.stages} == {GGML}
        assert (repaired.changed, view.numerics_changed, counted) == ("", "", 0)
        assert "bit-reproducible" not in log
    else:
        assert repaired.changed == view.numerics_changed
        assert repaired.changed == (
            f"b has taken over layers [3, 6) and computes as {NUMPY}; c did as {GGML}"
        )
        assert counted == 1
        assert f"answer {number} is no longer bit-reproducible: b has taken over" in log


def test_a_loss_before_the_first_token_changes_nothing() -> None:
    swarm = a_swarm(a=(FIRST, GGML, FAST), b=(LAST, NUMPY, FAST), c=(LAST, GGML, SLOWER))
    number = ask(swarm)
    swarm.kill("c")
    swarm.network.run(60)
    assert len(swarm.tokens("a", number)) == TOKENS
    assert all(not repaired.changed for repaired in repairs(swarm))
