"""A request's options decide who may draw, and a node says what it can."""

from dataclasses import replace

import pytest

from p2pnode import CORES
from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.events import ChainBroken, GenerationFailed, TokenProduced
from p2pnode.inference.request import GenerationRequest
from p2pnode.node.advert import Advert
from p2pnode.scheduler.standing import Standing
from p2pnode.testing.swarm import Swarm
from p2pnode.wire.ad import Ability

MEAN = Sampling(mean=True)


def swarm_of(*names: str) -> Swarm:
    """``a`` asks and holds the first half; each of ``names`` holds the second."""
    swarm = Swarm(1)
    swarm.add("a", range(3))
    for name in names:
        swarm.add(name, range(3, 6))
    swarm.introduce("a", *names)
    assert swarm.network.run_until(swarm.is_ready, 60)
    swarm.network.run(3)
    return swarm


def ask(swarm: Swarm, sampling: Sampling) -> list[object]:
    number = swarm.generate("a", GenerationRequest((1, 2, 3), 12, sampling, frozenset()))
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    return [event for _, _, event in swarm.answers]


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is called ``old...`` says that it can nothing more."""
    compose = Advert.compose
    monkeypatch.setattr(
        Advert,
        "compose",
        lambda self, **how: replace(
            compose(self, **how), abilities=0 if self.name[:3] == "old" else 11
        ),
    )


@pytest.mark.parametrize(
    ("sampling", "needs"),
    [
        (Sampling(), 0),
        (Sampling(temperature=0.5, top_k=3, seed=4), 0),
        (Sampling(min_p=0.1), Ability.SAMPLING),
        (Sampling(logprobs=0), Ability.SAMPLING),
        (Sampling(schema="{}", ends=(1,)), Ability.SCHEMAS),
        (Sampling(mean=True), Ability.MEANS),
        (Sampling(schema="{}", ends=(1,), presence_penalty=1), 3),
    ],
)
def test_what_a_request_needs(sampling: Sampling, needs: int) -> None:
    node = swarm_of("b").nodes["a"]
    request = GenerationRequest((1,), 2, sampling, frozenset())
    assert node.planner.view(request, Standing(), 0.0).wanted.needs == needs


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a method of a compiled class")
@pytest.mark.usefixtures("old")
def test_an_older_node_is_not_asked_for_what_it_cannot_and_takes_over_from_nobody() -> None:
    swarm = swarm_of("old", "b", "c")
    taken: list[str] = []

    def strike(name: str, token: TokenProduced) -> None:
        legs = swarm.nodes["a"].inference.generations()[0].legs
        taken.append(legs[-1].run.name)
        if token.position == 8:
            swarm.kill(taken[-1])

    swarm.on_token = strike
    events = ask(swarm, Sampling(presence_penalty=0.5))
    assert set(taken) == {"b", "c"}
    assert sum(isinstance(event, ChainBroken) for event in events) == 1
    assert not swarm.nodes["old"].inference.all_counters()


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a method of a compiled class")
@pytest.mark.usefixtures("old")
def test_where_only_older_ones_hold_the_last_layer_it_is_said_by_name() -> None:
    swarm = swarm_of("old", "old2")
    [failed] = [
        event for event in ask(swarm, Sampling(logprobs=2)) if isinstance(event, GenerationFailed)
    ]
    said = "no peer that holds the last layer can draw with penalties, min-p or log-probabilities"
    assert failed.reason == f"{said}: old, old2"
    assert failed.hint == "ask with fewer options, or update their nodes"
    swarm = swarm_of("old")
    assert not any(isinstance(event, GenerationFailed) for event in ask(swarm, Sampling()))


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a method of a compiled class")
@pytest.mark.usefixtures("old")
def test_the_mean_is_had_of_those_who_can_and_else_refused_by_name() -> None:
    assert swarm_mean(swarm_of("old", "b")) == swarm_mean(swarm_of("b"))
    swarm = swarm_of("old")
    number = swarm.generate("a", GenerationRequest((1, 2, 3), 1, MEAN, frozenset()))
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    [failed] = [event for _, _, event in swarm.answers if isinstance(event, GenerationFailed)]
    said = "no peer that holds the last layer can tell the mean of hidden states"
    assert failed.reason == f"{said}: old"


def test_one_node_and_three_give_the_same_mean_to_the_bit() -> None:
    three = Swarm(2)
    for name, held in {"a": range(2), "b": range(2, 4), "c": range(4, 6)}.items():
        three.add(name, held)
    three.introduce("a", "b", "c")
    assert three.network.run_until(three.is_ready, 60)
    alone = Swarm(2)
    alone.add("a", range(6))
    assert alone.network.run_until(alone.is_ready, 60)
    means = [swarm_mean(swarm, tuple(range(1, 200))) for swarm in (alone, three)]
    assert means[0] == means[1]
    assert len(means[0]) == 4 * 32


def swarm_mean(swarm: Swarm, prompt: tuple[int, ...] = (1, 2, 3)) -> bytes:
    number = swarm.generate("a", GenerationRequest(prompt, 1, MEAN, frozenset()))
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    [told] = [event for _, _, event in swarm.answers if isinstance(event, TokenProduced)]
    return told.mean
