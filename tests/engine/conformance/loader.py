"""Loads one engine for each model and run of layers that the tests ask for, once."""

from pathlib import Path

from p2pnode.engine.base import Engine
from tests.engine.conformance.engines import ALL, AMPLE, KEYS, MAIN, MODELS, EngineCase


class Loader:
    """One engine's loading: :meth:`shared` keeps what it loaded, :meth:`fresh` does not."""

    def __init__(self, case: EngineCase, folder: Path) -> None:
        self.case = case
        self._folder = folder
        self._shared: dict[tuple[str, range], Engine] = {}
        self._fresh: list[Engine] = []

    def path(self, model: str = MAIN) -> Path:
        path = self._folder / f"{model}.gguf"
        if not path.exists():
            MODELS[model].write(path)
        return path

    def shared(self, model: str = MAIN, layers: range = ALL) -> Engine:
        """Return an engine with ample memory that other tests use too."""
        key = (model, layers)
        if key not in self._shared:
            self._shared[key] = self.case.load(self.path(model), layers, AMPLE)
        return self._shared[key]

    def fresh(self, model: str = MAIN, layers: range = ALL, budget: int = AMPLE) -> Engine:
        """Return an engine of the test's own."""
        engine = self.case.load(self.path(model), layers, budget)
        self._fresh.append(engine)
        return engine

    def end_test(self) -> None:
        """Close the sessions; that this frees all the memory is a test of its own, each time."""
        for engine in self._fresh:
            engine.shut()
        self._fresh.clear()
        for engine in self._shared.values():
            for key in KEYS:
                engine.close(key)
            assert engine.kv_bytes() == 0

    def shut(self) -> None:
        for engine in self._shared.values():
            engine.shut()
