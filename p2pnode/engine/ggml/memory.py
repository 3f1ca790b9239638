"""Memory at a fixed address for a library in C: anonymous, or a file's pages.

Python's ``mmap`` objects unmap by address when they die. Memory that was moved into another's
place must not be, so on Linux these call the C library.
"""

import ctypes
import mmap
import os
import platform
import sys
from collections.abc import Callable
from typing import Final, TypeAlias

from p2pnode.errors import CapacityError

Fill: TypeAlias = Callable[[memoryview, int], None]
"""Writes what belongs at an offset within the area into the view."""

PAGE: Final = mmap.ALLOCATIONGRANULARITY  # bytes; what a file may be mapped at

_HUGE_PAGE: Final = 2 * 2**20  # bytes: that of x86-64, and of arm64 with small pages of 4 KiB
_EXCHANGED_AT_ONCE: Final = 64 * 2**20  # bytes: the memory that an exchange takes beside the rest
_MREMAP_MAYMOVE: Final = 1
_MREMAP_FIXED: Final = 2
_MAP_FIXED: Final = 0x10  # these two as on x86-64, arm64 and riscv64
_MAP_NORESERVE: Final = 0x4000
_FAILED: Final = ctypes.c_void_p(-1).value
_ON_LINUX: Final = (
    sys.platform == "linux"
    and sys.maxsize > 2**32  # so that an offset in a file fits in 64 bits
    and platform.machine() in {"x86_64", "aarch64", "riscv64"}
)


class Area:
    """Memory at ``address``, until it is closed; nobody may use the address afterwards.

    Attributes:
        address: Of its first byte: a multiple of a page's size.
        size: Bytes.
    """

    address: int
    size: int

    def view(self) -> memoryview:
        """Return all of it; only what was just reserved may be written to."""
        return memoryview((ctypes.c_uint8 * self.size).from_address(self.address)).cast("B")

    def protect(self) -> None:
        """Make it read-only, where the system can: a stray write must not change a weight."""

    def close(self) -> None:
        raise NotImplementedError


def reserve(size: int) -> Area:
    """Return anonymous memory, in huge pages where the system has them.

    Raises:
        CapacityError: There is not so much.
    """
    try:
        return _LinuxArea.anonymous(size) if _ON_LINUX else _PortableArea(size)
    except (OSError, MemoryError, OverflowError):
        raise CapacityError(f"There are no {size / 2**20:.0f} MiB of memory for weights") from None


class _PortableArea(Area):
    def __init__(self, size: int) -> None:
        self.size = size
        self._map = mmap.mmap(-1, size)
        self._first = ctypes.c_uint8.from_buffer(self._map)
        self.address = ctypes.addressof(self._first)

    def close(self) -> None:
        del self._first  # the map cannot be closed while this refers to it
        self._map.close()


class _LinuxArea(Area):
    """Whole pages, which begin at a huge page's address where they are anonymous."""

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.size = size

    @classmethod
    def anonymous(cls, size: int) -> "_LinuxArea":
        length = _whole_pages(size)
        start = _map(length + _HUGE_PAGE, mmap.PROT_READ | mmap.PROT_WRITE, -1, 0)
        address = -(-start // _HUGE_PAGE) * _HUGE_PAGE
        end = start + length + _HUGE_PAGE
        _unmap(start, address - start)
        _unmap(address + length, end - address - length)
        _libc().madvise(address, length, mmap.MADV_HUGEPAGE)  # a wish; refused where there are none
        return cls(address, size)

    def protect(self) -> None:
        _protect(self.address, _whole_pages(self.size))

    def close(self) -> None:
        _unmap(self.address, _whole_pages(self.size))


class FileArea(_LinuxArea):
    """A file's bytes from ``offset``, read-only and private: pages come as they are touched."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        super().__init__(_map(size, mmap.PROT_READ, descriptor, offset), size)
        _libc().madvise(self.address, _whole_pages(size), mmap.MADV_WILLNEED)

    def exchange(self, fill: Fill) -> None:
        """Put anonymous memory with the same bytes in the place of the file's pages.

        Threads may read all the while: each part changes from one to the other at once.

        Raises:
            CapacityError: There is not so much memory; what was not exchanged reads as zeros, so
                that nothing of the file is touched any more.
        """
        for start in range(0, self.size, _EXCHANGED_AT_ONCE):
            try:
                self._exchange_part(start, fill)
            except BaseException:
                _blank(self.address + start, _whole_pages(self.size - start))
                raise

    def _exchange_part(self, start: int, fill: Fill) -> None:
        part = reserve(min(_EXCHANGED_AT_ONCE, self.size - start))
        try:
            fill(part.view(), start)
            part.protect()
            _move(part.address, _whole_pages(part.size), self.address + start)
        except BaseException:
            part.close()
            raise


def can_map() -> bool:
    """Tell whether a file's pages can be exchanged here, and so be mapped safely."""
    return _ON_LINUX


def _whole_pages(size: int) -> int:
    return max(1, -(-size // PAGE)) * PAGE


def _libc() -> ctypes.CDLL:
    return _LIBC[0] if _LIBC else _load_libc()


_LIBC: Final[list[ctypes.CDLL]] = []


def _load_libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.restype = pointer
    libc.mmap.argtypes = [pointer, size, number, number, number, ctypes.c_int64]
    libc.mremap.restype = pointer
    libc.mremap.argtypes = [pointer, size, size, number, pointer]
    libc.munmap.argtypes = [pointer, size]
    libc.madvise.argtypes = libc.mprotect.argtypes = [pointer, size, number]
    _LIBC.append(libc)
    return libc


def _map(size: int, protection: int, descriptor: int, offset: int) -> int:
    flags = mmap.MAP_PRIVATE | (mmap.MAP_ANONYMOUS if descriptor < 0 else 0)
    return _map_at(None, size, protection, flags, descriptor, offset)


def _blank(address: int, size: int) -> None:
    """Put pages of zeros there; they take no memory."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED | _MAP_NORESERVE
    _map_at(address, size, mmap.PROT_READ, flags, -1, 0)


def _map_at(
    address: int | None, size: int, protection: int, flags: int, descriptor: int, offset: int
) -> int:
    mapped: int = _libc().mmap(address, size, protection, flags, descriptor, offset)
    if mapped == _FAILED:
        raise _error()
    return mapped


def _move(address: int, size: int, target: int) -> None:
    flags = _MREMAP_MAYMOVE | _MREMAP_FIXED
    if _libc().mremap(address, size, size, flags, target) == _FAILED:
        raise _error()


def _unmap(address: int, size: int) -> None:
    if size and _libc().munmap(address, size):
        raise _error()


def _protect(address: int, size: int) -> None:
    if _libc().mprotect(address, size, mmap.PROT_READ):
        raise _error()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
