"""Waiting as long as the work takes, and no longer; who broke an answer, and how it ends."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import LocalProtocolError
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.control import control_frame
from p2pnode.inference.distrust import BriefDistrust
from p2pnode.inference.events import (
    ChainBroken,
    ChainRepaired,
    GenerationFailed,
    GenerationFinished,
    InferenceEvent,
    SendFrame,
)
from p2pnode.inference.messages import (
    Failed,
    Opened,
    Refusal,
    Refused,
    from_body_untrusted,
    to_body,
)
from p2pnode.inference.phase import Evidence
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.work import Work, WorkFailed, WorkResult
from p2pnode.sansio import NodeId
from p2pnode.scheduler.offences import Offence
from p2pnode.scheduler.standing import Standing
from p2pnode.testing.frames import Behaviour, FrameNetwork, node_id
from p2pnode.testing.stand_in import stand_in
from p2pnode.wire.messages import parse_sync_untrusted
from p2pnode.wire.vframe import MessageType
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
    impossible,
    right,
    silent,
    slow,
)

MOST = InferenceConfig().give_up + 10
"""Seconds in which an answer in which nothing moves is over, whatever its peers do."""


# A replay takes what it takes


@pytest.mark.parametrize("row_seconds", [0.005, 0.05, 0.2, 1.0])
def test_a_replay_is_waited_for_and_never_begun_anew(row_seconds: float) -> None:
    story = Story(more={"spare": range(2, 4)})
    network = story.network
    del network.roster.holders[EVIL], network.roster.holders[B]
    network.behaviours[SPARE] = lambda work, result: (
        row_seconds * sum(one.rows for one in getattr(work, "batches", ())),
        result,
    )
    network.roster.costs[SPARE] = row_seconds * 1e6 / 2
    network.roster.holders[B] = range(2, 4)
    del network.roster.holders[SPARE]

    def strike(event: object) -> None:
        if len(story.network.tokens(A, 1)) == 5:
            network.roster.holders[SPARE] = range(2, 4)
            network.kill(B)

    network.on_token = strike
    story.ask(seconds=400)
    assert story.tokens == right()
    assert len(story.all_of(ChainRepaired)) == 1
    computed = network.cores[SPARE].all_counters()
    assert computed["activation received twice"] == 0
    assert story.generation.epoch <= 2 + 45 * row_seconds / InferenceConfig().stall_after


def test_a_slow_but_honest_machine_nobody_promised_for_is_looked_at_and_kept() -> None:
    story = Story()
    network = story.network
    del network.roster.holders[EVIL]
    network.behaviours[B] = slow(4.0)  # a job; nobody said what it costs
    story.ask(seconds=200)
    assert story.tokens == right()
    assert not story.all_of(ChainBroken)


# Whoever breaks an answer is named, and dropped


@pytest.mark.parametrize(
    ("behaviour", "offence"),
    [
        (silent, Offence.STALLED),
        (failing, Offence.FAILED),
        (filled_with(float("nan")), Offence.DISPUTED),  # its accuser is a stranger too
        (filled_with(1e6), Offence.DISPUTED),
    ],
    ids=["silent", "failing", "not finite", "huge"],
)
def test_a_bad_middle_is_replaced_within_seconds_and_named(
    behaviour: Behaviour, offence: Offence
) -> None:
    story = Story()
    story.network.behaviours[EVIL] = behaviour
    took = story.ask()
    assert story.tokens == right()
    assert took < 30
    assert offence in story.book.offences(EVIL)
    assert story.chain == ["a", "b", "c"]
    assert not story.book.offences(B)
    whole = [peer for peer, _, _, share in story.book.noted if share == 1.0]
    assert set(whole) == {EVIL}


@pytest.mark.parametrize("proven", [frozenset({C}), frozenset()], ids=["c is known", "nobody is"])
def test_who_claims_to_have_computed_what_it_never_sent_cannot_keep_others_out(
    proven: frozenset[NodeId],
) -> None:
    """Only c has the last layers: it got nothing, and evil says that all is done."""
    story = Story()
    network = story.network
    network.behaviours[EVIL] = silent
    story.book.proven = proven
    core = network.cores[EVIL]
    taken = core.take_events

    def lie(event: InferenceEvent) -> InferenceEvent:
        if not isinstance(event, SendFrame) or event.frame.type is not MessageType.SYNC:
            return event
        message = from_body_untrusted(parse_sync_untrusted(event.frame))
        if not isinstance(message, Opened) or not message.epoch:
            return event
        lying = replace(message, next_position=1 << 20, computed=1 << 20, arrived=1 << 20)
        return SendFrame(event.peer, control_frame(lying, network.space))

    network.cores[EVIL] = stand_in(core, take_events=lambda: [lie(event) for event in taken()])
    assert story.ask(TOKENS) < (20 if proven else 40)
    assert story.tokens == right()
    assert story.chain == ["a", "b", "c"]
    assert Offence.STALLED in story.book.offences(EVIL)
    whole = [peer for peer, _, _, share in story.book.noted if share == 1.0]
    assert not proven or set(whole) == {EVIL}


def test_who_is_late_gains_no_time_when_others_are_suspected_in_its_place() -> None:
    """Two stages have the last layers, and are called dead in turn just before the next look."""
    story = Story(more={"tail": range(4, 6)})
    network = story.network
    network.behaviours[EVIL] = silent
    network.generate(A, GenerationRequest(PROMPT, TOKENS, Sampling(), frozenset()))
    generation = network.cores[A].generations()[0]
    for _ in range(6):
        network.run(4.0)
        last = generation.legs[-1].run.peer
        if not generation.tokens:
            network.cores[A].peer_lost(last, "suspected", network.now)
            network._collect(A)
    assert Offence.STALLED in story.book.offences(EVIL)
    assert network.tokens(A, generation.number) == right()
    assert generation.repairs <= 5


def test_a_token_out_of_range_breaks_the_chain_at_once() -> None:
    story = Story(evil=range(4, 6))
    story.network.roster.holders = {A: range(2), B: range(2, 4), EVIL: range(4, 6), C: range(4, 6)}
    story.network.behaviours[EVIL] = impossible
    assert story.ask() < 2
    assert story.tokens == right()
    assert story.book.offences(EVIL) == {Offence.IMPOSSIBLE_TOKEN}
    assert story.book.good[C] == TOKENS


def test_many_silent_identities_are_each_tried_once() -> None:
    names = [f"evil{number}" for number in range(4)]
    story = Story(more=dict.fromkeys(names, range(2, 4)))
    evils = [EVIL, *map(node_id, names)]
    for evil in evils:
        story.network.behaviours[evil] = silent
    roster = story.network.roster
    roster.costs = dict.fromkeys(story.network.cores, 500.0)
    roster.holders[B] = roster.holders.pop(B)  # asked last
    assert story.ask() < 30
    assert story.tokens == right()
    assert all(story.generation._faults.times[evil] == 1 for evil in evils)


def test_stages_that_do_not_answer_are_passed_over_together() -> None:
    story = Story(more={"tail": range(4, 6)})
    network = story.network
    holders = network.roster.holders
    holders[C] = holders.pop(C)  # tail is asked before c
    for dead in (EVIL, TAIL):
        network.cores[dead] = stand_in(network.cores[dead], receive_frame_untrusted=lambda *_: None)
    assert story.ask() < InferenceConfig().open_timeout + 1
    assert story.tokens == right()
    assert story.book.offences(EVIL) == story.book.offences(TAIL) == {Offence.SILENT}


def test_the_only_holder_that_fails_again_and_again_ends_the_answer() -> None:
    story = Story()
    del story.network.roster.holders[B]
    story.network.behaviours[EVIL] = failing
    assert story.ask() < MOST
    [failed] = story.all_of(GenerationFailed)
    assert "evil" in failed.reason
    assert "times" in failed.reason
    assert len(story.all_of(ChainBroken)) <= 10
    assert not any(core.stages() for core in story.network.cores.values())


def test_where_nothing_moves_an_answer_fails_in_time() -> None:
    story = Story()
    for peer in (EVIL, B):
        story.network.behaviours[peer] = silent
    assert story.ask() < MOST
    [failed] = story.all_of(GenerationFailed)
    assert "evil" in failed.reason


def slow_prefill(seconds: float, promised_us: float) -> Story:
    """Ask of a chain whose only middle takes so long for each of the prompt's 25 batches."""
    story = Story(config=InferenceConfig(prefill_chunk=16, job_rows=16))
    network = story.network
    del network.roster.holders[B]
    network.roster.costs = dict.fromkeys((A, EVIL, C), promised_us)
    network.behaviours[EVIL] = slow(seconds)
    request = GenerationRequest((3,) * 400, 1, Sampling(), frozenset())
    story.number = network.generate(A, request)
    return story


