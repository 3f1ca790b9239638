"""Our own engines as contestants."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from p2pnode.bench.engine.contestants import Contestant, provider_called
from p2pnode.engine.base import Engine, Floats
from p2pnode.engine.ggml.engine import GgmlEngine
from p2pnode.engine.ggml.finding import find_library
from p2pnode.engine.ggml.load import load_ggml
from p2pnode.engine.registry import EngineOptions, load_engine
from p2pnode.engine.stored_model import Tree, tree_of_gguf
from p2pnode.errors import EngineError
from p2pnode.node.model_cache import cache_dir

_SESSION = b"bench"
_LAYER = b"bench a layer"
_KV_BUDGET = 2**30
_WARM = 4  # calls that build graphs and fill caches


class OurRunner:
    """See :class:`p2pnode.bench.engine.runner.Runner`."""

    def __init__(self, engine: Engine) -> None:
        self.numerics = engine.numerics
        self.device = engine.device
        self._engine = engine
        self._length = 0

    @classmethod
    def load(cls, contestant: Contestant, path: Path, layers: int, tree: Tree) -> "OurRunner":
        """Load the whole model; whose library it is decides, not what a node would choose."""
        if contestant.engine != "ggml":
            options = EngineOptions(
                contestant.engine, contestant.device, contestant.threads, cache_dir()
            )
            return cls(
                load_engine(path, range(layers), options, kv_budget_bytes=_KV_BUDGET, tree=tree)
            )
        provider = provider_called(contestant.provider)
        (candidate,) = find_library(cache_dir(), found=[provider]).candidates
        if not candidate.is_usable:
            raise EngineError(f"{provider.name} cannot be used: {candidate.reason}")
        return cls(
            load_ggml(
                candidate,
                path,
                range(layers),
                tree_of_gguf(tree, path),
                device=contestant.device,
                threads=contestant.threads,
                kv_budget_bytes=_KV_BUDGET,
            )
        )

    def feed(self, ids: Sequence[int], *, every: bool) -> Floats:
        hidden = self._forward(ids)
        return self._engine.logits(hidden if every else hidden[-1:])

    def reset(self) -> None:
        self._engine.close(_SESSION)
        self._length = 0

    def python_us(self, ids: Sequence[int]) -> float | None:
        return self._beside_computing([partial(self._forward, [token]) for token in ids])

    def python_layer_us(self, tokens: int) -> float | None:
        engine = self._engine
        if len(engine.layers) < 2:  # the first may not be given hidden states
            return None
        layer = engine.layers[1:2]
        state = np.ones((1, engine.info.d_model), np.float32)
        calls = [partial(engine.forward, _LAYER, layer, [state], at) for at in range(tokens)]
        try:
            return self._beside_computing(calls)
        finally:
            engine.close(_LAYER)

    def _beside_computing(self, calls: Sequence[Callable[[], object]]) -> float | None:
        """Return the median microseconds of this thread that calls take beside ggml's part."""
        if not isinstance(self._engine, GgmlEngine):
            return None
        spent = []
        computed: list[float] = []
        self._engine.tell_spent(computed.append)
        try:
            for call in calls:
                computed.clear()
                began = time.thread_time()
                call()
                spent.append(time.thread_time() - began - sum(computed))
        finally:
            self._engine.tell_spent(None)
        return round(1e6 * median(spent[_WARM:]), 1)

    def _forward(self, ids: Sequence[int]) -> Floats:
        engine, rows = self._engine, np.asarray(ids, np.int64)
        (hidden,) = engine.forward(_SESSION, engine.layers, [rows], self._length)
        self._length += len(rows)
        return hidden
