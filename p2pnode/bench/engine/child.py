"""The process of one contestant: ``python -m p2pnode.bench.engine.child`` reads what to measure.

One question a line of JSON on standard input, one answer a line on standard output; the names of
the questions are the methods of :class:`Measurement`. A library has a process of its own, since two
copies of ggml in one clash.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import psutil

from p2pnode.bench.engine.contestants import LLAMA_CPP, Contestant, provider_called
from p2pnode.bench.engine.runner import Runner
from p2pnode.engine.base import Floats
from p2pnode.errors import P2PNodeError

CHUNK: Final = 64
"""Rows of a batch where exactness is measured: what chains use for prompts."""

_WARM_TOKENS: Final = 2
_MB: Final = 1e6


@dataclass(slots=True)
class Measurement:
    """The model, loaded, and what can be measured of it; ``ids`` are an English text's."""

    runner: Runner
    ids: list[int]
    loaded_in: float

    @classmethod
    def load(cls, asked: dict[str, Any]) -> Self:
        contestant = Contestant(**asked["contestant"])
        path, ids = Path(asked["path"]), list(map(int, asked["ids"]))
        runner: Runner
        if contestant.engine == LLAMA_CPP:
            from p2pnode.bench.engine.llama_cpp import LlamaCpp

            provider = provider_called(contestant.provider)
            began = time.perf_counter()
            runner = LlamaCpp(provider, path, contestant.threads, asked["positions"])
        else:
            from p2pnode.bench.engine.ours import OurRunner
            from p2pnode.node.models import open_model

            known = open_model(path)
            began = time.perf_counter()
            runner = OurRunner.load(contestant, path, known.info.n_layers, known.tree)
        return cls(runner, ids, time.perf_counter() - began)

    def facts(self, asked: dict[str, Any]) -> dict[str, Any]:
        del asked
        runner = self.runner
        return {
            "numerics": runner.numerics,
            "device": runner.device,
            "load_s": round(self.loaded_in, 3),
        }

    def decode(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Decode token after token behind a prompt: seconds of clock and of CPU a token."""
        start, tokens = asked["start"], asked["tokens"]
        self._prompt(start)
        for at in range(start, start + _WARM_TOKENS):
            self.runner.feed(self.ids[at : at + 1], every=False)
        first = start + _WARM_TOKENS
        clock, cpu = time.perf_counter(), time.process_time()
        for at in range(first, first + tokens):
            self.runner.feed(self.ids[at : at + 1], every=False)
        return _spent(clock, cpu, tokens)

    def prefill(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Compute a prompt as one batch, and the logits of its last token."""
        tokens = asked["tokens"]
        self.runner.reset()
        clock, cpu = time.perf_counter(), time.process_time()
        self.runner.feed(self.ids[:tokens], every=False)
        return _spent(clock, cpu, tokens)

    def python(self, asked: dict[str, Any]) -> dict[str, Any]:
        start, tokens = asked["start"], asked["tokens"]
        self._prompt(start)
        return {
            "python_us": self.runner.python_us(self.ids[start : start + tokens]),
            "python_layer_us": self.runner.python_layer_us(tokens),
        }

    def memory(self, asked: dict[str, Any]) -> dict[str, Any]:
        del asked
        now = psutil.Process().memory_info().rss
        return {"rss_mb": round(now / _MB), "rss_peak_mb": round(max(now, _peak()) / _MB)}

    def reference(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Write the logits of all tokens to a file: float32 [tokens, vocab]."""
        with Path(asked["file"]).open("wb") as file:
            for rows in self._logits():
                file.write(np.ascontiguousarray(rows, np.float32).tobytes())
        return {"vocab": rows.shape[1]}

    def quality(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Compare the logits of all tokens with those of the file."""
        known = np.memmap(asked["file"], np.float32, "r", shape=(len(self.ids), asked["vocab"]))
        apart, same, at = 0.0, 0, 0
        for rows in self._logits():
            for row in rows:
                apart += _divergence(known[at], row)
                same += int(known[at].argmax() == row.argmax())
                at += 1
        return {"kl": apart / at, "argmax": same / at, "tokens": at}

    def _logits(self) -> Iterator[Floats]:
        self.runner.reset()
        for start in range(0, len(self.ids), CHUNK):
            yield self.runner.feed(self.ids[start : start + CHUNK], every=True)

    def _prompt(self, length: int) -> None:
        self.runner.reset()
        self.runner.feed(self.ids[:length], every=False)


def _divergence(known: Floats, found: Floats) -> float:
    """Return Kullback and Leibler's divergence of two rows of logits, in nats."""
    p, q = _log_softmax(known), _log_softmax(found)
    return float((np.exp(p) * (p - q)).sum())


def _log_softmax(logits: Floats) -> Any:  # noqa: ANN401, float64 [vocab]
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def _spent(clock: float, cpu: float, tokens: int) -> dict[str, float]:
    return {
        "s": (time.perf_counter() - clock) / tokens,
        "cpu_s": (time.process_time() - cpu) / tokens,
    }


def _peak() -> int:
    """Return the most memory that was resident since this program was started, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had before it became us
        for line in status.read_text("utf-8", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    if sys.platform == "win32":
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")  # libraries print what they like to the other one
    os.dup2(2, 1)
    measurement: Measurement | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if measurement is None:
                measurement = Measurement.load(asked)
                asked["what"] = "facts"
            answer = getattr(measurement, asked["what"])(asked)
        except P2PNodeError as error:
            answer = {"error": str(error)}
        except Exception as error:  # a row says so; the others go on
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