def test_a_replay_that_moves_and_takes_too_long_is_not_said_to_stand_still() -> None:
    story = slow_prefill(3.0, 100.0)
    story.network.run(100)
    [failed] = story.all_of(GenerationFailed)
    assert "what should take 0.2 s moved on, but was not done in 52 s" in failed.reason
    assert "nothing moved" not in failed.reason
    assert not story.all_of(ChainBroken)


def test_a_chain_with_a_new_leg_has_all_its_time_before_it() -> None:
    """The last stage waited in vain for so long that it freed the session, and says so."""
    story = slow_prefill(2.83, 833.0)  # 71 s; they promised 2
    network = story.network
    network.run(8.9)
    generation, leg = story.generation, story.generation.legs[2]
    unused = Refused(generation.session, generation.epoch, leg.number, Refusal.UNUSED, "in vain")
    network.cores[A].receive_frame_untrusted(control_frame(unused, network.space), C, network.now)
    network._collect(A)
    network.run(100)
    assert len(story.tokens) == 1
    assert network.events[-1][0] > 70  # which is when the first chain would have been given up


def test_good_conduct_is_told() -> None:
    story = Story()
    story.ask()
    assert story.book.good == {EVIL: TOKENS, C: TOKENS}


def test_good_conduct_is_told_of_the_moment_of_a_cancellation() -> None:
    story = Story()
    network = story.network
    story.number = network.generate(A, GenerationRequest(PROMPT, 400, Sampling(), frozenset()))
    network.run(0.2)
    network.cores[A].cancel(story.number, network.now + 5.0)
    assert story.tokens
    assert story.book.good_at == network.now + 5.0


