"""What a soak finds fault with, and how it reads memory."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pnode.bench.soak import faults, growth

CLEAN: dict[str, Any] = {
    "wrong": 0,
    "failures": [],
    "memory_growth_percent": 4.9,
    "descriptors": {"start": 20, "end": 20},
    "own_descriptors": {"start": 9, "end": 8},
    "processes_left": [],
}


def test_a_clean_soak_has_no_faults() -> None:
    assert faults(CLEAN) == []


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("wrong", 2, "2 answers had other tokens"),
        ("failures", ["nobody serves [0, 10)"], r"1 answers failed: nobody serves"),
        ("memory_growth_percent", 5.1, "memory grew by 5.1 %"),
        ("descriptors", {"start": 20, "end": 21}, "descriptors: 20 at the start, 21"),
        ("own_descriptors", {"start": 9, "end": 12}, "own_descriptors: 9 at the start, 12"),
        ("processes_left", [4711], r"processes left: \[4711\]"),
    ],
)
def test_each_fault_is_told(key: str, value: object, words: str) -> None:
    [told] = faults({**CLEAN, key: value})
    assert words.replace("\\", "") in told


def samples(sizes: list[int], seconds: float) -> list[tuple[float, int]]:
    return [(seconds * place / len(sizes), size << 20) for place, size in enumerate(sizes)]


def test_memory_counts_from_minute_three() -> None:
    rising = [100] * 3 + [200] * 6  # a minute each
    found = growth([(60.0 * minute, size << 20) for minute, size in enumerate(rising)], 540)
    assert found["memory_mib"] == {"from_s": 180.0, "start": 200.0, "end": 200.0}
    assert found["memory_growth_percent"] == 0


def test_what_grows_to_the_end_is_growth() -> None:
    found = growth(samples(list(range(100, 640)), 540), 540)
    assert found["memory_growth_percent"] > 100


def test_one_peak_is_no_growth() -> None:
    steady = samples([100] * 540, 540)
    steady[-2] = (steady[-2][0], 500 << 20)
    assert growth(steady, 540)["memory_growth_percent"] == 0


@given(
    st.lists(st.tuples(st.floats(0, 600), st.integers(1, 1 << 40)), max_size=20),
    st.floats(10, 600),
)
def test_few_samples_are_no_reason_to_fail(taken: list[tuple[float, int]], seconds: float) -> None:
    assert isinstance(growth(taken, seconds)["memory_growth_percent"], float)
