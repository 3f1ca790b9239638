"""Finds what both ends of a coded KV cache must know of a model beforehand.

Needs the model itself and some texts: a minute or two, once for a model. The result is a file
that both ends must have (`wire/kv_calibration.py`); a machine that computes it anew finds
nearly the same numbers, but a cache is only read with the very same ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from p2pnode.engine.base import Floats
from p2pnode.engine.kv_importance import ANSWER, Case, Doubles, forms, slopes
from p2pnode.engine.kv_probe import KvCache, KvProbe, divergence
from p2pnode.engine.numpy.weights import TokenIds
from p2pnode.errors import ModelError
from p2pnode.wire.entropy import best_classes
from p2pnode.wire.kv_calibration import KvCalibration, KvShape, LayerBasis
from p2pnode.wire.kv_transform import of_rows, quantise, restore, to_rows

TARGET_KL: Final = 0.004
"""Nats that a cache coded at fineness 0 may cost: .005 is asked of it, and texts differ."""

FIRST: Final = 2  # positions that no statistics are made of: they are unlike the others
SHARE: Final = 0.85
"""How far the step follows the measured slopes: they are noisy. 1 is what theory asks for with
exact ones; measured, .85 gave 13 % less KL at the same bytes, and .7 was no better than 1."""
RIDGE: Final = 0.01  # of the mean variance; .05 costs 1 to 2 % of the bytes
CASES: Final = 4  # texts that importance is measured on, a try a layer each: most of the time
MIN_TEXTS: Final = 2  # a forecast is judged on texts that it was not made of


def calibrate_kv(
    probe: KvProbe,
    texts: Sequence[TokenIds],
    space_hash32: int,
    *,
    target_kl: float = TARGET_KL,
    tell: Callable[[float], None] = lambda _: None,
) -> KvCalibration:
    """Look at how a model handles texts, and return what a coder of its caches should know.

    Args:
        probe: The model.
        texts: Ids, some hundreds each and some thousands in all, of as many kinds as will be met.
        space_hash32: The model's.
        target_kl: What a cache coded at fineness 0 may cost, in nats.
        tell: Hears which part is done.

    Raises:
        ModelError: Too few texts, or a text too short.
    """
    if len(texts) < MIN_TEXTS or min(map(len, texts)) < 2 * ANSWER:
        raise ModelError(f"calibrating needs {MIN_TEXTS} texts of {2 * ANSWER} tokens or more")
    cases = [Case(probe, text) for text in _spread(texts, CASES)]
    weighing = forms(probe, [case.seen for case in cases])
    found = slopes(cases, weighing, lambda part: tell(0.6 * part))
    samples = _samples(probe, texts)
    shape = KvShape(probe.config.n_kv_heads, probe.config.head_dim)

    def calibration(aim: float) -> KvCalibration:
        return KvCalibration(space_hash32, shape, _bases(samples, _roots(weighing, found, aim)))

    # The slopes count every rounding as 1/12 of a step; what stays below half a step costs less.
    first = calibration(target_kl)
    tell(0.8)
    cost = sum(_cost(case, first) for case in cases) / len(cases)
    return calibration(target_kl * target_kl / cost)


def _cost(case: Case, calibration: KvCalibration) -> float:
    """Return the KL of a case's answer on its cache through the codec."""
    seen, turns = case.seen, case.rotation[FIRST:]
    rows = to_rows(seen.keys[:, :, FIRST:], seen.values[:, :, FIRST:], turns)
    rounded = restore(quantise(rows, calibration.layers, 0), calibration.layers, 0)
    keys, values = seen.keys.copy(), seen.values.copy()
    pair = of_rows(rounded, calibration.shape.kv_heads, turns)
    keys[:, :, FIRST:], values[:, :, FIRST:] = pair
    return divergence(case.clean, case.answer(KvCache(keys, values)))


@dataclass(frozen=True, slots=True, eq=False)
class _Samples:
    """What the texts gave.

    Attributes:
        rows: [layers, samples, width], as the codec makes rows.
        odd: [samples], whether a sample is of an odd text.
    """

    rows: Floats
    odd: npt.NDArray[np.bool_]


def _spread(texts: Sequence[TokenIds], count: int) -> list[TokenIds]:
    """Pick ``count`` of the texts, from first to last: neighbours tend to be of one kind."""
    picked = np.unique(np.linspace(0, len(texts) - 1, count).round().astype(int))
    return [texts[index] for index in picked]


