"""Chains: always a cover, always the best one, and always with their reasons."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.sansio import NodeId
from p2pnode.scheduler import search
from p2pnode.scheduler.chain import ChainPlan, NoCover, StageRun
from p2pnode.scheduler.cost import TOKEN_BYTES, CostConfig, hidden_bytes
from p2pnode.scheduler.directory import Offer, runs_of
from p2pnode.scheduler.standing import Standing
from p2pnode.scheduler.view import PlanView, Wanted
from p2pnode.testing.offers import D_MODEL, SPACE, an_offer, changed, peer_id as node_id
from p2pnode.wire.ad import AdState
from p2pnode.wire.rest import RestCause

WIDTH = D_MODEL
KIB = 1024

PLAIN = CostConfig(handover_us=0)
"""Prices whose sums are easy to check by hand."""


US = node_id(0)


def rtt(one: NodeId, other: NodeId) -> float | None:
    return 1_000.0


OF_VIEW = frozenset(each.name for each in fields(PlanView))


def a_view(
    offers: Iterable[Offer], *, exclude: Mapping[NodeId, str] | None = None, **changes: Any
) -> PlanView:
    """Return what to plan from; ``changes`` are fields of the view or of what is wanted."""
    of_view = {name: changes.pop(name) for name in [*changes] if name in OF_VIEW}
    wanted: dict[str, Any] = {
        "requester": US,
        "space_hash32": SPACE,
        "n_layers": 30,
        "d_model": WIDTH,
        "kv_bytes_needed": lambda layers, _: layers * KIB,
        **changes,
    }
    view: dict[str, Any] = {"rtt_us": rtt, "costs": PLAIN, **of_view}
    return PlanView(Wanted(**wanted), tuple(offers), standing=Standing(exclude or {}), **view)


def plan(*offers: Offer, n_layers: int = 30, **changes: Any) -> ChainPlan | NoCover:
    shaped = [changed(offer, n_layers=n_layers) for offer in offers]
    return a_view(shaped, n_layers=n_layers, **changes).chain()


def chain(*offers: Offer, **changes: Any) -> ChainPlan:
    found = plan(*offers, **changes)
    assert isinstance(found, ChainPlan), found
    return found


def no_chain(*offers: Offer, **changes: Any) -> NoCover:
    found = plan(*offers, **changes)
    assert isinstance(found, NoCover), found
    return found


def runs(found: ChainPlan | tuple[StageRun, ...]) -> list[tuple[str, int, int]]:
    stages = found.stages if isinstance(found, ChainPlan) else found
    return [(stage.name, stage.layers.start, stage.layers.stop) for stage in stages]


def test_three_parts_make_a_chain_and_its_price_is_the_sum() -> None:
    found = chain(an_offer(1, 0, 10), an_offer(2, 10, 20), an_offer(3, 20, 30))
    assert runs(found) == [("peer1", 0, 10), ("peer2", 10, 20), ("peer3", 20, 30)]
    assert [stage.cost_us for stage in found.stages] == [6_300, 6_300, 8_300]
    assert list(found.hop_us) == [500] * 4
    assert found.expected_us_per_token == 22_900
    assert found.slowest_us == 8_300
    assert found.reasons == ("least latency: 22.9 ms a token, 2.0 ms of it on the way",)
    assert found.stages[0].reason == "the only one that can run [0, 10) in one piece"


def test_a_peer_is_left_before_its_last_layer_for_a_faster_one() -> None:
    slow = an_offer(1, 0, 20, decode_layer_us=2_000)
    assert runs(chain(slow, an_offer(2, 10, 30))) == [("peer1", 0, 10), ("peer2", 10, 30)]
    fast = an_offer(1, 0, 20, decode_layer_us=100)
    assert runs(chain(fast, an_offer(2, 10, 30))) == [("peer1", 0, 20), ("peer2", 20, 30)]


def test_a_slow_machine_with_the_whole_model_does_the_ends() -> None:
    ours = an_offer(0, 0, 30, decode_layer_us=3_000)
    found = chain(ours, an_offer(2, 4, 26))
    assert runs(found) == [("peer0", 0, 4), ("peer2", 4, 26), ("peer0", 26, 30)]
    assert found.hop_us == (0, 500, 500, 0)


def test_one_slow_peer_is_routed_around_and_the_plan_says_what_that_saves() -> None:
    found = chain(an_offer(1, 0, 30), an_offer(2, 0, 30, name="cellar", decode_layer_us=700))
    assert runs(found) == [("peer1", 0, 30)]
    # The cheapest chain with the cellar gives it one layer: a visit, a hop and 0.1 ms.
    assert found.reasons[1] == "avoids cellar: +0.9 ms a token"
    assert found.stages[0].reason == "best of 2 that can run [0, 30)"


def test_distance_counts_as_much_as_speed() -> None:
    def distances(one: NodeId, other: NodeId) -> float:
        return 50_000.0 if node_id(2) in (one, other) else 1_000.0

    fast_but_far = an_offer(2, 0, 30, decode_layer_us=100)
    assert runs(chain(an_offer(1, 0, 30), fast_but_far, rtt_us=distances)) == [("peer1", 0, 30)]


@pytest.mark.parametrize(("value_bytes", "hop_us"), [(4, 24_180), (2, 12_660)])
def test_a_thin_link_counts_by_what_it_carries(value_bytes: int, hop_us: float) -> None:
    def rates(one: NodeId, other: NodeId) -> float | None:
        return 100_000.0 if node_id(2) in (one, other) else None

    offers = [an_offer(1, 0, 10), an_offer(2, 10, 20), an_offer(3, 20, 30)]
    found = chain(*offers, goodput=rates, value_bytes=value_bytes)
    assert found.hop_us == pytest.approx((500, hop_us, hop_us, 500))


def test_a_missing_rtt_is_dear_but_not_infinite() -> None:
    config = CostConfig(unmeasured_rtt_us=150_000, handover_us=0)
    found = chain(an_offer(1, 0, 30), rtt_us=lambda one, other: None, costs=config)
    assert found.hop_us == (75_000, 75_000)


def test_an_unmeasured_peer_is_priced_as_slow_and_used_where_nobody_else_is() -> None:
    stranger = an_offer(2, 10, 30, decode_fixed_us=0, decode_layer_us=0, head_us=0)
    found = chain(an_offer(1, 0, 20), stranger)
    assert runs(found) == [("peer1", 0, 20), ("peer2", 20, 30)]
    assert found.stages[1].cost_us == 600 + 10 * 1_200 + 4_000
    assert "not measured yet, so priced as slow" in found.stages[1].reason
    alone = chain(stranger.holding(range(30)))
    assert alone.stages[0].cost_us == 2_000 + 30 * 3_000 + 3_000


def test_the_avoided_is_used_only_where_nobody_else_can() -> None:
    slow, fast = an_offer(1, 0, 30, decode_layer_us=6_000), an_offer(2, 0, 30)
    found = chain(slow, fast, avoid=frozenset({fast.peer}))
    assert runs(found) == [("peer1", 0, 30)]
    assert found.reasons[1].startswith("avoids peer2, as asked: -")
    found = chain(slow.holding(range(10)), fast, avoid=frozenset({fast.peer}))
    assert runs(found) == [("peer1", 0, 10), ("peer2", 10, 30)]
    assert "uses peer2 though it was to be avoided" in found.reasons[1]


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_the_preferred_does_all_it_can(objective: str) -> None:
    slow, fast = an_offer(1, 0, 20, decode_layer_us=6_000), an_offer(2, 0, 30)
    found = chain(slow, fast, prefer=frozenset({slow.peer}), objective=objective)
    assert runs(found) == [("peer1", 0, 20), ("peer2", 20, 30)]
    assert found.stages[0].reason.endswith("preferred")


def test_throughput_balances_the_stages() -> None:
    offers = [an_offer(1, 0, 30), an_offer(2, 0, 30), an_offer(3, 0, 30)]
    assert len(chain(*offers).stages) == 1
    found = chain(*offers, objective="throughput")
    # The last stage has the head, worth 3.3 layers.
    assert [len(stage.layers) for stage in found.stages] == [11, 11, 8]
    assert found.slowest_us == 300 + 8 * 600 + 2_000
    assert "the slowest stage, peer1, takes 7.1 ms" in found.reasons[0]


def test_those_who_cannot_serve_are_named_with_the_reason() -> None:
    found = chain(
        an_offer(1, 0, 30),
        an_offer(2, 0, 10, state=AdState.JOINING),
        an_offer(3, 0, 10, state=AdState.DRAINING),
        an_offer(4, 0, 10, alive=False, trouble="suspect: silent for 2.0 s"),
        an_offer(5, 0, 10, space_hash32=7),
        an_offer(6, 0, 10, kv_free_bytes=KIB // 2),
        an_offer(7, 0, 0),
        an_offer(9, 0, 10, d_model=64),
        an_offer(10, 0, 10),
        exclude={node_id(10): "has refused the session"},
    )
    assert found.reasons[1:] == (
        "not usable: peer2 is still loading [0, 10)",
        "not usable: peer3 is leaving",
        "not usable: peer4 is suspect: silent for 2.0 s",
        "not usable: peer5 serves another model",
        "not usable: peer6 has too little memory: 0.0 MiB free, one layer needs 0.0 MiB",
        "not usable: peer7 holds no layers",
        "not usable: peer9 says this model has 30 layers of width 64",
        "not usable: peer10 has refused the session",
    )


def test_no_cover_says_what_is_missing_and_who_is_near() -> None:
    found = no_chain(
        an_offer(1, 5, 10),
        an_offer(2, 12, 25, state=AdState.JOINING),
        an_offer(3, 20, 30, alive=False, trouble="suspect"),
        an_offer(4, 5, 10, state=AdState.DRAINING),
        an_offer(5, 0, 24, space_hash32=1),
        an_offer(6, 0, 0),
        an_offer(7, 0, 0, trouble="the file is broken"),
        an_offer(8, 0, 0, state=AdState.DRAINING, resting=RestCause.CPU),
    )
    assert found.missing == (range(5), range(10, 30))
    assert [refusal.label for refusal in found.near] == ["peer2", "peer3", "peer5"]
    assert found.reasons == (
        "peer2 is still loading [12, 25)",
        "peer3 is suspect",
        "peer5 serves another model",
        "peer4 is leaving",
        "peer6 holds no layers",
        "peer7 holds no layers: the file is broken",
        "peer8 holds no layers: rests: its owner uses the CPU",
    )


def test_no_cover_says_who_holds_what_is_missing_and_rests() -> None:
    found = no_chain(
        an_offer(1, 0, 10),
        an_offer(2, 10, 20, state=AdState.DRAINING, resting=RestCause.HOURS),
        an_offer(3, 20, 30, state=AdState.DRAINING),
        an_offer(4, 0, 10, state=AdState.DRAINING, resting=RestCause.CPU),
        an_offer(5, 10, 20, state=AdState.DRAINING, resting=RestCause.CPU, space_hash32=1),
    )
    assert found.resting == "peer2 [10, 20)"
    many = (
        an_offer(number, 0, 30, state=AdState.DRAINING, resting=RestCause.CPU)
        for number in range(1, 13)
    )
    assert no_chain(*many).resting.endswith("peer8 [0, 30), 4 more")
    assert no_chain(an_offer(1, 0, 10)).resting == ""


def test_memory_bounds_a_stage_and_all_visits_of_a_peer_together() -> None:
    room_for_eight = an_offer(1, 0, 30, kv_free_bytes=8 * KIB, decode_layer_us=100)
    found = chain(room_for_eight, an_offer(2, 0, 30))
    assert runs(found) == [("peer1", 0, 8), ("peer2", 8, 30)]
    found = chain(room_for_eight, an_offer(2, 0, 27), an_offer(3, 3, 30, decode_layer_us=900))
    assert sum(len(s.layers) for s in found.stages if s.name == "peer1") == 8


def test_memory_alone_may_leave_layers_missing() -> None:
    parts = [an_offer(n, 0, 30, kv_free_bytes=9 * KIB) for n in (1, 2, 3)]
    found = no_chain(*parts)
    assert found.missing == (range(27, 30),)
    assert found.reasons == (
        "too little memory for this session: nothing is left for layers [27, 30)",
        "peer1 has memory for 9 of its 30 layers",
        "peer2 has memory for 9 of its 30 layers",
        "peer3 has memory for 9 of its 30 layers",
    )
    whole = chain(*parts, an_offer(4, 0, 30, kv_free_bytes=3 * KIB))
    assert sum(len(stage.layers) for stage in whole.stages) == 30


def test_peers_of_one_name_can_be_told_apart() -> None:
    found = chain(an_offer(1, 0, 10, name="pi"), an_offer(2, 10, 30, name="pi"))
    assert [stage.name for stage in found.stages] == ["pi (00010001)", "pi (00020002)"]


def test_nobody_at_all() -> None:
    found = no_chain()
    assert found.missing == (range(30),)
    assert found.near == ()


# Repair


def repair(
    *offers: Offer, lost: range, upstream: NodeId = US, downstream: NodeId = US, **changes: Any
) -> tuple[StageRun, ...] | NoCover:
    return a_view(offers, **changes).repair(lost, (upstream, downstream))


def test_a_repair_covers_exactly_what_was_lost() -> None:
    dead = an_offer(1, 10, 20)
    found = repair(
        dead, an_offer(2, 5, 30), lost=range(10, 20), exclude={dead.peer: "has just failed"}
    )
    assert isinstance(found, tuple)
    assert runs(found) == [("peer2", 10, 20)]
    assert found[0].cost_us == 300 + 10 * 600  # no head in the middle


def test_a_repair_takes_the_fewest_stages_even_if_slower() -> None:
    slow = an_offer(1, 0, 30, decode_layer_us=9_000)
    found = repair(slow, an_offer(2, 10, 15), an_offer(3, 15, 20), lost=range(10, 20))
    assert isinstance(found, tuple)
    assert runs(found) == [("peer1", 10, 20)]
    found = repair(an_offer(2, 10, 15), an_offer(3, 15, 20), lost=range(10, 20))
    assert isinstance(found, tuple)
    assert runs(found) == [("peer2", 10, 15), ("peer3", 15, 20)]


def test_a_repair_prefers_the_neighbour_when_all_else_is_equal() -> None:
    offers = [an_offer(1, 0, 20), an_offer(2, 10, 30)]
    for_upstream = repair(*offers, lost=range(10, 20), upstream=node_id(2), downstream=node_id(2))
    assert isinstance(for_upstream, tuple)
    assert runs(for_upstream) == [("peer2", 10, 20)]


def test_a_repair_without_cover_says_what_is_missing() -> None:
    found = repair(an_offer(1, 12, 30), lost=range(10, 20))
    assert isinstance(found, NoCover)
    assert found.missing == (range(10, 12),)


# Against brute force


@dataclass(frozen=True)
class World:
    offers: tuple[Offer, ...]
    rtts: dict[tuple[NodeId, NodeId], float]
    rates: dict[tuple[NodeId, NodeId], float]

    def arguments(self) -> dict[str, Any]:
        return {
            "rtt_us": lambda a, b: self.rtts.get((a, b)),
            "goodput": lambda a, b: self.rates.get((a, b)),
        }


LAYERS = 5


@st.composite
def worlds(draw: st.DrawFn, max_peers: int = 4) -> World:
    offers = []
    for number in range(draw(st.integers(1, max_peers))):
        start = draw(st.integers(0, LAYERS - 1))
        stop = draw(st.integers(start + 1, LAYERS))
        offers.append(
            an_offer(
                number,
                start,
                stop,
                n_layers=LAYERS,
                decode_fixed_us=draw(st.integers(0, 2_000)),
                decode_layer_us=draw(st.integers(0, 2_000)),
                head_us=draw(st.integers(0, 2_000)),
                kv_free_bytes=draw(st.integers(0, LAYERS)) * KIB,
                state=draw(st.sampled_from([AdState.SERVING] * 5 + [AdState.DRAINING])),
                alive=draw(st.sampled_from([True] * 5 + [False])),
            )
        )
    peers = [offer.peer for offer in offers]
    pairs = [(a, b) for a in {US, *peers} for b in {US, *peers} if a != b]
    rtts = {pair: draw(st.floats(0, 5_000)) for pair in sorted(pairs)}
    rates = {pair: draw(st.floats(1e5, 1e8)) for pair in sorted(pairs)}
    return World(tuple(offers), rtts, rates)


def all_chains(offers: list[Offer], start: int = 0) -> Iterator[list[tuple[Offer, range]]]:
    if start == LAYERS:
        yield []
    for offer in offers:
        for stop in range(start + 1, LAYERS + 1):
            if start in offer.layers and stop - 1 in offer.layers:
                for rest in all_chains(offers, stop):
                    if not rest or rest[0][0] is not offer:
                        yield [(offer, range(start, stop)), *rest]


def fits(stages: list[tuple[Offer, range]]) -> bool:
    return all(
        sum(len(run) for other, run in stages if other is offer) * KIB <= offer.ad.kv_free_bytes
        for offer, _ in stages
    )


def visit_us(offer: Offer, run: range) -> float:
    head = offer.ad.head_us if run.stop == LAYERS else 0
    if offer.is_measured:
        return offer.ad.decode_fixed_us + offer.ad.decode_layer_us * len(run) + head
    return 0


def latency(world: World, stages: list[tuple[Offer, range]]) -> float:
    peers = [US, *(offer.peer for offer, _ in stages), US]
    sizes = [TOKEN_BYTES, *[hidden_bytes(WIDTH)] * (len(stages) - 1), TOKEN_BYTES]
    hops = [
        world.rtts[a, b] / 2 + size / world.rates[a, b] * 1e6
        for a, b, size in zip(peers, peers[1:], sizes, strict=False)
        if a != b
    ]
    return sum(hops) + sum(visit_us(offer, run) for offer, run in stages)


def pace(world: World, stages: list[tuple[Offer, range]]) -> float:
    peers = [US, *(offer.peer for offer, _ in stages), US]
    sizes = [TOKEN_BYTES, *[hidden_bytes(WIDTH)] * (len(stages) - 1), TOKEN_BYTES]
    hops = [
        size / world.rates[a, b] * 1e6
        for a, b, size in zip(peers, peers[1:], sizes, strict=False)
        if a != b
    ]
    return max(*hops, 0.0, *(visit_us(offer, run) for offer, run in stages))


def usable(world: World) -> list[Offer]:
    return [
        offer
        for offer in world.offers
        if offer.alive and offer.state is AdState.SERVING and offer.ad.kv_free_bytes >= KIB
    ]


def as_stages(world: World, found: ChainPlan) -> list[tuple[Offer, range]]:
    by_peer = {offer.peer: offer for offer in world.offers}
    return [(by_peer[stage.peer], stage.layers) for stage in found.stages]


def measured(world: World) -> bool:
    return all(offer.is_measured for offer in world.offers)


@settings(max_examples=150)
@given(world=worlds().filter(measured))
def test_no_chain_is_quicker(world: World) -> None:
    found = plan(*world.offers, n_layers=LAYERS, **world.arguments())
    every = [stages for stages in all_chains(usable(world)) if fits(stages)]
    if not every:
        assert isinstance(found, NoCover)
        return
    assert isinstance(found, ChainPlan)
    best = min(map(partial(latency, world), every))
    assert found.expected_us_per_token == pytest.approx(best)
    assert latency(world, as_stages(world, found)) == pytest.approx(best)
    assert fits(as_stages(world, found))


@settings(max_examples=150)
@given(world=worlds().filter(measured))
def test_no_chain_has_a_better_pace(world: World) -> None:
    found = plan(*world.offers, n_layers=LAYERS, objective="throughput", **world.arguments())
    every = [
        stages
        for stages in all_chains(usable(world))
        if fits(stages) and len({offer.peer for offer, _ in stages}) == len(stages)
    ]
    if not every:
        assert isinstance(found, NoCover)
        return
    assert isinstance(found, ChainPlan)
    best = min(map(partial(pace, world), every))
    stages = as_stages(world, found)
    assert pace(world, stages) == pytest.approx(best)
    quickest = min(latency(world, s) for s in every if pace(world, s) <= best + 1e-6)
    assert latency(world, stages) == pytest.approx(quickest)


@settings(max_examples=200)
@given(
    world=worlds(max_peers=6),
    objective=st.sampled_from(["latency", "throughput"]),
    prefer=st.frozensets(st.integers(0, 5)),
    avoid=st.frozensets(st.integers(0, 5)),
)
def test_a_chain_covers_every_layer_once_in_order_with_peers_that_serve(
    world: World, objective: str, prefer: frozenset[int], avoid: frozenset[int]
) -> None:
    found = plan(
        *world.offers,
        n_layers=LAYERS,
        objective=objective,
        prefer=frozenset(map(node_id, prefer)),
        avoid=frozenset(map(node_id, avoid)),
        **world.arguments(),
    )
    if isinstance(found, NoCover):
        assert found.missing
        return
    assert [layer for stage in found.stages for layer in stage.layers] == list(range(LAYERS))
    allowed = {offer.peer: offer for offer in usable(world)}
    for stage in found.stages:
        offer = allowed[stage.peer]
        assert stage.layers.start in offer.layers
        assert stage.layers.stop - 1 in offer.layers
    assert all(a.peer != b.peer for a, b in zip(found.stages, found.stages[1:], strict=False))
    assert fits(as_stages(world, found))
    assert found.expected_us_per_token == pytest.approx(
        sum(found.hop_us) + sum(stage.cost_us for stage in found.stages)
    )


@settings(max_examples=200)
@given(
    world=worlds(max_peers=6),
    objective=st.sampled_from(["latency", "throughput"]),
    prefer=st.frozensets(st.integers(0, 5)),
    avoid=st.frozensets(st.integers(0, 5)),
    repaired=st.booleans(),
)
def test_in_large_swarms_the_plan_is_the_same(
    world: World,
    objective: str,
    prefer: frozenset[int],
    avoid: frozenset[int],
    repaired: bool,
) -> None:
    wishes: dict[str, Any] = {
        "prefer": frozenset(map(node_id, prefer)),
        "avoid": frozenset(map(node_id, avoid)),
        **world.arguments(),
    }

    def found() -> object:
        if repaired:
            return repair(*world.offers, lost=range(1, 4), n_layers=LAYERS, **wishes)
        return plan(*world.offers, n_layers=LAYERS, objective=objective, **wishes)

    in_python = found()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "FEW", 0)
        assert found() == in_python


def test_in_large_swarms_the_eight_nearest_are_named_and_the_others_counted() -> None:
    offers = [an_offer(number, 0, 30, decode_layer_us=600 + number) for number in range(1, 101)]
    dead = [an_offer(number, 0, 30, alive=False) for number in range(200, 300)]
    liar = an_offer(300, 0, 30)
    found = chain(*offers, *dead, liar, exclude={liar.peer: "sent numbers that are not finite"})
    assert runs(found) == [("peer1", 0, 30)]
    assert [reason.split(":")[0] for reason in found.reasons[1:9]] == [
        f"avoids peer{number}" for number in range(2, 10)
    ]
    assert found.reasons[9] == "91 more could serve, and would be dearer"
    assert found.reasons[10] == "not usable: peer300 sent numbers that are not finite"
    assert found.reasons[-1] == "93 more are not usable"
    assert len(found.reasons) == 19
    none = no_chain(*dead)
    assert len(none.reasons) == 9
    assert none.reasons[-1] == "92 more cannot serve them either"


@given(world=worlds(max_peers=5), order=st.randoms())
def test_the_order_of_the_offers_changes_nothing(world: World, order: Any) -> None:
    shuffled = list(world.offers)
    order.shuffle(shuffled)
    assert plan(*world.offers, n_layers=LAYERS, **world.arguments()) == plan(
        *shuffled, n_layers=LAYERS, **world.arguments()
    )


@given(st.sets(st.integers(0, 40)))
def test_runs_join_neighbours(layers: set[int]) -> None:
    joined = runs_of(layers)
    assert [layer for run in joined for layer in run] == sorted(layers)
    assert all(a.stop < b.start for a, b in pairwise(joined))


def test_a_handover_is_worth_more_than_noise() -> None:
    slower = an_offer(1, 0, 6, decode_fixed_us=0, decode_layer_us=110)
    faster = an_offer(2, 3, 6, decode_fixed_us=0, decode_layer_us=100)
    near: dict[str, Any] = {"rtt_us": lambda one, other: 0.0, "n_layers": 6}
    cut = plan(slower, faster, **near)
    whole = plan(slower, faster, costs=CostConfig(handover_us=1_000), **near)
    assert isinstance(cut, ChainPlan)
    assert isinstance(whole, ChainPlan)
    assert len(cut.stages) == 2
    assert len(whole.stages) == 1
