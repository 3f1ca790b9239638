"""Asking for peers: one picture of the swarm a question, and no search for what nobody asks."""

from dataclasses import replace
from typing import Any

import pytest

from p2pnode.engine.random_model import random_model
from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.config import InferenceConfig
from p2pnode.inference.cover import Covered, CoverTask
from p2pnode.inference.phase import Phase
from p2pnode.inference.request import GenerationRequest
from p2pnode.sansio import NodeId
from p2pnode.scheduler.chain import ChainPlan, NoCover
from p2pnode.scheduler.offences import Offence
from p2pnode.scheduler.standing import Standing
from p2pnode.scheduler.trust import Ledger
from p2pnode.scheduler.view import PlanView, Wanted
from p2pnode.testing.frames import FrameNetwork, Roster, RosterView, node_id
from p2pnode.testing.offers import SPACE, an_offer, peer_id

A, B, C, SPARE = (node_id(name) for name in ("a", "b", "c", "spare"))
REQUEST = GenerationRequest(tuple(range(3, 23)), 60, Sampling(), frozenset())


def three(**config: float | str) -> FrameNetwork:
    held = {A: range(2), B: range(2, 4), C: range(4, 6)}
    engines = {peer: random_model(5, n_layers=6, layers=layers) for peer, layers in held.items()}
    made = InferenceConfig(prefill_chunk=16, **config)  # type: ignore[arg-type]
    network = FrameNetwork(1, engines, made, trust=Ledger)
    network.roster.brief = False
    return network


def count_searches(monkeypatch: pytest.MonkeyPatch) -> list[frozenset[NodeId]]:
    """Return, filled as searches are made, whom each of them may not use."""
    searches: list[frozenset[NodeId]] = []
    search = RosterView._cover

    def note(view: RosterView, layers: range, barred: frozenset[NodeId]) -> Any:
        searches.append(view.barred)
        return search(view, layers, barred)

    monkeypatch.setattr(RosterView, "_cover", note)
    return searches


def test_nobody_searches_for_an_answer_that_was_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    searches, network = count_searches(monkeypatch), three()
    number = network.generate(A, REQUEST)
    network.cores[A].cancel(number, network.now)
    network.run(1)
    assert not searches
    assert network.cores[A].all_counters()["plan of an older moment"] == 1


def test_of_two_questions_of_one_answer_only_the_newer_is_searched_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = three()
    network.generate(A, REQUEST)
    network.run(0.1)
    searches = count_searches(monkeypatch)
    for peer in (B, C):  # each could serve again, after a moment
        network.cores[A].peer_lost(peer, "suspected", network.now)
        network._collect(A)
    network.run(0.011)
    assert frozenset({B, C}) in searches
    assert frozenset({B}) not in searches


def test_a_question_takes_one_picture_however_many_standings_it_goes_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = three(last_resort=0.0)
    network.roster.brief = True
    number = network.generate(A, REQUEST)
    network.run(0.1)
    pictures: list[Standing] = []
    view = Roster.view

    def note(roster: Roster, request: GenerationRequest, standing: Standing, now: float) -> Any:
        pictures.append(standing)
        return view(roster, request, standing, now)

    monkeypatch.setattr(Roster, "view", note)
    searches = count_searches(monkeypatch)
    network.cores[A].peer_lost(B, "failed", network.now, Offence.FAILED)
    network._collect(A)
    assert len(pictures) == 1
    assert [B in barred for barred in searches] == [True, True, False]
    network.run(10)
    assert len(network.tokens(A, number)) == 60


@pytest.mark.parametrize(("asked", "planned"), [(None, "f16"), ("f32", "f32"), ("q4", "q4")])
def test_a_plan_is_told_how_states_travel_where_the_node_decides(
    asked: str | None, planned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str | None] = []
    view = Roster.view

    def note(roster: Roster, request: GenerationRequest, standing: Standing, now: float) -> Any:
        told.append(request.activations)
        return view(roster, request, standing, now)

    monkeypatch.setattr(Roster, "view", note)
    network = three(activations="f16")
    network.generate(A, replace(REQUEST, activations=asked))
    assert told == [planned]


def test_a_task_is_brief_only_if_all_its_searches_are_together() -> None:
    wanted = Wanted(peer_id(0), SPACE, 30, 576, lambda layers, _: layers * 1024)
    offers = tuple(an_offer(number, 0, 30) for number in range(1, 5))
    view = PlanView(wanted, offers, lambda one, other: 1_000.0)

    def task(views: int) -> CoverTask:
        return CoverTask((view,) * views, (), frozenset(), (), calibrated=False)

    assert [task(views).is_brief for views in (1, 8, 9)] == [True, True, False]


def test_another_standing_is_another_cover_of_the_same_picture() -> None:
    wanted = Wanted(peer_id(0), SPACE, 30, 576, lambda layers, _: layers * 1024)
    view = PlanView(wanted, (an_offer(1, 0, 30),), lambda one, other: 1_000.0)
    assert isinstance(view.chain(), ChainPlan)
    barred = view.under(Standing(excluded={peer_id(1): "failed"}))
    assert isinstance(barred.chain(), NoCover)
    assert barred.offers is view.offers
    found = CoverTask((barred, view), (), frozenset(), (), calibrated=False)()
    assert isinstance(found, Covered)


def test_no_question_stays_open_while_the_chain_is_looked_at() -> None:
    network = three()
    network.generate(A, REQUEST)
    network.run(0.1)
    [generation] = network.cores[A].generations()
    phases = [generation.phase]
    network.planning = 1e6
    generation._ask((Standing(),), frozenset({2}), lambda found, now: None, network.now)
    assert generation._questions.is_open
    generation._look_at_chain(network.now)
    phases.append(generation.phase)
    assert phases == [Phase.RUNNING, Phase.OPENING]
    assert not generation._questions.is_open
