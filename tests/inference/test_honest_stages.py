"""Who keeps to its promise is named by nobody, whatever goes wrong beside it."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.faults import Faults
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.work import Work, WorkResult
from p2pnode.sansio import NodeId
from p2pnode.scheduler.offences import Offence
from p2pnode.testing.frames import Behaviour
from tests.inference.story import EVIL, PROMPT, A, Book, Story


def one_engine(story: Story, row_seconds: float) -> Behaviour:
    """Take what was promised for each row and layer, one job after the other."""
    free_at = 0.0

    def compute(work: Work, result: WorkResult) -> tuple[float, WorkResult]:
        nonlocal free_at
        now, rows = story.network.now, sum(one.rows for one in getattr(work, "batches", ()))
        free_at = max(free_at, now) + rows * row_seconds * 2
        return free_at - now, result

    return compute


def honest(row_seconds: float, chunk: int = 16) -> Story:
    """The middle takes its time, as it said; d holds what c does."""
    config = InferenceConfig(prefill_chunk=chunk)
    story = Story(more={"d": range(4, 6)}, config=config)
    network = story.network
    network.behaviours[EVIL] = one_engine(story, row_seconds)
    network.roster.costs[EVIL] = row_seconds * 1e6
    return story


def suspect(story: Story, peer: NodeId) -> None:
    network = story.network
    network.cores[A].peer_lost(peer, "suspected", network.now)
    network._collect(A)


def asked_for(story: Story, sessions: int, losses: Sequence[float]) -> list[Offence]:
    """Ask, with others called dead after so many seconds each; return what is held against evil."""
    network = story.network
    for _ in range(sessions):
        network.generate(A, GenerationRequest(PROMPT, 4, Sampling(), frozenset()))
    for seconds in losses:
        network.run(seconds)
        for generation in network.cores[A].generations():
            if generation.legs:
                suspect(story, generation.legs[-1].run.peer)
    network.run(600)
    return [offence for peer, offence, _, _ in story.book.noted if peer == EVIL]


@settings(max_examples=40, deadline=None)
@given(
    row_seconds=st.sampled_from([0.001, 0.02, 0.1, 0.5, 2.0]),
    chunk=st.sampled_from([4, 16, 64]),
    losses=st.lists(st.floats(0.1, 20.0), max_size=6),
    rate=st.sampled_from([1e9, 20_000.0, 8_000.0]),
)
def test_whatever_its_pace_is_and_whoever_else_is_lost(
    row_seconds: float, chunk: int, losses: Sequence[float], rate: float
) -> None:
    story = honest(row_seconds, chunk)
    story.network.rate = rate
    assert not asked_for(story, 1, losses)


@pytest.mark.parametrize("losses", [[], [1.0] * 6, [6.0, 3.0] * 3, [9.0, 5.0, 2.0]])
@pytest.mark.parametrize("chunk", [4, 64])
def test_while_its_engine_has_the_prompt_of_another_session(
    chunk: int, losses: list[float]
) -> None:
    assert not asked_for(honest(0.1, chunk), 2, losses)


def test_an_answer_that_is_read_late_says_nothing_of_now() -> None:
    """This node stood still for a minute with the answer in its socket."""
    faults = Faults(InferenceConfig(), Book(), A)
    assert not faults.holds_up(1, 40, 5.0, 0.0, 0.1)
    assert not faults.holds_up(1, 40, 5.0, 4.0, 64.0)
    assert not faults.holds_up(1, 41, 5.0, 65.0, 65.1)
    assert not faults.holds_up(1, 41, 5.0, 70.0, 70.1)
    assert faults.holds_up(1, 41, 5.0, 70.2, 70.3)
