"""Loading layers with every tensor checked against its hash, and unchecked, in turns."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from p2pnode.bench.figures import spread
from p2pnode.engine.gguf import read_config
from p2pnode.engine.gguf_file import Check, GgufFile
from p2pnode.engine.hash_tree import hash_file
from p2pnode.engine.numpy.weights import read_weights
from p2pnode.quantiles import quantile


def measure(path: Path, *, rounds: int, tell: Callable[[float], None]) -> dict[str, Any]:
    """Load the first third of a model ``rounds`` times each way, and hash the file once a round.

    Milliseconds; the ratio is the median of the rounds' own.
    """
    checked, unchecked, hashed = list[float](), list[float](), list[float]()
    for done in range(rounds):
        began = time.perf_counter()
        with GgufFile(path) as file:
            tree = hash_file(file)
            layers = range(max(1, read_config(file).n_layers // 3))
        hashed.append(1e3 * (time.perf_counter() - began))
        unchecked.append(_load(path, layers, None))
        checked.append(_load(path, layers, tree.check))
        tell((done + 1) / rounds)
    ratios = [one / other for one, other in zip(checked, unchecked, strict=True)]
    return {
        "layers": [layers.start, layers.stop],
        "checked_ms": spread(checked),
        "unchecked_ms": spread(unchecked),
        "ratio": round(quantile(ratios, 0.5), 3),
        "hash_whole_file_ms": spread(hashed),
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "rounds": rounds,
    }


def _load(path: Path, layers: range, check: Check | None) -> float:
    began = time.perf_counter()
    with GgufFile(path, check) as file:
        read_weights(file, read_config(file), layers, lambda _: None)
    return 1e3 * (time.perf_counter() - began)
