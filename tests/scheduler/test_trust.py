"""The ledger: distrust doubles, fades, stays with those who earned it; fresh keys bring nothing."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import ConfigError
from p2pnode.sansio import NodeId
from p2pnode.scheduler.offences import MEANINGS, Kind, Offence, Patience, TrustConfig
from p2pnode.scheduler.trust import Ledger

CONFIG = TrustConfig()
OFFENCES = st.sampled_from(list(Offence))


def node_id(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


A, B = node_id(1), node_id(2)


def avoided_for(ledger: Ledger, peer: NodeId, now: float) -> float:
    return next((page.avoided_for for page in ledger.entries(now) if page.peer == peer), 0.0)


def a_proven(*peers: NodeId, ledger: Ledger | None = None) -> Ledger:
    ledger = ledger or Ledger()
    for peer in peers:
        ledger.served(peer, CONFIG.most_tokens, 0.0)
    return ledger


def test_nobody_is_avoided_by_an_empty_ledger() -> None:
    standing = Ledger().standing(0.0)
    assert not standing.excluded
    assert standing.trial
    assert standing.factor(A) == 1
    assert not standing.is_proven(A)
    assert standing.layer_us(A, 600.0) == 600.0


def test_every_offence_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Offence)
    assert all(0 < meaning.weight <= 1 and meaning.clause for meaning in MEANINGS.values())


def test_the_reason_says_what_how_often_and_until_when() -> None:
    ledger = Ledger()
    ledger.note(A, Offence.STALLED, "no token for 3.0 s", 0.0)
    ledger.note(A, Offence.STALLED, "no token for 3.1 s", 0.0)
    assert ledger.standing(8.0).excluded == {
        A: "stalled twice (no token for 3.1 s); tried again in 12 s"
    }
    (page,) = ledger.entries(8.0)
    assert (page.kind, page.offences) == (Kind.SLOW, {"stalled": 2})
    assert page.evidence == ("stalled: no token for 3.1 s", "stalled: no token for 3.0 s")
    assert not ledger.standing(20.1).excluded


@given(offence=OFFENCES, times=st.integers(2, 12))
def test_distrust_doubles_with_each_offence_up_to_its_bound(offence: Offence, times: int) -> None:
    ledger = Ledger()
    patience = CONFIG.patience(MEANINGS[offence].kind)
    waits = []
    for _ in range(times):
        ledger.note(A, offence, "", 0.0)
        waits.append(avoided_for(ledger, A, 0.0))
    growth = 2.0 ** MEANINGS[offence].weight
    for one, other in pairwise(waits):
        assert other == pytest.approx(min(patience.longest, one * growth))


@given(
    history=st.lists(st.tuples(OFFENCES, st.floats(0, 600)), min_size=1, max_size=20),
    share=st.floats(0.01, 1),
)
def test_all_distrust_fades(history: list[tuple[Offence, float]], share: float) -> None:
    ledger, now = Ledger(), 0.0
    for offence, pause in history:
        now += pause
        ledger.note(A, offence, "", now, share=share)
    before = [ledger.standing(now + later).factor(A) for later in (0, 60, 600, 6_000, 600_000)]
    assert before == sorted(before, reverse=True)
    later = ledger.standing(now + 1e6)
    assert not later.excluded
    assert later.factor(A) == 1
    assert later.trial


def test_an_offence_half_forgotten_counts_half() -> None:
    ledger = Ledger()
    ledger.note(A, Offence.STALLED, "", 0.0)
    ledger.note(A, Offence.STALLED, "", CONFIG.slow.half_life)
    expected = CONFIG.slow.first * 2**0.5
    assert avoided_for(ledger, A, CONFIG.slow.half_life) == pytest.approx(expected)


def test_dead_slow_and_lying_stay_apart() -> None:
    together = Ledger()
    for offence in (Offence.LOST, Offence.STALLED, Offence.NOT_FINITE):
        together.note(A, offence, "", 0.0)
        alone = Ledger()
        alone.note(A, offence, "", 0.0)
        kind = MEANINGS[offence].kind
        assert avoided_for(alone, A, 0.0) == CONFIG.patience(kind).first
    assert avoided_for(together, A, 0.0) == CONFIG.lying.first
    assert "not finite" in together.standing(0.0).excluded[A]


def test_a_share_of_the_blame_is_a_share_of_the_distrust() -> None:
    whole, half = Ledger(), Ledger()
    whole.note(A, Offence.STALLED, "", 0.0)
    half.note(A, Offence.STALLED, "", 0.0, share=0.5)
    assert avoided_for(half, A, 0.0) == pytest.approx(avoided_for(whole, A, 0.0) / 2**0.5)
    half.note(A, Offence.STALLED, "", 0.0, share=0.5)
    assert avoided_for(half, A, 0.0) == pytest.approx(avoided_for(whole, A, 0.0))


def test_one_who_was_away_once_is_good_again_when_it_is_back_and_a_habitual_one_is_not() -> None:
    ledger = Ledger()
    ledger.note(A, Offence.LOST, "silent for 2.0 s", 0.0)
    ledger.returned(A, 1.0)
    assert not ledger.standing(1.0).excluded
    assert ledger.standing(1.0).factor(A) > 1
    ledger.note(A, Offence.CLOSED, "at every third job", 1.5)
    ledger.returned(A, 2.0)
    assert A in ledger.standing(2.0).excluded


def test_coming_back_pardons_no_lie() -> None:
    ledger = Ledger()
    ledger.note(A, Offence.NOT_FINITE, "", 0.0)
    ledger.returned(A, 1.0)
    assert A in ledger.standing(1.0).excluded


def test_the_last_resort_takes_those_who_failed_but_not_liars_nor_the_hopeless() -> None:
    ledger = Ledger()
    ledger.note(A, Offence.STALLED, "", 0.0)
    ledger.note(B, Offence.IMPOSSIBLE_TOKEN, "", 0.0)
    for _ in range(6):
        ledger.note(node_id(3), Offence.SILENT, "", 0.0)
    assert set(ledger.standing(0.0).excluded) == {A, B, node_id(3)}
    assert set(ledger.standing(0.0).last_resort().excluded) == {B, node_id(3)}


# Good conduct


def test_a_peer_is_proven_by_tokens_and_loses_that_by_offences() -> None:
    ledger = Ledger()
    ledger.served(A, CONFIG.proven_tokens - 1, 0.0)
    assert not ledger.standing(0.0).is_proven(A)
    ledger.served(A, 1, 0.0)
    assert ledger.standing(0.0).is_proven(A)
    ledger.note(A, Offence.STALLED, "", 0.0)
    assert not ledger.standing(0.0).is_proven(A)


def test_long_service_outlasts_bad_luck_but_no_lie() -> None:
    ledger = a_proven(A, B)
    for _ in range(3):
        ledger.note(A, Offence.LOST, "", 0.0)
    ledger.note(B, Offence.NOT_FINITE, "", 0.0)
    assert ledger.standing(0.0).proven == {A}


# Strangers


def fail(ledger: Ledger, first: int, times: int, now: float, every: float = 5.0) -> float:
    for number in range(first, first + times):
        ledger.note(node_id(number), Offence.SILENT, "", now)
        now += every
    return now


def be_served(ledger: Ledger, now: float, tokens: int = CONFIG.trial_tokens) -> None:
    ledger.served(A, tokens, now)


def test_a_pause_lasts_some_answers_too_for_whoever_asks_seldom() -> None:
    ledger = a_proven(A)
    ledger.note(B, Offence.SILENT, "", 0.0)
    end = ledger.pause_until
    for number in range(4):  # answers of three peers each, which count once
        assert not ledger.standing(end + number).trial
        for peer in (A, node_id(3), node_id(4)):
            ledger.served(peer, CONFIG.trial_tokens // 4, end + number)
    assert ledger.standing(end + 3).trial
    ledger.note(node_id(5), Offence.SILENT, "", end + 3)
    assert ledger.pause_tokens == CONFIG.trial_tokens
    forgotten = ledger.standing(end + 12 * 3_600)  # nobody has answered since
    assert forgotten.trial
    assert forgotten.dues == 1


def test_each_failure_by_a_fresh_key_doubles_the_pause_until_the_next_trial() -> None:
    ledger = a_proven(A)
    pauses = []
    for number in range(100, 106):
        ledger.note(node_id(number), Offence.SILENT, "", 0.0)
        pauses.append(ledger.pause_until)
    assert pauses == [CONFIG.trial.first * 2**n for n in range(6)]
    be_served(ledger, 1.0)
    assert not ledger.standing(pauses[-1] - 0.1).trial
    assert ledger.standing(pauses[-1]).trial


def test_after_ten_failures_within_minutes_a_strangers_word_is_worth_a_thousandth() -> None:
    ledger = a_proven(A)
    now = fail(ledger, 100, 10, 0.0)
    standing = ledger.standing(now)
    assert not standing.trial
    assert standing.dues > 1_000
    assert ledger.pause_until - now > 1_800


def test_a_proven_peers_offence_does_not_speak_against_strangers() -> None:
    ledger = a_proven(A, B)
    ledger.note(A, Offence.LOST, "", 0.0)
    assert ledger.standing(0.0).trial


def test_a_trial_that_a_stranger_stands_halves_the_next_pause() -> None:
    pauses = []
    for stood in (False, True):
        ledger = a_proven(A)
        fail(ledger, 100, 4, 0.0, every=0.0)
        now = ledger.pause_until
        be_served(ledger, now - 1.0)
        if stood:
            ledger.served(B, CONFIG.proven_tokens, now)
            ledger.served(B, CONFIG.proven_tokens, now)  # it is no stranger any more
        ledger.note(node_id(200), Offence.SILENT, "", now)
        pauses.append(ledger.pause_until - now)
    assert pauses[1] == pytest.approx(pauses[0] / 2)


def test_whoever_is_proven_in_a_pause_speaks_for_no_stranger() -> None:
    ledger = a_proven(A)
    now = fail(ledger, 100, 4, 0.0, every=0.0)
    before = ledger.pause_until
    for number in range(10, 20):
        ledger.served(node_id(number), CONFIG.proven_tokens, now)
    assert ledger.pause_until == before
    assert ledger.standing(now).dues == CONFIG.pessimism * 2**4


def test_where_nobody_is_proven_those_met_since_the_trouble_began_are_the_suspicious_ones() -> None:
    ledger = Ledger()
    fail(ledger, 100, 3, 50.0)
    assert ledger.standing(60.0).newcomers_since == 50.0
    trial = ledger.pause_until
    be_served(ledger, 60.0)
    assert ledger.standing(trial).newcomers_since == trial - CONFIG.acquaintance
    assert ledger.standing(1e6).newcomers_since == float("inf")


def test_the_address_of_a_failure_counts_and_fades() -> None:
    ledger = a_proven(A)
    ledger.note(B, Offence.SILENT, "", 0.0, address=("10.0.0.66", 4747))
    standing = ledger.standing(0.0)
    assert standing.place_factor(("10.0.0.66", 5000)) > 1
    assert standing.place_factor(("10.0.0.7", 4747)) == 1
    assert standing.place_factor(None) == 1
    assert ledger.standing(1e6).place_factor(("10.0.0.66", 5000)) == 1


# Speed


def test_the_worse_of_promise_and_observation_counts_and_fades_to_the_promise() -> None:
    ledger = Ledger()
    ledger.observed(A, 1_000.0, 0.0)
    assert ledger.standing(0.0).layer_us(A, 1.0) == 1_000.0
    assert ledger.standing(0.0).layer_us(A, 2_000.0) == 2_000.0
    half = ledger.standing(CONFIG.slowness_half_life).layer_us(A, 200.0)
    assert half == pytest.approx(600.0)
    assert ledger.standing(1e5).layer_us(A, 200.0) == 200.0


def test_new_observations_outweigh_what_has_faded() -> None:
    ledger = Ledger()
    ledger.observed(A, 1_000.0, 0.0)
    ledger.observed(A, 100.0, 0.0)
    assert ledger.standing(0.0).layer_us(A, 0.0) == pytest.approx(775.0)
    ledger.observed(B, 1_000.0, 0.0)
    ledger.observed(B, 100.0, 20 * CONFIG.slowness_half_life)
    assert ledger.standing(20 * CONFIG.slowness_half_life).layer_us(B, 0.0) < 101


def test_an_impossible_observation_is_no_observation() -> None:
    ledger = Ledger()
    for layer_us in (float("nan"), float("inf"), -1.0):
        ledger.observed(A, layer_us, 0.0)
    assert not ledger.standing(0.0).observed


def test_what_is_measured_takes_the_place_of_a_worse_estimate_and_never_of_a_better() -> None:
    ledger = Ledger()
    ledger.took_at_most(A, 3_000.0, 0.0)
    assert ledger.size == 0  # nothing was held against it
    ledger.observed(A, 73_000.0, 0.0)
    ledger.took_at_most(A, 3_000.0, 0.0)
    assert ledger.standing(0.0).layer_us(A, 1_000.0) == 3_000.0
    for useless in (90_000.0, float("nan"), float("inf"), -1.0):
        ledger.took_at_most(A, useless, 0.0)
    assert ledger.standing(0.0).layer_us(A, 1_000.0) == 3_000.0


def slow(ledger: Ledger, peer: NodeId, now: float) -> None:
    ledger.note(peer, Offence.SLOWER_THAN_PROMISED, "", now)
    ledger.observed(peer, 73_000.0, now)


def test_one_slowness_is_forgotten_after_some_good_answers() -> None:
    ledger = Ledger()
    slow(ledger, A, 0.0)
    assert ledger.standing(0.0).troubles[A] == "it was slow lately"
    factors = []
    for _ in range(5):
        ledger.took_at_most(A, 3_000.0, 0.0)
        factors.append(ledger.standing(0.0).factor(A))
    assert factors == sorted(factors, reverse=True)
    assert factors[0] < 1.5
    assert factors[-1] == 1.0


@pytest.mark.parametrize("layer_us", [3_000.0, 50_000.0])
def test_who_is_slow_now_and_then_is_distrusted_ever_more(layer_us: float) -> None:
    ledger = Ledger()
    for number in range(4):
        slow(ledger, A, float(number))
        ledger.took_at_most(A, layer_us, float(number))
    assert ledger.standing(4.0).factor(A) > 4.0


def test_good_answers_mend_nothing_but_slowness() -> None:
    ledger = Ledger()
    for offence in (Offence.STALLED, Offence.SILENT, Offence.NOT_FINITE):
        ledger.note(A, offence, "", 0.0)
    ledger.observed(A, 73_000.0, 0.0)
    before = ledger.standing(0.0)
    ledger.took_at_most(A, 3_000.0, 0.0)
    assert ledger.standing(0.0).factors == before.factors
    assert ledger.standing(0.0).excluded == before.excluded


# Bounds


def test_invented_peers_cannot_grow_it_nor_displace_the_proven() -> None:
    config = TrustConfig(max_strangers=8, max_proven=4, max_places=6)
    ledger = Ledger(config)
    proven = [node_id(number) for number in range(4)]
    for peer in proven:
        ledger.served(peer, 100, 0.0)
    for number in range(100, 600):
        address = (f"10.0.{number % 250}.1", 4000)
        ledger.note(node_id(number), Offence.SILENT, "x" * 5_000, 1.0, address=address)
    assert ledger.size <= 12
    assert ledger.standing(1.0).proven == set(proven)
    assert len(ledger.standing(1.0).places) <= 6
    assert ledger.counters["page forgotten for want of room"] == 492
    assert all(len(text) < 200 for page in ledger.entries(1.0) for text in page.evidence)


@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 40),
            st.one_of(OFFENCES, st.sampled_from(("served", "observed", "bound", "returned"))),
            st.one_of(st.floats(0, 100), st.sampled_from((0.0, 1e5, 1e9))),
            st.one_of(st.just(1.0), st.floats(-1, 2)),
        ),
        max_size=120,
    )
)
def test_whatever_happens_the_ledger_stays_bounded_and_sane(
    steps: list[tuple[int, Offence | str, float, float]],
) -> None:
    config = TrustConfig(max_strangers=5, max_proven=3, max_places=4)
    ledger, now = Ledger(config), 0.0
    longest = max(config.patience(kind).longest for kind in Kind)
    for number, what, pause, share in steps:
        peer, now = node_id(number), now + pause
        proven = ledger.standing(now).proven
        match what:
            case Offence():
                ledger.note(peer, what, "seen", now, share=share, address=("10.0.0.1", number))
            case "served":
                ledger.served(peer, round(9 * share), now)
            case "observed":
                ledger.observed(peer, pause * 1e300 * share, now)
            case "bound":
                ledger.took_at_most(peer, pause * 1e300 * share, now)
            case _:
                ledger.returned(peer, now)
        assert ledger.size <= 8
        assert len(ledger._places) <= config.max_places
        standing, entries = ledger.standing(now), ledger.entries(now)
        assert proven - standing.proven <= {peer} or len(proven) == config.max_proven
        assert set(standing.last_resort().excluded) <= set(standing.excluded)
        assert all(1 <= factor <= config.max_factor for factor in standing.factors.values())
        assert 1 <= standing.dues < math.inf
        is_over = now >= ledger.pause_until
        assert standing.trial == (is_over and (not ledger.pause_tokens or standing.dues == 1))
        assert 0 <= ledger.pause_tokens <= config.trial_tokens
        assert ledger.pause_until - now <= config.trial.longest
        assert all(len(page.evidence) <= config.max_evidence for page in entries)
        assert all(0 <= page.avoided_for <= longest for page in entries)
        assert all(math.isfinite(page.layer_us or 0.0) for page in entries)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_factor": 0.5},
        {"pessimism": 0.0},
        {"proven_tokens": 0},
        {"proven_tokens": 1000},
        {"gain": 0.0},
        {"max_strangers": 0},
        {"hopeless": 0},
    ],
)
def test_an_impossible_setting_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        TrustConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        Patience(2.0, 1.0, 1.0)
    with pytest.raises(ConfigError):
        Patience(1.0, 1.0, 0.0)
