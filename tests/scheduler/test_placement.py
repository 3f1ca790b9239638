"""Placement: holes first, then the weakest layers, and newcomers who agree without a word."""

from random import Random
from typing import Any

from hypothesis import given, settings, strategies as st

from p2pnode.sansio import NodeId
from p2pnode.scheduler.directory import Offer
from p2pnode.scheduler.placement import (
    Placement,
    PlacementConfig,
    choose_layers,
    settle_claims,
    should_move,
)
from p2pnode.testing.offers import N_LAYERS as N, an_offer, peer_id as node_id
from p2pnode.wire.ad import AdState
from tests.scheduler.arrivals import converge


def a_claim(number: int, start: int, stop: int) -> Offer:
    return an_offer(
        number, start, stop, state=AdState.JOINING, decode_fixed_us=0, decode_layer_us=0
    )


def choose(*offers: Offer, capacity: int) -> Placement:
    return choose_layers(offers, n_layers=N, capacity_layers=capacity)


def test_newcomers_one_after_another_tile_the_model() -> None:
    offers: list[Offer] = []
    for number, capacity in enumerate([12, 7, 11]):
        layers = choose(*offers, capacity=capacity).layers
        offers.append(an_offer(number, layers.start, layers.stop))
    assert [offer.layers for offer in offers] == [range(12), range(12, 19), range(19, 30)]


def test_a_hole_comes_first_and_the_reason_says_so() -> None:
    placement = choose(an_offer(1, 0, 12), an_offer(2, 20, 30), capacity=10)
    assert placement.layers == range(12, 20)
    assert placement.reason == "nobody else holds [12, 20)"


def test_a_newcomer_with_room_for_all_takes_the_gap_and_no_more() -> None:
    assert choose(an_offer(1, 0, 15), capacity=30).layers == range(15, 30)
    assert choose(capacity=30).layers == range(30)  # the first of its swarm: all is a gap
    assert choose(an_offer(1, 5, 20), capacity=30).layers == range(30)  # two gaps need both ends
    assert choose(an_offer(1, 5, 20), capacity=8).layers == range(20, 28)
    assert choose(an_offer(1, 0, 30), capacity=30).layers == range(30)  # no gap: as strong as it is


def test_of_two_holes_the_one_that_it_fills() -> None:
    offers = [an_offer(1, 0, 10), an_offer(2, 16, 26)]
    assert choose(*offers, capacity=4).layers == range(26, 30)


def test_without_a_hole_the_weakest_layers_are_strengthened() -> None:
    offers = [
        an_offer(1, 0, 10),
        an_offer(2, 10, 20, decode_layer_us=1_800),
        an_offer(3, 20, 30),
        an_offer(4, 0, 10),
    ]
    placement = choose(*offers, capacity=10)
    assert placement.layers == range(10, 20)
    assert placement.reason == (
        "every layer is held; [10, 20) is weakest, with 54.6 tokens a second"
    )


def test_those_who_leave_or_are_gone_count_for_nothing() -> None:
    offers = [
        an_offer(1, 0, 10, state=AdState.DRAINING),
        an_offer(2, 0, 10, alive=False),
        an_offer(3, 10, 30),
    ]
    assert choose(*offers, capacity=10).layers == range(10)


def test_capacity_is_bounded_by_the_model_and_may_be_nothing() -> None:
    assert choose(capacity=99).layers == range(30)
    nothing = choose(capacity=0)
    assert (len(nothing.layers), nothing.reason) == (0, "there is no room for a single layer")


def test_a_layer_is_as_strong_as_all_its_holders_those_who_load_included() -> None:
    offers = [an_offer(1, 0, 30), a_claim(2, 0, 10), an_offer(3, 20, 30)]
    assert choose(*offers, capacity=10).layers == range(10, 20)


# Claims


def settle(*offers: Offer) -> dict[NodeId, range]:
    return settle_claims(offers, n_layers=N)


