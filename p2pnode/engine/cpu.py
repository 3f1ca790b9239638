"""What this machine's CPU is, and how much of it may be used; every engine asks."""

import contextlib
import json
import os
import platform
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")
_FIELDS: Final = frozenset({"vendor_id", "model name", "flags", "features", "cpu part"})


def cpu_name() -> str:
    """Return what this CPU says of itself: a home directory may be on several machines."""
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in _CPUINFO.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() in _FIELDS:
                fields.setdefault(name.strip(), value.strip())
    return json.dumps(fields) if fields else platform.processor()


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
