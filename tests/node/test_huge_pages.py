"""The heap in huge pages: what is collapsed, in which order, and that it ends."""

import ctypes
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from p2pnode.node import huge_pages
from p2pnode.node.huge_pages import (
    HUGE,
    MOST_PAGES,
    Mapping,
    mappings_of,
    pages_of,
    use_huge_pages,
)

SMAPS = """\
7f0000000000-7f0000500000 rw-p 00000000 00:00 0
Size:               5120 kB
Rss:                5120 kB
AnonHugePages:         0 kB
7f1000000000-7f1000500000 r-xp 00000000 fe:00 1234       /usr/lib/libc.so.6
Rss:                5120 kB
555500000000-555500400000 rw-p 00000000 00:00 0          [heap]
Rss:                3900 kB
7f2000000000-7f2040000000 rw-p 00000000 00:00 0
Rss:                  12 kB
7f3000000000-7f3000400000 rw-p 00000000 00:00 0          [stack]
Rss:                4096 kB
7f4000000000-7f4000400000 rw-s 00000000 00:00 0
Rss:                4096 kB
7f5000000000-7f5000400000 rw-p 00000000 00:00 0
Rss:                4096 kB
AnonHugePages:      4096 kB
7f6000000000-7f6010000000 rw-p 00000000 00:00 0
Rss:              262144 kB
"""


def mapping(start: int, size: int, *, is_heap: bool = False) -> Mapping:
    return Mapping(start, start + size, is_heap, resident=size)


def test_private_memory_is_found() -> None:
    first, heap, reserved, huge, weights = mappings_of(SMAPS)
    assert first == Mapping(0x7F0000000000, 0x7F0000500000, False, 5 << 20, 0)
    assert heap.is_heap
    assert reserved.resident == 12 << 10
    assert huge.huge == 4 << 20
    assert weights.size == 256 << 20


def test_whole_pages_of_what_is_full_are_collapsed_the_heap_first() -> None:
    """A cache that was only reserved would take its memory; arrays are huge, or too large."""
    first, heap, *others = mappings_of(SMAPS)
    assert not any(other.pages for other in others)
    assert pages_of([first, heap, *others]) == [
        *(heap.start, heap.start + HUGE),
        *(first.start, first.start + HUGE),
    ]
    assert list(mapping(HUGE - 4096, 2 * HUGE).pages) == [HUGE]


def test_arrays_take_no_page_that_the_heap_could_have() -> None:
    arrays = [mapping(number << 30, 60 << 20) for number in range(1, 9)]
    arenas = [mapping(number << 40, 4 << 20) for number in range(1, 9)]
    heap = mapping(1 << 45, 8 << 20, is_heap=True)
    wanted = pages_of([*arrays, *arenas, heap])
    assert len(wanted) == MOST_PAGES
    assert wanted[:4] == list(heap.pages)
    assert {address for arena in arenas for address in arena.pages} <= set(wanted)


@given(st.one_of(st.text(max_size=300), st.text("0123456789abcdef- rwp\nRss:kB", max_size=300)))
def test_whatever_is_no_list_of_mappings_is_passed_over(text: str) -> None:
    for found in mappings_of(text):
        assert found.start >= 0
    pages_of(list(mappings_of(SMAPS + text)))


def test_the_system_is_asked_page_by_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[int] = []

    def madvise(address: int, size: int, advice: int) -> int:
        assert (size, advice) == (HUGE, 25)
        asked.append(address)
        return 0 if len(asked) % 2 else -1

    class Library:
        pass

    library = Library()
    library.madvise = madvise  # type: ignore[attr-defined]
    (tmp_path / "smaps").write_text(SMAPS)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(huge_pages, "_SMAPS", tmp_path / "smaps")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert use_huge_pages() == 2 * HUGE
    assert asked == pages_of(list(mappings_of(SMAPS)))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone has smaps")
def test_what_lies_there_stays_as_it_is() -> None:
    kept = [bytes([number % 256]) * 1000 for number in range(20_000)]
    use_huge_pages()
    assert all(piece == bytes([number % 256]) * 1000 for number, piece in enumerate(kept))


def test_a_system_without_them_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert use_huge_pages() == 0
    monkeypatch.undo()
    monkeypatch.setattr(huge_pages, "_SMAPS", tmp_path / "none")
    assert use_huge_pages() == 0
    monkeypatch.undo()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert use_huge_pages() == 0
