import pytest
from hypothesis import given, strategies as st

from p2pnode.scheduler.demand import HALF_LIFE, MOST_TOLD, Demand, requests_of


def test_half_of_what_was_asked_is_forgotten_in_a_half_life() -> None:
    demand = Demand()
    for _ in range(8):
        demand.asked(0.0)
    assert demand.count(HALF_LIFE) == pytest.approx(4)
    assert demand.count(2 * HALF_LIFE) == pytest.approx(2)


def test_nothing_asked_is_nothing_told_and_one_request_is_told_for_a_while() -> None:
    demand = Demand()
    assert demand.level(0.0) == 0
    demand.asked(0.0)
    assert demand.level(0.0) == demand.level(HALF_LIFE) == 1
    assert demand.level(10 * HALF_LIFE) == 0


@given(st.lists(st.floats(0, 1e4), max_size=50), st.floats(0, 1e5))
def test_a_level_is_within_a_factor_of_two_of_the_count(pauses: list[float], wait: float) -> None:
    demand, now = Demand(), 0.0
    for pause in pauses:
        now += pause
        demand.asked(now)
    level, count = demand.level(now + wait), demand.count(now + wait)
    assert 0 <= level <= MOST_TOLD
    if count >= 1:
        assert (1 << level) - 1 <= count + 1
        assert count < 2 * ((1 << level) + 1)


def test_no_word_of_one_node_outweighs_all() -> None:
    assert requests_of([255]) == requests_of([MOST_TOLD])
    assert requests_of([0, 1, 2]) == 4
    assert requests_of([]) == 0
