"""Nodes of the last revision and of this one agree who loads what.

What follows is how the last revision settled claims and chose, in as few lines as it takes.
"""

from collections.abc import Iterable
from random import Random

from hypothesis import given, settings, strategies as st

from p2pnode.sansio import NodeId
from p2pnode.scheduler.cost import CostConfig, price_offers
from p2pnode.scheduler.directory import Offer, runs_of
from p2pnode.scheduler.placement import choose_layers, settle_claims
from p2pnode.testing.offers import N_LAYERS as N, an_offer, peer_id
from p2pnode.wire.ad import AdState
from tests.scheduler.arrivals import converge

Rates = dict[NodeId, float]


def of_old(offers: Iterable[Offer]) -> tuple[list[Offer], Rates]:
    present = [o for o in offers if o.alive and o.layers and o.state is not AdState.DRAINING]
    prices = price_offers(present, CostConfig())
    rates = {o.peer: 1e6 / prices[o.peer].visit_us(len(o.layers), head=False) for o in present}
    return present, rates


def strength(offers: list[Offer], rates: Rates) -> list[float]:
    total = [0.0] * N
    for offer in sorted(offers, key=lambda offer: offer.peer):
        for layer in offer.layers:
            total[layer] += rates[offer.peer]
    return [round(of, 6) for of in total]


def best_window(total: list[float], count: int) -> range:
    windows = [range(start, start + count) for start in range(N - count + 1)]

    def key(window: range) -> tuple[list[float], int, int]:
        left = runs_of(n for n, of in enumerate(total) if not of and n not in window)
        return sorted(total[window.start : window.stop]), len(left), window.start

    return min(windows, key=key)


def old_choice(offers: Iterable[Offer], capacity: int) -> range:
    present, rates = of_old(offers)
    return best_window(strength(present, rates), capacity)


def old_settlement(offers: Iterable[Offer]) -> dict[NodeId, range]:
    present, rates = of_old(offers)
    joining = sorted((o for o in present if o.state is AdState.JOINING), key=lambda o: o.peer)
    serving = [offer for offer in present if offer.state is not AdState.JOINING]
    best: list[Offer] = []
    best_cover = -1
    for order in (None, joining, sorted(joining, key=lambda offer: -len(offer.layers))):
        claims = joining if order is None else packed(serving, order, rates)
        settled = improved(serving, claims, rates)
        cover = sum(of > 0 for of in strength([*serving, *settled], rates))
        if cover > best_cover:
            best, best_cover = settled, cover
        if cover == N:
            break
    return {offer.peer: offer.layers for offer in best}


def packed(serving: list[Offer], joining: list[Offer], rates: Rates) -> list[Offer]:
    placed = list(serving)
    for offer in joining:
        placed.append(offer.holding(best_window(strength(placed, rates), len(offer.layers))))
    return placed[len(serving) :]


def improved(serving: list[Offer], claims: list[Offer], rates: Rates) -> list[Offer]:
    settled = {offer.peer: offer for offer in claims}
    moved = True
    while moved:
        moved = False
        for peer in sorted(settled, reverse=True):
            offer = settled[peer]
            others = [*serving, *(other for other in settled.values() if other.peer != peer)]
            total = strength(others, rates)
            best = best_window(total, len(offer.layers))
            if sorted(total[best.start : best.stop]) < sorted(
                total[offer.layers.start : offer.layers.stop]
            ):
                settled[peer], moved = offer.holding(best), True
    return list(settled.values())


@st.composite
def swarms(draw: st.DrawFn) -> list[Offer]:
    offers = []
    for number in range(draw(st.integers(1, 8))):
        start = draw(st.integers(0, N - 1))
        speed = draw(st.sampled_from([0, 0, 600, 601, 5_000]))
        offers.append(
            an_offer(
                number,
                start,
                draw(st.integers(start + 1, N)),
                state=draw(st.sampled_from([AdState.JOINING, AdState.JOINING, *AdState])),
                alive=draw(st.sampled_from([True, True, True, False])),
                decode_fixed_us=300 * bool(speed),
                decode_layer_us=speed,
            )
        )
    return offers


@settings(max_examples=150, deadline=None)
@given(offers=swarms())
def test_both_revisions_settle_the_same_claims_alike(offers: list[Offer]) -> None:
    assert settle_claims(offers, n_layers=N) == old_settlement(offers)


class Newcomer:
    """A node that joins; of the last revision or of this one."""

    def __init__(self, number: int, capacity: int, *, old: bool) -> None:
        self.peer = peer_id(number)
        self.number = number
        self.capacity = capacity
        self.old = old
        self.known: dict[NodeId, Offer] = {}
        self.changes = 0

    def start(self) -> None:
        offers = list(self.known.values())
        if self.old:
            self.claim(old_choice(offers, self.capacity))
        else:
            self.claim(choose_layers(offers, n_layers=N, capacity_layers=self.capacity).layers)

    def hear(self, offer: Offer) -> None:
        self.known[offer.peer] = offer
        if self.changes:
            offers = list(self.known.values())
            settled = old_settlement(offers) if self.old else settle_claims(offers, n_layers=N)
            if settled[self.peer] != self.known[self.peer].layers:
                self.claim(settled[self.peer])

    def claim(self, layers: range) -> None:
        self.changes += 1
        self.known[self.peer] = an_offer(
            self.number,
            layers.start,
            layers.stop,
            state=AdState.JOINING,
            decode_fixed_us=0,
            decode_layer_us=0,
        )


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.tuples(st.integers(3, N), st.booleans()), min_size=2, max_size=5),
    served=st.sampled_from([range(0), range(15), range(10, 20), range(N)]),
    seed=st.integers(0, 2**32),
)
def test_a_mixed_swarm_comes_to_rest_and_leaves_no_hole_that_it_could_fill(
    kinds: list[tuple[int, bool]], served: range, seed: int
) -> None:
    rng = Random(seed)
    newcomers = [Newcomer(n, capacity, old=old) for n, (capacity, old) in enumerate(kinds, 1)]
    if served:
        for newcomer in newcomers:
            newcomer.known[peer_id(99)] = an_offer(99, served.start, served.stop)
    converge(newcomers, rng, lambda one, other: other.hear(one.known[one.peer]))
    assert sum(newcomer.changes for newcomer in newcomers) <= 6 * len(newcomers)
    if served and any(capacity >= N for capacity, _ in kinds):
        held = set(served).union(*(n.known[n.peer].layers for n in newcomers))
        assert held == set(range(N))


def test_an_old_and_a_new_node_that_join_at_once_where_half_is_missing() -> None:
    serving = an_offer(9, 0, 15)
    new = choose_layers([serving], n_layers=N, capacity_layers=N).layers
    old = old_choice([serving], N)
    assert (new, old) == (range(15, 30), range(30))
    claims = [serving, claim(1, new), claim(2, old)]
    assert settle_claims(claims, n_layers=N) == {peer_id(1): new, peer_id(2): old}
    assert old_settlement(claims) == settle_claims(claims, n_layers=N)


def claim(number: int, layers: range) -> Offer:
    return an_offer(number, layers.start, layers.stop, state=AdState.JOINING)
