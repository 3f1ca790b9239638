"""A device holds the model once at a time, and nothing of it in the end."""

from typing import Any

import pytest

from p2pnode.bench import device
from p2pnode.engine import registry
from p2pnode.engine.base import Engine
from p2pnode.errors import CapacityError


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    """The layers that are loaded; a model of no size."""
    sizes = {"N_LAYERS": 4, "D_MODEL": 64, "N_HEADS": 4, "N_KV_HEADS": 2, "D_FF": 64, "VOCAB": 50}
    for name, size in {**sizes, "_PROMPT": 70}.items():
        monkeypatch.setattr(device, name, size)
    held: list[range] = []
    load = registry.load_engine

    def counted(path: Any, layers: range, *arguments: Any, **options: Any) -> Engine:
        engine = load(path, layers, *arguments, **options)
        held.append(layers)
        assert sum(map(len, held)) <= 4
        shut = engine.shut

        def counted_shut() -> None:
            held.remove(layers)
            shut()

        monkeypatch.setattr(engine, "shut", counted_shut)
        return engine

    monkeypatch.setattr(registry, "load_engine", counted)
    return held


def test_both_are_measured_one_after_the_other(live: list[range]) -> None:
    told: list[float] = []
    found = device.measure(engine="numpy", device="cpu", tokens=3, rounds=1, tell=told.append)
    assert found["engine"].startswith("numpy")
    assert found["identical"]
    for name in ("whole", "stages"):
        assert found[name]["decode_tok_s"] > 0
        assert found[name]["prefill512_tok_s"] > 0
    assert told == sorted(told)
    assert told[-1] == 1
    assert not live


def test_an_engine_that_fails_leaves_none_behind(
    live: list[range], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise CapacityError("no memory")

    monkeypatch.setattr(device, "_Run", fail)
    with pytest.raises(CapacityError):
        device.measure(engine="numpy", device="cpu", tokens=3, rounds=1, tell=lambda _: None)
    assert not live