# Word against word


def test_a_loss_is_one_offence_however_many_answers_it_breaks() -> None:
    story = Story()
    request = GenerationRequest(PROMPT, TOKENS, Sampling(), frozenset())
    for _ in range(3):
        story.network.generate(A, request)
    story.network.kill(EVIL)
    story.network.run(60)
    assert len(story.all_of(ChainBroken)) == 3
    assert len(story.all_of(GenerationFinished)) == 3
    assert [one[1] for one in story.book.noted if one[0] == EVIL] == [Offence.LOST]


def test_who_accuses_twice_goes_as_well() -> None:
    """C says of everybody before it that they sent no numbers."""
    story = Story(more={"spare": range(2, 4), "tail": range(4, 6)})
    network = story.network

    def accuse(work: Work, result: WorkResult) -> tuple[float, WorkResult]:
        return 0.0, WorkFailed("not finite", is_input_bad=True)

    network.behaviours[C] = accuse
    story.ask()
    assert story.tokens == right()
    assert story.chain[-1] == "tail"
    assert len(story.all_of(ChainRepaired)) <= 2


def test_a_lie_is_entered_on_the_word_of_a_proven_accuser() -> None:
    story = Story()
    story.network.behaviours[EVIL] = filled_with(float("nan"))
    story.book.proven = frozenset({C})
    story.ask()
    assert story.tokens == right()
    assert story.book.offences(EVIL) == {Offence.NOT_FINITE}


def test_an_accusation_of_ourselves_is_a_lie() -> None:
    story = Story()
    network = story.network

    def accuse(work: Work, result: WorkResult) -> tuple[float, WorkResult]:
        return 0.0, WorkFailed("not finite", is_input_bad=True)

    network.behaviours[EVIL] = accuse
    story.ask()
    assert story.tokens == right()
    assert story.book.offences(EVIL) == {Offence.FAILED}


def test_an_accusation_of_nobody_near_is_passed_over() -> None:
    story = Story()
    network = story.network
    number = network.generate(A, GenerationRequest(PROMPT, TOKENS, Sampling(), frozenset()))
    network.run(0.03)
    generation = network.cores[A].generations()[0]
    leg = generation.legs[1]
    lie = Failed(generation.session, generation.epoch, leg.number, SPARE, "a lie")
    network.cores[A].receive_frame_untrusted(control_frame(lie, network.space), EVIL, network.now)
    network.run(10)
    assert network.tokens(A, number) == right()
    assert not story.book.noted


