"""The heap in huge pages: what is laid together, and that nothing of it changes."""

import ctypes
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from p2pnode.node import huge_pages
from p2pnode.node.huge_pages import HUGE, Mapping, mappings_of, use_huge_pages

SMAPS = """\
7f0000000000-7f0000500000 rw-p 00000000 00:00 0
Size:               5120 kB
Rss:                5120 kB
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
"""


def test_private_memory_is_found() -> None:
    first, heap, reserved = mappings_of(SMAPS)
    assert first == Mapping(0x7F0000000000, 0x7F0000500000, 5 << 20)
    assert heap.start == 0x555500000000
    assert reserved.resident == 12 << 10


def test_whole_huge_pages_of_what_is_full_are_laid_together() -> None:
    first, heap, reserved = mappings_of(SMAPS)
    assert list(first.huge_pages) == [first.start, first.start + HUGE]
    assert len(heap.huge_pages) == 2
    assert not reserved.huge_pages, "a cache that was only reserved would take its memory"
    odd = Mapping(HUGE - 4096, 3 * HUGE - 4096, 2 * HUGE)
    assert list(odd.huge_pages) == [HUGE]


@given(st.one_of(st.text(max_size=300), st.text("0123456789abcdef- rwp\nRss:kB", max_size=300)))
def test_whatever_is_no_list_of_mappings_is_passed_over(text: str) -> None:
    for mapping in mappings_of(text):
        assert mapping.start >= 0


def test_what_lies_there_stays_as_it_is() -> None:
    kept = [bytes([number % 256]) * 1000 for number in range(20_000)]
    done = use_huge_pages()
    assert done % HUGE == 0
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
