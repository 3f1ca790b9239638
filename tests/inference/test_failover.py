"""The answer goes on: a stage killed at every token and at every boundary, tokens identical."""

from dataclasses import replace
from functools import cache

import pytest

from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.events import (
    ChainBroken,
    ChainRepaired,
    GenerationFailed,
    GenerationFinished,
    GenerationPlanned,
    TokenProduced,
)
from p2pnode.inference.messages import Close, Failed
from p2pnode.inference.request import GenerationRequest
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import FrameNetwork, node_id
from p2pnode.wire.vframe import Frame, MessageType
from tests.inference.killed import kill_after, tokens_of

A, B, C, SPARE, TAIL = (node_id(name) for name in ("a", "b", "c", "spare", "tail"))
PROMPT = tuple(range(3, 43))
TOKENS = 12
GREEDY = Sampling()
WARM = Sampling(temperature=0.9, top_k=40, top_p=0.95, seed=7)


def swarm(seed: int, holders: dict[NodeId, range]) -> FrameNetwork:
    engines = {peer: random_model(5, n_layers=6, layers=held) for peer, held in holders.items()}
    return FrameNetwork(seed, engines, InferenceConfig(prefill_chunk=16))


def three(seed: int, **more: range) -> FrameNetwork:
    extra = {node_id(name): held for name, held in more.items()}
    return swarm(seed, {A: range(2), B: range(2, 4), C: range(4, 6), **extra})


def request(sampling: Sampling = GREEDY, max_tokens: int = TOKENS) -> GenerationRequest:
    return GenerationRequest(PROMPT, max_tokens, sampling, frozenset())


@cache
def undisturbed(sampling: Sampling = GREEDY) -> list[int]:
    network = three(seed=0)
    number = network.generate(A, request(sampling))
    network.run(seconds=10)
    return network.tokens(A, number)


def test_a_chain_of_three_answers_and_frees_everything() -> None:
    network = three(seed=1)
    number = network.generate(A, request())
    network.run(seconds=10)
    assert network.tokens(A, number) == undisturbed()
    assert isinstance(network.events[-1][2], GenerationFinished)
    assert all(core.kv_used == 0 and not core.stages() for core in network.cores.values())


@pytest.mark.parametrize("victim", [B, C])
@pytest.mark.parametrize("token", range(TOKENS))
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_a_kill_after_any_token_changes_no_token(
    victim: NodeId, token: int, sampling: Sampling
) -> None:
    network = three(seed=token, spare=range(2, 4), tail=range(4, 6))
    kill_after(network, victim, len(PROMPT) + token)
    assert tokens_of(network, A, request(sampling)) == undisturbed(sampling)


@pytest.mark.parametrize("step", range(60))
def test_a_kill_at_any_moment_changes_no_token(step: int) -> None:
    network = three(seed=step, spare=range(2, 4), tail=range(4, 6))
    number = network.generate(A, request())
    network.run(seconds=step * 0.0015)
    network.kill(B if step % 2 else C)
    network.run(seconds=30)
    assert network.tokens(A, number) == undisturbed()


def states_into(network: FrameNetwork, peer: NodeId) -> dict[int, bytes]:
    """Return, filled as the network runs, the last hidden states sent to ``peer``, by position."""
    states: dict[int, bytes] = {}

    def note(frame: Frame, destination: NodeId) -> None:
        if frame.type is MessageType.THINK and destination == peer:
            states[frame.frame_seq] = bytes(frame.slices[0].payload)

    network.on_frame = note
    return states


def test_lost_layers_covered_in_two_parts_change_no_bit() -> None:
    calm = three(seed=0)
    expected = states_into(calm, C)
    calm.generate(A, request())
    calm.run(seconds=10)
    network = three(seed=4, one=range(2, 3), two=range(3, 4))
    states = states_into(network, C)
    network.on_token = lambda event: network.kill(B) if event.position == len(PROMPT) + 5 else None
    number = network.generate(A, request())
    network.run(seconds=30)
    assert network.tokens(A, number) == undisturbed()
    repairs = [event for _, _, event in network.events if isinstance(event, ChainRepaired)]
    assert [run.name for run in repairs[-1].stages] == ["a", "one", "two", "c"]
    # An f16 cut between "one" and "two" would show here, long before it changes a token.
    assert states == expected


def test_a_neighbour_takes_over_and_changes_no_token() -> None:
    network = swarm(2, {A: range(2), B: range(2, 4), C: range(2, 6)})
    network.roster.holders[C] = range(4, 6)
    network.on_token = lambda event: network.kill(B) if event.position == len(PROMPT) + 3 else None
    number = network.generate(A, request())
    network.run(seconds=0.02)
    network.roster.holders[C] = range(2, 6)  # what C holds all along, but did not say
    network.run(seconds=30)
    assert network.tokens(A, number) == undisturbed()


