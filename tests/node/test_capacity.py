"""A node takes as many layers as fit in its memory, and says so where few or none do."""

from pathlib import Path

import pytest

from p2pnode.engine.registry import EngineOptions
from p2pnode.errors import CapacityError
from p2pnode.node.capacity import Capacity
from p2pnode.node.life import Phase
from p2pnode.node.machine_memory import Memory, capacity_of, fitting, refuse_impossible
from p2pnode.node.model_facts import SPARE, facts_of
from p2pnode.testing.swarm import Swarm
from p2pnode.testing.tiny_gguf import write_tiny_gguf

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


def test_chosen_layers_are_refused_only_where_they_never_fit(tiny: Path) -> None:
    refuse_impossible(tiny, range(4), NUMPY, memory=Memory(0, LARGE))
    with pytest.raises(CapacityError, match="layers 0:4 take 1 MB as float32"):
        refuse_impossible(tiny, range(4), NUMPY, memory=Memory(0, 1000))


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
    assert node.life.phase is Phase.IDLE
    assert any("one layer takes 310 MB, 200 MB are free" in line for line in node.log)


def test_what_its_owner_chose_is_served_with_a_warning() -> None:
    node = start(range(6), Capacity(0, ONE_TAKES, 200_000_000)).nodes["a"]
    assert node.served == range(6)
    assert any("memory is short for the 6 layers" in line for line in node.log)


def test_a_node_with_room_says_nothing_of_memory() -> None:
    node = start(None, Capacity(6, ONE_TAKES, 10**10)).nodes["a"]
    assert node.served == range(6)
    assert not any("memory" in line for line in node.log)
