"""A file's bytes at fixed addresses, which stay as they are whatever becomes of the file.

Weights are used where the page cache has them: nothing is read twice, and what another process
maps too is in memory once. But a mapped file that is cut short ends the process that touches it
(SIGBUS), and one that is written to changes weights that were found right. So a file is mapped
only under a lease: when somebody wants to write to it, its bytes are put into memory of our own
under the same addresses, and then he may. Where there is no lease, they are read into memory.

What is not caught: a disk that fails or is unplugged while its file is mapped.
"""

import contextlib
import io
import os
import stat
import threading
from bisect import bisect_right
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, Self

from p2pnode.engine.ggml.memory import PAGE, Area, FileArea, can_map, reserve
from p2pnode.errors import ModelChangedError, ModelError, UserError

if TYPE_CHECKING:
    from p2pnode.engine.ggml.lease import Lease

_NEAR: Final = 2**20  # bytes between two parts below which they become one area
_READ_AT_ONCE: Final = 2**30  # a system call reads no more than 2 GiB


class MappedFile:
    """Parts of a file in memory, read-only, until it is closed; safe to use from any thread.

    Args:
        path: A regular file.
        parts: The offsets and sizes that will be asked for; left out, the whole file.
        lease: False reads the bytes into memory at once.
        damage: Where the file is named once its bytes are no longer what was first seen.

    Raises:
        ModelError: The file is missing, unreadable, or ends before a part does.
        CapacityError: There is not enough memory for a copy.
    """

    def __init__(
        self,
        path: Path,
        parts: Iterable[tuple[int, int]] | None = None,
        *,
        lease: bool = True,
        damage: list[str] | None = None,
    ) -> None:
        self.path = path
        self._lock = threading.Lock()  # held while areas are made, exchanged or closed
        self._areas: list[tuple[int, Area]] = []  # by offset in the file
        self._lease: Lease | None = None
        self._damage = [] if damage is None else damage
        try:
            # Without waiting: a pipe would be waited for, and so would another's lease.
            self._file = io.FileIO(path, "rb", opener=_open_at_once)
        except OSError as error:
            raise ModelError(f"Cannot read {path}: {error.strerror}") from None
        try:
            with self._lock:
                self._load(parts, lease=lease)
        except BaseException:
            self.close()
            raise

    @property
    def is_copied(self) -> bool:
        """Whether the bytes are in memory of our own by now."""
        return self._lease is None

    @property
    def is_intact(self) -> bool:
        """Whether every byte is still the one that was first seen.

        False once somebody wrote to the file and there was no memory for a copy (what is missing
        reads as zeros), or it did not come within the time that the system lets a writer wait, 45 s
        as a rule: nobody may compute with these bytes any more.
        """
        return str(self.path) not in self._damage

    @property
    def areas(self) -> list[tuple[int, int]]:
        """Every area's address and size: each part lies within one of them."""
        return [(area.address, area.size) for _, area in self._areas]

    def address(self, offset: int, size: int) -> int:
        """Return the address of ``size`` bytes at ``offset`` in the file.

        Raises:
            ModelError: They are not within the parts that were named.
        """
        start, area = self._area(offset, size)
        return area.address + offset - start

    def view(self, offset: int, size: int) -> memoryview:
        """Return ``size`` bytes at ``offset``, say, to be hashed; void once this is closed.

        Raises:
            ModelError: They are not within the parts that were named.
        """
        start, area = self._area(offset, size)
        return area.view()[offset - start : offset - start + size].toreadonly()

    def close(self) -> None:
        """Free the memory; no address may be used any more. May be called again."""
        with self._lock:
            self._release()
            for _, area in self._areas:
                area.close()
            self._areas = []
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _area(self, offset: int, size: int) -> tuple[int, Area]:
        index = bisect_right(self._areas, offset, key=lambda pair: pair[0]) - 1
        if index >= 0 and size >= 0:
            start, area = self._areas[index]
            if offset + size <= start + area.size:
                return start, area
        raise ModelError(f"{self.path.name}: bytes {offset} to {offset + size} were not loaded")

    def _load(self, parts: Iterable[tuple[int, int]] | None, *, lease: bool) -> None:
        if lease and can_map():
            self._lease = _leases().take(self._file.fileno())
        status = os.fstat(self._file.fileno())  # after the lease: from here on it cannot change
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{self.path} is not a file")
        for start, end in _areas([(0, status.st_size)] if parts is None else parts):
            if not 0 <= start <= end <= status.st_size:
                raise ModelError(f"{self.path.name} ends before byte {end}")
            self._areas.append((start, self._make(start, end - start)))
        if self._lease is not None:
            _leases().watch(self._lease, self._give_back)

    def _make(self, start: int, size: int) -> Area:
        if self._lease is not None:
            with contextlib.suppress(OSError):  # a file system that maps nothing
                return FileArea(self._file.fileno(), start, size)
        area = reserve(size)
        try:
            self._read(start, area.view(), 0)
            area.protect()
        except BaseException:
            area.close()
            raise
        return area

    def _read(self, start: int, view: memoryview, offset: int) -> None:
        self._file.seek(start + offset)
        done = 0
        while done < len(view):
            try:
                count = self._file.readinto(view[done : done + _READ_AT_ONCE])
            except OSError as error:
                raise ModelError(f"Cannot read {self.path}: {error.strerror}") from None
            if not count:
                raise ModelChangedError(f"{self.path.name} was cut short while it was read")
            done += count

    def _give_back(self) -> None:
        """Put copies in the place of the file's pages, and let the file be written to."""
        with self._lock:
            if self._lease is None:
                return  # closed just now
            try:
                for start, area in self._areas:
                    if isinstance(area, FileArea):
                        area.exchange(partial(self._read, start))
            except (UserError, MemoryError, OSError):
                self._damage.append(str(self.path))
            if not self._release():  # somebody may have written before all was copied
                self._damage.append(str(self.path))

    def _release(self) -> bool:
        """Let writers go on; False where they went on before."""
        lease, self._lease = self._lease, None  # before the writer goes on
        if lease is None:
            return True
        _leases().forget(lease)
        return bool(lease.release())


def _leases() -> ModuleType:
    """Import what only Linux has."""
    from p2pnode.engine.ggml import lease

    return lease


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))


def _areas(parts: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return starts and ends, of whole pages at the start, that hold ``parts`` (offset, size)."""
    merged: list[tuple[int, int]] = []
    for offset, size in sorted(parts):
        start, end = offset // PAGE * PAGE, offset + size
        if merged and start <= merged[-1][1] + _NEAR:
            start, previous = merged.pop()
            end = max(end, previous)
        merged.append((start, end))
    return [(start, end) for start, end in merged if end > start]
