"""Which cores the two sides run on: for the quick ones it decides most of what is measured.

On one core a round trip takes what the code takes. On two that are idle it also waits for each to
wake, 35 us on a virtual machine (measured). Left to itself the scheduler does now one and now the
other, and the floor is 6 us in one run and 75 in the next.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from p2pnode.errors import UserError


@contextmanager
def on_cores(count: int | None) -> Iterator[int | None]:
    """Keep this process on one core, and yield the one for the servers; None leaves both free.

    Args:
        count: 1 for the same core, 2 for another.

    Raises:
        UserError: This system cannot do that, or has too few cores.
    """
    if count is None:
        yield None
        return
    if sys.platform != "linux":
        raise UserError("only Linux keeps a process on a core", hint="leave out --cores")
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < count:
        raise UserError(f"this process may use {len(usable)} core only", hint="--cores 1")
    os.sched_setaffinity(0, usable[:1])
    try:
        yield usable[count - 1]
    finally:
        os.sched_setaffinity(0, usable)


def keep_on(pid: int, core: int | None) -> None:
    """Keep a process that has just begun, and the threads it will have, on ``core``."""
    if core is not None and sys.platform == "linux":
        os.sched_setaffinity(pid, [core])
