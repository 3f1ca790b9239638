"""A node takes as many layers as fit in its memory, and says so where few or none do."""

from dataclasses import replace
from pathlib import Path

import pytest

from p2pnode.engine.ggml.placing import SPARED
from p2pnode.engine.registry import EngineOptions
from p2pnode.errors import CapacityError
from p2pnode.interfaces.doctor.model import demand_of, layers_that_fit
from p2pnode.node import machine_memory
from p2pnode.node.capacity import SPARE, Capacity, capacity_in
from p2pnode.node.holding_life import HoldingPhase
from p2pnode.node.machine_memory import (
    Memory,
    capacity_of,
    fitting,
    free_here,
    memory_now,
    refuse_beyond,
    refuse_impossible,
)
from p2pnode.node.model_facts import facts_of
from p2pnode.testing.swarm import Swarm
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from tests.node.bundles import only

NUMPY = EngineOptions("numpy")
LARGE = 1 << 40
ONE_TAKES = 310_000_000


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("capacity") / "tiny.gguf"
    write_tiny_gguf(path, n_layers=4)
    return path


def free_for(path: Path, layers: int, *, growth: float = 1.0, kv: int = 0) -> int:
    facts = facts_of(path)
    needed = sum(facts.layer_bytes[:layers]) + (facts.other_bytes if layers else 0)
    return round(growth * needed) + SPARE + kv + 100


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_as_many_fit_as_there_is_free_memory_for(tiny: Path, layers: int) -> None:
    free = free_for(tiny, layers, kv=1 << 20)
    assert fitting(facts_of(tiny), "ggml", 1 << 20, Memory(free, LARGE)).layers == layers
    assert fitting(facts_of(tiny), "ggml", 2 << 20, Memory(free, LARGE)).layers == 0


def test_numpy_takes_four_bytes_a_weight(tiny: Path) -> None:
    free = free_for(tiny, 4)
    facts = facts_of(tiny)
    growth = 4 * facts.numbers / facts.weights
    assert growth > 3
    assert fitting(facts, "ggml", 0, Memory(free, LARGE)).layers == 4
    assert fitting(facts, "numpy", 0, Memory(free, LARGE)).layers < 2
    free = free_for(tiny, 3, growth=growth)
    assert capacity_of(tiny, NUMPY, 0, memory=Memory(free, LARGE)).layers == 3


def test_the_memory_of_a_gpu_counts_for_ggml_alone(tiny: Path) -> None:
    gpu = free_for(tiny, 4) - SPARE
    memory = Memory(0, LARGE, gpu)
    assert fitting(facts_of(tiny), "ggml", 0, memory).layers == 4
    assert fitting(facts_of(tiny), "numpy", 0, memory).layers == 0


