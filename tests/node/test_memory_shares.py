"""The memory of a node among its models: by what is asked, by pins, never two runs for one room."""

from functools import partial

from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.request import GenerationRequest
from p2pnode.node.capacity import Capacity
from p2pnode.node.memory_shares import share_memory
from p2pnode.testing.swarm import Swarm

FIRST, SECOND = 5, 6
LAYERS = 6


def room_for(layers: int) -> Capacity:
    """Return what fits of a model alone where there is room for so many layers."""
    most = min(LAYERS, layers)
    return Capacity(most, 100, 100 * layers, most)


def add(swarm: Swarm, name: str, layers: int, pinned: range | None = None) -> None:
    """Start a node with room for so many layers, and two models."""
    swarm.add(name, capacity=room_for(layers))
    second = swarm.model(SECOND)
    swarm.call(
        name,
        lambda core, now: core.use_model(
            second, hold=True, now=now, capacity=room_for(layers), layers=pinned
        ),
    )


def held(swarm: Swarm, name: str) -> tuple[int, int]:
    """Return how many layers of each model a node holds."""
    bundles = swarm.nodes[name].serving.bundles
    first, second = (bundles[swarm.model(seed).space_hash32] for seed in (FIRST, SECOND))
    return len(first.layers), len(second.layers)


def ask(swarm: Swarm, name: str, seed: int, times: int) -> None:
    space = swarm.model(seed).space_hash32
    for _ in range(times):
        asked = GenerationRequest((1, 2), 2, Sampling(), frozenset(), wait=5.0, space=space)
        number = swarm.generate(name, asked)
        assert swarm.network.run_until(partial(swarm.ended, name, number), 20)


def test_where_both_fit_both_are_held_whole() -> None:
    swarm = Swarm(1)
    add(swarm, "a", 2 * LAYERS)
    swarm.network.run(5)
    assert held(swarm, "a") == (LAYERS, LAYERS)


def test_two_that_nobody_asks_share_alike() -> None:
    swarm = Swarm(1)
    add(swarm, "a", LAYERS)
    swarm.network.run(5)
    assert held(swarm, "a") == (3, 3)


def test_pinned_layers_come_first() -> None:
    swarm = Swarm(1)
    add(swarm, "a", LAYERS, pinned=range(5))
    swarm.network.run(5)
    assert held(swarm, "a") == (1, 5)


def test_what_is_asked_grows_where_others_hold_what_is_left() -> None:
    swarm = Swarm(1)
    add(swarm, "a", LAYERS)
    swarm.add("b", range(LAYERS), model_seed=FIRST)
    swarm.introduce("a", "b")
    swarm.network.run(5)
    assert held(swarm, "a") == (3, 3)
    swarm.add("c", range(LAYERS), model_seed=SECOND)  # so that it can be asked at all
    swarm.introduce("a", "c")
    swarm.network.run(5)
    ask(swarm, "a", SECOND, 10)
    swarm.network.run(120)
    first, second = held(swarm, "a")
    assert second == 4 > first
    assert first + second <= LAYERS


def test_the_last_holder_of_a_wanted_layer_keeps_it() -> None:
    swarm = Swarm(1)
    add(swarm, "a", LAYERS)
    swarm.add("b", range(3, LAYERS), model_seed=FIRST)
    swarm.add("c", range(LAYERS), model_seed=SECOND)
    swarm.introduce("a", "b")
    swarm.introduce("a", "c")
    swarm.network.run(5)
    ask(swarm, "a", FIRST, 1)
    ask(swarm, "a", SECOND, 10)
    swarm.network.run(120)
    assert not swarm.nodes["a"].planner.missing(swarm.model(FIRST))
    assert sum(held(swarm, "a")) <= LAYERS


def test_when_a_model_is_unloaded_the_other_has_its_room() -> None:
    swarm = Swarm(1)
    add(swarm, "a", LAYERS)
    swarm.network.run(5)
    space = swarm.model(SECOND).space_hash32
    swarm.call("a", lambda core, now: core.drop_model(space, now))
    swarm.network.run(60)
    assert len(swarm.nodes["a"].served) == LAYERS


def test_a_budget_of_nothing_holds_nothing_and_says_why() -> None:
    swarm = Swarm(1)
    add(swarm, "a", 0)
    swarm.network.run(5)
    assert held(swarm, "a") == (0, 0)
    assert all(
        "free for weights" in bundle.holdings.reason
        for bundle in swarm.nodes["a"].serving.bundles.values()
    )


def test_what_leaves_has_its_room_until_it_is_gone() -> None:
    swarm = Swarm(1, layer_seconds=0.01)
    add(swarm, "a", LAYERS)
    swarm.network.run(5)
    assert held(swarm, "a") == (3, 3)
    bundles = swarm.nodes["a"].serving.bundles
    first, second = (bundles[swarm.model(seed).space_hash32] for seed in (FIRST, SECOND))
    second.leave_by = swarm.network.now + 100
    share_memory(bundles.values(), lambda space: 0.0)
    assert first.holdings._fitting is not None
    assert first.holdings._fitting.layers == 3
