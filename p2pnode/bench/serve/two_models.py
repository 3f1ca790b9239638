"""Two models on one node: what loading the second costs the first, and both asked at once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from p2pnode.bench.figures import spread
from p2pnode.bench.serve.asking import Params, Session, answer, answers, crowd
from p2pnode.bench.serve.prompts import Prompts
from p2pnode.bench.serve.shares import Together
from p2pnode.quantiles import quantile
from p2pnode.testing.processes import NodeProcess, local_swarm

LASTING: Final = 1024  # tokens asked for while the other is loaded; it is hung up on
_GLANCE: Final = 0.005
_BEFORE: Final = 2.0  # seconds of tokens before


@contextmanager
def one_node(path: Path, *, engine: str, threads: int) -> Iterator[NodeProcess]:
    """Yield a node that serves the whole model; it has ended afterwards."""
    with local_swarm() as swarm:
        options = ("--engine", engine, "--threads", str(threads), "--no-mdns")
        node = swarm.start("both", "--model", str(path), "--layers", "auto", *options)
        node.wait_until_up()
        swarm.wait_until_serving()
        yield node


class TwoModels:
    """Loads a second model each round while the first answers, asks both, and unloads it."""

    def __init__(
        self, node: NodeProcess, paths: Sequence[Path], *, prompt: int, tokens: int
    ) -> None:
        """``paths`` are those of the model that ``node`` has, and of the second."""
        self._node = node
        self._second = paths[1]
        self._prompts = [Prompts(path) for path in paths]
        self._names = [self._call("model")["name"]]
        self._prompt = prompt
        self._tokens = tokens
        self._before: list[float] = []
        self._meanwhile: list[float] = []
        self._loads: list[float] = []
        self._alone: list[list[float]] = [[], []]
        self._together: list[list[float]] = [[], []]
        self._is_identical = True

    def turns(self, number: int) -> Iterator[Callable[[], None]]:
        """Yield what is to be done in a round, bit by bit."""
        yield self._load
        yield self._ask
        yield self._unload

    def figures(self) -> dict[str, Any]:
        """Return the first's tokens before and while the second is loaded, and speeds of both."""
        before, meanwhile = (quantile(steps, 0.99) for steps in (self._before, self._meanwhile))
        return {
            "models": self._names,
            "load_s": round(median(self._loads), 2),
            "step_ms": {
                "before": spread([1e3 * step for step in self._before]),
                "while_loading": spread([1e3 * step for step in self._meanwhile]),
            },
            "p99_ratio": round(meanwhile / before, 3),
            "alone_tokens_per_s": [round(median(rates), 2) for rates in self._alone],
            "together_tokens_per_s": [round(median(rates), 2) for rates in self._together],
            "identical": self._is_identical,
        }

    def _load(self) -> None:
        """Load the second while the first answers."""
        path = str(self._second.absolute())
        with crowd([self._node], [self._question(0, LASTING)], [self._node]) as [session]:
            time.sleep(_BEFORE)
            began = time.monotonic()
            loaded = self._call("load", {"path": path})
            ended = time.monotonic()
            self._before += _steps_within(session, 0.0, began)
            self._meanwhile += _steps_within(session, began, ended)
        self._names[1:] = [loaded["name"]]
        self._loads.append(ended - began)

    def _ask(self) -> None:
        """Ask each alone, and then both at once."""
        asked = [self._question(place, self._tokens) for place in (0, 1)]
        alone = [answer(self._node, question) for question in asked]
        both = answers([self._node], asked)
        Together.of([session.came for session in both])  # that they were
        for place in (0, 1):
            self._alone[place].append(_rate(alone[place]))
            self._together[place].append(_rate(both[place]))
            self._is_identical &= alone[place].token_ids == both[place].token_ids

    def _unload(self) -> None:
        self._call("unload", {"model": self._names[1], "at_once": True})

    def _question(self, place: int, tokens: int) -> Params:
        question = self._prompts[place].question(self._prompt, tokens)
        return {**question, "model": self._names[place]}

    def _call(self, method: str, params: Params | None = None) -> Params:
        with self._node.client(timeout=None) as client:
            result: Params = client.call(method, params)
        return result


def _steps_within(session: Session, begin: float, end: float) -> list[float]:
    """Return the steps that ended in this time."""
    came = list(session.came)  # it goes on
    pairs = itertools.pairwise(came)
    return [after - before for before, after in pairs if begin < after <= end]


def _rate(session: Session) -> float:
    return len(session.steps) / sum(session.steps)
