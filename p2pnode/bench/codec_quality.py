"""What a coding of hidden states costs: bytes, and how far the model's words change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from p2pnode.wire.states import decode_states_untrusted, encode_states, relative_error

if TYPE_CHECKING:
    from p2pnode.engine.base import Array, Floats
    from p2pnode.engine.model_config import ModelConfig
    from p2pnode.engine.numpy.engine import NumpyEngine
    from p2pnode.engine.numpy.llama import LlamaHead
    from p2pnode.wire.calibration import Calibration, CalibrationSet
    from p2pnode.wire.states import Rung
    from p2pnode.wire.vframe import Slice

_SESSION: Final = b"bench codec"


@dataclass(frozen=True, slots=True)
class Coding:
    """One line of the table.

    Attributes:
        rung: Of the ladder.
        calibrated: Whether both ends hold the model's calibration.
        alone: Each row in a frame of its own, as in decoding; else a whole text in one.
    """

    rung: Rung
    calibrated: bool
    alone: bool = False


@dataclass(slots=True)
class Tally:
    """Sums over all texts; one entry a text, or a position."""

    kl: list[Floats] = field(default_factory=list)
    same: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    worse: list[Floats] = field(default_factory=list)  # nats of the true next token
    errors: list[float] = field(default_factory=list)
    sizes: int = 0
    rows: int = 0

    def figures(self) -> dict[str, float]:
        """Return the means: KL in nats, the perplexity's change in percent."""
        worse = float(np.concatenate(self.worse).mean())
        return {
            "bytes_per_token": round(self.sizes / self.rows, 1),
            "rel_l2": round(float(np.mean(self.errors)), 4),
            "kl": round(float(np.concatenate(self.kl).mean()), 6),
            "top1": round(float(np.concatenate(self.same).mean()), 4),
            "dppl": round(100 * math.expm1(worse), 2),
        }


class Evaluator:
    """Runs a model whose states are replaced, on entering two layers, by their decoded form.

    Args:
        path: The model's file.
        calibrations: What is known of its states, or None.
        tokens: Texts as ids.
        tell: Hears which part of the clean run is done.
    """

    def __init__(
        self,
        path: Path,
        calibrations: CalibrationSet | None,
        tokens: Sequence[Sequence[int]],
        tell: Callable[[float], None],
    ) -> None:
        self._engine, self._head, self._config = _load(path)
        layers = self._engine.info.n_layers
        self.cuts = (layers // 3, 2 * layers // 3)
        self._calibrations = calibrations
        self._tokens = [np.array(ids, np.int64) for ids in tokens]
        self._entering: list[Floats] = []  # [tokens, d] each, clean
        self._clean: list[Floats] = []  # [tokens, vocab] each, logarithms of probabilities
        for done, ids in enumerate(self._tokens):
            states = self._run(range(self.cuts[0]), ids)  # [tokens, d]
            self._entering.append(states)
            middle = self._run(range(*self.cuts), states)  # [tokens, d]
            self._clean.append(self._log_probabilities(middle))
            tell((done + 1) / len(self._tokens))

    def evaluate(self, coding: Coding, tell: Callable[[float], None]) -> dict[str, float]:
        """Return the figures of a coding over all texts."""
        tally = Tally()
        for done, ids in enumerate(self._tokens):
            first = self._through(self._entering[done], coding, self.cuts[0], tally)  # [tokens, d]
            middle = self._run(range(*self.cuts), first)  # [tokens, d]
            second = self._through(middle, coding, self.cuts[1], tally)  # [tokens, d]
            coded, clean = self._log_probabilities(second), self._clean[done]  # [tokens, vocab]
            tally.kl.append((np.exp(clean) * (clean - coded)).sum(axis=1))  # [tokens]
            tally.same.append(clean.argmax(axis=1) == coded.argmax(axis=1))  # [tokens]
            said = (np.arange(len(ids) - 1), ids[1:])
            tally.worse.append(clean[said] - coded[said])  # [tokens - 1]
            tell((done + 1) / len(self._tokens))
        return tally.figures()

    def _through(self, states: Floats, coding: Coding, cut: int, tally: Tally) -> Floats:
        """Return what the other end would read, of bytes that would be sent."""
        calibration = self._calibration(cut) if coding.calibrated else None
        parts = np.split(states, len(states)) if coding.alone else [states]
        sent = [encode_states(part, coding.rung, calibration) for part in parts]
        tally.sizes += sum(map(body_bytes, sent))
        tally.rows += len(states)
        read = np.concatenate([decode_states_untrusted(each, calibration) for each in sent])
        # A first row may be a hundred times as large as all others together.
        tally.errors.append(relative_error(states[1:], read[1:]))
        return read  # [tokens, d]

    def _calibration(self, cut: int) -> Calibration | None:
        return self._calibrations.at(cut) if self._calibrations else None

    def _run(self, layers: range, batch: Array) -> Floats:
        states: Floats = self._engine.forward(_SESSION, layers, [batch], 0)[0]  # [tokens, d]
        self._engine.close(_SESSION)
        return states

    def _log_probabilities(self, states: Floats) -> Floats:
        from p2pnode.engine.numpy.llama import run_head

        last = self._run(range(self.cuts[1], self._engine.info.n_layers), states)  # [tokens, d]
        logits = run_head(last, self._head, self._config)  # [tokens, vocab]
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return logits


def body_bytes(slices: Sequence[Slice]) -> int:
    """Return what these slices take in a frame's body: heads of 2 bytes and 4 a dim, payloads."""
    return sum(2 + 4 * len(piece.shape) + len(piece.payload) for piece in slices)


def _load(path: Path) -> tuple[NumpyEngine, LlamaHead, ModelConfig]:
    from p2pnode.engine.blas import limit_blas_threads
    from p2pnode.engine.gguf import read_config
    from p2pnode.engine.gguf_file import GgufFile
    from p2pnode.engine.numpy.engine import NumpyEngine
    from p2pnode.engine.numpy.weights import read_weights
    from p2pnode.errors import ModelError
    from p2pnode.node.models import describe_model

    limit_blas_threads(1)
    with GgufFile(path) as file:
        config = read_config(file)
        weights = read_weights(file, config, range(config.n_layers), lambda _: None)
    if weights.head is None:
        raise ModelError(f"{path.name} has no head to speak with")
    return NumpyEngine(describe_model(path), config, weights), weights.head, config
