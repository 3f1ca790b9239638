"""An answer in which stages move, and no token comes, ends in time."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.activations import Batch
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.cover import Covered, CoverTask, Leg
from p2pnode.inference.events import ChainBroken, GenerationFailed, TokenProduced
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.work import Computed, Forward, Work, WorkResult
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import StageRun
from p2pnode.scheduler.offences import Offence
from p2pnode.scheduler.standing import Standing
from p2pnode.testing.frames import Behaviour, node_id
from p2pnode.wire.states import Rung
from tests.inference.story import (
    EVIL,
    PROMPT,
    SPARE,
    TAIL,
    TOKENS,
    A,
    B,
    C,
    Story,
    failing,
    filled_with,
    right,
    silent,
)

MOST = InferenceConfig().give_up + 10
"""Seconds in which an answer in which nothing moves is over, whatever its peers do."""

REQUEST = GenerationRequest(PROMPT, TOKENS, Sampling(), frozenset())

REPLAY = 15.0
"""Seconds in which a stage that replays, and then stands still, is found out."""


def no_token(work: Work, result: WorkResult) -> tuple[float, WorkResult]:
    """Compute all, and draw nothing."""
    return 0.0, Computed((), 1) if isinstance(result, Computed) else result


def instead_of_a_token(change: Callable[[Batch], Batch], after: int) -> Behaviour:
    """Answer well up to a position, and then with something else."""

    def answer(work: Work, result: WorkResult) -> tuple[float, WorkResult]:
        if not isinstance(work, Forward) or not isinstance(result, Computed):
            return 0.0, result
        batches = tuple(one if one.start < after else change(one) for one in result.batches)
        return 0.0, replace(result, batches=batches)

    return answer


def lose(story: Story, peer: NodeId) -> None:
    story.network.cores[A].peer_lost(peer, "suspected", story.network.now)
    story.network._collect(A)


def test_a_replay_over_and_over_buys_no_time() -> None:
    """The only holder of the last layers computes all it is fed, and no token comes."""
    story = Story()
    network = story.network
    network.behaviours[C] = no_token
    assert story.ask(seconds=400) < MOST + 2 * REPLAY
    [failed] = story.all_of(GenerationFailed)
    assert "c stalled" in failed.reason
    assert story.book.offences(C) == {Offence.STALLED}
    assert not story.book.offences(EVIL)


def test_so_it_is_in_mid_answer() -> None:
    story = Story()
    network = story.network
    at = len(PROMPT) + 4
    network.behaviours[C] = instead_of_a_token(lambda one: replace(one, start=one.start + 3), at)
    assert story.ask(seconds=400) < MOST + 2 * REPLAY
    assert story.all_of(GenerationFailed)
    assert story.tokens == right()[: len(story.tokens)]


def test_a_peer_that_is_lost_now_and_then_is_borne_while_tokens_come() -> None:
    """Its replays take longer than nothing may move, and are progress each time."""
    config = InferenceConfig(prefill_chunk=4, job_rows=4, give_up=31.0)
    story = Story(config=config)
    network = story.network
    del network.roster.holders[B]

    def late(work: Work, result: WorkResult) -> tuple[float, WorkResult]:
        rows = sum(one.rows for one in getattr(work, "batches", ()))
        return 4.0 if rows > 1 else 0.0, result

    network.behaviours[EVIL] = late
    lost_at = [len(PROMPT) + token for token in (1, 4, 7)]

    def strike(event: TokenProduced) -> None:
        if event.position in lost_at:
            lost_at.remove(event.position)
            network._plan(0.0, partial(lose, story, EVIL))

    network.on_token = strike
    assert story.ask(seconds=400) > 3 * config.give_up
    assert not lost_at
    assert story.tokens == right()


@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, rows=2),  # its second half never comes
        lambda one: replace(one, start=one.start + 1),
    ],
    ids=["a part of a batch", "a later one"],
)
def test_what_is_no_token_yet_is_no_progress(change: Callable[[Batch], Batch]) -> None:
    story = Story(more={"tail": range(4, 6)})
    network = story.network
    holders = network.roster.holders
    holders[C] = holders.pop(C)  # tail is asked before c
    network.behaviours[TAIL] = instead_of_a_token(change, len(PROMPT) + 4)
    assert story.ask() < REPLAY
    assert story.tokens == right()
    assert story.book.offences(TAIL) == {Offence.STALLED}
    assert not story.book.offences(C)


def test_names_are_free_and_buy_no_repairs_without_end() -> None:
    names = [f"tail{number}" for number in range(60)]
    story = Story(more=dict.fromkeys(names, range(4, 6)))
    network = story.network
    del network.roster.holders[C]
    network.behaviours |= dict.fromkeys(map(node_id, names), failing)
    story.ask()
    assert story.all_of(GenerationFailed)
    assert len(story.all_of(ChainBroken)) <= 45


def test_of_two_lost_legs_each_goes_to_whoever_failed_least() -> None:
    """Only evil's fellow in guilt holds the last layers: that is no reason to ask evil again."""
    story = Story()
    network = story.network
    view = network.roster.view(REQUEST, Standing(), 0.0)
    runs = [StageRun(peer, "", layers, 0.0, "") for peer, layers in network.roster.holders.items()]
    legs = tuple(
        Leg(number, run, "f32", frozenset({Rung.F16}))
        for number, run in enumerate(runs)
        if run.peer != B
    )
    views = tuple(
        view.under(Standing(excluded=dict.fromkeys(barred, "")))
        for barred in ((EVIL, B, C), (EVIL, C), ())
    )
    lost = frozenset(leg.number for leg in legs if leg.run.peer != A)
    found = CoverTask(views, legs, lost, (A, A, EVIL, C, A), calibrated=False)()
    assert isinstance(found, Covered)
    assert [run.peer for runs in found.instead.values() for run in runs] == [B, C]


def test_an_honest_chain_is_found_among_peers_that_all_failed_once() -> None:
    """Evil is dropped with c, which accuses it each time; b was lost but once."""
    story = Story(669, more={"spare": range(2, 4), "tail": range(4, 6)})
    network = story.network
    network.behaviours |= {
        EVIL: filled_with(float("nan")),
        SPARE: filled_with(float("nan")),
        TAIL: silent,
    }
    for at, peer in ((0.062, C), (5.447, B)):
        network._plan(at, partial(lose, story, peer))
    assert story.ask(seconds=200) < 2 * MOST
    assert story.tokens == right()