def test_a_leg_lost_while_another_is_replaced_is_told_closed_and_counted() -> None:
    story = Story()
    network = story.network
    number = network.generate(A, GenerationRequest(PROMPT, TOKENS, Sampling(), frozenset()))
    network.run(0.05)
    generation = network.cores[A].generations()[0]
    del network.roster.holders[B], network.roster.holders[EVIL]
    for peer in (EVIL, C):  # suspected, and living
        network.cores[A].peer_lost(peer, "suspected", network.now)
        network._collect(A)
        network.run(0.1)
        assert not network.cores[peer].stages()
    assert [event.peers for event in story.all_of(ChainBroken)] == [(EVIL,), (C,)]
    assert generation._faults.repairs == 2
    network.roster.holders[B] = range(2, 4)
    network.run(10)
    assert network.tokens(A, number) == right()


# Promises of speed


def test_a_stage_far_slower_than_promised_is_replaced_in_mid_answer() -> None:
    story = Story()
    network = story.network
    network.roster.costs = dict.fromkeys((A, EVIL, B, C), 500.0)
    network.behaviours[EVIL] = slow(2.8)
    took = story.ask(40)
    assert story.tokens == right(40)
    assert took < 6 * 2.8
    assert story.chain == ["a", "b", "c"]
    said = [
        text for _, offence, text, _ in story.book.noted if offence is Offence.SLOWER_THAN_PROMISED
    ]
    assert said == ["promised 1 ms, took 2.8 s a token"]
    assert story.book.speeds[EVIL] == pytest.approx(1.4e6, rel=0.05)


@pytest.mark.parametrize("where", [0, 2])
def test_the_slow_one_is_found_wherever_it_stands(where: int) -> None:
    layers = range(2 * where, 2 * where + 2)
    honest = A if where == 0 else C
    me = node_id("me")
    story = Story(evil=layers, more={"me": range(5, 6)})
    network = story.network
    network.roster.holders = {EVIL: layers, A: range(2), B: range(2, 4), C: range(4, 6)}
    network.roster.costs = dict.fromkeys((A, EVIL, B, C), 500.0)
    network.behaviours[EVIL] = slow(2.8)
    number = network.generate(me, GenerationRequest(PROMPT, 40, Sampling(), frozenset()))
    network.run(60)
    assert network.tokens(me, number) == right(40)
    book = story.books[list(network.cores).index(me)]
    assert {peer for peer, *_ in book.noted} == {EVIL}
    assert honest in {leg.run.peer for leg in network.cores[me].generations()[0].legs}


def test_a_busy_moment_throws_nobody_out() -> None:
    story = Story()
    network = story.network
    network.roster.costs = dict.fromkeys((A, EVIL, B, C), 500.0)
    jobs: list[int] = []

    def hiccup(work: Work, result: WorkResult) -> tuple[float, WorkResult]:
        jobs.append(1)
        return (0.9 if 8 <= len(jobs) < 11 else 0.0), result

    network.behaviours[EVIL] = hiccup
    story.ask(30)
    assert story.tokens == right(30)
    assert not story.all_of(ChainBroken)
    assert not story.book.noted


def test_a_slow_stage_that_nobody_betters_is_kept() -> None:
    story = Story()
    network = story.network
    del network.roster.holders[B]
    network.roster.costs = dict.fromkeys((A, EVIL, C), 500.0)
    network.behaviours[EVIL] = slow(1.5)
    story.ask(30, seconds=200)
    assert story.tokens == right(30)
    assert not story.all_of(ChainBroken)
    assert story.generation.counters["slow stage kept: nobody better"]


def served_by_one(seconds: float, *, answers: int = 1, layer_us: float = 5000.0) -> Story:
    """Have c do all layers for a, each job so long; it promised ``layer_us`` for each of six."""
    story = Story(more={"all": range(6)})
    network, all_of_it = story.network, node_id("all")
    network.roster.holders = {all_of_it: range(6)}
    network.roster.costs = {all_of_it: layer_us}
    network.behaviours[all_of_it] = slow(seconds)
    request = GenerationRequest(PROMPT, 20, Sampling(), frozenset())
    for _ in range(answers):
        network.generate(A, request)
    network.run(60)
    assert len(story.all_of(GenerationFinished)) == answers
    return story