def test_the_first_stage_elsewhere_dies_and_the_requester_replays() -> None:
    network = three(seed=6, me=range(2, 3), head=range(2))
    me = node_id("me")
    network.on_token = lambda event: network.kill(A) if event.position == len(PROMPT) + 4 else None
    number = network.generate(me, request())
    network.run(seconds=30)
    assert network.tokens(me, number) == undisturbed()


def test_two_deaths_one_after_the_other() -> None:
    network = three(seed=8, spare=range(2, 4), tail=range(4, 6))
    kills = {len(PROMPT) + 2: B, len(PROMPT) + 6: C}
    network.on_token = lambda event: (
        network.kill(kills[event.position]) if event.position in kills else None
    )
    number = network.generate(A, request())
    network.run(seconds=30)
    assert network.tokens(A, number) == undisturbed()


def test_a_death_while_the_chain_is_being_repaired() -> None:
    network = three(seed=9, spare=range(2, 4), other=range(2, 4))
    spare = node_id("spare")
    network.on_token = lambda event: network.kill(B) if event.position == len(PROMPT) + 2 else None
    number = network.generate(A, request())
    network.run(seconds=0.08)
    network.kill(spare, noticed_after=1.0)
    network.run(seconds=30)
    assert network.tokens(A, number) == undisturbed()


def test_without_cover_the_answer_waits_and_then_fails_with_the_reason() -> None:
    network = three(seed=3)
    network.on_token = lambda event: network.kill(B) if event.position == len(PROMPT) + 2 else None
    network.generate(A, request())
    network.run(seconds=60)
    final = network.events[-1][2]
    assert isinstance(final, GenerationFailed)
    assert "[2, 4)" in final.reason
    assert all(not core.stages() for peer, core in network.cores.items() if peer != B)


@pytest.mark.parametrize("wait", [0.0, 5.0, 45.0])
def test_lost_layers_are_awaited_for_as_long_as_asked(wait: float) -> None:
    network = three(seed=3)
    struck = 0.0

    def strike(event: TokenProduced) -> None:
        nonlocal struck
        if event.position == len(PROMPT) + 2:
            network.kill(B)
            struck = network.now

    network.on_token = strike
    network.generate(A, replace(request(), lost_wait=wait))
    network.run(seconds=100)
    [broken, *_] = [event for _, _, event in network.events if isinstance(event, ChainBroken)]
    at, _, final = network.events[-1]
    assert isinstance(final, GenerationFailed)
    assert broken.seconds == pytest.approx(wait)
    assert at - struck == pytest.approx(wait, abs=4.0)  # a loss takes as long to be noticed


def test_a_cancelled_answer_frees_every_peer() -> None:
    network = three(seed=5)
    number = network.generate(A, request(max_tokens=400))
    network.run(seconds=0.2)
    assert network.tokens(A, number)
    network.cores[A].cancel(number, network.now)
    network._collect(A)
    network.run(seconds=1)
    assert all(not core.stages() for core in network.cores.values())


def test_the_plan_is_told_before_the_first_token() -> None:
    network = three(seed=5)
    network.generate(A, request())
    network.run(seconds=5)
    kinds = [type(event) for _, _, event in network.events]
    assert kinds[0] is GenerationPlanned


def test_a_close_that_comes_late_spares_the_stage_opened_after_it() -> None:
    network = three(seed=1)
    number = network.generate(A, request(max_tokens=40))
    network.run(seconds=0.1)
    generation = network.cores[A].generations()[0]
    network.cores[A].peer_lost(C, "a false alarm", network.now)  # a new epoch
    network.run(seconds=0.1)
    stage = network.cores[B].stages()[0]
    assert stage.order.epoch > 0
    late = control_frame(Close(generation.session, 0), network.space)
    network.cores[B].receive_frame_untrusted(late, A, network.now)
    assert network.cores[B].stages() == [stage]
    network.run(seconds=10)
    assert len(network.tokens(A, number)) == 40


def test_the_only_holder_is_tried_again_though_it_failed() -> None:
    network = three(seed=1)
    number = network.generate(A, request())
    network.run(seconds=0.04)
    generation = network.cores[A].generations()[0]
    leg = generation.legs[1]
    failed = Failed(generation.session, generation.epoch, leg.number, B, "a test says so")
    network.cores[A].receive_frame_untrusted(control_frame(failed, network.space), B, network.now)
    network.run(seconds=2)
    assert network.tokens(A, number) == undisturbed()
