"""What three nodes cost while nobody asks anything."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil

from p2pnode.bench.chain import start_three
from p2pnode.testing.processes import NodeProcess, local_swarm

_SETTLING = 5.0  # seconds until discovery and the first push/pull are over


def measure(path: Path, *, seconds: float, when: str = "always") -> dict[str, Any]:
    """Return the CPU and the bytes that each idle node takes; ``when`` they serve others."""
    with local_swarm() as swarm:
        start_three(swarm, path, "--when", when)
        time.sleep(_SETTLING)
        before = [_sample(node) for node in swarm.nodes]
        time.sleep(seconds)
        after = [_sample(node) for node in swarm.nodes]
    rows = [
        {
            "node": node.name,
            "cpu_percent": round(100 * (late[0] - early[0]) / (late[2] - early[2]), 3),
            "bytes_per_s": round((late[1] - early[1]) / (late[2] - early[2]), 1),
        }
        for node, early, late in zip(swarm.nodes, before, after, strict=True)
    ]
    return {
        "seconds": seconds,
        "when": when,
        "nodes": rows,
        "cpu_percent": max(
            row["cpu_percent"] for row in rows if isinstance(row["cpu_percent"], float)
        ),
        "bytes_per_s": max(
            row["bytes_per_s"] for row in rows if isinstance(row["bytes_per_s"], float)
        ),
    }


def _sample(node: NodeProcess) -> tuple[float, int, float]:
    """CPU seconds so far, UDP payload bytes sent and received so far, and when."""
    used = psutil.Process(node.pid).cpu_times()
    traffic = node.snapshot().traffic
    size = sum(kind.bytes_in + kind.bytes_out for kind in traffic)
    return used.user + used.system, size, time.monotonic()
