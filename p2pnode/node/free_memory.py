"""How much memory this machine has, and how much is free, within the limits of its groups."""

from pathlib import Path
from typing import Final

import psutil

from p2pnode.node.cgroup import limiting_groups

_CGROUP: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")


def total_memory() -> int:
    """Return the bytes that programs here may take in all."""
    groups = limiting_groups(_CGROUP, _OWN)
    return min([int(psutil.virtual_memory().total), *(group.limit for group in groups)])


def free_memory() -> int:
    """Return the bytes that may still be taken; those of files' pages that may be dropped count."""
    groups = limiting_groups(_CGROUP, _OWN)
    return min([int(psutil.virtual_memory().available), *(group.free for group in groups)])
