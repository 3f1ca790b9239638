"""Whole nodes: a stage is lost while four sessions of two requesters are computed together.

:mod:`tests.inference.test_kills_together` loses one at every token.
"""

from functools import cache, partial

import pytest

from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.solo import answer_alone
from p2pnode.inference.events import ChainRepaired, ComputeRequested, TokenProduced
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.work import forwards_of
from p2pnode.testing.links import Link
from p2pnode.testing.swarm import Swarm

LAN = Link(latency=(0.0002, 0.0008))
TOKENS = 16
KILL_AT = 5
STAGES = {"first": range(1), "middle": range(1, 5), "last": range(5, 6)}
"""Sessions meet where most layers are: spread evenly, they would be computed one by one."""

WARM = Sampling(temperature=0.9, top_k=40, top_p=0.95, seed=7)
ASKED = (
    ("me", tuple(range(3, 8)), WARM),
    ("you", tuple(range(40, 47)), WARM),
    ("me", tuple(range(90, 94)), Sampling()),
    ("you", tuple(range(200, 206)), WARM),
)
"""Who asks, what, and how it is drawn: four sessions."""


class Computed:
    """A swarm whose engines tell how many sessions each step has.

    Three stages, one more that holds what ``spare`` does, and two who hold nothing and ask.
    """

    def __init__(self, spare: str) -> None:
        self.steps: list[int] = []
        self.swarm = Swarm(1, LAN, layer_seconds=0.002)
        for name, layers in {**STAGES, "spare": STAGES[spare]}.items():
            self.swarm.add(name, layers, computer=partial(self._compute, name))
        for name in ("me", "you"):
            self.swarm.add(name, holds=False)
        self.swarm.introduce(*self.swarm.nodes)
        self.swarm.network.run(3.0)
        assert self.swarm.is_ready()

    def _compute(self, name: str, request: ComputeRequested) -> None:
        self.steps.append(len(forwards_of(request.work)))
        self.swarm.compute(name, request)


@cache
def alone(session: int) -> list[int]:
    _, prompt, sampling = ASKED[session]
    engine = random_model(5, n_layers=6, layers=range(6))
    return list(answer_alone(engine, prompt, TOKENS, sampling=sampling).token_ids)


def ask(found: Swarm) -> list[tuple[str, int]]:
    """Ask all four at once, over the same stages; return who asked, and the number each has."""
    stages = frozenset(found.nodes[name].node_id for name in STAGES)
    return [
        (
            name,
            found.generate(
                name, GenerationRequest(prompt, TOKENS, sampling, frozenset(), prefer=stages)
            ),
        )
        for name, prompt, sampling in ASKED
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_changes_no_token_of_four(stage: str) -> None:
    computed = Computed(stage)
    found, steps = computed.swarm, computed.steps
    sessions, together = list[tuple[str, int]](), list[int]()

    def strike(name: str, event: TokenProduced) -> None:
        if not together and len(found.tokens(*sessions[0])) == KILL_AT:
            together.append(max(steps))
            found.kill(stage)

    found.on_token = strike
    sessions += ask(found)
    assert found.network.run_until(lambda: all(found.ended(*one) for one in sessions), 60)
    assert together >= [2]
    repaired = [
        (name, event.generation)
        for _, name, event in found.answers
        if isinstance(event, ChainRepaired)
    ]
    assert set(repaired) == set(sessions)
    assert [found.tokens(*one) for one in sessions] == [alone(number) for number in range(4)]
