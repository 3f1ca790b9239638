"""One frozen picture of the swarm answers all questions of one plan."""

from typing import Any

import pytest

from p2pnode.sansio import NodeId
from p2pnode.scheduler import view as view_module
from p2pnode.scheduler.chain import ChainPlan, NoCover, stages_along
from p2pnode.scheduler.cost import TOKEN_BYTES, hidden_bytes
from p2pnode.scheduler.directory import Offer, room_of
from p2pnode.scheduler.route import Route
from p2pnode.scheduler.standing import Standing
from p2pnode.scheduler.view import PlanView, Wanted
from p2pnode.testing.offers import SPACE, an_offer, peer_id as node_id
from p2pnode.wire.states import Rung

US = node_id(0)


def a_view(*offers: Offer, **changes: Any) -> PlanView:
    wanted = Wanted(US, SPACE, 30, 576, lambda layers, _: layers * 1024)
    return PlanView(wanted, offers, lambda one, other: 1_000.0, **changes)


def test_a_chain_and_a_repair_come_from_one_view() -> None:
    view = a_view(an_offer(1, 0, 15), an_offer(2, 15, 30), an_offer(3, 10, 30))
    found = view.chain()
    assert isinstance(found, ChainPlan)
    assert [stage.peer for stage in found.stages] == [node_id(1), node_id(2)]
    mended = view.repair(range(15, 30), (node_id(1), US), {node_id(2): "was lost"})
    assert isinstance(mended, tuple)
    assert [stage.peer for stage in mended] == [node_id(3)]


def test_whom_the_ledger_excludes_is_not_used_and_the_plan_says_why() -> None:
    standing = Standing(excluded={node_id(1): "stalled twice; tried again in 12 s"})
    view = a_view(an_offer(1, 0, 30), an_offer(2, 0, 30), standing=standing)
    found = view.chain()
    assert isinstance(found, ChainPlan)
    assert [stage.peer for stage in found.stages] == [node_id(2)]
    assert "not usable: peer1 stalled twice; tried again in 12 s" in found.reasons
    alone = view.repair(range(5), (US, US), {node_id(2): "was lost"})
    assert isinstance(alone, NoCover)
    assert {refusal.peer for refusal in alone.near} == {node_id(1), node_id(2)}


def test_whoever_advertised_no_codings_reads_f16() -> None:
    assert a_view().rungs(node_id(9)) == {Rung.F16}


def test_a_few_offers_are_planned_at_once_and_many_are_not() -> None:
    assert a_view(*(an_offer(number, 0, 30) for number in range(1, 5))).is_brief
    assert not a_view(*(an_offer(number, 0, 30) for number in range(1, 80))).is_brief


F16, F32 = 10_000, 20_000
"""Bytes of what is kept of the batches passed on."""


def a_tight_view(*offers: Offer) -> PlanView:
    wanted = Wanted(
        US,
        SPACE,
        30,
        576,
        lambda layers, _: layers * 1_000 + F16,
        kv_bytes_at_cut=lambda layers, _: layers * 1_000 + F32,
    )
    return PlanView(wanted, offers, lambda one, other: 1_000.0)


def repaired(view: PlanView, out_dtype: str = "f16") -> list[NodeId]:
    found = view.repair(range(10, 20), (US, US), {}, out_dtype)
    assert isinstance(found, tuple), found
    return [run.peer for run in found]


def test_who_passes_f32_on_at_a_cut_of_a_repair_has_memory_for_it() -> None:
    tight = an_offer(1, 10, 15, decode_layer_us=1, kv_free_bytes=5_000 + F16)
    roomy = an_offer(2, 10, 15, kv_free_bytes=5_000 + F32)
    last = an_offer(3, 15, 20, kv_free_bytes=5_000 + F32)
    assert repaired(a_tight_view(tight, roomy, last)) == [roomy.peer, last.peer]


def test_a_repair_by_one_needs_no_more_than_the_lost_one_did() -> None:
    alone = an_offer(1, 10, 20, kv_free_bytes=10_000 + F16)
    two = [an_offer(2, 10, 15), an_offer(3, 15, 20)]
    assert repaired(a_tight_view(alone, *two)) == [alone.peer]
    assert repaired(a_tight_view(alone, *two), "f32") == [node_id(2), node_id(3)]


def test_the_last_of_a_repair_is_not_given_up_for_what_it_does_not_need() -> None:
    first = an_offer(1, 10, 15, kv_free_bytes=5_000 + F32)
    last = an_offer(2, 15, 20, kv_free_bytes=5_000 + F16)
    assert repaired(a_tight_view(first, last)) == [first.peer, last.peer]


def test_a_repair_is_searched_once_where_there_is_room_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def counted(*asked: Any) -> Any:
        searches.append(asked)
        return stages_along(*asked)

    searches: list[Any] = []
    monkeypatch.setattr(view_module, "stages_along", counted)
    repaired(a_tight_view(an_offer(1, 10, 15), an_offer(2, 15, 20)))
    assert len(searches) == 1


def test_memory_is_reckoned_by_what_each_engine_stores() -> None:
    def needed(layers: int, kv: int) -> int:
        return 10 * layers * (kv or 400)  # ten positions

    def room(kv: int, free: int) -> int:
        return room_of(an_offer(1, 0, 30, kv_free_bytes=free, kv_bytes_per_token_layer=kv), needed)

    free = 30 * 10 * 100
    assert room(100, free) == 30
    assert room(100, free - 1) == 29
    assert room(200, free) == 15
    assert room(0, free) == 7  # of the most that the model takes
    assert room(0, 0) == 0
    assert room_of(an_offer(1, 3, 3, kv_free_bytes=free), needed) == 0
    wanted = Wanted(US, SPACE, 30, 576, needed)
    f16 = an_offer(1, 0, 30, kv_free_bytes=free, kv_bytes_per_token_layer=100)
    f32 = an_offer(2, 0, 30, kv_free_bytes=free, decode_layer_us=1)
    found = PlanView(wanted, (f16, f32), lambda one, other: 1.0).repair(range(30), (US, US))
    assert isinstance(found, tuple)
    assert [run.peer for run in found] == [f16.peer]


def test_hops_are_priced_by_what_is_sent_over_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def sizes(route: Route, refusals: Any) -> NoCover:
        priced.append([route.hop_bytes(number, 2) for number in range(3)])
        return NoCover((), (), ())

    priced: list[list[int]] = []
    monkeypatch.setattr(view_module, "chain_along", sizes)
    monkeypatch.setattr(view_module, "stages_along", sizes)
    f16, f32 = hidden_bytes(576, 2), hidden_bytes(576, 4)
    for value_bytes, sent in ((4, f32), (2, f16)):
        wanted = Wanted(
            US, SPACE, 30, 576, lambda layers, kv: layers * 1024, value_bytes=value_bytes
        )
        view = PlanView(wanted, (an_offer(1, 0, 30),), lambda one, other: 1_000.0)
        view.chain()
        view.repair(range(10, 20), (US, US))
        assert priced == [[TOKEN_BYTES, sent, TOKEN_BYTES], [sent, f32, sent]]
        priced.clear()
