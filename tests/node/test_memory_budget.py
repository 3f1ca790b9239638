"""What of each model fits beside the others of a node."""

from pathlib import Path

import pytest

from p2pnode.engine.registry import EngineOptions
from p2pnode.errors import CapacityError
from p2pnode.node import memory_budget
from p2pnode.node.capacity import SPARE
from p2pnode.node.config import NodeConfig
from p2pnode.node.machine_memory import Memory
from p2pnode.node.memory_budget import MemoryBudget
from p2pnode.node.model_facts import facts_of
from p2pnode.node.settings import ModelChoice, NodeSettings
from p2pnode.testing.tiny_gguf import write_tiny_gguf

KV = 1 << 20


@pytest.fixture(name="tiny")
def _tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, n_layers=4)
    return path


def sizes(path: Path) -> tuple[int, int]:
    """Return what each layer takes in float32, and the ends."""
    layers, end = facts_of(path, with_words=False).held(4)
    return layers[0], end


def budget(
    monkeypatch: pytest.MonkeyPatch, free: list[int], *, most: int | None = None
) -> MemoryBudget:
    """Return a budget on a machine that has so many bytes free at each look, for weights."""
    looks = iter(free)
    monkeypatch.setattr(
        memory_budget, "memory_now", lambda *_: Memory(next(looks) + SPARE + KV, 1 << 40)
    )
    config = NodeConfig("one", kv_bytes=KV, max_memory=most)
    return MemoryBudget(NodeSettings(config, Path(), engine=EngineOptions("numpy")))


def test_room_is_what_there_was_before_anything_was_loaded(
    monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    layer, end = sizes(tiny)
    there = budget(monkeypatch, [4 * layer + end, layer])
    first, second = there.room(ModelChoice(tiny)), there.room(ModelChoice(tiny))
    assert first.capacity.layers == second.capacity.layers == 4
    assert second.capacity.room == 4 * layer + end


def test_pinned_layers_take_what_they_take(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    layer, end = sizes(tiny)
    there = budget(monkeypatch, [9 * layer + 2 * end] * 3)
    assert there.room(ModelChoice(tiny, range(2))).pinned == 2 * layer
    assert there.room(ModelChoice(tiny, range(3, 4))).pinned == layer + end
    assert there.room(ModelChoice(tiny)).pinned == 0


def test_pinned_layers_that_do_not_fit_beside_others_are_refused(
    monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    layer, end = sizes(tiny)
    there = budget(monkeypatch, [3 * layer + end] * 3)
    pinned = there.room(ModelChoice(tiny, range(2))).pinned
    assert there.room(ModelChoice(tiny, range(1)), pinned).pinned == layer
    with pytest.raises(CapacityError, match="layers 0:3 of second take") as caught:
        there.room(ModelChoice(tiny, range(3), "second"), pinned)
    assert "models unload" in caught.value.hint


def test_what_an_owner_allows_is_for_all_models(
    monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    layer, end = sizes(tiny)
    there = budget(monkeypatch, [1 << 40] * 2, most=KV + 4 * layer + end)
    room = there.room(ModelChoice(tiny, range(2)))
    assert room.capacity.room == 4 * layer + end
    with pytest.raises(CapacityError, match=r"for KV caches, .* for other models"):
        there.room(ModelChoice(tiny, range(1, 4)), room.pinned)
