"""What a step should take."""

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import LocalProtocolError
from p2pnode.scheduler.step_cost import StepCost


def test_rows_that_were_measured_cost_what_was_measured() -> None:
    cost = StepCost(100, 400, 4_000, rows4_us=1_200, rows8_us=2_100, prefill_us=120)
    layers = [cost.rows_us(rows, 1) for rows in (1, 4, 8, 64)]
    assert layers == [400, 1_200, 2_100, 7_680]
    assert cost.rows_us(4, 10) == 12_000


def test_between_them_lies_a_straight_line() -> None:
    cost = StepCost(100, 400, 0, rows4_us=1_300, rows8_us=2_100, prefill_us=120)
    assert cost.rows_us(2, 1) == 700
    assert cost.rows_us(6, 1) == 1_700
    assert cost.rows_us(128, 1) == 2 * 7_680


def test_what_is_unknown_is_left_out() -> None:
    assert StepCost(0, 400).rows_us(3, 2) == 2_400
    assert StepCost(0, 400, prefill_us=100).rows_us(64, 1) == 6_400


def test_a_price_below_nothing_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        StepCost(0, -1)


@given(prices=st.lists(st.floats(0, 1e6), min_size=4, max_size=4), rows=st.integers(1, 200))
def test_more_rows_never_cost_less(prices: list[float], rows: int) -> None:
    one, four, eight, many = prices
    cost = StepCost(0, one, rows4_us=four, rows8_us=eight, prefill_us=many)
    assert cost.rows_us(rows, 3) <= cost.rows_us(rows + 1, 3) * (1 + 1e-9)
