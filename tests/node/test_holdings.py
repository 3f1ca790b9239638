"""Which layers a node takes on, whatever others claim."""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, strategies as st

from p2pnode.engine.base import ModelInfo
from p2pnode.errors import ConfigError
from p2pnode.node.config import HoldingsConfig
from p2pnode.node.events import PlacementRequested
from p2pnode.node.holding_life import HoldingLife, HoldingPhase
from p2pnode.node.holdings import Holdings
from p2pnode.sansio import NodeId
from p2pnode.scheduler.directory import Offer
from p2pnode.scheduler.placement import Placement
from p2pnode.testing.offers import N_LAYERS, SPACE, an_offer, peer_id
from p2pnode.wire.ad import AdState

MODEL = cast(ModelInfo, SimpleNamespace(n_layers=N_LAYERS, space_hash32=SPACE))
CONFIG = HoldingsConfig(max_layers=10)
BOUND = CONFIG.settle + CONFIG.jitter + (CONFIG.most_moves + 1) * CONFIG.confirm
"""Seconds from knowing the model to loading, at the latest."""


def a_claim(number: int, layers: range, **changes: Any) -> Offer:
    return an_offer(number, layers.start, layers.stop, state=AdState.JOINING, **changes)


class Newcomer:
    """A node that takes on layers, and those whose ads it has heard."""

    def __init__(
        self, config: HoldingsConfig = CONFIG, number: int = 500, heard: Sequence[int] = ()
    ) -> None:
        self.number = number
        self.life = HoldingLife()
        self.counters = Counter[str]()
        sessions = {peer_id(peer) for peer in heard}

        def is_heard(peer: NodeId) -> bool:
            return peer in sessions

        self.holdings = Holdings(
            config, peer_id(number), self.life, Random(1), is_heard, self.counters
        )
        self.moves: list[range] = []
        self.asked = 0  # questions that were not brief
        self.now = 0.0
        self.holdings.use_model(MODEL, 0.0)

    def serve(self, others: Callable[[range], list[Offer]], until: float = 60.0) -> range | None:
        """Review when it is due until layers are to be loaded; load them."""
        while self.holdings.due is not None and self.holdings.due <= until:
            self.now = self.holdings.due
            layers = self._review(self._offers(others))
            if layers is not None:
                self.holdings.loaded(self.now)
                return layers
            self.moves.append(self.holdings.layers)
        return None

    def look_around(self, others: list[Offer], until: float) -> range | None:
        """Go on serving; return where it moves to, if it does."""
        return self.serve(lambda ours: others, until)

    def _review(self, offers: list[Offer]) -> range | None:
        asked = self.holdings.review(offers, self.now)
        if not isinstance(asked, PlacementRequested):
            return asked
        self.asked += 1
        return self.holdings.placed(asked.ticket, asked.task(), self.now)

    def _offers(self, others: Callable[[range], list[Offer]]) -> list[Offer]:
        ours = self.holdings.layers
        joining = self.life.phase is not HoldingPhase.SERVING
        state = AdState.JOINING if joining else AdState.SERVING
        mine = [an_offer(self.number, ours.start, ours.stop, state=state)] if ours else []
        return [*mine, *others(ours)]


def copying(number: int) -> Callable[[range], list[Offer]]:
    """Return a member of a lower key that claims whatever we claim, as if it were the fastest."""

    def others(ours: range) -> list[Offer]:
        return [a_claim(number, ours, decode_fixed_us=1, decode_layer_us=1)] if ours else []

    return others


@pytest.mark.parametrize("heard", [(), (1,)])
def test_a_member_that_copies_each_claim_keeps_nobody_from_serving(heard: tuple[int, ...]) -> None:
    node = Newcomer(heard=heard)
    assert node.serve(copying(1)) is not None
    assert node.now <= BOUND
    most = CONFIG.most_moves if heard else CONFIG.unheard_moves
    assert len(node.moves) == 1 + most  # the first claim, and where it gave way to
    assert node.counters["claim loaded without agreement"] == len(heard)
    assert node.counters["claim of one never heard left out"] == (not heard)


RUNS = st.tuples(st.integers(0, N_LAYERS - 1), st.integers(1, N_LAYERS))
OTHERS = st.lists(
    st.tuples(
        st.integers(0, 40),
        RUNS,
        st.sampled_from([AdState.JOINING, AdState.JOINING, *AdState]),
        st.booleans(),
        st.sampled_from([0, 1, 600]),
    ),
    max_size=6,
    unique_by=lambda other: other[0],
)


