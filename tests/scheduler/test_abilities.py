"""Whoever draws must be able to draw as asked; all other layers anybody may run."""

import pytest

from p2pnode.scheduler.chain import ChainPlan, NoCover
from p2pnode.scheduler.directory import NOTHING_MORE, Offer
from p2pnode.scheduler.route import Objective
from p2pnode.scheduler.view import PlanView, Wanted
from p2pnode.testing.offers import N_LAYERS, SPACE, an_offer, peer_id
from p2pnode.wire.ad import Ability, CapabilityAd

US = peer_id(0)
BOTH = Ability.SAMPLING | Ability.SCHEMAS


def a_view(
    *offers: Offer, needs: Ability = NOTHING_MORE, objective: Objective = "latency"
) -> PlanView:
    wanted = Wanted(
        US, SPACE, N_LAYERS, 576, lambda layers, _: layers * 1024, objective, needs=needs
    )
    return PlanView(wanted, offers, lambda one, other: 100.0)


def chain(*offers: Offer, **asked: object) -> list[tuple[str, range]]:
    found = a_view(*offers, **asked).chain()  # type: ignore[arg-type]
    assert isinstance(found, ChainPlan)
    return [(run.name, run.layers) for run in found.stages]


OLD = an_offer(1, 0, 30, decode_layer_us=100)
ABLE = an_offer(2, 0, 30, decode_layer_us=900, abilities=BOTH)
LAST = an_offer(3, 29, 30, decode_layer_us=900, abilities=Ability.SAMPLING)


def test_whoever_cannot_draw_as_asked_runs_all_layers_but_the_last() -> None:
    halves = [("peer1", range(29)), ("peer3", range(29, 30))]
    assert chain(OLD, LAST) == [("peer1", range(30))]
    assert chain(OLD, LAST, needs=Ability.SAMPLING) == halves
    assert chain(OLD, LAST, needs=Ability.SAMPLING, objective="throughput") == halves
    assert chain(OLD, ABLE, needs=BOTH)[-1][0] == "peer2"
    assert chain(OLD, ABLE, LAST, needs=Ability.SCHEMAS)[-1][0] == "peer2"


def test_the_plan_says_who_cannot() -> None:
    found = a_view(OLD, LAST, needs=Ability.SAMPLING).chain()
    cannot = "cannot draw with penalties, min-p or log-probabilities"
    assert f"not usable: peer1 holds the last layer, but {cannot}" in found.reasons


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        (Ability.SCHEMAS, "follow a schema"),
        (BOTH, "draw with penalties, min-p or log-probabilities and follow a schema"),
    ],
)
def test_where_nobody_can_it_is_named(needs: Ability, words: str) -> None:
    found = a_view(OLD, LAST, needs=needs).chain()
    assert isinstance(found, NoCover)
    assert found.missing == (range(29, 30),)
    said = f"no peer that holds the last layer can {words}: peer1, peer3"
    assert (found.unable, found.reasons[0]) == (said, said)
    gone = a_view(an_offer(1, 0, 29), needs=needs).chain()
    assert isinstance(gone, NoCover)
    assert not gone.unable  # nobody holds it: that is another matter


def test_a_successor_of_the_last_stage_can_draw_too_and_no_other_needs_to() -> None:
    view = a_view(OLD, ABLE, needs=BOTH)
    last, first = view.repair(range(20, 30), (US, US)), view.repair(range(10), (US, US))
    assert isinstance(last, tuple)
    assert isinstance(first, tuple)
    assert [run.name for run in last] == ["peer2"]
    assert [run.name for run in first] == ["peer1"]


def test_an_ad_of_the_first_version_that_knows_no_abilities_has_none() -> None:
    old = CapabilityAd.decode_untrusted(ABLE.ad.encode(1))
    assert old.abilities == BOTH  # who writes version 1 for others still tells
    plain = CapabilityAd.decode_untrusted(OLD.ad.encode(1))
    assert plain.abilities == 0