def _roots(weighing: Doubles, found: Doubles, target_kl: float) -> Doubles:
    """Return the matrices, one a head, after which a step of one is right in every direction.

    Rounding to whole steps is an error of variance 1/12. Layers whose errors cost more get finer
    steps, and all together come to the target.
    """
    found = np.maximum(found, found.max() * 1e-6)  # a KL that drowned in rounding is not 0
    variance_per = found**SHARE  # [2, layers], up to one factor for all
    factor = (found / variance_per).sum() / (12 * target_kl)
    values, vectors = np.linalg.eigh(weighing * (factor * variance_per)[..., None, None, None])
    roots: Doubles = (vectors * np.sqrt(values)[..., None, :]) @ vectors.swapaxes(-1, -2)
    return roots


def _samples(probe: KvProbe, texts: Sequence[TokenIds]) -> _Samples:
    parts, odd = [], []
    for number, text in enumerate(texts):
        seen = probe.observe(text)
        rows = to_rows(seen.keys, seen.values, probe.rotation(len(text)))[:, FIRST:]
        parts.append(rows)  # [layers, samples, width]
        odd.append(np.full(rows.shape[1], number % 2 == 1))
    return _Samples(np.concatenate(parts, axis=1), np.concatenate(odd))


def _bases(samples: _Samples, roots: Doubles) -> tuple[LayerBasis, ...]:
    rng = np.random.default_rng(0)
    width = samples.rows.shape[-1]
    bases = []
    below, turned = np.zeros((len(samples.odd), 0)), np.zeros((0, 0))
    for layer, rows in enumerate(samples.rows):
        mean = rows.mean(axis=0, dtype=np.float64)  # [width]
        root = _block_diagonal(roots[:, layer].reshape(-1, *roots.shape[-2:]))  # [width, width]
        weighed = (rows - mean) @ root  # [samples, width]
        forecast, rest = _forecast(below, weighed, samples.odd)
        _, vectors = np.linalg.eigh(rest.T @ rest)  # [width, width]
        expected = turned.T @ forecast @ vectors if layer else np.zeros((width, width))
        classes = [best_classes(_whole(part @ vectors)) for part in (weighed, rest)]
        matrices = [_as_codes(root @ vectors), _as_codes(expected)]
        bases.append(
            LayerBasis(
                mean.astype(np.float32),
                np.stack([scales for _, scales in matrices]),
                np.stack([codes for codes, _ in matrices]),
                np.stack(classes),
            )
        )
        below, turned = weighed + rng.uniform(-0.5, 0.5, weighed.shape), vectors
    return tuple(bases)


def _forecast(below: Doubles, here: Doubles, odd: npt.NDArray[np.bool_]) -> tuple[Doubles, Doubles]:
    """Forecast ``here`` from the layer below as a reader has it, rounded to whole steps.

    Returns:
        The matrix [width below, width] fitted to all samples, and what remains of each sample
        after a forecast that was fitted to the other half of the texts.
    """
    rest = here.copy()
    for half in (odd, ~odd):
        rest[half] -= below[half] @ _regression(below[~half], here[~half])
    return _regression(below, here), rest


def _regression(below: Doubles, here: Doubles) -> Doubles:
    square = below.T @ below
    ridge = RIDGE * np.trace(square) / max(1, len(square))
    fitted: Doubles = np.linalg.solve(square + ridge * np.eye(len(square)), below.T @ here)
    return fitted


def _block_diagonal(blocks: Doubles) -> Doubles:
    count, d, _ = blocks.shape
    whole = np.zeros((count * d, count * d))
    for index, block in enumerate(blocks):
        at = slice(index * d, (index + 1) * d)
        whole[at, at] = block
    return whole


def _as_codes(matrix: Doubles) -> tuple[npt.NDArray[np.int8], Floats]:
    """Return a matrix [width, width] as int8 codes, and the scale of each column."""
    scales = np.maximum(np.abs(matrix).max(axis=0), 1e-12) / 127  # [width]
    return np.rint(matrix / scales).astype(np.int8), scales.astype(np.float32)


def _whole(numbers: Doubles) -> npt.NDArray[np.int32]:
    return np.rint(numbers).astype(np.int32)
