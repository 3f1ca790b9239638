"""How much of this machine's GPUs other programs use, by NVIDIA's library, where it is there.

The functions are those of its manual, "NVML API Reference". To start ``nvidia-smi`` instead takes a
second; the library answers in well under a millisecond. Without it, or where it refuses, nobody
knows, and a node goes by the CPU alone.

Nothing here was run on a GPU: the tests put a library of their own in its place.
"""

import ctypes
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

_NAMES: Final = ("libnvidia-ml.so.1", "nvml.dll")
_USE: Final = "nvmlDeviceGetProcessUtilization"
_FIRST_NAMESPACE: Final = f"pid:[{0xEFFFFFFC}]"  # PROC_PID_INIT_INO of Linux
_MOST_GPUS: Final = 64
_MOST_PROCESSES: Final = 1024
_OK: Final = 0
_NOTHING_NEW: Final = 6  # NVML_ERROR_NOT_FOUND: no process used it since


class ProcessUse(ctypes.Structure):
    """``nvmlProcessUtilizationSample_t``: what a process used of a GPU, in hundredths."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("at_us", ctypes.c_ulonglong),
        ("compute", ctypes.c_uint),
        ("memory", ctypes.c_uint),
        ("encoder", ctypes.c_uint),
        ("decoder", ctypes.c_uint),
    )


class GpuUse:
    """Asks the library; :func:`find_gpus` makes one where there is any GPU."""

    def __init__(self, library: object, handles: list[ctypes.c_void_p]) -> None:
        self._library = library
        self._since_us = [0] * len(handles)
        self._handles = handles
        self._found = (ProcessUse * _MOST_PROCESSES)()

    def others(self, ours: AbstractSet[int]) -> float | None:
        """Return the share of the busiest GPU that processes not in ``ours`` use, 0 to 1.

        None where no GPU says.
        """
        shares = [self._share(number, ours) for number in range(len(self._handles))]
        return max((share for share in shares if share is not None), default=None)

    def _share(self, number: int, ours: AbstractSet[int]) -> float | None:
        count = ctypes.c_uint(_MOST_PROCESSES)
        since = ctypes.c_ulonglong(self._since_us[number])
        asked = self._handles[number], self._found, ctypes.byref(count), since
        code = _ask(self._library, _USE, *asked)
        if code == _NOTHING_NEW:
            return 0.0
        if code != _OK:
            return None
        newest: dict[int, ProcessUse] = {}
        for one in self._found[: min(count.value, _MOST_PROCESSES)]:
            self._since_us[number] = max(self._since_us[number], one.at_us)
            if one.pid not in newest or newest[one.pid].at_us <= one.at_us:
                newest[one.pid] = one
        used: int = sum(min(one.compute, 100) for pid, one in newest.items() if pid not in ours)
        return min(1.0, used / 100)


def find_gpus(library: object | None = None) -> GpuUse | None:
    """Return what asks the GPUs of this machine; None where there are none, or nobody to ask.

    In a container the library names processes by the numbers that they have outside: which are
    ours cannot be told there.
    """
    found = _open() if library is None and not _is_contained() else library
    if found is None or _ask(found, "nvmlInit_v2") != _OK:
        return None
    count = ctypes.c_uint()
    if _ask(found, "nvmlDeviceGetCount_v2", ctypes.byref(count)) != _OK:
        return None
    handles = []
    for index in range(min(count.value, _MOST_GPUS)):
        handle = ctypes.c_void_p()
        if _ask(found, "nvmlDeviceGetHandleByIndex_v2", index, ctypes.byref(handle)) == _OK:
            handles.append(handle)
    return GpuUse(found, handles) if handles else None


def _ask(library: object, name: str, *arguments: object) -> int:
    return int(getattr(library, name)(*arguments))


def _open() -> object | None:
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        if hasattr(library, _USE):
            return library
    return None


def _is_contained() -> bool:
    """Whether this process sees other numbers of processes than the system has."""
    try:
        return str(Path("/proc/self/ns/pid").readlink()) != _FIRST_NAMESPACE
    except OSError:  # no Linux
        return False
