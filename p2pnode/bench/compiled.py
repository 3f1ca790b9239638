"""Compiled cores against pure ones in turns: the same sources, each run a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from p2pnode import CORES, compiled
from p2pnode.bench.figures import spread
from p2pnode.errors import UserError
from p2pnode.quantiles import quantile

WAYS: Final = {"pure": "1", "compiled": "0"}
"""What the variable that asks for pure cores is set to."""

_PATIENCE = 300.0  # seconds for one process
_IMPORT = (
    "import time; began = time.perf_counter(); import p2pnode.node.node; "
    "print(time.perf_counter() - began)"
)


def measure(*, rounds: int, tell: Callable[[float], None]) -> dict[str, Any]:
    """Measure a Think, a swarm and an import both ways, ``rounds`` times in turns.

    Returns:
        For each measurement, each way's spread, and ``ratio``: the median over the rounds of
        compiled over pure, of which each has both.

    Raises:
        UserError: Nothing usable is compiled here, or a process failed.
    """
    if not CORES.is_compiled:
        raise UserError(
            f"the cores of this process run {CORES.in_words()}", hint=compiled.HOW_TO_COMPILE
        )
    kinds = _measurements()
    found: dict[str, dict[str, list[float]]] = {kind: {way: [] for way in WAYS} for kind in kinds}
    stories: set[str] = set()
    for done in range(rounds):
        for kind, run in kinds.items():
            for way in sorted(WAYS, reverse=bool(done % 2)):
                found[kind][way].append(run(way, stories))
        tell((done + 1) / rounds)
    return {
        "rounds": rounds,
        "library_mb": round(_library_bytes() / 1e6, 1),
        "stories": len(stories),
        **{kind: _row(taken) for kind, taken in found.items()},
    }


def _row(taken: dict[str, list[float]]) -> dict[str, Any]:
    ratios = [fast / slow for fast, slow in zip(taken["compiled"], taken["pure"], strict=True)]
    return {
        "ratio": round(quantile(ratios, 0.5), 3),
        **{way: spread(values) for way, values in taken.items()},
    }


def _measurements() -> dict[str, Callable[[str, set[str]], float]]:
    kinds = {
        "think_one_core_us": lambda way, stories: _think(way, 1),
        "think_two_cores_us": lambda way, stories: _think(way, 2),
        "swarm_of_20_s": _swarm,
        "import_s": lambda way, stories: float(_run(way, "-c", _IMPORT)),
    }
    if (os.cpu_count() or 1) < 2:
        del kinds["think_two_cores_us"]
    return kinds


def _think(way: str, cores: int) -> float:
    words = f"-m p2pnode bench think --only p2pnode --rounds 8 --json --cores {cores}"
    row = json.loads(_run(way, *words.split()))["rows"][0]
    if "round_trip_us" not in row:
        raise UserError(f"a Think {way} could not be measured: {row}")
    return float(row["round_trip_us"]["p50"])


def _swarm(way: str, stories: set[str]) -> float:
    found = json.loads(_run(way, "-m", "p2pnode.bench.swarm"))
    stories.add(found["story"])
    return float(found["seconds"])


def _run(way: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, compiled.VARIABLE: WAYS[way]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    if done.returncode:
        said = " ".join(done.stderr.split()[-30:])
        raise UserError(f"{' '.join(words[:4])}, {way}, failed: {said or done.returncode}")
    return done.stdout


def _library_bytes() -> int:
    library = sys.modules[compiled.LIBRARY].__file__
    return 0 if library is None else Path(library).stat().st_size
