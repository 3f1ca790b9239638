"""What memory Linux lets a group of processes take: a container, a service, a user's session.

Files are read as Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of Linux
describe them. One that is missing or makes no sense is as good as none: nothing here raises.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

_MOST_BYTES: Final = 2**16  # of a file; memory.stat has 2,000
_MOST_DIGITS: Final = 20  # of a number: 2^64
_MOST_LEVELS: Final = 64  # of groups in groups; a service of a container has six

_RECLAIMABLE: Final = ("inactive_file", "active_file", "slab_reclaimable")
"""What the kernel drops before it refuses memory: files' pages, and caches of its own.

``memory.current`` counts them as used. Both lists of files' pages count, as in ``MemAvailable``:
the active one is aged into the other as soon as memory is short. ``MemAvailable`` keeps back the
low watermark of the whole machine, which a group does not have. Shared memory is on neither list.
"""


@dataclass(frozen=True, slots=True)
class Group:
    """One group that this process is in.

    Attributes:
        limit: The most bytes that it may take.
        used: Bytes that it takes and that cannot be dropped; 0 where it does not say.
    """

    limit: int
    used: int

    @property
    def free(self) -> int:
        """Bytes that it may still take."""
        return max(0, self.limit - self.used)


def limiting_groups(mounted: Path, own: Path) -> Iterator[Group]:
    """Yield every group with a limit that this process is in, the innermost first.

    Args:
        mounted: Where groups are mounted: ``/sys/fs/cgroup``.
        own: The file that says which groups this process is in: ``/proc/self/cgroup``.
    """
    paths = _paths(own)
    for root in (mounted, mounted / "unified"):  # the second beside version 1
        for folder in _folders(root, paths.get("", PurePosixPath())):
            yield from _second_version(folder)
    for folder in _folders(mounted / "memory", paths.get("memory", PurePosixPath())):
        yield from _first_version(folder)
        if _number(folder.parent / "memory.use_hierarchy") == 0:
            return  # what is used here is not counted further out


def _paths(own: Path) -> dict[str, PurePosixPath]:
    """Return this process's group by controller; version 2 has one for all, by no name."""
    found: dict[str, PurePosixPath] = {}
    for line in _text(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        parts = [part for part in path.split("/") if part not in {"", ".", ".."}]
        for controller in controllers.split(","):
            found.setdefault(controller, PurePosixPath(*parts[:_MOST_LEVELS]))
    return found


def _folders(root: Path, path: PurePosixPath) -> Iterator[Path]:
    """Yield a group's folder and those around it, up to ``root``.

    In a container the path may begin further out than what is mounted: its end is looked for.
    """
    parts = path.parts
    ends = (start for start in range(len(parts)) if _is_folder(root.joinpath(*parts[start:])))
    start = next(ends, 0)
    for stop in range(len(parts), start, -1):
        yield root.joinpath(*parts[start:stop])
    yield root


def _second_version(folder: Path) -> Iterator[Group]:
    # Beyond memory.high a group is slowed down until it is useless, without being ended.
    limits = [_number(folder / name) for name in ("memory.max", "memory.high")]
    known = [limit for limit in limits if limit is not None]
    if known:
        used, statistics = _number(folder / "memory.current"), _statistics(folder)
        yield Group(min(known), _kept(used, [statistics.get(name, 0) for name in _RECLAIMABLE]))


def _first_version(folder: Path) -> Iterator[Group]:
    statistics = _statistics(folder)
    limits = [
        _number(folder / "memory.limit_in_bytes"),
        statistics.get("hierarchical_memory_limit"),  # of a group further out, perhaps unseen
    ]
    known = [limit for limit in limits if limit is not None]
    if known:
        # Those of the groups within count as well, as in what is used.
        droppable = [
            statistics.get(f"total_{name}", statistics.get(name, 0)) for name in _RECLAIMABLE
        ]
        yield Group(min(known), _kept(_number(folder / "memory.usage_in_bytes"), droppable))


def _kept(used: int | None, droppable: list[int]) -> int:
    return max(0, (used or 0) - sum(droppable))


def _statistics(folder: Path) -> dict[str, int]:
    found = {}
    for line in _text(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        number = _parsed(value)
        if number is not None:
            found[name] = number
    return found


def _number(path: Path) -> int | None:
    """Return the number in a file; None without one, as where it says "max"."""
    return _parsed(_text(path))


def _parsed(text: str) -> int | None:
    digits = text.strip()
    return int(digits) if digits.isdigit() and len(digits) <= _MOST_DIGITS else None


def _text(path: Path) -> str:
    with suppress(OSError, ValueError):  # a path may hold a null byte
        if path.is_file():  # a named pipe would be waited for
            with path.open("rb") as file:
                return file.read(_MOST_BYTES).decode("ascii", "replace")
    return ""


def _is_folder(path: Path) -> bool:
    with suppress(OSError, ValueError):
        return path.is_dir()
    return False
