"""Whatever memory the library has not, nothing is lost, and what is asked for next works."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from p2pnode.engine.ggml import load as load_module
from p2pnode.engine.ggml.binding import Ggml
from p2pnode.engine.ggml.engine import GgmlEngine
from p2pnode.engine.ggml.load import load_ggml
from p2pnode.engine.ggml.mapped_tensors import MappedTensors
from p2pnode.engine.ggml.probe import Candidate
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import HashTree, hash_file
from p2pnode.errors import CapacityError, EngineError
from p2pnode.testing.tiny_gguf import write_tiny_gguf

MADE: Final = {
    "init": "context",
    "backend_alloc_ctx_tensors_from_buft": "buffer",
    "backend_buft_alloc_buffer": "buffer",
    "backend_cpu_buffer_from_ptr": "buffer",
    "gallocr_new": "allocator",
    "backend_dev_init": "backend",
    "threadpool_new": "pool",
}
FREED: Final = {
    "free": "context",
    "backend_buffer_free": "buffer",
    "gallocr_free": "allocator",
    "backend_free": "backend",
    "threadpool_free": "pool",
}
MAY_FAIL: Final = {
    "init": None,
    "backend_alloc_ctx_tensors_from_buft": None,
    "gallocr_alloc_graph": False,
    "backend_dev_init": None,
    "threadpool_new": None,
}
"""What each returns where there is no memory."""


class Memory:
    """What a library gave and was not given back; the n-th request is refused.

    Attributes:
        live: Kind and address of each.
        requests: So many came since the last was to be refused.
    """

    def __init__(self, ggml: Ggml, monkeypatch: pytest.MonkeyPatch) -> None:
        self.live: set[tuple[str, int]] = set()
        self.requests = 0
        self._refused = 0
        for name in {*MADE, *FREED, *MAY_FAIL}:
            monkeypatch.setattr(ggml, name, self._watched(name, getattr(ggml, name)))

    def refuse(self, number: int) -> None:
        """Refuse one request, counted from 1; 0 for none."""
        self.requests, self._refused = 0, number

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if name in FREED:
                self.live.remove((FREED[name], arguments[0]))
            if name in MAY_FAIL:
                self.requests += 1
                if self.requests == self._refused:
                    return MAY_FAIL[name]
            result = real(*arguments)
            if name in MADE:
                self.live.add((MADE[name], result))
            return result

        return call


class Mapped(MappedTensors):
    """Counts how many are open."""

    open = 0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        Mapped.open += 1

    def close(self) -> None:
        super().close()
        Mapped.open -= 1


@pytest.fixture
def memory(ggml: Ggml, monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    monkeypatch.setattr(load_module, "MappedTensors", Mapped)
    monkeypatch.setattr(Mapped, "open", 0)
    watched = Memory(ggml, monkeypatch)
    yield watched
    assert not watched.live
    assert Mapped.open == 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, HashTree]:
    path = tmp_path_factory.mktemp("memory") / "tiny.gguf"
    write_tiny_gguf(path, n_layers=2)
    with GgufFile(path) as file:
        return path, hash_file(file)


@contextmanager
def loaded(library: Candidate, model: tuple[Path, HashTree]) -> Iterator[GgmlEngine]:
    path, tree = model
    engine = load_ggml(library, path, range(2), tree, threads=None, kv_budget_bytes=1 << 24)
    try:
        yield engine
    finally:
        engine.shut()


def each_refused(memory: Memory, call: Callable[[], object]) -> int:
    """Call until no request is left to refuse; return how many there were."""
    number, failed = 0, 0
    while memory.requests >= number:
        number += 1
        memory.refuse(number)
        try:
            call()
        except (CapacityError, EngineError):
            failed += 1
    memory.refuse(0)
    assert failed >= number - 2  # a cache asks for less where there is no more
    return number - 1


def test_an_engine_that_cannot_be_loaded_leaves_nothing(
    library: Candidate, model: tuple[Path, HashTree], memory: Memory
) -> None:
    def load() -> None:
        with loaded(library, model):
            memory.refuse(0)
        assert not memory.live

    assert each_refused(memory, load) > 20


def test_a_load_that_is_refused_at_its_end_leaves_nothing(
    library: Candidate, model: tuple[Path, HashTree], memory: Memory
) -> None:
    path, tree = model

    def progress(part: float) -> None:
        if part == 1.0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_ggml(library, path, range(2), tree, kv_budget_bytes=1 << 24, progress=progress)


def test_a_call_without_memory_changes_nothing_and_the_next_is_whole(
    library: Candidate, model: tuple[Path, HashTree], memory: Memory
) -> None:
    with loaded(library, model) as engine:
        expected = engine.forward(b"a", range(2), [np.arange(3)], 0)[0]

        def call() -> None:
            engine.close(b"s")
            rows.append(len(rows))  # every time other graphs
            found = engine.forward(b"s", range(2), [np.arange(len(rows))], 0)[0]
            np.testing.assert_array_equal(found[:3], expected)

        rows = [0, 1, 2]
        assert each_refused(memory, call) >= 8  # two graphs of four, and the cache's description
