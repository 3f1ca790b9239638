"""Three whole nodes on the virtual network: they meet, answer, and survive a death."""

import pytest

from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.sampling.schema import Constraints
from p2pnode.inference.events import GenerationFailed
from p2pnode.inference.request import GenerationRequest
from p2pnode.testing.links import Bernoulli, Link
from p2pnode.testing.swarm import Swarm

PROMPT = tuple(range(3, 43))
LAN = Link(latency=(0.0002, 0.0008))


def request(max_tokens: int = 12) -> GenerationRequest:
    return GenerationRequest(PROMPT, max_tokens, Sampling(), frozenset(), wait=20.0)


def three(seed: int, link: Link = LAN, **more: range) -> Swarm:
    swarm = Swarm(seed, link)
    for name, layers in {"a": range(2), "b": range(2, 4), "c": range(4, 6), **more}.items():
        swarm.add(name, layers)
    swarm.introduce("a", "b", "c", *more)
    return swarm


def answer(swarm: Swarm, name: str = "a", seconds: float = 60.0) -> list[int]:
    number = swarm.generate(name, request())
    assert swarm.network.run_until(lambda: swarm.ended(name, number), seconds)
    return swarm.tokens(name, number)


def undisturbed() -> list[int]:
    return answer(three(seed=0))


def test_three_nodes_meet_and_answer() -> None:
    tokens = undisturbed()
    assert len(tokens) == 12


@pytest.mark.parametrize("loss", [0.05, 0.2])
def test_loss_changes_no_token(loss: float) -> None:
    swarm = three(3, Link(loss=Bernoulli(loss), latency=(0.0002, 0.002)))
    assert answer(swarm) == undisturbed()


@pytest.mark.parametrize("token", range(11))
@pytest.mark.parametrize("victim", ["b", "c"])
def test_a_kill_after_any_token_changes_no_token(victim: str, token: int) -> None:
    spare = {"b": range(2, 4), "c": range(4, 6)}[victim]
    swarm = three(token, spare=spare)
    assert swarm.network.run_until(swarm.is_ready, 10)
    killed: list[str] = []

    def strike(name: str, event: object) -> None:
        if len(swarm.tokens(name, 1)) == token + 1 and not killed:
            chain = [leg.run.name for leg in swarm.nodes["a"].inference.generations()[0].legs]
            killed.append(next(name for name in (victim, "spare") if name in chain))
            swarm.kill(killed[0])

    swarm.on_token = strike
    assert answer(swarm) == undisturbed()
    assert killed


SCHEMA = (
    '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],'
    '"additionalProperties":false,"x-guidance":{"whitespace_flexible":false}}'
)
LETTERS = [bytes([byte]) if 32 <= byte < 127 else b"" for byte in range(256)]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(0.9, seed=3, min_p=0.01, repetition_penalty=1.5, frequency_penalty=1),
        Sampling(presence_penalty=1, schema=SCHEMA, ends=(1,)),
    ],
    ids=["penalties", "schema"],
)
@pytest.mark.parametrize("token", [0, 3, 5])
def test_a_kill_of_who_draws_changes_no_token(token: int, sampling: Sampling) -> None:
    asked = GenerationRequest(PROMPT, 12, sampling, frozenset(sampling.ends), wait=20.0)

    def answered(swarm: Swarm) -> list[int]:
        swarm.grammars = Constraints(LETTERS, 1)
        assert swarm.network.run_until(swarm.is_ready, 10)
        number = swarm.generate("a", asked)
        assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
        return swarm.tokens("a", number)

    swarm = three(token, spare=range(4, 6))
    killed: list[str] = []

    def strike(name: str, event: object) -> None:
        if len(swarm.tokens(name, 1)) == token + 1 and not killed:
            legs = swarm.nodes["a"].inference.generations()[0].legs
            killed.append(legs[-1].run.name)
            swarm.kill(killed[0])

    swarm.on_token = strike
    assert answered(swarm) == answered(three(seed=0))
    assert killed


def test_layers_nobody_holds_are_named() -> None:
    swarm = Swarm(1, LAN)
    swarm.add("a", range(2))
    swarm.add("b", range(4, 6))
    swarm.introduce("a", "b")
    number = swarm.generate("a", request())
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    final = swarm.answers[-1][2]
    assert isinstance(final, GenerationFailed)
    assert "[2, 4)" in final.reason


def test_nodes_that_choose_share_out_the_layers() -> None:
    swarm = Swarm(2, LAN)
    for name in ("a", "b", "c"):
        swarm.add(name, max_layers=2)
    swarm.introduce("a", "b", "c")
    assert swarm.network.run_until(swarm.is_ready, 30)
    assert sorted(node.served.start for node in swarm.nodes.values()) == [0, 2, 4]


def test_a_peer_of_another_swarm_gets_silence() -> None:
    swarm = Swarm(4, LAN)
    swarm.add("a", range(6))
    swarm.add("stranger", range(6), secret=bytes(32))
    swarm.introduce("a", "stranger")
    swarm.network.run(20)
    assert not swarm.nodes["a"].planner.members()
    assert swarm.nodes["stranger"].counters["dial failed"]


def test_the_same_seed_tells_the_same_story() -> None:
    hashes = []
    for _ in range(2):
        swarm = three(7, Link(loss=Bernoulli(0.1), latency=(0.0002, 0.002)))
        answer(swarm)
        hashes.append(swarm.network.trace_hash())
    assert hashes[0] == hashes[1]