def test_three_newcomers_at_the_same_moment_share_the_model() -> None:
    settled = settle(*(a_claim(number, 0, 10) for number in (3, 1, 2)))
    assert settled[node_id(1)] == range(10)  # the lowest id keeps its claim
    assert sorted(settled.values(), key=lambda run: run.start) == [
        range(10),
        range(10, 20),
        range(20, 30),
    ]


def test_claims_that_do_not_collide_stand() -> None:
    claims = [a_claim(1, 20, 30), a_claim(2, 0, 10), a_claim(3, 10, 20)]
    assert settle(*claims) == {claim.peer: claim.layers for claim in claims}


def test_a_late_newcomer_moves_nobody() -> None:
    claims = [a_claim(2, 20, 30), a_claim(3, 0, 10), a_claim(4, 10, 20)]
    late = choose(*claims, capacity=10).layers
    settled = settle(*claims, a_claim(1, late.start, late.stop))
    assert all(settled[claim.peer] == claim.layers for claim in claims)


def test_those_who_serve_stay_and_claims_go_around_them() -> None:
    serving = an_offer(9, 10, 20)
    settled = settle(serving, a_claim(1, 10, 20), a_claim(2, 10, 20))
    assert serving.peer not in settled
    assert sorted(run.start for run in settled.values()) == [0, 20]


def test_claims_that_leave_a_gap_are_packed() -> None:
    # 1 and 2 collided with 3 half known: [10, 15) fell between them, and 15 layers are doubled.
    claims = [a_claim(1, 15, 30), a_claim(2, 0, 10), a_claim(3, 10, 15)]
    assert covered(settle(*[*claims[:2], a_claim(3, 20, 25)]).values()) == set(range(N))
    fragments = [a_claim(1, 5, 20), a_claim(2, 22, 30), a_claim(3, 0, 7)]
    assert covered(settle(*fragments).values()) == set(range(N))


def covered(runs: Any) -> set[int]:
    return {layer for run in runs for layer in run}


CAPACITIES = st.lists(st.integers(1, N), min_size=2, max_size=6)


@given(
    claims=st.lists(st.tuples(st.integers(0, N - 1), st.integers(1, N)), min_size=1, max_size=6),
    serving=st.lists(st.tuples(st.integers(0, N - 1), st.integers(1, N)), max_size=3),
)
def test_what_is_settled_stays_settled(
    claims: list[tuple[int, int]], serving: list[tuple[int, int]]
) -> None:
    offers = [
        an_offer(number, start, min(start + count, N))
        for number, (start, count) in enumerate(serving, start=100)
    ]
    claimed = [
        a_claim(number, start, min(start + count, N))
        for number, (start, count) in enumerate(claims)
    ]
    settled = settle(*offers, *claimed)
    assert {peer: len(run) for peer, run in settled.items()} == {
        claim.peer: len(claim.layers) for claim in claimed
    }
    again = [claim.holding(settled[claim.peer]) for claim in claimed]
    assert settle(*offers, *again) == settled
    assert settle(*reversed(again), *offers) == settled


class Newcomer:
    """A node that joins: it chooses, announces, and settles with what it has heard so far."""

    def __init__(self, number: int, capacity: int) -> None:
        self.peer = node_id(number)
        self.capacity = capacity
        self.ads: dict[NodeId, tuple[int, Offer]] = {}
        self.changes = 0

    def start(self) -> None:
        known = [offer for _, offer in self.ads.values()]
        placement = choose_layers(known, n_layers=N, capacity_layers=self.capacity)
        self._announce(placement.layers)

    def hear(self, peer: NodeId, version: int, offer: Offer) -> None:
        if peer == self.peer or self.ads.get(peer, (0, offer))[0] >= version:
            return
        self.ads[peer] = (version, offer)
        if self.changes:
            settled = settle_claims((ad for _, ad in self.ads.values()), n_layers=N)
            if settled[self.peer] != self.layers:
                self._announce(settled[self.peer])

    @property
    def layers(self) -> range:
        return self.ads[self.peer][1].layers

    def _announce(self, layers: range) -> None:
        self.changes += 1
        claim = a_claim(self.peer[1], layers.start, layers.stop)
        self.ads[self.peer] = (self.changes, claim)


