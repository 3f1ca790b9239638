"""A node whose model file changed leaves its layers, and the swarm goes on without it."""

import pytest

from p2pnode.engine.base import EngineProfile, StageCost
from p2pnode.engine.sampling.options import Sampling
from p2pnode.inference.request import GenerationRequest
from p2pnode.node.core import NodeCore
from p2pnode.node.events import LoadRequested
from p2pnode.node.holding_life import HoldingPhase
from p2pnode.testing.swarm import Swarm
from tests.node.bundles import offers_seen, only

REASON = "the file changed: tiny.gguf holds another model"
PROFILE = EngineProfile("numpy", "cpu", StageCost(1, 1, 1, 1), 64)


def change(swarm: Swarm, name: str) -> None:
    swarm.call(name, lambda node, now: node.model_changed(only(node).space, REASON, now))


def restore(swarm: Swarm, name: str) -> None:
    swarm.call(name, lambda node, now: node.model_restored(only(node).space, now))


def test_its_layers_are_left_and_the_swarm_is_told() -> None:
    swarm = Swarm(1)
    a, b = swarm.add("a", range(6)), swarm.add("b", range(6))
    swarm.introduce("a", "b")
    assert swarm.network.run_until(swarm.is_ready, 60)
    swarm.network.run(3)
    change(swarm, "b")
    swarm.network.run(3)
    assert b.served == range(0)
    assert (only(b).life.phase, only(b).holdings.reason) == (HoldingPhase.IDLE, REASON)
    assert b.counters["model file changed: its layers left"] == 1
    assert any(REASON in line for line in b.log)
    (seen,) = [offer for offer in offers_seen(a) if offer.peer == b.node_id]
    assert len(seen.layers) == 0
    number = swarm.generate("b", GenerationRequest((1, 2, 3), 5, Sampling(), frozenset()))
    assert swarm.network.run_until(lambda: swarm.ended("b", number), 60)
    assert len(swarm.tokens("b", number)) == 5  # asked here, computed there


def test_an_answer_under_way_ends_as_it_began() -> None:
    expected = answer_of(changed=False)
    assert answer_of(changed=True) == expected


def answer_of(*, changed: bool) -> list[int]:
    swarm = Swarm(1)
    a, _ = swarm.add("a", range(3)), swarm.add("b", range(3, 6))
    swarm.introduce("a", "b")
    assert swarm.network.run_until(swarm.is_ready, 60)
    swarm.network.run(3)
    number = swarm.generate("a", GenerationRequest((1, 2, 3), 60, Sampling(), frozenset()))
    assert swarm.network.run_until(lambda: len(swarm.tokens("a", number)) > 3, 20)
    if changed:
        change(swarm, "b")
    assert swarm.network.run_until(lambda: swarm.ended("a", number), 60)
    assert a.counters["model file changed: its layers left"] == 0
    return swarm.tokens("a", number)


def test_a_file_put_back_is_served_again() -> None:
    swarm = Swarm(1)
    b = swarm.add("b", range(6))
    assert swarm.network.run_until(swarm.is_ready, 60)
    change(swarm, "b")
    restore(swarm, "b")
    assert swarm.network.run_until(swarm.is_ready, 60)
    assert b.served == range(6)
    restore(swarm, "b")  # nothing was lost
    assert b.served == range(6)


@pytest.mark.parametrize("is_loaded", [True, False])
def test_a_load_that_ends_too_late_changes_nothing(is_loaded: bool) -> None:
    swarm = Swarm(1)
    b = swarm.add("b", range(6))
    assert swarm.network.run_until(lambda: only(b).life.phase is HoldingPhase.LOADING, 60)
    change(swarm, "b")
    (finish_load if is_loaded else fail_load)(swarm)
    assert b.served == range(0)
    assert only(b).holdings.reason == REASON
    swarm.network.run(30)
    assert only(b).life.phase is HoldingPhase.IDLE


def finish_load(swarm: Swarm) -> None:
    swarm.call("b", lambda node, now: node.layers_loaded(only(node).space, range(6), PROFILE, now))


def fail_load(swarm: Swarm) -> None:
    swarm.call(
        "b", lambda node, now: node.load_failed(only(node).space, range(6), "no memory", now)
    )


def test_a_change_means_nothing_to_who_leaves_or_holds_nothing() -> None:
    swarm = Swarm(1)
    a, b = swarm.add("a", range(6)), swarm.add("b", holds=False)
    swarm.introduce("a", "b")
    swarm.network.run(5)
    change(swarm, "b")
    assert only(b).life.phase is HoldingPhase.IDLE
    restore(swarm, "b")
    swarm.network.run(30)
    assert only(b).life.phase is HoldingPhase.IDLE
    swarm.call("a", lambda node, now: node.leave(now))
    change(swarm, "a")
    assert a.leaving


def test_a_placement_that_was_asked_for_is_forgotten() -> None:
    swarm = Swarm(1)
    b: NodeCore = swarm.add("b", range(6))
    assert swarm.network.run_until(swarm.is_ready, 60)
    change(swarm, "b")
    asked = b.serving.placed(only(b).space, only(b).holdings._ticket, None, swarm.network.now)
    assert asked is None
    assert not [event for event in b.take_events() if isinstance(event, LoadRequested)]
