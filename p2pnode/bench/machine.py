"""What figures depend on: the machine that measured them, and what else it was doing."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from p2pnode import CORES
from p2pnode.engine.cpu import usable_cores
from p2pnode.phrases import plural

PACKAGES = ("p2pnode", "numpy", "trio", "cryptography", "zstandard")
"""Distributions that every figure depends on."""

_CPUINFO = Path("/proc/cpuinfo")


def describe_machine(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Return the CPU, its load, the system and the versions, as JSON has them.

    Ask before measuring: afterwards the load is the measurement's own.

    Args:
        packages: Distributions that take part besides :data:`PACKAGES`.
    """
    load = [round(one, 2) for one in psutil.getloadavg()]
    return {
        "cpu": cpu_model(),
        "cpu_mhz": _mhz(),
        "cpu_count": usable_cores(),
        "load": load,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": CORES.in_words(),
        "versions": {
            name: found
            for name in sorted({*PACKAGES, *packages})
            if (found := _version(name)) is not None
        },
    }


def in_words(machine: dict[str, Any]) -> str:
    """Return what :func:`describe_machine` found as one line for people."""
    mhz = f" at {machine['cpu_mhz']} MHz" if machine["cpu_mhz"] else ""
    cores = plural(machine["cpu_count"], "core")
    versions = ", ".join(f"{name} {found}" for name, found in machine["versions"].items())
    return (
        f"{machine['cpu']}{mhz}, {cores}, load {machine['load'][0]} before; "
        f"Python {machine['python']}, {machine['cores']}, {versions}"
    )


def cpu_model() -> str:
    """Return the CPU's name as its maker gives it, or at least its architecture."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text("utf-8", "replace").splitlines():
            field, _, value = line.partition(":")
            if field.strip().lower() in {"model name", "hardware"} and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine() or "unknown CPU"


def _mhz() -> int | None:
    """Return the clock rate in MHz; None where the system does not tell."""
    try:
        frequency = psutil.cpu_freq()
    except (OSError, RuntimeError, NotImplementedError):
        return None
    current: float = getattr(frequency, "current", 0.0)  # a system may have no frequency to tell
    return round(current) or None


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
