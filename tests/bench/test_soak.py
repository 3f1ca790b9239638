"""What a soak finds fault with, and how it reads memory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pnode.bench.soak import _Soak, faults, growth
from p2pnode.errors import UserError
from p2pnode.testing.processes import LocalSwarm

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
        ("ended", "the requester ended after 9 s: Killed", "the requester ended after 9 s: Killed"),
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


class Requester:
    """A node of this very process that breaks off in its second answer."""

    address = "127.0.0.1:4747"

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.asked = 0

    @contextmanager
    def client(self, timeout: float) -> Iterator["Requester"]:
        yield self

    def call(self, method: str, params: object, hear: object) -> dict[str, Any]:
        self.asked += 1
        if self.has_ended():
            raise UserError("the node stopped")
        return {"token_ids": [1, 2, 3]}

    def snapshot(self) -> Any:
        if self.has_ended():
            raise UserError("no node is running here")
        return SimpleNamespace(peers=(), loop_late_ms=(0.1, 0.2))

    def has_ended(self) -> bool:
        return self.asked == 2

    def last_words(self) -> str:
        return "MemoryError: no more"


def test_a_requester_that_ends_is_the_fault_named_and_the_figures_so_far_are_kept(
    tmp_path: Path,
) -> None:
    soak = _Soak(LocalSwarm(tmp_path), tmp_path, seed=1, seconds=600.0)
    requester: Any = Requester()
    soak._requester = requester
    soak._expected = [[1, 2, 3]] * 4
    told: list[float] = []
    soak.run(told.append)
    requester.pid = 2**22 + 1  # beyond any process id: it is gone
    figures = {**CLEAN, **soak.figures(), "memory_growth_percent": 0.0}
    assert told[-1] == 1.0
    assert (figures["answers"], figures["wrong"]) == (2, 0)
    assert figures["failures"] == ["the node stopped"]
    assert figures["minutes"] < 1
    assert figures["descriptors"]["end"] is None
    ended, failed = faults(figures)
    assert ended == "the requester ended after 0 s: MemoryError: no more"
    assert "1 answers failed" in failed
