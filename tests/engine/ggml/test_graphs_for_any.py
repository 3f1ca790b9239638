"""A graph of several sessions runs for others of the same shape: their caches take its places."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from p2pnode.engine.base import Floats, SessionRows
from p2pnode.engine.ggml import cache_places, engine as engine_module
from p2pnode.engine.ggml.binding import Ggml
from p2pnode.engine.ggml.engine import GgmlEngine
from p2pnode.engine.ggml.step import StepGraph
from p2pnode.engine.registry import EngineOptions, load_engine
from p2pnode.testing.tiny_gguf import write_tiny_gguf

LAYERS = range(3)
SESSIONS = tuple(bytes([number]) for number in range(6))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "m.gguf"
    write_tiny_gguf(path, tensor_type="F32", n_layers=3)
    return path


def loaded(file: Path) -> GgmlEngine:
    engine = load_engine(file, LAYERS, EngineOptions("ggml", "cpu", 1))
    assert isinstance(engine, GgmlEngine)
    return engine


@pytest.fixture
def engine(file: Path) -> Iterator[GgmlEngine]:
    made = loaded(file)
    yield made
    made.shut()


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return, filled as graphs are built, for how many sessions each is."""
    counts: list[int] = []

    class Counted(StepGraph):
        def __init__(self, *arguments: object, **more: object) -> None:
            parts = arguments[4]
            assert isinstance(parts, list)
            counts.append(len(parts))
            super().__init__(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(engine_module, "StepGraph", Counted)
    return counts


def prompt(engine: GgmlEngine) -> None:
    for number, session in enumerate(SESSIONS):
        ids = np.arange(3 + 2 * number) + number
        engine.forward(session, LAYERS, [ids], 0)


def together(engine: GgmlEngine, chosen: tuple[int, ...], token: int) -> dict[int, Floats]:
    parts = [
        SessionRows(SESSIONS[n], np.array([token + n]), engine.length(SESSIONS[n], 0))
        for n in chosen
    ]
    return dict(zip(chosen, engine.forward_many(LAYERS, parts), strict=True))


def apart(engine: GgmlEngine, chosen: tuple[int, ...], token: int) -> dict[int, Floats]:
    return {
        n: engine.forward(
            SESSIONS[n], LAYERS, [np.array([token + n])], engine.length(SESSIONS[n], 0)
        )[0]
        for n in chosen
    }


def test_whoever_stands_together_has_the_bits_that_each_has_alone(
    engine: GgmlEngine, file: Path, built: list[int]
) -> None:
    other = loaded(file)
    prompt(engine)
    prompt(other)
    del built[:]
    groups = [*itertools.combinations(range(6), 3), (5, 0), (2, 3), *itertools.permutations((0, 4))]
    for token, chosen in enumerate(groups):
        ours, theirs = together(engine, chosen, token), apart(other, chosen, token)
        assert all(np.array_equal(ours[n], theirs[n]) for n in chosen), chosen
    assert sorted(count for count in built if count > 1) == [2, 3], "one graph for each shape"
    other.shut()


def test_a_session_that_closed_leaves_its_place_to_the_next(
    engine: GgmlEngine, file: Path, built: list[int]
) -> None:
    other = loaded(file)
    prompt(engine)
    prompt(other)
    together(engine, (0, 1, 2), 5)
    apart(other, (0, 1, 2), 5)
    for one in (engine, other):
        one.close(SESSIONS[1])
        one.forward(SESSIONS[1], LAYERS, [np.arange(9)], 0)
    ours, theirs = together(engine, (1, 2, 5), 7), apart(other, (1, 2, 5), 7)
    assert all(np.array_equal(ours[n], theirs[n]) for n in ours)
    assert [count for count in built if count == 3] == [3]
    other.shut()


def test_where_addresses_are_not_found_each_group_has_a_graph_of_its_own(
    engine: GgmlEngine, file: Path, built: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "data_offset", lambda *_: None)
    other = loaded(file)
    prompt(engine)
    prompt(other)
    for token, chosen in enumerate(((0, 1), (1, 2), (0, 1))):
        ours, theirs = together(engine, chosen, token), apart(other, chosen, token)
        assert all(np.array_equal(ours[n], theirs[n]) for n in chosen)
    assert [count for count in built if count == 2] == [2, 2]
    other.shut()


def test_the_address_of_a_tensor_is_found_in_its_description(engine: GgmlEngine) -> None:
    share = engine._shares[0]
    ggml: Ggml = share.backend.ggml
    for name in share.weights.products:
        offset = cache_places.data_offset(ggml, share.weights[name])
        assert offset is not None
        assert offset == cache_places.data_offset(ggml, share.weights[min(share.weights.products)])
