"""A simulated node has one engine: sessions wait for it, and are computed together."""

import itertools
from collections.abc import Callable

import pytest

from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.request import GenerationRequest
from p2pnode.testing.links import Link
from p2pnode.testing.swarm import TOGETHER, Swarm

LAN = Link(latency=(0.0002, 0.0008))
SESSIONS = 8
TOKENS = 12
LAYER = 0.002
THIRDS = {"a": range(2), "b": range(2, 4), "c": range(4, 6)}


def request(number: int, tokens: int = TOKENS) -> GenerationRequest:
    prompt = tuple(range(3 + number, 12 + 2 * number))
    sampling = Sampling(temperature=0.8, seed=number)
    return GenerationRequest(prompt, tokens, sampling, frozenset())


def swarm(*, batching: bool = True, spare: range | None = None) -> Swarm:
    made = Swarm(3, LAN, layer_seconds=LAYER)
    config = InferenceConfig(batching=batching)
    for name, layers in THIRDS.items():
        made.add(name, layers, inference=config)
    if spare is not None:
        made.add("spare", spare, inference=config)
    made.introduce(*made.nodes)
    assert made.network.run_until(made.is_ready, 20)
    made.network.run(1)
    return made


def ask(made: Swarm, count: int = SESSIONS) -> list[tuple[str, int]]:
    """Let the nodes ask in turns; return whose answers these are."""
    names = list(THIRDS)
    asked = []
    for number in range(count):
        name = names[number % len(names)]
        asked.append((name, made.generate(name, request(number))))
    return asked


def finish(made: Swarm, asked: list[tuple[str, int]]) -> list[list[int]]:
    assert made.network.run_until(lambda: all(made.ended(*one) for one in asked), 200)
    return [made.tokens(*one) for one in asked]


def alone() -> list[list[int]]:
    found = []
    for number in range(SESSIONS):
        made = swarm()
        [tokens] = finish(made, [("a", made.generate("a", request(number)))])
        found.append(tokens)
    return found


@pytest.fixture(scope="module")
def right() -> list[list[int]]:
    found = alone()
    assert all(len(tokens) == TOKENS for tokens in found)
    return found


@pytest.mark.parametrize("batching", [True, False])
def test_eight_answers_at_once_are_those_of_each_alone(
    batching: bool, right: list[list[int]]
) -> None:
    made = swarm(batching=batching)
    assert finish(made, ask(made)) == right
    figures = [node.inference.engine_queue for node in made.nodes.values()]
    assert all((one.sessions > 1.5) == batching for one in figures)
    assert all(one.waiting == 0 for one in figures)


@pytest.mark.parametrize("lost", ["b", "c"])
@pytest.mark.parametrize("after", [0, 20, 80])
def test_a_stage_that_dies_while_it_computes_for_eight_changes_no_token(
    lost: str, after: int, right: list[list[int]]
) -> None:
    """``after`` so many tokens of all together; the killed node's own answers die with it."""
    made = swarm(spare=THIRDS[lost])
    asked = [("a", made.generate("a", request(number))) for number in range(SESSIONS)]
    shown = [0]

    def count(name: str, token: object) -> None:
        shown[0] += 1

    made.on_token = count
    assert made.network.run_until(lambda: shown[0] >= after, 60)
    made.kill(lost)
    assert finish(made, asked) == right


def seconds(count: int, *, batching: bool = True) -> float:
    """Return what one node takes for answers asked at once, from the first token on."""
    made = Swarm(3, LAN, layer_seconds=LAYER)
    made.add("a", range(6), inference=InferenceConfig(batching=batching))
    assert made.network.run_until(made.is_ready, 20)
    moments: list[float] = []
    made.on_token = lambda name, token: moments.append(made.network.now)
    asked = [
        ("a", made.generate("a", GenerationRequest((3 + number, 4), 30, Sampling(), frozenset())))
        for number in range(count)
    ]
    finish(made, asked)
    return moments[-1] - moments[0]


def test_sessions_wait_for_the_one_engine_and_share_its_steps() -> None:
    one, together, apart = seconds(1), seconds(SESSIONS), seconds(SESSIONS, batching=False)
    assert one < together < 0.9 * apart
    assert 0.95 * SESSIONS * one < apart


def test_an_engine_does_one_thing_after_the_other() -> None:
    made = Swarm(1, LAN, layer_seconds=LAYER)
    made.add("a", range(6))
    assert made.network.run_until(made.is_ready, 10)
    spans: list[tuple[float, float]] = []
    compute: Callable[..., None] = made.finish

    def note(name: str, job: int, result: object, *, delay: float = 0.0) -> None:
        spans.append((made.network.now, made.network.now + delay))
        compute(name, job, result, delay=delay)

    made.finish = note  # type: ignore[assignment, method-assign]
    ask_all = [("a", made.generate("a", request(number))) for number in range(4)]
    finish(made, ask_all)
    ends = [end for _, end in spans]
    assert ends == sorted(ends)
    assert TOGETHER < 1


def test_a_prompt_of_the_whole_context_holds_decoders_up_by_one_batch_at_a_time() -> None:
    made = Swarm(2, LAN, layer_seconds=0.0005)
    made.add("a", range(6))
    assert made.network.run_until(made.is_ready, 10)
    for number in range(SESSIONS):
        made.generate("a", request(number, 60))
    made.network.run(1.0)
    moments: dict[int, list[float]] = {}
    made.on_token = lambda name, token: moments.setdefault(token.generation, []).append(
        made.network.now
    )
    long = GenerationRequest(tuple(range(3, 243)) * 2, 2, Sampling(), frozenset())
    newcomer = made.generate("a", long)
    assert made.network.run_until(lambda: made.ended("a", newcomer), 60)
    chunk, row = 64 * 6 * 0.0005, 6 * 0.0005
    gaps = [
        later - sooner
        for number, at in moments.items()
        if number != newcomer
        for sooner, later in itertools.pairwise(at)
    ]
    assert len(gaps) > SESSIONS
    assert max(gaps) <= chunk + 2 * SESSIONS * row + 0.005
