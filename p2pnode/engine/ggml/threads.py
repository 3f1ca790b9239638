"""How many threads of the CPU compute: as many as are measured to be worth it, once."""

import json
import os
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from p2pnode.engine.ggml.engine import GgmlEngine
from p2pnode.engine.ggml.finding import cpu_name
from p2pnode.engine.ggml.kept import keep_entries, read_entries

WORTH: Final = 1.25
"""How much faster twice the threads must decode: they cost the machine's other programs more than
they save, and under load each waits for the slowest."""

_FILE: Final = "threads.json"
_TOKENS: Final = 6  # of a trial; the fastest counts
_WARM: Final = 2
_SESSION: Final = b"\0threads"


def use_fastest(engine: GgmlEngine, cache: Path | None, library: str, root: str) -> None:
    """Let an engine compute with what was found to be fastest here, or find it out.

    Args:
        engine: Whose threads; it is idle.
        cache: Where results are kept, by library, model and CPU; None for nowhere.
        library: Names the library and its kernels.
        root: Of the model's tree of hashes.
    """
    key = json.dumps([library, root, cpu_name(), usable_cores(), len(engine.layers)])
    count = _sound(None if cache is None else read_entries(cache / _FILE).get(key))
    if count is None:
        count = _fastest(engine)
        if cache is not None:
            keep_entries(cache / _FILE, {key: count})
    engine.use_threads(count)


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _sound(count: Any) -> int | None:  # noqa: ANN401, from a file
    is_count = isinstance(count, int) and not isinstance(count, bool)
    return count if is_count and 1 <= count <= usable_cores() else None


def _fastest(engine: GgmlEngine) -> int:
    best, best_time = 1, _time(engine, 1)
    count = 2
    while count <= usable_cores():
        spent = _time(engine, count)
        if best_time < WORTH * spent:
            break
        best, best_time = count, spent
        count *= 2
    return best


def _time(engine: GgmlEngine, threads: int) -> float:
    """Return the least seconds that a token takes through all layers."""
    engine.use_threads(threads)
    row = np.random.default_rng(0).standard_normal((1, engine.info.d_model)).astype(np.float32)
    spent = []
    try:
        for position in range(_WARM + _TOKENS):
            began = time.perf_counter()
            engine.forward(_SESSION, engine.layers, [row], position)
            spent.append(time.perf_counter() - began)
    finally:
        engine.close(_SESSION)
    return min(spent[_WARM:])