@given(
    rounds=st.lists(OTHERS, max_size=12),
    copies=st.booleans(),
    heard=st.lists(st.integers(0, 40)),
    number=st.integers(41, 500),
)
def test_whatever_others_claim_a_newcomer_loads_in_time(
    rounds: list[list[tuple[int, tuple[int, int], AdState, bool, int]]],
    copies: bool,
    heard: list[int],
    number: int,
) -> None:
    story = iter(rounds)

    def others(ours: range) -> list[Offer]:
        said = [
            an_offer(
                peer,
                start,
                min(start + count, N_LAYERS),
                n_layers=N_LAYERS,
                state=state,
                alive=alive,
                decode_fixed_us=0,
                decode_layer_us=us,
            )
            for peer, (start, count), state, alive, us in next(story, ())
        ]
        return [*said, *(a_claim(40, ours) for _ in range(copies and bool(ours)))]

    node = Newcomer(number=number, heard=heard)
    layers = node.serve(others)
    assert layers
    assert node.life.phase is HoldingPhase.SERVING
    assert node.now <= BOUND


def test_whom_no_session_has_heard_is_given_way_to_a_few_times() -> None:
    node = Newcomer()
    assert node.serve(lambda ours: [a_claim(1, range(10))]) == range(10, 20)
    assert not node.counters["claim loaded without agreement"]


def serving_spare(heard: Sequence[int] = ()) -> Newcomer:
    """A node on [0, 10) that another serves as well."""
    node = Newcomer(CONFIG, heard=heard)
    assert node.serve(lambda ours: [an_offer(2, 10, 20)]) == range(10)
    return node


OTHERS_SERVE = [an_offer(1, 0, 10), an_offer(2, 10, 20)]


def test_an_invented_claim_does_not_keep_a_hole_open() -> None:
    node = serving_spare()
    assert node.look_around([*OTHERS_SERVE, a_claim(9, range(20, 30))], 60.0) == range(20, 30)


def test_a_claim_that_is_heard_keeps_a_hole_for_as_long_as_loading_takes() -> None:
    for keys in ([9], [9, 10, 11]):  # the same under one key after the other
        node = serving_spare(heard=keys)
        story = iter(keys * 1_000)

        def others(_: range) -> list[Offer]:
            return [*OTHERS_SERVE, a_claim(next(story), range(20, 30))]  # noqa: B023

        assert node.serve(others, CONFIG.claim_lasts) is None
        assert node.serve(others, CONFIG.claim_lasts + 60.0) == range(20, 30)
        assert node.counters["claim that lasted too long left out"]


def test_a_newcomer_that_loads_in_time_is_left_the_hole() -> None:
    node = serving_spare(heard=[9])
    assert node.look_around([*OTHERS_SERVE, a_claim(9, range(20, 30))], 100.0) is None
    assert node.look_around([*OTHERS_SERVE, an_offer(9, 20, 30)], 1_000.0) is None
    assert node.look_around(OTHERS_SERVE, 1_010.0) is None  # a hole that is new
    assert node.look_around(OTHERS_SERVE, 1_060.0) == range(20, 30)


def test_who_says_for_ever_that_it_leaves_does_not_keep_a_hole_open() -> None:
    node = serving_spare()
    leaving = an_offer(9, 20, 30, state=AdState.DRAINING)
    assert node.look_around([*OTHERS_SERVE, leaving], 60.0) == range(20, 30)


def test_the_unheard_are_not_given_way_to_more_often_than_the_heard() -> None:
    with pytest.raises(ConfigError):
        HoldingsConfig(most_moves=2, unheard_moves=3)


# Long questions


def many(start: int, stop: int, first: int = 10) -> list[Offer]:
    return [an_offer(number, start, stop) for number in range(first, first + 40)]


def crowd(ours: range) -> list[Offer]:
    """Return forty that claim what we claim, of higher keys, and too many offers to be brief."""
    return [
        *(offer for each in range(20) for offer in many(0, 20, 1_000 + 40 * each)),
        *(a_claim(number, ours) for number in range(10_000, 10_040) if ours),
    ]


def test_where_many_offers_make_it_long_a_node_asks_and_goes_on_by_the_answer() -> None:
    node = Newcomer(heard=range(10_000, 10_040))
    assert node.serve(crowd) == range(20, 30)
    assert node.asked == 2  # the choice, and whether the claim stands
    spare = serving_spare()
    hole = [*OTHERS_SERVE, *many(0, 20)]
    assert spare.look_around(hole, 60.0) == range(20, 30)
    assert spare.asked > 1


def test_a_few_offers_are_looked_at_at_once() -> None:
    node = Newcomer(heard=[1])
    node.serve(copying(1))
    assert not node.asked


def test_while_a_question_is_open_nothing_is_due_and_only_its_answer_counts() -> None:
    node = Newcomer()
    asked = node.holdings.review(crowd(range(0)), CONFIG.settle + CONFIG.jitter)
    assert isinstance(asked, PlacementRequested)
    assert node.holdings.due is None
    assert node.life.phase is HoldingPhase.LISTENING
    other = Placement(range(3), "an answer to another question")
    assert node.holdings.placed(asked.ticket + 1, other, 2.0) is None
    assert not node.holdings.layers
    assert node.holdings.placed(asked.ticket, asked.task(), 2.0) is None
    assert node.holdings.layers == range(20, 30)
    assert node.holdings.placed(asked.ticket, other, 2.0) is None  # a second time
    assert node.holdings.layers == range(20, 30)
    assert node.holdings.due == 2.0 + CONFIG.confirm
