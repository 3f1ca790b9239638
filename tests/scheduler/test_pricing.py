"""What trust does to a plan: liars lose, honest newcomers get their trial, slowness is learnt."""

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import ChainPlan
from p2pnode.scheduler.directory import Offer
from p2pnode.scheduler.standing import Standing
from p2pnode.scheduler.trust import Ledger, Offence, TrustConfig
from p2pnode.scheduler.view import PlanView, Wanted
from p2pnode.testing.offers import D_MODEL, SPACE, an_offer, peer_id

CONFIG = TrustConfig()
US, OLD, ELDER = peer_id(0), peer_id(1), peer_id(2)
HONEST = (an_offer(1, 0, 15, met=0.0), an_offer(2, 15, 30, met=0.0))


def a_liar(number: int, met: float = 100.0) -> Offer:
    """Return the offer of a fresh key that promises everything for nothing."""
    return an_offer(
        number,
        0,
        30,
        decode_fixed_us=1,
        decode_layer_us=1,
        head_us=1,
        name=f"liar{number}",
        met=met,
    )


def plan(standing: Standing, *offers: Offer) -> ChainPlan:
    wanted = Wanted(US, SPACE, 30, D_MODEL, lambda layers, _: layers * 1024)
    found = PlanView(wanted, offers, lambda one, other: 1_000.0, standing).chain()
    assert isinstance(found, ChainPlan), found
    return found


def peers(found: ChainPlan) -> list[NodeId]:
    return [stage.peer for stage in found.stages]


def test_in_a_fresh_swarm_everybody_is_believed() -> None:
    assert peers(plan(Ledger().standing(0.0), *HONEST, a_liar(50))) == [peer_id(50)]


def answers(ledger: Ledger, now: float, keys: list[int], honest: set[NodeId]) -> list[list[NodeId]]:
    """Ask ten times with a new liar each time; a chain with a liar in it fails, and is mended."""
    plans = []
    for key in keys:
        offers = (*HONEST, a_liar(key, met=now))
        while not set(planned := peers(plan(ledger.standing(now), *offers))) <= honest:
            plans.append(planned)
            for peer in planned:
                if peer not in honest:
                    ledger.note(peer, Offence.SILENT, "did not open in 2.0 s", now)
            now += 2.0
        plans.append(planned)
        for peer in planned:
            ledger.served(peer, 30, now)
        now += 10.0
    return plans


def test_after_ten_answers_no_fresh_key_is_planned_whatever_it_promises() -> None:
    ledger = Ledger()
    plans = answers(ledger, 10.0, list(range(100, 120)), {OLD, ELDER})
    failures = [index for index, planned in enumerate(plans) if planned != [OLD, ELDER]]
    assert failures  # the first is believed
    assert len(failures) <= 10
    assert plans[-10:] == [[OLD, ELDER]] * 10


def test_ten_failures_within_minutes_end_it_even_with_every_pause_over_at_once() -> None:
    ledger = Ledger()
    ledger.served(OLD, 100, 0.0)
    ledger.served(ELDER, 100, 0.0)
    for number in range(10):
        ledger.note(peer_id(100 + number), Offence.CLOSED, "in mid-answer", number * 20.0)
    for later in (0.0, 60.0, 600.0, 1_500.0):
        standing = ledger.standing(200.0 + later)
        assert peers(plan(standing, *HONEST, a_liar(200, met=200.0))) == [OLD, ELDER]


def test_an_honest_newcomer_that_is_faster_gets_its_trial_and_is_proven() -> None:
    ledger = Ledger()
    ledger.served(OLD, 100, 0.0)
    ledger.served(ELDER, 100, 0.0)
    for number in range(3):
        ledger.note(peer_id(100 + number), Offence.SILENT, "", number * 5.0)
    newcomer = an_offer(30, 0, 30, decode_layer_us=100, met=20.0)
    assert peers(plan(ledger.standing(20.0), *HONEST, newcomer)) == [OLD, ELDER]
    at = ledger.pause_until
    assert 20.0 + CONFIG.acquaintance < at < 600.0
    assert peers(plan(ledger.standing(at), *HONEST, newcomer)) == [OLD, ELDER]
    for peer in (OLD, ELDER):
        ledger.served(peer, CONFIG.trial_tokens, at)
    assert peers(plan(ledger.standing(at), *HONEST, newcomer)) == [newcomer.peer]
    ledger.served(newcomer.peer, CONFIG.proven_tokens, at)
    ledger.note(peer_id(110), Offence.SILENT, "", at)  # failures of others do not matter to it now
    assert peers(plan(ledger.standing(at), *HONEST, newcomer)) == [newcomer.peer]


