"""The interpreter's heap in huge pages, where Linux has them.

A hop runs code that has gone cold: 10 ms of arithmetic went through the caches since. What it
touches lies all over the heap, and each 4 KiB page of it costs a walk through page tables that are
cold too, on a virtual machine through two of them. In pages of 2 MiB the same heap needs a
hundredth of the entries. Figures: docs/decisions/0032-price-of-a-hop.md.

Only mappings that are full are collapsed, so this takes hardly any memory: a cache that was
reserved, and not used yet, stays as small as it is.
"""

import ctypes
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

HUGE: Final = 2 << 20
"""Bytes of a huge page on x86-64, and on arm64 with pages of 4 KiB; elsewhere Linux refuses."""

MOST_PAGES: Final = 64
"""Huge pages asked for at most: an interpreter's heap has some 50 MiB, which takes 20 to 130 ms."""

_MOST_MAPPING: Final = 64 << 20  # what is larger is an array: numpy asks for huge pages itself
_FULL: Final = 0.9  # of a mapping, from which on it is full, or huge already
_COLLAPSE: Final = 25  # MADV_COLLAPSE: at once, also where only `madvise` allows it; Linux 6.1
_SMAPS: Final = Path("/proc/self/smaps")
_MOST_TEXT: Final = 16 << 20
_MAPPING: Final = re.compile(r"([0-9a-f]{1,16})-([0-9a-f]{1,16}) rw-p \S+ \S+ 0 *(\[heap\])?")
_KEYS: Final = ("Rss:", "AnonHugePages:")


class Mapping(NamedTuple):
    """Private memory that no file is behind; sizes in bytes."""

    start: int
    end: int
    is_heap: bool
    resident: int = 0
    huge: int = 0

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def pages(self) -> range:
        """The addresses of the whole huge pages in it; none where that would be of no use."""
        is_used = self.resident >= _FULL * self.size and self.huge < _FULL * self.resident
        if not is_used or self.size > _MOST_MAPPING:
            return range(0)
        return range(-(-self.start // HUGE) * HUGE, self.end // HUGE * HUGE, HUGE)


def use_huge_pages() -> int:
    """Collapse the heap of this process into huge pages; return the bytes that are in new ones.

    0 where the system has none, or does not let us. It is worth while once what lives long is
    there.
    """
    if not sys.platform.startswith("linux"):
        return 0
    try:
        with _SMAPS.open(encoding="ascii", errors="replace") as file:
            wanted = pages_of(list(mappings_of(file.read(_MOST_TEXT))))
        madvise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return 0
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    done = [address for address in wanted if madvise(address, HUGE, _COLLAPSE) == 0]
    return HUGE * len(done)


def pages_of(mappings: list[Mapping]) -> list[int]:
    """Return the addresses to collapse: malloc's heap first, then small mappings before large.

    Python's arenas are of 1 MiB, and lie together in small mappings.
    """
    ordered = sorted(mappings, key=lambda mapping: (not mapping.is_heap, mapping.size))
    return [address for mapping in ordered for address in mapping.pages][:MOST_PAGES]


def mappings_of(smaps: str) -> Iterator[Mapping]:
    """Read the private memory in ``smaps``; its form is in Documentation/filesystems/proc.rst."""
    found: Mapping | None = None
    for line in smaps.splitlines():
        if "-" in line[:17]:
            if found is not None:
                yield found
            named = _MAPPING.fullmatch(line.rstrip())
            found = named and Mapping(int(named[1], 16), int(named[2], 16), bool(named[3]))
        elif found is not None and line.startswith(_KEYS):
            key, *rest = line.split()
            if rest and len(rest[0]) < 16 and rest[0].isdecimal():
                count = int(rest[0]) << 10
                is_rss = key == _KEYS[0]
                found = found._replace(resident=count) if is_rss else found._replace(huge=count)
    if found is not None:
        yield found