def test_a_peer_somewhat_slower_than_promised_is_remembered_so_after_the_answer() -> None:
    story = served_by_one(3.9 * 0.03)
    assert story.book.speeds[node_id("all")] == pytest.approx(3.9 * 5000, rel=0.1)
    assert not story.book.noted  # it is dearer, and no offender


@pytest.mark.parametrize(
    ("seconds", "answers", "layer_us"),
    [
        (0.03, 1, 5000.0),
        (1.4 * 0.03, 1, 5000.0),
        (0.005, 1, 100.0),
        (0.1, 1, 0.0),
        (0.05, 4, 5000.0),
    ],
    ids=["as promised", "somewhat", "by the way's noise", "nobody promised", "busy with us"],
)
def test_what_is_not_surely_slower_is_not_remembered(
    seconds: float, answers: int, layer_us: float
) -> None:
    assert not served_by_one(seconds, answers=answers, layer_us=layer_us).book.speeds


def test_of_several_peers_nobody_knows_which_was_slow() -> None:
    story = Story()
    story.network.roster.costs = dict.fromkeys((A, EVIL, B, C), 5000.0)
    story.network.behaviours[EVIL] = slow(0.05)
    story.ask()
    assert not story.book.speeds


def test_none_of_several_peers_took_longer_than_all_of_them() -> None:
    story = Story()
    story.network.roster.costs = dict.fromkeys((A, EVIL, B, C), 5000.0)
    story.network.behaviours[EVIL] = slow(0.05)
    story.ask()
    bounds = story.book.bounds
    assert set(bounds) == {EVIL, C}  # of ourselves we know better
    assert 25_000 <= bounds[EVIL] == bounds[C] <= 60_000  # microseconds a layer, of two
    story.ask(max_tokens=6)
    assert story.book.bounds == bounds  # few tokens say nothing


def test_speed_is_told_of_at_a_repair_too() -> None:
    story = Story(more={"all": range(6)})
    network, all_of_it = story.network, node_id("all")
    network.roster.holders = {all_of_it: range(6)}
    network.roster.costs = {all_of_it: 5000.0}
    network.behaviours[all_of_it] = slow(0.1)

    def strike(event: Any) -> None:
        if event.position == len(PROMPT) + 10:
            network.roster.holders |= {A: range(2), B: range(2, 4), C: range(4, 6)}
            network.kill(all_of_it)

    network.on_token = strike
    story.ask()
    assert story.tokens == right()
    assert all_of_it in story.book.speeds


# Plans that take long


def test_a_plan_may_be_made_elsewhere() -> None:
    story = Story(more={"tail": range(4, 6)})
    network = story.network
    network.roster.brief = False
    network.on_token = lambda event: network.kill(C) if event.position == len(PROMPT) + 4 else None
    story.ask()
    assert story.tokens == right()
    assert story.chain[-1] == "tail"


def test_a_plan_for_a_chain_that_is_no_more_is_ignored() -> None:
    story = Story(more={"tail": range(4, 6)})
    network = story.network
    network.roster.brief = False
    network.planning = 0.5

    def strike(event: Any) -> None:
        if event.position == len(PROMPT) + 4:
            network.kill(EVIL, noticed_after=0.01)
            network.kill(C, noticed_after=0.2)

    network.on_token = strike
    story.ask()
    assert story.tokens == right()
    assert story.generation.counters["plan of an older moment"] == 1


def test_an_answer_whose_plan_never_comes_ends() -> None:
    story = Story()
    story.network.roster.brief = False
    story.network.planning = 1e6
    assert story.ask() < MOST
    assert story.all_of(GenerationFailed)


# Tables and words


def test_a_move_that_makes_no_sense_is_our_own_mistake() -> None:
    story = Story()
    story.ask()
    with pytest.raises(LocalProtocolError, match="ENDED"):
        story.generation._move(Evidence.LOST)


def test_an_older_stage_says_nothing_of_what_it_computed() -> None:
    body = to_body(Opened(1, 2, 3, 44))
    assert "computed" not in body
    assert from_body_untrusted(body) == Opened(1, 2, 3, 44)
    assert from_body_untrusted(to_body(Opened(1, 2, 3, 44, 40))) == Opened(1, 2, 3, 44, 40)


