"""An engine whose arithmetic can be replaced by what takes as long."""

from __future__ import annotations

import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Final, cast

import numpy as np
from numpy.typing import NDArray

from p2pnode.bench.hop.knobs import Compute, Knobs, Setting

if TYPE_CHECKING:
    from p2pnode.engine.base import Array, Engine, Floats, SessionKey

WEIGHT_BYTES: Final = 32 << 20
"""What a third of the default model's layers and its head take, about; far more than the caches
that a core has for itself."""

_CHUNK = 64  # rows of a product: 256 KiB, some 20 us, so that a time is met to about that
_WIDTH = 1024
_REMEMBERED = 16  # computed rows whose median is a stage's time


class StandIn:
    """Does what :class:`~p2pnode.bench.hop.knobs.Knobs` say in place of an engine's arithmetic.

    What it returns then depends on all that came in, so a chain and an engine alone that do so
    draw the same tokens only if every hidden state arrived as it left. Sessions are to begin and
    end under one setting: the engine's own KV cache knows nothing of what was not computed.
    """

    def __init__(self, engine: Engine, knobs: Knobs, busy: Busy | None = None) -> None:
        self._engine = engine
        self._knobs = knobs
        self._busy = busy or Busy()
        self._forward: deque[float] = deque(maxlen=_REMEMBERED)
        self._logits: deque[float] = deque(maxlen=_REMEMBERED)
        self._states = States(engine.info.d_model, engine.info.vocab_size)

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)  # whatever takes no time worth replacing

    def forward(
        self, session: SessionKey, layers: range, batches: Sequence[Array], start: int
    ) -> list[Floats]:
        setting = self._knobs.setting
        if setting.compute is not Compute.ENGINE:
            self._busy.spend(setting.compute, setting.forward)
            return self._states.forward(batches, start, is_first=layers.start == 0)
        began = time.perf_counter()
        hidden = self._engine.forward(session, layers, batches, start)
        if len(batches) == 1 and len(batches[0]) == 1:
            self._learn(self._forward, time.perf_counter() - began)
        return hidden

    def logits(self, hidden: Floats) -> Floats:
        setting = self._knobs.setting
        if setting.compute is not Compute.ENGINE:
            self._busy.spend(setting.compute, setting.logits)
            return self._states.logits(hidden)
        began = time.perf_counter()
        logits = self._engine.logits(hidden)
        self._learn(self._logits, time.perf_counter() - began)
        return logits

    def _learn(self, seen: deque[float], seconds: float) -> None:
        seen.append(seconds)
        self._knobs.found = (
            median(self._forward or (0.0,)),
            median(self._logits or (0.0,)),
        )


class SoloStandIn:
    """An engine alone that waits as long as all of some stages, one after another."""

    def __init__(self, engine: Engine, stages: Sequence[Setting]) -> None:
        self._engine = engine
        self._stages = tuple(stages)
        self._busy = Busy()
        self._states = States(engine.info.d_model, engine.info.vocab_size)

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def forward(
        self, session: SessionKey, layers: range, batches: Sequence[Array], start: int
    ) -> list[Floats]:
        for stage in self._stages:
            self._busy.spend(stage.compute, stage.forward)
        return self._states.forward(batches, start, is_first=True)

    def logits(self, hidden: Floats) -> Floats:
        for stage in self._stages:
            self._busy.spend(stage.compute, stage.logits)
        return self._states.logits(hidden)


def as_engine(stand_in: StandIn | SoloStandIn) -> Engine:
    """Return ``stand_in`` as what it is: what it lacks, the engine behind it has."""
    return cast("Engine", stand_in)


class Busy:
    """Ways to spend time; the array is made when it is first needed."""

    def __init__(self) -> None:
        self._weights: NDArray[np.float32] | None = None
        self._next = 0
        self._row = np.ones(_WIDTH, np.float32)
        self._small = np.ones((64, 64), np.float32)  # 16 KiB
        self._products = np.empty(_CHUNK, np.float32)
        self._square = np.empty((64, 64), np.float32)
        self._ways: Mapping[Compute, Callable[[float], None]] = {
            Compute.ARITHMETIC: self._compute,
            Compute.SLEEP: _sleep,
            Compute.SPIN: self._spin,
        }

    def spend(self, compute: Compute, seconds: float) -> None:
        if seconds > 0:
            self._ways[compute](seconds)

    def _compute(self, seconds: float) -> None:
        """Read on through the weights, where the last call ended."""
        until = time.perf_counter() + seconds
        if self._weights is None:
            self._weights = np.ones((WEIGHT_BYTES // (4 * _WIDTH), _WIDTH), np.float32)
        while time.perf_counter() < until:
            rows = self._weights[self._next : self._next + _CHUNK]  # [chunk, width]
            np.dot(rows, self._row, out=self._products)
            self._next = (self._next + _CHUNK) % len(self._weights)

    def _spin(self, seconds: float) -> None:
        """Compute, for a bare loop would keep the interpreter from the node's other thread."""
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            np.dot(self._small, self._small, out=self._square)


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


class States:
    """Hidden states and logits that cost next to nothing, and tell whence they come.

    All values are multiples of 1/32 below 4, which f16 carries exactly.
    """

    def __init__(self, width: int, vocabulary: int) -> None:
        rng = np.random.default_rng(0)
        once = (rng.integers(-128, 128, width) / 32).astype(np.float32)
        self._twice = np.concatenate((once, once))
        self._width = width
        self._logits = np.zeros((1, vocabulary), np.float32)
        self._drawn = 0

    def forward(self, batches: Sequence[Array], start: int, *, is_first: bool) -> list[Floats]:
        """Return a state for each token, by the token and its position; states as they came."""
        if not is_first:
            return [batch.astype(np.float32) for batch in batches]
        result: list[Floats] = []
        for batch in batches:
            rows = [self._state(int(token), start + at) for at, token in enumerate(batch)]
            result.append(np.stack(rows))  # [tokens, d_model]
            start += len(batch)
        return result

    def logits(self, hidden: Floats) -> Floats:
        """Return logits [n, vocab] whose largest depends on every byte of the state."""
        if len(hidden) == 1:  # a token: no array of a vocabulary's size is made
            self._logits[0, self._drawn] = 0.0
            self._drawn = self._token(hidden[0])
            self._logits[0, self._drawn] = 1.0
            return self._logits
        logits = np.zeros((len(hidden), self._logits.shape[1]), np.float32)
        for row, state in zip(logits, hidden, strict=True):
            row[self._token(state)] = 1.0
        return logits

    def _state(self, token: int, position: int) -> Floats:
        at = (31 * token + position) % self._width
        return self._twice[at : at + self._width]

    def _token(self, state: Floats) -> int:
        return zlib.crc32(np.ascontiguousarray(state).tobytes()) % self._logits.shape[1]
