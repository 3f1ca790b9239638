"""What Linux is asked for so that the loop goes before arithmetic where cores are few.

A loop that wakes for a timer finds the cores taken: by this node's arithmetic, and by others'.

- The engine thread is a little nicer. It has a smaller share of a core only while somebody else
  wants that core. Linux shares cores out among sessions and services first (autogroups, control
  groups), and then among the threads of each, so what the engine gives up goes to its own loop.
- The loop asks for short slices, from Linux 6.12 on. The scheduler lets first whoever's slice would
  end first; it gets no more of a core in all. The kernel: "EEVDF Scheduler" in its documentation,
  sched_setattr(2).
"""

import ctypes
import os
import platform
import struct
import sys
from contextlib import suppress
from typing import Final

NICER: Final = 5
"""Steps of the nice value from the loop to the engine thread. Fifty streams through three nodes on
two cores: the loop's timers are 11.6 ms late at p99 with none, 9.5 with 5, 7.7 with 10, at the same
tokens/s. Where three programs more want those cores, without groups, a token takes 1.6 times as
long with 5, and 5 times with 10. Timers are then 25 ms late with none, 13 with 5, and 76 with 10:
the loop waits for the interpreter, and the engine that holds it has no core on which to go on."""

SLICE: Final = 300e-6
"""Seconds; the kernel's own are some milliseconds. From 100 to 2,000 us all is the same (measured);
without, those fifty streams make timers late by half as much again."""

_NICEST: Final = 19
_CALLS: Final = {"x86_64": 314, "aarch64": 274}  # of sched_setattr
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQII")
"""size, policy, flags, nice, priority, runtime, deadline, period, util_min, util_max"""


def let_others_first(steps: int = NICER) -> None:
    """Make the calling thread, and those that it starts, nicer; on Linux, where threads differ.

    A sandbox that forbids it changes nothing else.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            now = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, 0, min(_NICEST, now + steps))


def take_short_slices(seconds: float = SLICE) -> bool:
    """Ask for slices of ``seconds`` for the calling thread; tell whether the system heard it.

    Its nice value stays. A thread that follows another policy than the usual one is left alone.
    """
    call = _CALLS.get(platform.machine())
    if sys.platform != "linux" or call is None:
        return False
    try:
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            return False
        nice = os.getpriority(os.PRIO_PROCESS, 0)  # of the thread: Linux keeps one each
    except OSError:  # a sandbox forbids to ask
        return False
    runtime = round(seconds * 1e9)
    asked = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, runtime, 0, 0, 0, 0)
    return bool(ctypes.CDLL(None).syscall(call, 0, ctypes.c_char_p(asked), 0) == 0)
