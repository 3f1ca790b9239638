"""Processors, BLAS, and how punctual the event loop's timers are."""

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import trio

from p2pnode.interfaces.doctor.findings import Finding

LATE_MS = 10.0
"""Milliseconds of lateness at the 99th percentile that a chain of stages begins to feel."""

_SAMPLES, _PERIOD = 50, 0.01
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def check_processor() -> Iterator[Finding]:
    """Look at the processors and the linear algebra library."""
    yield report_processor(_usable(), psutil.getloadavg()[0], _quota())
    import_module("numpy")  # a BLAS that is not loaded cannot be seen
    threadpoolctl = import_module("threadpoolctl")  # by name: it has no type hints
    yield report_blas(threadpoolctl.threadpool_info())


def check_timers() -> Iterator[Finding]:
    """Ask a loop to be woken fifty times and see how late it is."""
    yield report_timers(trio.run(_lateness))


def report_processor(cores: int, load: float, quota: float | None) -> Finding:
    """Report the cores we may use, the load of the last minute, and a container's share."""
    known = f"{cores} cores, load {load:.1f}"
    if quota is not None and quota < 1:
        what = f"{known}; this container may use {quota:.2f} of one core"
        return Finding("processor", "warn", what, "give it a whole core, or hold few layers")
    if load > 1.5 * cores:
        advice = "other programs compete with the model; stop them, or hold fewer layers"
        return Finding("processor", "warn", f"{known}: busy", advice)
    return Finding("processor", "ok", known)


def report_blas(pools: Sequence[Mapping[str, Any]]) -> Finding:
    """Name the BLAS that numpy computes with."""
    found = [pool for pool in pools if pool.get("user_api") == "blas"]
    if not found:
        return Finding("blas", "ok", "the system's own BLAS decides about its threads itself")
    names = ", ".join(f"{pool.get('internal_api')} {pool.get('version')}" for pool in found)
    threads = max(int(pool.get("num_threads", 1)) for pool in found)
    return Finding("blas", "ok", f"{names}, up to {threads} threads; a node limits it to one")


def report_timers(late: Sequence[float]) -> Finding:
    """Report how many seconds late each wake-up was."""
    ordered = sorted(late)
    half, worst = 1e3 * ordered[len(ordered) // 2], 1e3 * ordered[int(0.99 * len(ordered))]
    what = f"the event loop wakes {half:.1f} ms late (p50), {worst:.1f} ms (p99)"
    if worst <= LATE_MS:
        return Finding("timers", "ok", what)
    return Finding("timers", "warn", what, "the machine is busy: every hop waits for it")


async def _lateness() -> list[float]:
    late = []
    for _ in range(_SAMPLES):
        due = trio.current_time() + _PERIOD
        await trio.sleep_until(due)
        late.append(trio.current_time() - due)
    return late


def _usable() -> int:
    """Count the cores this process may run on, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return psutil.cpu_count() or 1


def _quota() -> float | None:
    """Return how many cores a container may use, or None where there is no limit."""
    try:
        quota, period = _QUOTA.read_text("ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None
