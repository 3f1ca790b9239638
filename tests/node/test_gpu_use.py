"""What others use of GPUs, as NVIDIA's library says it; here is a library of the tests' own."""

import ctypes
from typing import Any

import pytest

from p2pnode.node.gpu_use import ProcessUse, find_gpus

NOT_FOUND, NOT_SUPPORTED = 6, 3


class Library:
    """Says what it is told to of each GPU: samples (pid, moment, percent), or an error."""

    def __init__(self, *gpus: list[tuple[int, int, int]] | int, starts: int = 0) -> None:
        self.gpus = list(gpus)
        self.since: list[int] = []
        self._starts = starts

    def nvmlInit_v2(self) -> int:  # noqa: N802 -- as the library has it
        return self._starts

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.gpus)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:  # noqa: N802
        handle._obj.value = index + 1
        return 0

    def nvmlDeviceGetProcessUtilization(  # noqa: N802
        self,
        handle: ctypes.c_void_p,
        found: Any,
        count: Any,
        since: ctypes.c_ulonglong,
    ) -> int:
        said = self.gpus[(handle.value or 0) - 1]
        self.since.append(since.value)
        if isinstance(said, int):
            return said
        for number, (pid, at, percent) in enumerate(said):
            found[number] = ProcessUse(pid, at, percent)
        count._obj.value = len(said)
        return 0


def others(*gpus: list[tuple[int, int, int]] | int) -> float | None:
    found = find_gpus(Library(*gpus))
    assert found is not None
    return found.others({1, 2})


@pytest.mark.parametrize(
    ("gpu", "share"),
    [
        ([], 0.0),
        (NOT_FOUND, 0.0),  # nobody used it
        (NOT_SUPPORTED, None),
        ([(1, 10, 90)], 0.0),
        ([(7, 10, 40)], 0.4),
        ([(1, 10, 50), (7, 10, 40), (8, 11, 5)], 0.45),
        ([(7, 10, 80), (7, 12, 20), (7, 11, 60)], 0.2),  # its newest word counts
        ([(7, 10, 80), (8, 10, 80)], 1.0),
        ([(7, 10, 4_000_000_000)], 1.0),
    ],
)
def test_what_others_use_of_one(gpu: list[tuple[int, int, int]] | int, share: float | None) -> None:
    assert others(gpu) == share


def test_the_busiest_counts() -> None:
    assert others([(7, 1, 10)], NOT_SUPPORTED, [(7, 1, 30)]) == 0.3


def test_samples_are_asked_for_once() -> None:
    library = Library([(7, 500, 10)])
    found = find_gpus(library)
    assert found is not None
    found.others(set())
    found.others(set())
    assert library.since == [0, 500]


def test_without_a_gpu_or_where_the_library_refuses_nobody_looks() -> None:
    assert find_gpus(Library()) is None
    assert find_gpus(Library([], starts=9)) is None
