"""How many threads are chosen, what is kept of that, and what is said of it."""

import json
from pathlib import Path

import pytest

from p2pnode.engine.ggml import threads
from p2pnode.engine.registry import EngineOptions, load_engine
from p2pnode.testing.tiny_gguf import write_tiny_gguf

pytest.importorskip("libggml")


@pytest.fixture(name="tiny", scope="module")
def _tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture(name="known", scope="module")
def _known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that knows the libraries once one was looked for."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(name="cache")
def _cache(known: Path) -> Path:
    """The same, with nothing in it of threads."""
    (known / "threads.json").unlink(missing_ok=True)
    return known


def device_of(model: Path, cache: Path) -> str:
    """Load with as many threads as are fastest; return what the engine says of itself."""
    engine = load_engine(model, range(4), EngineOptions("ggml", "cpu", None, cache))
    engine.shut()
    return engine.device


def kept(cache: Path) -> list[int]:
    path = cache / "threads.json"
    return list(json.loads(path.read_text()).values()) if path.exists() else []


def pretend(
    monkeypatch: pytest.MonkeyPatch, cores: int, seconds: dict[int, float], on_core: float = 1.0
) -> list[int]:
    """Let a token take ``seconds`` by the number of threads, on so many cores; return the tried.

    ``on_core`` is the part of them that the engine had its core.
    """
    tried: list[int] = []

    def found(_engine: object, count: int) -> threads._Trial:
        tried.append(count)
        return threads._Trial(seconds[count], on_core * seconds[count])

    monkeypatch.setattr(threads, "usable_cores", lambda: cores)
    monkeypatch.setattr(threads, "_try", found)
    return tried


@pytest.mark.parametrize(
    ("cores", "seconds", "tried", "best"),
    [
        (1, {}, [], 1),
        (2, {}, [], 1),  # one is left to everything else
        (4, {1: 10, 2: 6, 3: 4}, [1, 2, 3], 3),
        (8, {1: 10, 2: 6, 4: 5}, [1, 2, 4], 2),
        (8, {1: 10, 2: 6, 4: 4, 7: 3}, [1, 2, 4, 7], 7),
        (8, {1: 10, 2: 9}, [1, 2], 1),
    ],
)
def test_as_many_threads_compute_as_are_worth_it(
    cores: int,
    seconds: dict[int, float],
    tried: list[int],
    best: int,
    tiny: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    were = pretend(monkeypatch, cores, seconds)
    assert device_of(tiny, cache) == f"cpu x{best}"
    assert were == tried
    assert kept(cache) == [best]
    assert device_of(tiny, cache) == f"cpu x{best}"
    assert were == tried  # not tried again


def test_what_was_found_beside_other_programs_is_not_kept(
    tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, 4, {1: 10, 2: 6, 3: 6}, on_core=0.5)
    assert device_of(tiny, cache) == "cpu x2"
    assert kept(cache) == []


def test_more_threads_than_are_tried_today_are_tried_anew(
    tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, 4, {1: 10, 2: 6, 3: 4})
    assert device_of(tiny, cache) == "cpu x3"
    path = cache / "threads.json"
    path.write_text(path.read_text().replace(": 3", ": 4"))
    assert device_of(tiny, cache) == "cpu x3"


def test_a_trial_takes_a_real_token(
    tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 3)
    assert device_of(tiny, cache) in {"cpu x1", "cpu x2"}
