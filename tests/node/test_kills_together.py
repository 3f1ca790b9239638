"""A stage is lost while four sessions of two requesters decode at once: no token of any changes.

At every token of a session, at every boundary: each session has the tokens that its prompt has
from one engine alone.
"""

from functools import cache

import pytest

from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.solo import answer_alone
from p2pnode.inference.events import ChainRepaired, TokenProduced
from p2pnode.inference.request import GenerationRequest
from p2pnode.testing.links import Link
from p2pnode.testing.swarm import Swarm

LAN = Link(latency=(0.0002, 0.0008))
TOKENS = 6
STAGES = {"first": range(2), "middle": range(2, 4), "last": range(4, 6)}
WARM = Sampling(temperature=0.9, top_k=40, top_p=0.95, seed=7)
ASKED = (
    ("me", tuple(range(3, 23)), WARM),
    ("you", tuple(range(40, 115)), WARM),  # a chunk and a bit
    ("me", tuple(range(90, 97)), Sampling()),
    ("you", tuple(range(200, 250)), WARM),
)
"""Who asks, what, and how it is drawn: four sessions."""


def swarm(seed: int, spare: str) -> Swarm:
    """Three stages, one more that holds what ``spare`` does, and two who hold nothing and ask."""
    found = Swarm(seed, LAN)
    for name, layers in {**STAGES, "spare": STAGES[spare]}.items():
        found.add(name, layers)
    for name in ("me", "you"):
        found.add(name, holds=False)
    found.introduce(*found.nodes)
    found.network.run(3.0)
    assert found.is_ready()
    return found


@cache
def alone(session: int) -> list[int]:
    _, prompt, sampling = ASKED[session]
    engine = random_model(5, n_layers=6, layers=range(6))
    return list(answer_alone(engine, prompt, TOKENS, sampling=sampling).token_ids)


def ask(found: Swarm) -> list[tuple[str, int]]:
    """Ask all four at once; return who asked, and the number each has there."""
    return [
        (name, found.generate(name, GenerationRequest(prompt, TOKENS, sampling, frozenset())))
        for name, prompt, sampling in ASKED
    ]


def chain_of(found: Swarm, name: str, number: int) -> list[str]:
    generations = found.nodes[name].inference.generations()
    legs = next(one for one in generations if one.number == number).legs
    return [leg.run.name for leg in legs]


@pytest.mark.parametrize("token", range(TOKENS - 1))  # after the last, nothing is repaired
@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_at_any_token_and_boundary_changes_no_token_of_four(stage: str, token: int) -> None:
    found = swarm(token, stage)
    watched, killed = token % len(ASKED), list[str]()
    sessions = list[tuple[str, int]]()

    def strike(name: str, event: TokenProduced) -> None:
        _, prompt, _ = ASKED[watched]
        if killed or (name, event.generation) != sessions[watched]:
            return
        if event.position == len(prompt) + token:
            place = list(STAGES).index(stage)
            killed.append(chain_of(found, *sessions[watched])[place])
            found.kill(killed[0])

    found.on_token = strike
    sessions += ask(found)
    assert found.network.run_until(lambda: all(found.ended(*one) for one in sessions), 60)
    assert killed
    repaired = [event for _, _, event in found.answers if isinstance(event, ChainRepaired)]
    assert repaired
    assert [found.tokens(*one) for one in sessions] == [alone(number) for number in range(4)]
