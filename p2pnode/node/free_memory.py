"""How much memory this machine has, and how much is free, within a container's limit."""

from pathlib import Path
from typing import Final

import psutil

_CGROUP: Final = Path("/sys/fs/cgroup")


def total_memory() -> int:
    """Return the bytes that programs here may take in all."""
    total = int(psutil.virtual_memory().total)
    limit = _number("memory.max")
    return total if limit is None else min(total, limit)


def free_memory() -> int:
    """Return the bytes that may still be taken."""
    free = int(psutil.virtual_memory().available)
    limit, used = _number("memory.max"), _number("memory.current")
    if limit is None or used is None:
        return free
    return max(0, min(free, limit - used))


def _number(name: str) -> int | None:
    try:
        return int((_CGROUP / name).read_text("ascii"))
    except (OSError, ValueError):  # no container, or "max"
        return None
