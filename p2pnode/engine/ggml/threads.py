"""How many threads of the CPU compute: as many as are measured to be worth it, once."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from p2pnode.engine.cpu import cpu_name, usable_cores
from p2pnode.engine.ggml.engine import GgmlEngine
from p2pnode.engine.ggml.kept import keep_entries, read_entries
from p2pnode.errors import UsageError

WORTH: Final = 1.25
"""How much faster more threads must decode: they cost the machine's other programs more than they
save, and under load each waits for the slowest."""

QUIET: Final = 0.9
"""The part of a token's time that its thread had a core, from which on a trial counts as
undisturbed. What was found beside other programs is used, and not kept."""

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
    key = json.dumps([library, root, cpu_name(), most_threads(), len(engine.layers)])
    count = _sound(None if cache is None else read_entries(cache / _FILE).get(key))
    if count is None:
        count, is_quiet = _fastest(engine)
        if cache is not None and is_quiet:
            keep_entries(cache / _FILE, {key: count})
    engine.use_threads(count)


def refuse_too_many(threads: int | None) -> None:
    """Refuse more threads than cores: ggml's wait for each other at every step, and turn by turn.

    Two are let through anywhere, for whoever compares.

    Raises:
        UsageError: There are more.
    """
    most = max(2, usable_cores())
    if threads is not None and threads > most:
        raise UsageError(
            f"{threads} threads cannot compute on {usable_cores()} cores: each waits for all",
            hint=f"Use --threads {usable_cores()} or fewer, or leave it out.",
        )


def most_threads() -> int:
    """Return how many threads are tried at the most: one core is left to the rest of the machine.

    Threads of one step wait for each other at every operation, hundreds of times a token. One that
    loses its core to another program holds up all, each time for a tick of the scheduler: beside
    two busy programs on two cores a token took 1,810 ms with two threads, and 96 ms with one.
    """
    return max(1, usable_cores() - 1)


def _sound(count: Any) -> int | None:  # noqa: ANN401, from a file
    is_count = isinstance(count, int) and not isinstance(count, bool)
    return count if is_count and 1 <= count <= most_threads() else None


@dataclass(frozen=True, slots=True)
class _Trial:
    """The fastest token of a few: its seconds, and those that the engine's thread had a core."""

    seconds: float
    on_core: float

    @property
    def is_quiet(self) -> bool:
        return self.on_core >= QUIET * self.seconds


def _fastest(engine: GgmlEngine) -> tuple[int, bool]:
    """Return how many threads are fastest, and whether no other program disturbed the trials."""
    most = most_threads()
    if most == 1:
        return 1, True
    best, best_trial = 1, _try(engine, 1)
    is_quiet, count = best_trial.is_quiet, min(2, most)
    while True:
        trial = _try(engine, count)
        is_quiet = is_quiet and trial.is_quiet
        if best_trial.seconds < WORTH * trial.seconds:
            break
        best, best_trial = count, trial
        if count == most:
            break
        count = min(2 * count, most)
    return best, is_quiet


def _try(engine: GgmlEngine, threads: int) -> _Trial:
    """Let some tokens through all layers."""
    engine.use_threads(threads)
    row = np.random.default_rng(0).standard_normal((1, engine.info.d_model)).astype(np.float32)
    trials = []
    try:
        for position in range(_WARM + _TOKENS):
            began, had = time.perf_counter(), time.thread_time()
            engine.forward(_SESSION, engine.layers, [row], position)
            trials.append(_Trial(time.perf_counter() - began, time.thread_time() - had))
    finally:
        engine.close(_SESSION)
    return min(trials[_WARM:], key=lambda trial: trial.seconds)