def tell(one: Newcomer, other: Newcomer) -> None:
    other.hear(one.peer, *one.ads[one.peer])


@settings(max_examples=100)
@given(capacities=CAPACITIES.filter(lambda them: sum(them) >= N), seed=st.integers(0, 2**32))
def test_any_order_of_arrival_ends_in_full_cover(capacities: list[int], seed: int) -> None:
    newcomers = [Newcomer(number, capacity) for number, capacity in enumerate(capacities)]
    converge(newcomers, Random(seed), tell)
    assert covered(newcomer.layers for newcomer in newcomers) == set(range(N))
    assert all(newcomer.ads[n.peer] == n.ads[n.peer] for newcomer in newcomers for n in newcomers)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_three_equal_newcomers_always_end_in_thirds(seed: int) -> None:
    newcomers = [Newcomer(number, 10) for number in range(3)]
    converge(newcomers, Random(seed), tell)
    assert sorted(newcomer.layers.start for newcomer in newcomers) == [0, 10, 20]
    assert sum(newcomer.changes for newcomer in newcomers) <= 9


# Healing


def move(us: int, *offers: Offer, capacity: int = 10, hole_seconds: float = 25.0) -> Any:
    return should_move(
        offers,
        us=node_id(us),
        n_layers=N,
        capacity_layers=capacity,
        hole_seconds=hole_seconds,
        config=PlacementConfig(patience=20.0),
    )


WITH_A_SPARE = (an_offer(1, 0, 10), an_offer(2, 0, 10), an_offer(3, 10, 20))


def test_a_spare_node_moves_into_a_lasting_hole() -> None:
    assert move(2, *WITH_A_SPARE) == Placement(
        range(20, 30), "fills the hole [20, 30); others serve what it leaves"
    )
    assert move(2, *WITH_A_SPARE, hole_seconds=19.0) is None


def test_the_next_in_turn_waits_as_long_again() -> None:
    assert move(1, *WITH_A_SPARE, hole_seconds=39.0) is None
    assert move(1, *WITH_A_SPARE, hole_seconds=40.0) is not None


def test_nobody_leaves_layers_that_only_it_serves() -> None:
    assert move(3, *WITH_A_SPARE, hole_seconds=1e6) is None
    half_spare = (an_offer(1, 0, 10), an_offer(2, 0, 20))
    assert move(2, *half_spare, capacity=20, hole_seconds=50.0).layers == range(10, 30)


def test_a_hole_that_a_newcomer_has_claimed_is_left_to_it() -> None:
    assert move(2, *WITH_A_SPARE, a_claim(7, 20, 30)) is None


def test_those_who_load_do_not_replace_those_who_serve() -> None:
    offers = (an_offer(1, 0, 20), a_claim(2, 0, 20))
    assert move(1, *offers, capacity=20, hole_seconds=1e6) is None


def test_without_a_hole_nobody_moves() -> None:
    assert move(2, *WITH_A_SPARE, an_offer(4, 20, 30), hole_seconds=1e6) is None


@given(
    runs=st.lists(st.tuples(st.integers(0, N - 1), st.integers(1, N)), min_size=1, max_size=6),
    us=st.integers(0, 5),
    capacity=st.integers(0, N),
)
def test_a_move_never_leaves_a_hole(runs: list[tuple[int, int]], us: int, capacity: int) -> None:
    offers = [
        an_offer(number, start, min(start + count, N)) for number, (start, count) in enumerate(runs)
    ]
    placement = move(us, *offers, capacity=capacity, hole_seconds=1e6)
    if placement is None:
        return
    before = covered(offer.layers for offer in offers)
    after = covered(
        placement.layers if offer.peer == node_id(us) else offer.layers for offer in offers
    )
    assert before < after
