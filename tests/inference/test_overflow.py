"""An engine whose numbers overflow in mid-answer: whose fault it is, and how the answer ends."""

from typing import Any

import numpy as np
import pytest

from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.control import control_frame
from p2pnode.inference.events import ChainBroken, GenerationFailed
from p2pnode.inference.messages import OVERFLOW, Failed
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.sound import MOST_RMS
from p2pnode.sansio import NodeId
from p2pnode.scheduler.offences import Offence
from p2pnode.testing.frames import node_id
from p2pnode.testing.stand_in import stand_in
from tests.inference.story import EVIL, PROMPT, TOKENS, A, B, C, Story, filled_with, right

AT = len(PROMPT) + 4


def overflow(story: Story, peer: NodeId, value: float = float("inf")) -> None:
    """Let the engine of ``peer`` give ``value`` from position ``AT`` on."""
    engine = story.network._engines[peer]

    def forward(session: bytes, layers: range, inputs: list[Any], start: int) -> list[Any]:
        hidden = []
        for rows in engine.forward(session, layers, inputs, start):  # [rows, d_model]
            start += len(rows)
            hidden.append(np.full_like(rows, value) if start > AT else rows)
        return hidden

    story.network._engines[peer] = stand_in(engine, forward=forward)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 2 * MOST_RMS])
def test_our_own_engine_is_not_asked_nine_times_and_nobody_else_is_blamed(value: float) -> None:
    story = Story()
    overflow(story, A, value)
    assert story.ask() < 3
    assert story.tokens == right()[:5]
    [failed] = story.all_of(GenerationFailed)
    assert "our own engine overflows" in failed.reason
    assert f"a failed: its engine's hidden states of positions {AT} to {AT + 1}" in failed.reason
    assert len(story.all_of(ChainBroken)) == 2
    assert not story.book.noted
    assert story.network.cores[A].all_counters()["compute failed: no numbers came of it"] == 2


def test_another_machine_does_the_layers_at_which_ours_overflows() -> None:
    story = Story(more={"d": range(2)})
    overflow(story, A)
    assert story.ask() < 3
    assert story.tokens == right()
    assert story.chain[0] == "d"
    assert not story.book.noted


def test_our_own_last_stage_is_not_asked_nine_times_either() -> None:
    story = Story()
    network = story.network
    network.roster.holders = {EVIL: range(2, 4), A: range(2), C: range(4, 6)}
    asker = C
    overflow(story, asker)
    number = network.generate(asker, GenerationRequest(PROMPT, TOKENS, Sampling(), frozenset()))
    network.run(60)
    generation = network.cores[asker].generation(number)
    assert generation is not None
    assert "our own engine overflows" in generation.reason
    assert generation.repairs == 2
    book = story.books[list(network.cores).index(asker)]
    assert not book.noted


def test_who_overflows_says_so_itself_and_is_no_liar() -> None:
    story = Story()
    overflow(story, EVIL)
    assert story.ask() < 3
    assert story.tokens == right()
    assert [(peer, offence) for peer, offence, *_ in story.book.noted] == [(EVIL, Offence.FAILED)]


def test_the_word_of_another_that_it_overflows_ends_nothing() -> None:
    """It is a word that a node says to itself alone."""
    story = Story(more={"d": range(2, 4)})
    network = story.network
    story.number = network.generate(A, GenerationRequest(PROMPT, TOKENS, Sampling(), frozenset()))
    for accuser in (EVIL, B):
        network.run(0.02)
        generation = story.generation
        [leg] = (leg for leg in generation.legs if leg.run.peer == accuser)
        word = Failed(
            generation.session, generation.epoch, leg.number, accuser, "overflow", OVERFLOW
        )
        network.cores[A].receive_frame_untrusted(
            control_frame(word, network.space), accuser, network.now
        )
        network._collect(A)
    network.run(10)
    assert story.tokens == right()
    assert story.chain[1] == "d"
    assert node_id("d") not in {peer for peer, *_ in story.book.noted}


@pytest.mark.parametrize("asker", [A, node_id("d")], ids=["a", "d"])
def test_states_that_nearly_overflow_have_no_honest_stage_fail_in_their_place(
    asker: NodeId,
) -> None:
    """What d adds to them takes them beyond all measure; it was evil who went so far."""
    story = Story(more={"d": range(4, 5), "e": range(5, 6)})
    network = story.network
    del network.roster.holders[C]
    network.behaviours[EVIL] = filled_with(-MOST_RMS)
    request = GenerationRequest(PROMPT, TOKENS, Sampling(), frozenset())
    number = network.generate(asker, request)
    network.run(10)
    assert network.tokens(asker, number) == right()
    book = story.books[list(network.cores).index(asker)]
    assert book.noted[0][0] == EVIL
    assert {peer for peer, _, _, share in book.noted if share == 1} == {EVIL}
