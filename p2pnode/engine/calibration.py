"""Measures what a visit costs on this machine, for the ads that peers choose chains by."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from p2pnode.engine.base import Engine, Floats, StageCost

_SESSION: Final = b"\0calibration"
_PREFILL_TOKENS: Final = 32
_PREFILL_LAYERS: Final = 4
_SECONDS: Final = 0.3
_MOST_FIXED: Final = 0.25


def calibrate(engine: Engine, *, has_head: bool) -> StageCost:
    """Time decoding through all and through half of the layers, prefill, and the head.

    Two depths give the line (fixed + slope x layers). The parts take turns, and of each the least
    time counts: what others take of the machine only ever adds. Takes 0.3 s after one warm round.

    Raises:
        CapacityError: No KV memory for 64 positions.
    """
    d_model, layers = engine.info.d_model, engine.layers
    half = range(layers.start, layers.start + max(1, len(layers) // 2))
    few = range(layers.start, min(layers.stop, layers.start + _PREFILL_LAYERS))
    one = _noise(1, d_model)  # [1, d_model]
    many = _noise(_PREFILL_TOKENS, d_model)  # [tokens, d_model]
    parts: list[Callable[[], object]] = [
        lambda: _visit(engine, layers, one),
        lambda: _visit(engine, half, one),
        lambda: _visit(engine, few, many),
    ]
    if has_head:
        parts.append(lambda: engine.logits(one[0]))
    whole, part, prefill, *head = _least_of_each(parts)
    slope = _slope(whole, len(layers), part, len(half))
    return StageCost(
        decode_fixed_us=round((whole - slope * len(layers)) * 1e6),
        decode_layer_us=max(1, round(slope * 1e6)),
        head_us=round(head[0] * 1e6) if head else 0,
        prefill_layer_ns=max(1, round(prefill / len(few) / _PREFILL_TOKENS * 1e9)),
    )


def _slope(whole: float, n_whole: int, part: float, n_part: int) -> float:
    """Return the cost of a layer; all of it is slope where the two depths make no sense.

    Half of the layers may fit a cache that the whole does not, and then cost less than half; and
    a busy machine may make them cost as much as the whole.
    """
    slope = (whole - part) / max(1, n_whole - n_part)
    if (1 - _MOST_FIXED) * whole <= slope * n_whole <= whole:
        return slope
    return whole / n_whole


def _noise(tokens: int, d_model: int) -> Floats:
    return np.random.default_rng(0).standard_normal((tokens, d_model)).astype(np.float32)


def _visit(engine: Engine, layers: range, batch: Floats) -> None:
    engine.forward(_SESSION, layers, [batch], 0)
    engine.close(_SESSION)


def _least_of_each(actions: Sequence[Callable[[], object]]) -> list[float]:
    """Run the actions in turn for a while; return the least time of each."""
    for action in actions:
        action()  # warm: the first run pays for page faults and lazy imports
    least = [math.inf] * len(actions)
    deadline = time.perf_counter() + _SECONDS
    while time.perf_counter() < deadline or math.inf in least:
        for number, action in enumerate(actions):
            start = time.perf_counter()
            action()
            least[number] = min(least[number], time.perf_counter() - start)
    return least
