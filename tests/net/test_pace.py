"""How long a job is expected to take."""

import math

import pytest
from hypothesis import given, strategies as st

from p2pnode.net.pace import Pace

UNITS = st.integers(1, 100_000)


def test_nobody_knows_before_the_first_job() -> None:
    assert math.isinf(Pace().most_seconds(10))


def test_nothing_takes_no_time_and_loading_is_always_long() -> None:
    pace = Pace()
    pace.learn(math.inf, 0.001)
    pace.learn(0, 5.0)
    assert pace.most_seconds(0) == 0
    assert math.isinf(pace.most_seconds(math.inf))
    assert math.isinf(pace.most_seconds(10))


def test_a_prefill_is_long_though_a_decode_came_before() -> None:
    pace = Pace()
    pace.learn(10, 0.012)
    assert pace.most_seconds(10) == pytest.approx(0.012)
    assert pace.most_seconds(640) == pytest.approx(64 * 0.012)


def test_a_decode_is_brief_though_a_prefill_came_before() -> None:
    pace = Pace()
    pace.learn(10, 0.012)
    for _ in range(4):
        pace.learn(640, 0.2)
    assert pace.most_seconds(10) == pytest.approx(0.012)


def test_a_job_smaller_than_any_seen_takes_no_longer_than_those() -> None:
    pace = Pace()
    pace.learn(640, 0.2)
    assert pace.most_seconds(10) == pytest.approx(0.2)


def test_one_slow_job_in_three_is_no_rule_and_two_are() -> None:
    pace = Pace()
    for seconds in (0.012, 0.011, 0.1):
        pace.learn(10, seconds)
    assert pace.most_seconds(10) == pytest.approx(0.012)
    pace.learn(10, 0.09)
    assert pace.most_seconds(10) == pytest.approx(0.09)
    pace.learn(10, 0.012)
    pace.learn(10, 0.011)
    assert pace.most_seconds(10) == pytest.approx(0.012)


@given(
    st.lists(UNITS, min_size=1, max_size=30),
    UNITS,
    st.floats(1e-6, 1e-2),
    st.floats(0, 1e-1),
)
def test_no_job_takes_longer_than_expected_on_a_steady_machine(
    seen: list[int], units: int, per_unit: float, fixed: float
) -> None:
    def seconds(units: int) -> float:
        return fixed + per_unit * units

    pace = Pace()
    for one in seen:
        pace.learn(one, seconds(one))
    assert pace.most_seconds(units) >= seconds(units) * (1 - 1e-9)
