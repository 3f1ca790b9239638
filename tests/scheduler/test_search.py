"""The sweep in arrays finds what the one in Python finds, to the last bit; neither runs away."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from p2pnode import CORES
from p2pnode.membership.coordinates import Coordinate
from p2pnode.scheduler import budgets, search, sweep
from p2pnode.scheduler.distances import Distances
from p2pnode.scheduler.terrain import Tariff, Terrain, Visit
from p2pnode.testing.offers import peer_id

LAYERS = 7
PRICES = st.sampled_from([0.0, 1.0, 2.5, 7.0, float("inf")])  # few, so that there are many ties
HOPS = st.sampled_from([0.0, 1.0, 3.0, 1e4, float("inf")])


@st.composite
def terrains(draw: st.DrawFn, once: bool | None = None) -> Terrain:
    places = draw(st.integers(1, 7))
    first = draw(st.integers(0, 3))
    layers = range(first, first + draw(st.integers(1, LAYERS)))
    windows = []
    for _ in range(places):
        start = draw(st.integers(layers.start, layers.stop))
        windows.append(range(start, draw(st.integers(start, layers.stop))))

    def some(values: st.SearchStrategy[float], size: int) -> list[float]:
        return draw(st.lists(values, min_size=size, max_size=size))

    def prices() -> tuple[float, ...]:
        return tuple(some(PRICES, places))

    spared = draw(st.lists(st.sampled_from([0, 0, 1, 1_000]), min_size=places, max_size=places))
    return Terrain(
        layers=layers,
        windows=tuple(windows),
        budgets=tuple(draw(st.integers(1, LAYERS + 1)) for _ in range(places)),
        once=draw(st.booleans()) if once is None else once,
        enter=np.array(some(HOPS, places)),
        cross=np.array(some(HOPS, places * places)).reshape(places, places),
        leave=np.array(some(HOPS, places)),
        tariff=Tariff(
            fixed_us=prices(),
            layer_us=prices(),
            head_us=prices(),
            visit_rank=draw(st.sampled_from([0, 0, 10])),
            layer_rank=tuple(spared),
            head_at=draw(st.integers(layers.stop, layers.stop + 2)),
            limit_us=draw(st.sampled_from([float("inf"), 9.0])),
        ),
        paced=draw(st.booleans()),
    )


@settings(max_examples=150)
@given(terrain=terrains())
def test_both_sweeps_find_the_same_way_at_the_same_cost(terrain: Terrain) -> None:
    assert sweep.cheapest(terrain) == search.cheapest_in_python(terrain)


@settings(max_examples=150)
@given(terrain=terrains())
def test_both_sweeps_price_every_detour_alike(terrain: Terrain) -> None:
    # Sums from both ends may round differently from sums in one go, but the same here and there.
    assert sweep.cheapest_through(terrain) == search.cheapest_through_in_python(terrain)


@settings(max_examples=150)
@given(terrain=terrains())
def test_a_way_that_exists_is_a_way(terrain: Terrain) -> None:
    found = sweep.cheapest(terrain)
    assume(found is not None)
    assert found is not None
    check_way(terrain, found[1])


def check_way(terrain: Terrain, visits: tuple[Visit, ...]) -> None:
    assert [layer for visit in visits for layer in visit.layers] == list(terrain.layers)
    for visit in visits:
        assert visit.layers.stop in terrain.stops(visit.place, visit.layers.start)
    assert all(one.place != other.place for one, other in pairwise(visits))


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a function that compiled code calls")
@pytest.mark.parametrize("find", [search.cheapest, budgets.cheapest_within_budgets])
def test_hundreds_of_places_go_to_the_arrays(
    find: Callable[[Terrain], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = sweep.cheapest_through if find is budgets.cheapest_within_budgets else sweep.cheapest

    def spy(terrain: Terrain) -> object:
        asked.append(len(terrain.windows))
        return real(terrain)

    monkeypatch.setattr(sweep, real.__name__, spy)
    find(many(200))
    assert asked == [200]


def many(places: int, *, room: int = 30, once: bool = False) -> Terrain:
    generator = np.random.default_rng(1)
    return Terrain(
        layers=range(30),
        windows=(range(30),) * places,
        budgets=(room,) * places,
        once=once,
        enter=generator.uniform(0, 1e4, places),
        cross=generator.uniform(0, 1e4, (places, places)),
        leave=generator.uniform(0, 1e4, places),
        tariff=Tariff((300.0,) * places, (600.0,) * places, (2e3,) * places, 0, (0,) * places, 30),
        paced=False,
    )


# Memory


@settings(max_examples=100)
@given(terrain=terrains())
def test_the_way_within_budgets_spends_nothing_twice(terrain: Terrain) -> None:
    found = budgets.cheapest_within_budgets(terrain)
    if found is not None:
        check_way(terrain, found[1])
        assert not budgets.overspends(terrain, found[1])


@settings(max_examples=100, deadline=None)
@given(terrain=terrains())
def test_among_many_places_the_way_within_budgets_is_one_still(terrain: Terrain) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budgets, "MOST", 2)
        found = budgets.cheapest_within_budgets(terrain)
    if found is not None:
        check_way(terrain, found[1])
        assert not budgets.overspends(terrain, found[1])


@pytest.mark.parametrize("once", [False, True])
def test_little_memory_in_a_large_swarm_is_found_nevertheless(once: bool) -> None:
    terrain = many(120, room=4, once=once)
    found = budgets.cheapest_within_budgets(terrain)
    assert found is not None
    check_way(terrain, found[1])
    assert not budgets.overspends(terrain, found[1])
    assert budgets.furthest(terrain) == 30


# Distances


COORDINATES = st.builds(
    Coordinate,
    vector=st.tuples(*[st.floats(-1, 1)] * 8),
    error=st.just(0.1),
    adjustment=st.floats(-0.5, 0.5),
    height=st.floats(1e-5, 0.1),
)


@given(
    places=st.dictionaries(st.integers(0, 6), COORDINATES),
    measured=st.dictionaries(st.integers(1, 6), st.floats(0, 1)),
)
def test_round_trips_of_many_are_those_of_each(
    places: dict[int, Coordinate], measured: dict[int, float]
) -> None:
    distances = Distances(
        peer_id(0),
        {peer_id(number): place for number, place in places.items()},
        {peer_id(number): rtt for number, rtt in measured.items()},
    )
    peers = tuple(map(peer_id, range(7)))
    table = distances.rtts_us(peers, peers)
    for one, row in zip(peers, table, strict=True):
        for other, rtt in zip(peers, row, strict=True):
            known = distances.rtt_us(one, other)
            if one != other:  # there is no hop
                assert np.isnan(rtt) if known is None else rtt == pytest.approx(known, abs=1e-6)
