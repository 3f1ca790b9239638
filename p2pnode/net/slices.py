"""Short slices for a thread that is to get its core at once, where Linux knows of such.

A loop that wakes for a timer finds the cores taken by arithmetic: this node's, and that of others.
The scheduler lets first whoever's slice would end first, so a thread that asks for short slices
is let in before one that computes, and gives way to it as soon. It gets no more of a core in all.
The kernel: "EEVDF Scheduler" in its documentation, sched_setattr(2); from Linux 6.12 on.
"""

import ctypes
import os
import platform
import struct
import sys
from typing import Final

SLICE: Final = 300e-6
"""Seconds; the kernel's own are some milliseconds. With fifty streams through three nodes on two
cores, loops' timers are 10 and 12 ms late at p99 with it, 17 and 32 without (`bench api`)."""

_CALLS: Final = {"x86_64": 314, "aarch64": 274}  # of sched_setattr
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQII")
"""size, policy, flags, nice, priority, runtime, deadline, period, util_min, util_max"""


def take_short_slices(seconds: float = SLICE) -> bool:
    """Ask for slices of ``seconds`` for the calling thread; tell whether the system heard it.

    Its nice value stays. A thread that follows another policy than the usual one is left alone.
    """
    call = _CALLS.get(platform.machine())
    if sys.platform != "linux" or call is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)  # of the thread: Linux keeps one each
    runtime = round(seconds * 1e9)
    asked = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, runtime, 0, 0, 0, 0)
    return bool(ctypes.CDLL(None).syscall(call, 0, ctypes.c_char_p(asked), 0) == 0)
