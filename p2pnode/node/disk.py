"""Room on a disk: what is free, and how to say that it does not suffice."""

import errno
import math
import shutil
from pathlib import Path

from p2pnode.errors import UserError


def is_full(error: OSError) -> bool:
    """Tell whether a write failed for want of space, or of quota."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def refuse_full(folder: Path, needed: int, hint: str) -> None:
    """Look whether ``needed`` bytes fit in ``folder``, or where it would be made.

    Raises:
        UserError: They do not.
    """
    free = free_bytes(folder)
    if free is not None and free < needed:
        raise no_space(folder, needed, hint)


def no_space(folder: Path, needed: int, hint: str) -> UserError:
    """Return the error for a write of ``needed`` bytes into ``folder`` that did not fit."""
    free = free_bytes(folder)
    if free is None or free >= needed:  # a quota, or whoever else wrote has made room since
        found = "no more may be written"
    else:
        found = f"{size_in_words(free)} are free"
    return UserError(
        f"no space left in {folder}: needs {size_in_words(needed)}, {found}", hint=hint
    )


def free_bytes(folder: Path) -> int | None:
    """Return what may be written in ``folder`` or, until it is made, in what it will lie in."""
    for place in (folder, *folder.parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return None


def size_in_words(size: int) -> str:
    """Write a size as people read it: ``2.2 MB``, and from ten on rounded up: ``192 MB``."""
    if size > 10**9:
        return f"{math.ceil(size / 10**8) / 10:g} GB"
    unit, name = (10**6, "MB") if size > 10**6 else (1000, "KB")
    if size < 10 * unit:
        return f"{max(0.1, round(size / unit, 1)):g} {name}"
    return f"{math.ceil(size / unit)} {name}"