def test_a_newcomer_is_not_believed_at_once_where_others_are_proven() -> None:
    ledger = Ledger()
    ledger.served(OLD, 100, 0.0)
    ledger.served(ELDER, 100, 0.0)
    newcomer = an_offer(30, 0, 30, decode_layer_us=100, met=100.0)
    found = plan(ledger.standing(101.0), *HONEST, newcomer)
    assert peers(found) == [OLD, ELDER]
    assert "met a moment ago" in found.reasons[1]
    later = ledger.standing(100.0 + CONFIG.introduction + 1)
    assert peers(plan(later, *HONEST, newcomer)) == [newcomer.peer]
    alone = plan(ledger.standing(101.0), newcomer)
    assert peers(alone) == [newcomer.peer]


@pytest.mark.parametrize(("met", "is_believed"), [(100.9, True), (101.1, False)])
def test_whoever_was_there_before_anybody_had_served_us_is_no_newcomer(
    met: float, is_believed: bool
) -> None:
    ledger = Ledger()
    slow = an_offer(7, 0, 30, decode_layer_us=90_000, met=100.0)
    ledger.served(slow.peer, 10, 101.0)
    ledger.served(slow.peer, 10, 102.5)
    other = an_offer(30, 0, 30, decode_layer_us=100, met=met)
    chosen = peers(plan(ledger.standing(103.0), slow, other))
    assert chosen == [other.peer if is_believed else slow.peer]


def test_a_stranger_is_used_where_nobody_else_is_and_the_plan_says_what_it_is() -> None:
    ledger = Ledger()
    ledger.served(OLD, 100, 0.0)
    ledger.note(peer_id(100), Offence.SILENT, "", 5.0)
    found = plan(ledger.standing(6.0), *HONEST)
    assert peers(found) == [OLD, ELDER]
    assert found.stages[1].reason.endswith("a stranger, and strangers have failed us lately")
    # What it takes is expected as promised; it only counts for more where there is a choice.
    assert found.stages[1].cost_us == 300 + 15 * 600 + 2_000


def test_in_a_pause_whoever_has_computed_a_little_comes_before_whoever_has_nothing() -> None:
    ledger = Ledger()
    ledger.served(OLD, 100, 0.0)
    ledger.served(ELDER, CONFIG.proven_tokens - 1, 0.0)
    ledger.note(peer_id(100), Offence.SILENT, "", 5.0)
    standing = ledger.standing(6.0)
    untried = an_offer(51, 15, 30, decode_layer_us=1, met=0.0)
    assert not standing.trial
    assert not standing.is_proven(ELDER)
    assert peers(plan(standing, *HONEST, untried)) == [OLD, ELDER]


def test_where_nobody_is_proven_those_known_from_before_the_trouble_come_first() -> None:
    ledger = Ledger()
    ledger.note(peer_id(100), Offence.SILENT, "", 50.0)
    ourselves = an_offer(0, 0, 0)  # we hold nothing: that is no cover to go by
    found = plan(ledger.standing(51.0), ourselves, *HONEST, a_liar(101, met=50.5))
    assert peers(found) == [OLD, ELDER]
    assert "met since strangers began to fail us" in found.reasons[1]


