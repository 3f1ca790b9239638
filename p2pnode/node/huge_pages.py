"""The interpreter's heap in huge pages, where Linux has them.

A hop runs code that has gone cold: 10 ms of arithmetic went through the caches since. What it
touches lies all over the heap, and each 4 KiB page of it costs a walk through page tables that are
cold too, on a virtual machine through two of them. In pages of 2 MiB the same heap needs a
hundredth of the entries: a hop of 0.55 ms took 0.48 (docs/figures.md).

Only ranges that are full are laid together, so this takes hardly any memory: a cache that was
reserved, and not used yet, stays as small as it is.
"""

import ctypes
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

HUGE: Final = 2 << 20
"""Bytes of a huge page on x86-64, and on arm64 with pages of 4 KiB."""

MOST_BYTES: Final = 128 << 20
"""Bytes laid in huge pages at most: an interpreter's heap has some 50 MiB, and copying it takes
0.1 s."""

_FULL: Final = 0.9  # of a mapping, from which on it is full
_COLLAPSE: Final = 25  # MADV_COLLAPSE: at once, also where only `madvise` allows it; Linux 6.1
_SMAPS: Final = Path("/proc/self/smaps")
_MOST_TEXT: Final = 16 << 20
_MAPPING: Final = re.compile(r"([0-9a-f]{1,16})-([0-9a-f]{1,16}) rw-p \S+ \S+ 0 *(\[heap\])?")


class Mapping(NamedTuple):
    """Private memory that no file is behind."""

    start: int
    end: int
    resident: int

    @property
    def huge_pages(self) -> range:
        """The addresses of the whole huge pages in it; none where much of it is not used."""
        if self.resident < _FULL * (self.end - self.start):
            return range(0)
        return range(-(-self.start // HUGE) * HUGE, self.end // HUGE * HUGE, HUGE)


def use_huge_pages() -> int:
    """Lay the heap of this process in huge pages; return how many bytes are.

    0 where the system has none, or does not let us. It takes about 0.1 s, and is worth while once
    what lives long is there.
    """
    if not sys.platform.startswith("linux"):
        return 0
    try:
        with _SMAPS.open(encoding="ascii", errors="replace") as file:
            mappings = list(mappings_of(file.read(_MOST_TEXT)))
        madvise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return 0
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    done = 0
    for mapping in mappings:
        for address in mapping.huge_pages:
            if done >= MOST_BYTES:
                return done
            done += HUGE * (madvise(address, HUGE, _COLLAPSE) == 0)
    return done


def mappings_of(smaps: str) -> Iterator[Mapping]:
    """Read the private memory in ``smaps``; its form is in Documentation/filesystems/proc.rst."""
    found: re.Match[str] | None = None
    for line in smaps.splitlines():
        if line.startswith("Rss:") and found is not None:
            digits = line[4:].split()[:1]
            if digits and digits[0].isdecimal():
                yield Mapping(int(found[1], 16), int(found[2], 16), int(digits[0]) << 10)
            found = None
        elif "-" in line[:17]:
            found = _MAPPING.fullmatch(line.rstrip())
