"""Measures what a visit costs on this machine, for the ads that peers choose chains by."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, TypeAlias

import numpy as np

from p2pnode.engine.base import Engine, Floats, StageCost
from p2pnode.errors import EngineError

_Part: TypeAlias = tuple[Callable[[], object], Callable[[], object]]
"""What makes ready, and what is timed."""

_SESSION: Final = b"\0calibration"
_PREFILL_TOKENS: Final = 64  # the chunk that chains use
_FEW_LAYERS: Final = 4
_SECONDS: Final = 0.3
_MOST_FIXED: Final = 0.25


def calibrate(engine: Engine) -> StageCost:
    """Measure without a pause; see :func:`calibration`."""
    cost = None
    for cost in calibration(engine):  # noqa: B007 -- the last is wanted
        pass
    if cost is None:
        raise EngineError("the engine was not measured to the end")
    return cost


def calibration(engine: Engine) -> Iterator[StageCost | None]:
    """Time decoding through all and through half of the layers, several rows, and the head.

    Two depths give the line (fixed + slope x layers). The parts take turns, and of each the least
    time counts: what others take of the machine only ever adds. Takes 0.3 s after one warm round.

    Yields:
        None after each run of a part, when the engine may compute something else; at last the cost.

    Raises:
        CapacityError: No KV memory for 64 positions.
    """
    d_model, layers = engine.info.d_model, engine.layers
    half = range(layers.start, layers.start + max(1, len(layers) // 2))
    few = range(layers.start, min(layers.stop, layers.start + _FEW_LAYERS))
    single = range(layers.start, layers.start + 1)
    visits = ((layers, 1), (half, 1), (single, _PREFILL_TOKENS), (few, 4), (few, 8))
    parts = [_visit(engine, run, rows) for run, rows in visits]
    if layers.stop == engine.info.n_layers:
        one = _noise(1, d_model)  # [1, d_model]
        parts.append((lambda: None, lambda: engine.logits(one)))
    least = [math.inf] * len(parts)
    try:
        for _ in _timed(parts, least):
            yield None
    finally:
        for run, rows in visits:
            engine.close(_session(run, rows))
    whole, part, prefill, four, eight, *head = least
    slope = _slope(whole, len(layers), part, len(half))
    yield StageCost(
        decode_fixed_us=round((whole - slope * len(layers)) * 1e6),
        decode_layer_us=max(1, round(slope * 1e6)),
        head_us=round(head[0] * 1e6) if head else 0,
        prefill_layer_ns=max(1, round(prefill / _PREFILL_TOKENS * 1e9)),
        rows4_layer_us=max(1, round(four / len(few) * 1e6)),
        rows8_layer_us=max(1, round(eight / len(few) * 1e6)),
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


def _session(layers: range, rows: int) -> bytes:
    return _SESSION + bytes((len(layers) % 256, rows))


def _visit(engine: Engine, layers: range, rows: int) -> _Part:
    """Return what runs so many rows through ``layers``, each time from the first position on."""
    session, batch = _session(layers, rows), _noise(rows, engine.info.d_model)
    return (
        partial(engine.truncate, session, 0),
        partial(engine.forward, session, layers, [batch], 0),
    )


def _timed(parts: Sequence[_Part], least: list[float]) -> Iterator[None]:
    """Run the parts in turn for a while, and note the least time of each; yields after each."""
    for ready, run in parts:
        ready()
        run()  # warm: the first run pays for page faults and lazy imports
        yield
    spent = 0.0
    while spent < _SECONDS or math.inf in least:
        for number, (ready, run) in enumerate(parts):
            began = time.perf_counter()
            ready()
            start = time.perf_counter()
            run()
            ended = time.perf_counter()
            least[number] = min(least[number], ended - start)
            spent += ended - began
            yield