def test_a_gpu_that_holds_all_of_a_model_needs_no_second_form(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_tiny_gguf(path, tensor_type="Q5_1", n_layers=4)
    facts = facts_of(path)
    plain, whole = facts.layer_bytes[0], facts.weights + facts.kv_bytes
    both = plain + facts.layer_second_bytes[0]
    assert both > plain
    for gpu, layer in ((0, both), (whole - 1, both), (whole, plain)):
        found = fitting(facts, "ggml", 0, Memory(LARGE, LARGE, gpu))
        assert (found.layers, found.layer_bytes) == (4, layer)
        assert facts.beside(gpu).held(0)[0][0] == layer
    assert fitting(facts, "ggml", 0, Memory(0, LARGE, whole)).layers == 4
    assert fitting(facts, "numpy", 0, Memory(LARGE, LARGE)).layer_bytes == EXPANDED


def test_chosen_layers_are_refused_only_where_they_never_fit(tiny: Path) -> None:
    refuse_impossible(tiny, range(4), NUMPY, memory=Memory(0, LARGE))
    with pytest.raises(CapacityError, match="layers 0:4 take 1 MB as float32"):
        refuse_impossible(tiny, range(4), NUMPY, memory=Memory(0, 1000))


# A q8_0 layer of the tiny model is 39,680 bytes, and 36,992 weights: q and o of 64 x 64, k and v of
# 32 x 64, gate, up and down of 64 x 128, two norms.
STORED, EXPANDED = 39_680, 4 * 36_992


@pytest.mark.parametrize(
    ("engine", "layer"),
    [("ggml", STORED), ("numpy", EXPANDED), ("jax", EXPANDED), ("torch", EXPANDED)],
)
def test_a_layer_takes_what_its_engine_holds_it_in(tiny: Path, engine: str, layer: int) -> None:
    facts = facts_of(tiny)
    for count in (1, 2, 3):
        for short in (0, 1):
            memory = Memory(SPARE + count * layer - short, LARGE)
            fits = fitting(facts, engine, 0, memory)
            assert (fits.layers, fits.layer_bytes) == (count - short, layer)
    assert fitting(facts, "torch", 0, Memory(SPARE + 4 * EXPANDED, LARGE), 2).layers == 4


def test_what_the_ends_leave_no_room_for_is_the_last_layer_alone() -> None:
    layers, ends, mega = [5_000_000] * 18, 168_000_000, 1_000_000
    assert capacity_in(layers, ends, 150 * mega) == Capacity(17, 5 * mega, 150 * mega, 0, ends)
    assert capacity_in(layers, ends, 44 * mega) == Capacity(8, 5 * mega, 44 * mega, 0, ends)
    assert capacity_in(layers, ends, 180 * mega) == Capacity(17, 5 * mega, 180 * mega, 2, ends)
    assert capacity_in(layers, ends, 258 * mega) == Capacity(18, 5 * mega, 258 * mega, 18, ends)
    assert capacity_in(layers, ends, 258 * mega - 1).layers == 17
    assert capacity_in(layers, ends, -1) == Capacity(0, 5 * mega, -1, 0, ends)
    assert capacity_in([9], 5, 13) == Capacity(0, 9, 13, 0, 5)
    assert capacity_in([], 5, 13).layers == 0


def test_more_memory_never_holds_less() -> None:
    layers = [3, 7, 5, 5]
    found = [capacity_in(layers, 11, room) for room in range(40)]
    assert [one.layers for one in found] == sorted(one.layers for one in found)
    assert [one.with_last for one in found] == sorted(one.with_last or 0 for one in found)


def test_node_doctor_and_models_show_reckon_alike(tmp_path: Path) -> None:
    path = tmp_path / "six.gguf"
    write_tiny_gguf(path, n_layers=6)
    facts, demand = replace(facts_of(path), kv_bytes_per_token=0), demand_of(path, "ggml")
    for count in (0, 1, 4, 5, 6):
        free = SPARE + count * STORED + (facts.other_bytes if count == 6 else 0)
        assert fitting(facts, "ggml", 0, Memory(free, LARGE)).layers == count
        assert layers_that_fit(free, demand, 0) == count
        assert facts.layers_that_fit(free) == count


@pytest.mark.parametrize(
    ("engine", "main"), [("ggml", 3 * SPARE), ("torch", SPARE), ("jax", SPARE)]
)
def test_what_is_said_to_be_free_is_what_a_node_reckons_with(
    engine: str, main: int, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Memory(3 * SPARE, LARGE, gpu=5 * SPARE)
    monkeypatch.setattr(machine_memory, "engine_for", lambda *_: engine)
    monkeypatch.setattr(machine_memory, "memory_now", lambda *_: there)
    assert free_here(tiny) == main + 5 * SPARE
    monkeypatch.setattr(machine_memory, "memory_now", lambda *_: Memory(5, LARGE))
    assert free_here(tiny) == 5


def test_a_gpu_holds_all_that_torch_and_jax_compute_with(tiny: Path) -> None:
    facts, memory = facts_of(tiny), Memory(LARGE, LARGE, gpu=2 * EXPANDED + 1000)
    assert fitting(facts, "jax", 1000, memory).layers == 2
    assert fitting(facts, "torch", 1001, memory).layers == 1
    assert fitting(facts, "ggml", 0, memory).layers == 4


@pytest.mark.parametrize(
    ("layers", "with_last", "expected"),
    [
        (range(2, 5), 0, range(2, 5)),
        (range(3, 6), 0, range(2, 5)),
        (range(3, 6), 1, range(5, 6)),
        (range(3, 6), 3, range(3, 6)),
        (range(1, 6), 0, range(5)),
        (range(3, 6), None, range(3, 6)),
    ],
)
def test_a_run_with_the_last_layer_is_as_long_as_the_head_leaves_room_for(
    layers: range, with_last: int | None, expected: range
) -> None:
    assert Capacity(len(layers), 1, 1, with_last).within(layers, 6) == expected


def test_a_node_without_room_for_the_head_serves_what_comes_before_it() -> None:
    swarm = Swarm(1)
    swarm.add("a", range(4))
    swarm.add("b", None, capacity=Capacity(2, ONE_TAKES, 2 * ONE_TAKES, 0))
    swarm.introduce("a", "b")
    swarm.network.run(200)
    assert swarm.nodes["b"].served == range(3, 5)
    counters = swarm.nodes["b"].counters
    assert counters["claim loaded without agreement"] <= 1


def start(layers: range | None, capacity: Capacity | None) -> Swarm:
    swarm = Swarm(1)
    node = swarm.add("a", layers, capacity=capacity)
    swarm.network.run(20)
    assert node.log
    return swarm


def test_a_node_takes_no_more_than_fits() -> None:
    node = start(None, Capacity(2, ONE_TAKES, 2 * ONE_TAKES)).nodes["a"]
    assert len(node.served) == 2
    assert any("has memory for 2 of the 6 layers" in line for line in node.log)


def test_a_node_that_fits_none_says_so_and_serves_none() -> None:
    node = start(None, Capacity(0, ONE_TAKES, 200_000_000)).nodes["a"]
    assert only(node).life.phase is HoldingPhase.IDLE
    assert any("one layer takes 310 MB, 200 MB are free" in line for line in node.log)


def test_what_its_owner_chose_is_served_with_a_warning() -> None:
    node = start(range(6), Capacity(0, ONE_TAKES, 200_000_000)).nodes["a"]
    assert node.served == range(6)
    assert any("memory is short for the 6 layers" in line for line in node.log)


def test_a_node_with_room_says_nothing_of_memory() -> None:
    node = start(None, Capacity(6, ONE_TAKES, 10**10)).nodes["a"]
    assert node.served == range(6)
    assert not any("memory" in line for line in node.log)


def test_an_owner_may_allow_less_than_is_free(tiny: Path) -> None:
    most, kv = free_for(tiny, 2, kv=1 << 20) - SPARE, 1 << 20
    plenty = Memory(LARGE, LARGE)
    ggml = EngineOptions("ggml")
    assert capacity_of(tiny, NUMPY, kv, memory=plenty).layers == 4
    assert fitting(facts_of(tiny), "ggml", kv, plenty.within(most)).layers == 2
    assert fitting(facts_of(tiny), "ggml", kv, Memory(most, LARGE).within(most)).layers == 0
    assert capacity_of(tiny, NUMPY, kv, memory=plenty, most=kv).layers == 0
    assert plenty.within(None) == plenty
    refuse_beyond(tiny, range(2), ggml, kv, most, memory=plenty)
    with pytest.raises(CapacityError, match=r"layers 0:4 take .* that this node may take"):
        refuse_beyond(tiny, range(4), ggml, kv, most, memory=plenty)
    refuse_beyond(tiny, range(4), ggml, kv, most, memory=Memory(0, LARGE, LARGE))


def test_the_output_matrix_counts_with_the_last_layer(tiny: Path) -> None:
    facts = facts_of(tiny)
    one = facts.held(0)[0][-1]
    ggml, plenty = EngineOptions("ggml"), Memory(LARGE, LARGE)
    refuse_beyond(tiny, range(2, 3), ggml, 0, one, memory=plenty)
    with pytest.raises(CapacityError):
        refuse_beyond(tiny, range(3, 4), ggml, 0, one, memory=plenty)


def test_a_gpu_is_bounded_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "gpu_memory", lambda engine, options: 8 << 30)
    assert memory_now("ggml", EngineOptions(max_vram=2 << 30)).gpu == 2 << 30
    assert memory_now("ggml", EngineOptions(max_vram=1 << 40)).gpu == (8 << 30) - SPARED