def without_computed(network: FrameNetwork, peer: NodeId) -> None:
    """Make ``peer`` a stage of the revision before: it says nothing of what it computed."""
    core = network.cores[peer]
    taken = core.take_events

    def take() -> list[InferenceEvent]:
        events = taken()
        for index, event in enumerate(events):
            if isinstance(event, SendFrame) and event.frame.type is MessageType.SYNC:
                message = from_body_untrusted(parse_sync_untrusted(event.frame))
                if isinstance(message, Opened):
                    older = replace(message, computed=None)
                    events[index] = SendFrame(event.peer, control_frame(older, network.space))
        return events

    network.cores[peer] = stand_in(core, take_events=take)


@pytest.mark.parametrize("token", range(0, TOKENS, 3))
def test_stages_of_the_last_revision_are_repaired_as_before(token: int) -> None:
    story = Story(more={"spare": range(2, 4)})
    network = story.network
    for peer in (EVIL, C, SPARE, B):
        without_computed(network, peer)
    network.on_token = lambda event: (
        network.kill(EVIL) if event.position == len(PROMPT) + token else None
    )
    story.ask()
    assert story.tokens == right()


# Any story


ENGINES: Mapping[str, Callable[[], Behaviour]] = {
    "honest": lambda: slow(0.0),
    "silent": lambda: silent,
    "failing": lambda: failing,
    "not finite": lambda: filled_with(float("nan")),
    "slow": lambda: slow(1.5),
    "late": lambda: slow(4.0),
}
MISHAPS = st.tuples(
    st.floats(0.0, 8.0),
    st.sampled_from((B, C, EVIL, SPARE, TAIL)),
    st.sampled_from(("lost", "closed", "killed")),
)


@settings(max_examples=40, deadline=None)
@example(  # tail computes all it is fed, again and again, and no token comes
    {EVIL: "failing", SPARE: "failing", TAIL: "not finite"}, [(0.0, C, "killed")], False, 0
)
@example(  # the jobs of a session come to the engine after it was closed
    {EVIL: "not finite", SPARE: "slow", TAIL: "silent"}, [(14.644, EVIL, "closed")], False, 851
)
@given(
    st.fixed_dictionaries({peer: st.sampled_from(sorted(ENGINES)) for peer in (EVIL, SPARE, TAIL)}),
    st.lists(MISHAPS, max_size=6),
    st.booleans(),
    st.integers(0, 1000),
)
def test_any_story_ends_in_time_and_never_with_another_token(
    engines: dict[NodeId, str],
    mishaps: list[tuple[float, NodeId, str]],
    brief: bool,
    seed: int,
) -> None:
    story = Story(seed, more={"spare": range(2, 4), "tail": range(4, 6)})
    network = story.network
    network.roster.brief = brief
    for peer, kind in engines.items():
        network.behaviours[peer] = ENGINES[kind]()
    for at, peer, kind in mishaps:
        network._plan(at, mishap(network, peer, kind))
    request = GenerationRequest(PROMPT, TOKENS, Sampling(), frozenset())
    story.number = network.generate(A, request)
    moved, shown = network.now, 0
    while not story.all_of(GenerationFinished | GenerationFailed):
        network.run(1.0)
        if len(story.tokens) > shown:
            moved, shown = network.now, len(story.tokens)
        assert network.now - moved <= 2 * MOST, "nothing moves, and nothing ends"
    expected = right()
    assert story.tokens == expected[: len(story.tokens)]
    if story.all_of(GenerationFinished):
        assert story.tokens == expected
    # A close that overtakes its order leaves a stage that nobody uses.
    network.run(InferenceConfig().unused_after + 1)
    living = [peer for peer in network.cores if peer not in network.roster.dead]
    assert not any(network.cores[peer].stages() for peer in living)


def mishap(network: FrameNetwork, peer: NodeId, kind: str) -> Callable[[], None]:
    def happen() -> None:
        if peer in network.roster.dead:
            return
        if kind == "killed":
            network.kill(peer)
            return
        offence = Offence.CLOSED if kind == "closed" else Offence.LOST
        for one in (A, B, C):
            if one not in network.roster.dead and one != peer:
                network.cores[one].peer_lost(peer, kind, network.now, offence)
                network._collect(one)

    return happen


def test_a_standing_is_what_plans_go_by() -> None:
    book = BriefDistrust(5.0)
    book.note(B, Offence.LOST, "silent for 1.0 s", 0.0)
    assert book.standing(4.0) == Standing(excluded={B: "was lost a moment ago: silent for 1.0 s"})
    assert book.standing(6.0) == Standing()
