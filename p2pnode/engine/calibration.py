"""Measures what a visit costs on this machine, for the ads that peers choose chains by."""

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from p2pnode.engine.base import Engine, Floats, StageCost

_SESSION: Final = b"\0calibration"
_PREFILL_TOKENS: Final = 32
_PREFILL_LAYERS: Final = 4
_PART_SECONDS: Final = 0.1


def calibrate(engine: Engine, *, has_head: bool) -> StageCost:
    """Time decoding through all and through half of the layers, prefill, and the head.

    Two depths give the line (fixed + slope x layers). The least of several repetitions counts:
    what others take of the machine only ever adds. Takes some 0.4 s on a small model.

    Raises:
        CapacityError: No KV memory for 64 positions.
    """
    d_model = engine.info.d_model
    layers = engine.layers
    half = range(layers.start, layers.start + max(1, len(layers) // 2))
    few = range(layers.start, min(layers.stop, layers.start + _PREFILL_LAYERS))
    one = _noise(1, d_model)  # [1, d_model]
    many = _noise(_PREFILL_TOKENS, d_model)  # [tokens, d_model]

    whole = _least(lambda: _visit(engine, layers, one))
    part = _least(lambda: _visit(engine, half, one)) if len(half) < len(layers) else whole
    prefill = _least(lambda: _visit(engine, few, many))
    head = _least(lambda: engine.logits(one[0])) if has_head else 0.0
    slope = (whole - part) / max(1, len(layers) - len(half))
    if not 0 < slope * len(layers) <= whole:
        slope = whole / len(layers)  # the two depths cannot be told apart: all of it is slope
    return StageCost(
        decode_fixed_us=round((whole - slope * len(layers)) * 1e6),
        decode_layer_us=max(1, round(slope * 1e6)),
        head_us=round(head * 1e6),
        prefill_layer_ns=max(1, round(prefill / len(few) / _PREFILL_TOKENS * 1e9)),
    )


def _noise(tokens: int, d_model: int) -> Floats:
    return np.random.default_rng(0).standard_normal((tokens, d_model)).astype(np.float32)


def _visit(engine: Engine, layers: range, batch: Floats) -> None:
    engine.forward(_SESSION, layers, [batch], 0)
    engine.close(_SESSION)


def _least(action: Callable[[], object]) -> float:
    """Run ``action`` warm, for about a tenth of a second; return the least time it took."""
    action()
    least = float("inf")
    deadline = time.perf_counter() + _PART_SECONDS
    while True:
        start = time.perf_counter()
        action()
        end = time.perf_counter()
        least = min(least, end - start)
        if end > deadline:
            return least
