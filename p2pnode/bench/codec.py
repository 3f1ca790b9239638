"""The ladder of codings for hidden states, measured: bytes, quality, and time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from p2pnode.bench.codec_quality import Coding, Evaluator
from p2pnode.bench.codec_texts import token_lists
from p2pnode.quantiles import quantile
from p2pnode.wire.calibration import Calibration, measure_calibration
from p2pnode.wire.states import Rung, decode_states_untrusted, encode_states
from p2pnode.wire.tensor import F32Array

SHAPES: Final = ((1, 576), (1, 4096), (128, 4096))
"""A row of the default model, one of a wide model, and a batch of a wide model's prompt."""

_HEADINGS: Final = (
    "rung", "calibrated", "rows", "bytes_per_token", "ratio", "rel_l2", "kl", "top1", "dppl",
)  # fmt: skip


def measure(
    path: Path, *, tokens: int, tell: Callable[[float], None], timing: bool = True
) -> dict[str, Any]:
    """Evaluate every rung on ``tokens`` held-out tokens; ``tell`` hears which part is done."""
    from p2pnode.node.models import describe_model, state_calibrations
    from p2pnode.text.tokenizer import Tokenizer

    calibrations = state_calibrations(describe_model(path).space_hash32)
    codings = _codings(calibrated=calibrations is not None)
    lists = token_lists(Tokenizer.from_model(path), tokens)
    parts = len(codings) + 2

    def part(number: int) -> Callable[[float], None]:
        return lambda share: tell((number + share) / parts)

    evaluator = Evaluator(path, calibrations, lists, part(0))
    rows = []
    whole: dict[bool, float] = {}  # bytes of F16, in texts and alone
    for number, coding in enumerate(codings):
        figures = evaluator.evaluate(coding, part(number + 1))
        whole.setdefault(coding.alone, figures["bytes_per_token"])
        ratio = whole[coding.alone] / figures["bytes_per_token"]
        rows.append(_row(coding, figures, ratio, max(map(len, lists)), timing=timing))
    tell(1.0)
    return {
        "tokens": sum(map(len, lists)),
        "texts": len(lists),
        "cuts": list(evaluator.cuts),
        "calibrated": calibrations is not None,
        "rows": rows,
    }


def table_cells(figures: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return headings and cells of a table for people."""
    shapes = [_shape_name(shape) for shape in SHAPES]
    headings = (*_HEADINGS, *(f"{name} us" for name in shapes))
    cells = []
    for row in figures["rows"]:
        times = [
            f"{row['encode_us'][name]}/{row['decode_us'][name]}" if "encode_us" in row else ""
            for name in shapes
        ]
        cells.append((*(str(row[key]) for key in _HEADINGS), *times))
    return headings, cells


def _codings(*, calibrated: bool) -> list[Coding]:
    """Return what is measured; F16 comes first, since all others are compared with it."""
    small = [Rung.I8, Rung.Q5, Rung.Q4, Rung.Q3, Rung.Q2]
    plain = [Rung.F16, Rung.I8, Rung.Q4, Rung.Q2]
    codings = [Coding(rung, calibrated=False) for rung in plain]
    if calibrated:
        codings += [Coding(rung, calibrated=True) for rung in small]
    codings.append(Coding(Rung.F16, calibrated=False, alone=True))
    if calibrated:
        codings += [Coding(rung, calibrated=True, alone=True) for rung in small]
    return codings


def _row(
    coding: Coding, figures: dict[str, float], ratio: float, block: int, *, timing: bool
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "rung": str(coding.rung),
        "calibrated": coding.calibrated,
        "rows": 1 if coding.alone else block,
        **figures,
        "ratio": round(ratio, 3),
    }
    if timing and not coding.alone:
        taken = {_shape_name(shape): _times(coding, *shape) for shape in SHAPES}
        row["encode_us"] = {name: times[0] for name, times in taken.items()}
        row["decode_us"] = {name: times[1] for name, times in taken.items()}
    return row


def _times(coding: Coding, tokens: int, width: int) -> tuple[float, float]:
    """Return the median microseconds of an encoding and a decoding of such rows."""
    rows, measured = _made_up(tokens, width)
    calibration = measured if coding.calibrated else None
    slices = encode_states(rows, coding.rung, calibration)
    rounds = 300 if tokens == 1 else 9
    encoding = _median_us(lambda: encode_states(rows, coding.rung, calibration), rounds)
    decoding = _median_us(lambda: decode_states_untrusted(slices, calibration), rounds)
    return encoding, decoding


def _made_up(tokens: int, width: int) -> tuple[F32Array, Calibration]:
    """Return rows [tokens, width] whose channels differ as those of the default model do."""
    rng = np.random.default_rng(width)
    mean = rng.normal(size=width) * 4  # [width]
    deviation = 4 * np.exp2(rng.normal(size=width) * 0.6)  # [width]
    rows = (mean + deviation * rng.normal(size=(tokens + 256, width))).astype(np.float32)
    return rows[:tokens], measure_calibration(rows[tokens:], space_hash32=0, cut=1)


def _median_us(work: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(1e6 * (time.perf_counter() - start))
    return round(quantile(taken, 0.5), 1)


def _shape_name(shape: tuple[int, int]) -> str:
    return f"{shape[0]}x{shape[1]}"