def test_strangers_at_an_address_that_failed_us_are_dearer() -> None:
    ledger = Ledger()
    ledger.note(peer_id(100), Offence.SILENT, "", 0.0, address=("10.0.0.66", 4747))
    standing = ledger.standing(25.0)
    here = an_offer(5, 0, 30, address=("10.0.0.66", 999), name="here")
    there = an_offer(6, 0, 30, address=("10.0.0.7", 4747), decode_layer_us=700)
    found = plan(standing, here, there)
    assert peers(found) == [there.peer]
    assert "others at its address have failed us" in found.reasons[1]


def test_a_proven_peer_is_priced_by_what_was_seen_of_it_and_by_its_word_again_later() -> None:
    ledger = Ledger()
    boaster = an_offer(7, 0, 30, decode_layer_us=1, name="boaster", met=0.0)
    ledger.served(boaster.peer, 100, 0.0)
    ledger.observed(boaster.peer, 93_000.0, 0.0)
    found = plan(ledger.standing(0.0), *HONEST, boaster)
    assert peers(found) == [OLD, ELDER]
    assert "it was slow lately" in found.reasons[1]
    alone = plan(ledger.standing(0.0), boaster)
    assert alone.stages[0].cost_us == 300 + 30 * 93_000 + 2_000
    assert peers(plan(ledger.standing(3_600.0), *HONEST, boaster)) == [boaster.peer]


@pytest.mark.parametrize(
    ("offence", "why"),
    [
        (Offence.SLOWER_THAN_PROMISED, "it was slow lately"),
        (Offence.STALLED, "it stalled lately"),
        (Offence.REFUSED, "it refused lately"),
        (Offence.CLOSED, "it has failed us lately"),
        (Offence.NOT_FINITE, "it has failed us lately"),
    ],
)
def test_a_plan_says_what_a_peer_is_dearer_for_and_says_it_once(offence: Offence, why: str) -> None:
    ledger = Ledger()
    one = an_offer(7, 0, 30, decode_layer_us=590)
    ledger.served(one.peer, 200, 0.0)
    ledger.note(one.peer, offence, "", 0.0)
    if offence is Offence.SLOWER_THAN_PROMISED:
        ledger.observed(one.peer, 73_000.0, 0.0)
    [stage] = plan(replace(ledger.standing(0.0), excluded={}), one).stages
    assert stage.reason.endswith(f"; {why}")
    assert stage.reason.count("lately") == 1


def test_one_that_broke_answers_is_dearer_when_it_may_be_used_again() -> None:
    ledger = Ledger()
    flaky = an_offer(7, 0, 30, decode_layer_us=590)
    steady = an_offer(8, 0, 30)
    for peer in (flaky.peer, steady.peer):
        ledger.served(peer, 200, 0.0)
    assert peers(plan(ledger.standing(0.0), flaky, steady)) == [flaky.peer]
    ledger.note(flaky.peer, Offence.CLOSED, "in mid-answer", 0.0)
    now = CONFIG.dead.first + 1
    standing = ledger.standing(now)
    assert not standing.excluded
    found = plan(standing, flaky, steady)
    assert peers(found) == [steady.peer]
    assert "it has failed us lately" in found.reasons[1]
    assert peers(plan(ledger.standing(3_600.0), flaky, steady)) == [flaky.peer]


@given(
    proven=st.frozensets(st.integers(1, 6)),
    dues=st.floats(1, 1e6),
    factors=st.dictionaries(st.integers(1, 6), st.floats(1, 64)),
    since=st.sampled_from([float("inf"), 0.0]),
    trial=st.booleans(),
)
def test_distrust_makes_dearer_and_never_makes_a_swarm_useless(
    proven: frozenset[int],
    dues: float,
    factors: dict[int, float],
    since: float,
    trial: bool,
) -> None:
    standing = Standing(
        proven=frozenset(map(peer_id, proven)),
        trial=trial,
        dues=dues,
        newcomers_since=since,
        factors={peer_id(number): factor for number, factor in factors.items()},
    )
    offers = [an_offer(number, 5 * (number - 1), 5 * number, met=1.0) for number in range(1, 7)]
    trusting, distrusting = plan(Standing(), *offers), plan(standing, *offers)
    assert peers(trusting) == peers(distrusting)
    assert trusting.expected_us_per_token == distrusting.expected_us_per_token
